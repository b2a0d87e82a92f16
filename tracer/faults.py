"""The faults that a tracer can inject: plain data in, rules of the core out.

    {"do": "drop_notify", "nth": 2, "bit": "write"}
    {"do": "hold", "nth": 2, "call": "read", "cell": "cli_live", "access": "load",
     "until": ["cli_live", 0], "seconds_max": 30}

The first does not send the second event that tells the peer of data ("read": of space, without
`bit`: of anything), as if it had been sent.

The second lets the second call of libxenvchan_read run up to its first access to `cli_live` that is
a load ("store": that changes it, without `access`: any), and on from there only when `cli_live`
holds 0 or when 30 seconds have passed. An index counts as come from the value on that is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vchan_testbed.errors import InputError
from vchan_testbed.tracer.layout import CELL_WIDTH, Call, Cell, FaultKind

FAULTS_MAX = 16
BITS = {"write": 1, "read": 2, None: 0}
"""The notify bit whose test-and-clear leads to an event: write is a data event, read a space one.
"""
ACCESSES = {None: 0, "load": 1, "store": 2}
CELLS = {
    cell.name.lower(): cell for cell in Cell if cell not in (Cell.LEFT_ORDER, Cell.RIGHT_ORDER)
}
"""Cells at which a hold can be."""
_NO_ACCESS = (Call.NONE, Call.WAIT, Call.FD_FOR_SELECT)
CALLS = {call.name.lower(): call for call in Call if call not in _NO_ACCESS}
"""Calls that touch the shared page."""
HOLD_SECONDS_MAX = 30.0
"""How long a hold lasts at most if the fault does not say."""
SECONDS_LIMIT = 86400.0

Rule = tuple[int, ...]
"""`struct vt_rule` (core/tracer.h)."""


def rules_of(faults: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """The core's rules. Raises InputError for what is none, and for too many."""
    if len(faults) > FAULTS_MAX:
        raise InputError(
            f"{len(faults)} faults are too many for one endpoint.",
            next_step=f"Inject {FAULTS_MAX} at most.",
        )
    return [_rule(fault) for fault in faults]


def _rule(fault: Mapping[str, Any]) -> Rule:
    nth, do = fault.get("nth"), fault.get("do")
    if not _is_whole(nth, 1):
        raise _refusal(fault, "`nth` is 1 or more: which one, counted from 1.")
    if do == "drop_notify":
        return _drop(fault)
    if do == "hold":
        return _hold(fault)
    raise _refusal(fault, "`do` is drop_notify or hold.")


def _drop(fault: Mapping[str, Any]) -> Rule:
    bit = fault.get("bit")
    if bit not in BITS:
        raise _refusal(fault, "`bit` is write or read, or is left out.")
    return (FaultKind.DROP_NOTIFY, fault["nth"], 0, 0, BITS[bit], 0, 0, 0, 0)


def _hold(fault: Mapping[str, Any]) -> Rule:
    call, cell, access = (fault.get(name) for name in ("call", "cell", "access"))
    seconds = fault.get("seconds_max", HOLD_SECONDS_MAX)
    if call not in CALLS:
        raise _refusal(fault, "`call` is one of " + ", ".join(CALLS) + ".")
    if cell not in CELLS:
        raise _refusal(fault, "`cell` is one of " + ", ".join(CELLS) + ".")
    if access not in ACCESSES:
        raise _refusal(fault, "`access` is load or store, or is left out.")
    if not 0 < seconds <= SECONDS_LIMIT:
        raise _refusal(fault, f"`seconds_max` is above 0 and at most {SECONDS_LIMIT:g}.")
    until_cell, until_value = _until(fault)
    return (
        FaultKind.HOLD,
        fault["nth"],
        round(seconds * 1e9),
        until_value,
        0,
        CALLS[call],
        CELLS[cell],
        ACCESSES[access],
        until_cell,
    )


def _until(fault: Mapping[str, Any]) -> tuple[Cell, int]:
    match fault.get("until"):
        case [str(name), int(value)] if name in CELLS:
            if _is_whole(value, 0, 256 ** CELL_WIDTH[CELLS[name]] - 1):
                return CELLS[name], value
    raise _refusal(fault, "`until` is a cell, as of `cell`, and a value that it can hold.")


def _is_whole(value: Any, least: int, most: int = 0xFFFFFFFF) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _refusal(fault: Mapping[str, Any], expected: str) -> InputError:
    return InputError(f"The tracer cannot inject the fault {dict(fault)}.", next_step=expected)
