"""What became of each fault of a run: as its endpoint has said, or as its trace shows.

A process that was killed, or whose domain is gone, says nothing any more; its trace has a record of
each fault that it came to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vchan_testbed.guests.experiment_model import Fault
from vchan_testbed.tracer.layout import HOLDING_FAULTS, Flag, Kind
from vchan_testbed.tracer.reader import read_trace

NOT_YET, HELD, DONE, IN_VAIN = "not yet", "held", "done", "in vain"
"""As `vchan_testbed.tracer.attach` has them, which needs the tracer's core."""


def fault_states(
    faults: Sequence[Fault], said: Mapping[str, Sequence[str] | None], traces: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """For each fault, in order, where it was to be and what became of it.

    `said` has what an endpoint's own tracer said at its end, None if it did not come to that.
    """
    seen = {side: said.get(side) or states_in(path) for side, path in traces.items()}
    numbers = dict.fromkeys(traces, 0)
    found = []
    for fault in faults:
        number = numbers[fault.side]
        numbers[fault.side] += 1
        states = seen[fault.side]
        became = states.get(number, NOT_YET) if isinstance(states, dict) else states[number]
        given = {"side": fault.side, "at": fault.at, "nth": fault.nth, "do": fault.do}
        found.append({**given, "became": became})
    return found


def states_in(path: Path) -> dict[int, str]:
    """By number: what a trace shows of its faults; of those that never came, nothing."""
    if not path.exists():
        return {}
    records = read_trace(path).records
    states = {}
    follower: Any = None
    # From the end: what a fault has hit stands behind it, and behind the faults that follow it.
    for record in records[::-1]:
        if record["kind"] != Kind.FAULT:
            follower = record
            continue
        same = follower is not None and follower["thread"] == record["thread"]
        states[int(record["old"])] = _state(
            int(record["new"]), int(follower["flags"]) if same else 0
        )
    return states


def _state(kind: int, flags: int) -> str:
    if kind not in tuple(HOLDING_FAULTS) or flags & Flag.HELD:
        return DONE
    return IN_VAIN if flags & Flag.HELD_IN_VAIN else HELD


def not_come(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each fault that was never come to."""
    return [
        f"The {each['side']} never came to the fault {number} ({each['do']} at {each['at']}, "
        f"nth {each['nth']})."
        for number, each in enumerate(states, 1)
        if each["became"] == NOT_YET
    ]
