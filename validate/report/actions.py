"""Which step of the spec a record shows, for the records around a place where none goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.channel import channel_lanes
from vchan_testbed.validate.channel_table import load_channel_table
from vchan_testbed.validate.direction import direction_lanes
from vchan_testbed.validate.endings import Ending, ending_of
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.merge import LaneSteps
from vchan_testbed.validate.table import load_table
from vchan_testbed.validate.two_lanes import Part, TwoLanes
from vchan_testbed.validate.verdict import Maximal
from vchan_testbed.validate.wording import SHOWN

Actions: TypeAlias = Mapping[tuple[Role, int], str]
"""By endpoint and row of the trace: the action and the value that the record shows."""


def actions_near(
    positions: Iterable[Maximal], traces: Mapping[Role, Trace], facts: Mapping[str, Any], reach: int
) -> Actions:
    """The steps of both lanes within `reach` steps of each position.

    `facts` is what run.json holds: where the lanes end depends on how the run ended.
    """
    found: dict[tuple[Role, int], str] = {}
    evidence = Evidence(facts)
    for direction, places in _by_direction(positions).items():
        endings = {
            role: _up_to(ending_of(trace, evidence), _last_row(places, role, reach))
            for role, trace in traces.items()
        }
        lanes: TwoLanes = (
            channel_lanes(load_channel_table(), traces, endings, evidence)
            if direction == "both"
            else direction_lanes(load_table(), direction, traces, endings, evidence)
        )
        for place in places:
            for lane, done in (
                (lanes.sender, place.sender_done),
                (lanes.receiver, place.receiver_done),
            ):
                found |= _steps(lane, done - reach, done + reach)
    return found


def _last_row(places: Iterable[Maximal], role: Role, reach: int) -> int | None:
    """The last row of an end that is shown; None if that is the end of its trace."""
    rows = [
        next((p.row for p in (place.sender, place.receiver) if p and p.endpoint == role), None)
        for place in places
    ]
    known = [row for row in rows if row is not None]
    return max(known) + reach if len(known) == len(rows) else None


def _up_to(ending: Ending, row: int | None) -> Ending:
    """A trace's end for lanes that go no further than a row: merging a million takes seconds."""
    return ending if row is None else replace(ending, rows=ending.rows[ending.rows <= row])


def _by_direction(positions: Iterable[Maximal]) -> dict[Part, list[Maximal]]:
    found: dict[Part, list[Maximal]] = {}
    for position in positions:
        found.setdefault(position.direction, []).append(position)
    return found


def _steps(lane: LaneSteps, first: int, last: int) -> dict[tuple[Role, int], str]:
    """The steps in [first, last), in words."""
    found: dict[tuple[Role, int], str] = {}
    for step in lane.steps(max(0, first), min(len(lane), last)):
        words = f"{step.action} {step.value}" if step.action in SHOWN else step.action
        earlier = found.get((lane.role, step.record))
        # One record can show two steps: that a thread was away shows in what came meanwhile.
        found[lane.role, step.record] = f"{earlier}, {words}" if earlier else words
    return found
