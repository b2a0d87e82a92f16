"""Faults for two traced processes, from what an experiment would say of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vchan_testbed.guests.experiment_model import Fault
from vchan_testbed.guests.fault_rules import Setting, injection_of
from vchan_testbed.tracer.layout import CHANGING_FAULTS, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace

if TYPE_CHECKING:
    from conftest import Remote

SECONDS_MAX = 20.0


def faults(*given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of both tracers: at each side its faults, and what it has to tell of."""
    injection = injection_of([Fault(**{"nth": 1, **one}) for one in given], Setting.anything())
    return {side: {"faults": plan.to_plain()} for side, plan in injection.plans.items()}


def look(remote: Remote) -> dict[str, Any]:
    """What the tracer of a process sees."""
    found: dict[str, Any] = json.loads(remote("look"))
    return found


def page(remote: Remote) -> bytes:
    """The head of the shared page."""
    return bytes.fromhex(look(remote)["page"])


def until(seen: Callable[[], bool]) -> None:
    """Return when it has been seen."""
    deadline = time.monotonic() + SECONDS_MAX
    while not seen():
        assert time.monotonic() < deadline


def wait_until_held(remote: Remote) -> dict[str, Any]:
    """The look that sees it."""
    until(lambda: any(call["held"] for call in look(remote)["calls"]))
    return look(remote)


def faults_in(trace: Trace) -> list[tuple[int, FaultKind]]:
    """Number and kind of each fault that was injected."""
    records = trace.records[trace.records["kind"] == Kind.FAULT]
    return [(int(fault["old"]), FaultKind(fault["new"])) for fault in records]


def hit(trace: Trace, flag: Flag = Flag.HELD) -> list[tuple[int, int, int, int]]:
    """Kind, cell, new value and call of what was hit, right behind its fault."""
    at = np.flatnonzero(trace.records["flags"] & flag)
    assert set(trace.records["kind"][at - 1]) <= {Kind.FAULT}
    return [tuple(row) for row in trace.records[["kind", "offset", "new", "call"]][at].tolist()]


def in_page(trace: Trace) -> list[int]:
    """What the page held, or holds, in the place of what the records say: for each such fault."""
    records = trace.records[trace.records["kind"] == Kind.FAULT]
    records = records[np.isin(records["new"], CHANGING_FAULTS)]
    return [int(value) for value in records["operand"]]
