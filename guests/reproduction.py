"""From a behaviour of the library's spec to an experiment: its calls, and its steps as a schedule.

A model has rings of a byte or two; the library's have 1024 at least. Each byte of the model becomes
as many as its ring has more, in every call alike: what fits in the one fits in the other. Indices
begin as far before the end of their range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment_model import ENDPOINTS, WRITES
from vchan_testbed.guests.fault_steps import load_steps

CALL = "call_"
SIZED = ("write", "send", "read", "recv")
PLAIN = ("data_ready", "buffer_space", "is_open")
REAL_RINGS = ((1024, 2048), (2048, 1024), (4096, 4096))
"""Left and right, smallest first: what the library makes and an experiment can ask for."""
INDEX_SPAN = 2**32


@dataclass(frozen=True)
class ModelStep:
    """One step of a behaviour."""

    state: int
    """Number of the state that it led to."""
    action: str
    side: str
    """Whose thread or port it is of."""
    size: int = 0
    """Bytes of a call that has a size."""
    blocks: bool | None = None
    """Whether such a call blocks."""


@dataclass(frozen=True)
class ModelSetting:
    """What a model fixes of the channel."""

    left_bytes: int
    right_bytes: int
    index_span: int
    first_left: int = 0
    first_right: int = 0


@dataclass(frozen=True)
class Reproduction:
    """An experiment's text, and how it came from the behaviour."""

    text: str
    states: tuple[int, ...]
    """For each step of the schedule the number of its state."""
    left_out: tuple[ModelStep, ...]
    """Steps that no record shows: they happen by themselves."""


def reproduction_of(
    name: str,
    steps: Sequence[ModelStep],
    setting: ModelSetting,
    expect: Mapping[str, Any],
) -> Reproduction:
    """The experiment of a behaviour. Raises InputError for one that cannot be made to happen."""
    known = load_steps()
    left_out = tuple(step for step in steps if _is_by_itself(step))
    kept = [step for step in steps if not _is_by_itself(step)]
    for step in kept:
        if step.side not in ENDPOINTS or step.action not in known.actions(step.side):
            raise _refusal(
                step, f"{step.action} of {step.side or 'nobody'} cannot be made to happen"
            )
    rings = _rings(setting)
    scale = {"left": rings[0] // setting.left_bytes, "right": rings[1] // setting.right_bytes}
    first = {"left": setting.first_left, "right": setting.first_right}
    experiment = {
        "name": f"reproduce-{name}",
        "about": f"A behaviour of the spec: {name}.",
        "channel": {
            "left_ring_bytes": rings[0],
            "right_ring_bytes": rings[1],
            "blocking": _blocking(kept),
            **{
                f"{way}_first_index": (index - setting.index_span) * scale[way] % INDEX_SPAN
                for way, index in first.items()
                if index
            },
        },
        **{side: _operations(kept, side, scale) for side in ENDPOINTS},
        "schedule": [
            {side: [step.action for step in group]}
            for side, group in groupby(kept, key=lambda step: step.side)
        ],
        "expect": dict(expect),
    }
    text = yaml.safe_dump(experiment, sort_keys=False, default_flow_style=None, width=100)
    return Reproduction(text, tuple(step.state for step in kept), left_out)


def _is_by_itself(step: ModelStep) -> bool:
    """The kernel's delivery, and what the library does where nobody can see it."""
    known = load_steps()
    return step.action in BY_THEMSELVES and step.action not in known.numbers


BY_THEMSELVES = ("deliver", "i_publish", "k_keys", "r_final")
"""Of the steps that no record shows those which need nobody to make them happen."""


def _rings(setting: ModelSetting) -> tuple[int, int]:
    for left, right in REAL_RINGS:
        if not left % setting.left_bytes and not right % setting.right_bytes:
            return left, right
    raise InputError(
        f"Rings of {setting.left_bytes} and {setting.right_bytes} bytes are no part of rings of "
        "1024 to 4096 bytes.",
        next_step="Let the model have rings of 1, 2, 4 ... bytes.",
    )


def _blocking(steps: Sequence[ModelStep]) -> bool:
    ways = {step.blocks: step for step in steps if step.blocks is not None}
    if len(ways) > 1:
        raise _refusal(
            ways[False], "some calls block and others do not, and an experiment has one way"
        )
    return next(iter(ways), True)


def _operations(
    steps: Sequence[ModelStep], side: str, scale: Mapping[str, int]
) -> list[str | dict[str, Any]]:
    own = [step for step in steps if step.side == side and step.action.startswith(CALL)]
    return [_operation(step, scale) for step in own]


def _operation(step: ModelStep, scale: Mapping[str, int]) -> str | dict[str, Any]:
    call = step.action.removeprefix(CALL)
    if call == "close":
        return "close"
    if call in PLAIN:
        return {call: {}}
    if call not in SIZED:
        raise _refusal(step, f"an experiment has no operation that calls {call}")
    peer = "client" if step.side == "server" else "server"
    count = step.size * scale[WRITES[step.side if call in ("write", "send") else peer]]
    if not count:
        raise _refusal(step, f"a {call} of 0 bytes is no operation of an experiment")
    return {call: {"bytes": count, "sizes": count, "once": True}}


def _refusal(step: ModelStep, why: str) -> InputError:
    return InputError(
        f"State {step.state} of the behaviour: {why}.",
        next_step="Take a behaviour of two threads, without deaths, signals, failing or spurious "
        "events (the model's constant Environment).",
    )
