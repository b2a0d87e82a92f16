"""Measure bounded progress: a behaviour from TLC, the records' times, and the bytes' times.

Which action could be taken when is asked of the spec, state by state, along one behaviour
(`tlc/along.py`): nothing here knows the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.bounded import (
    BINS_A_DECADE,
    ActionTimes,
    Bounded,
    ByteTimes,
    Longest,
)
from vchan_testbed.validate.cuts import Size, cuts_of
from vchan_testbed.validate.durations import (
    Durations,
    Flags,
    Taken,
    bins,
    durations_of,
    ranked,
    taken_of,
)
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import Lanes
from vchan_testbed.validate.order import RunningOrder
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.prepare import Case, Prepared
from vchan_testbed.validate.report.clocks import ClockOffset, infer_offset
from vchan_testbed.validate.report.figures import Flow, flow_of, latency_of
from vchan_testbed.validate.report.indices import DIRECTIONS
from vchan_testbed.validate.states import states_of
from vchan_testbed.validate.table import Side
from vchan_testbed.validate.tlc.along import Way, way
from vchan_testbed.validate.wording import place_of

STEPS_MAX = 30_000
"""Of longer lanes the first part is measured."""
CALLS_OWNER = "application"
NO_SHARED_CLOCK = "the values bound the offset of the two ends' clocks from one side at most"
THE_PROTOCOL_ALONE = "it is asked along the whole channel, by the spec of the library"
CALLS_ALONE = "of calls and events alone, which access was made when is not known"
A_WINDOW = "a flight recorder's windows are not followed from one state"
EDGES = 10.0 ** (np.arange(0, 16 * BINS_A_DECADE + 1) / BINS_A_DECADE)
"""Of the bins, in ns: up to 115 days."""

Ticks = npt.NDArray[np.int64]


def measured(case: Case, switches: frozenset[str], progress: Progress | None = None) -> Bounded:
    """How long what was due waited in a run that was accepted, with these deviations allowed.

    Raises TestbedError when TLC fails.
    """
    progress = progress or Quiet()
    offset = _offset(case)
    one = case.channel
    clock = _Clock(case, offset)
    found = Bounded(
        of_steps=one.steps if one else 0,
        clock_uncertainty_ns=clock.ns(offset.uncertainty_ticks),
        bytes=tuple(_bytes(clock)),
    )
    if missing := _missing(case, one, offset):
        return replace(found, missing=missing)
    assert one is not None
    lanes = _part(one)
    steps = len(lanes.sender.steps) + len(lanes.receiver.steps)
    params = replace(one.lanes.params, deviations=switches)
    with progress.step(f"Ask what could be taken along {steps} steps"):
        one_way = way(_with_ranks(lanes, one, clock), params, None, one.actions)
    if isinstance(one_way, str):
        return replace(found, missing=one_way)
    times = _Times(one, clock, one_way, taken_of(one_way, one.lanes, case.traces, offset))
    return replace(
        found,
        steps=int(one_way.done["s"][-1] + one_way.done["r"][-1]),
        actions=tuple(sorted(times.every(), key=_shortest_first, reverse=True)),
        states=one_way.states,
        seconds=one_way.seconds,
    )


def _offset(case: Case) -> ClockOffset:
    """What is known of the two clocks; of two processes on one machine, that they are one."""
    if (case.evidence.facts.get("host") or {}).get("kind") == "loopback":
        return ClockOffset(-1, 1, 0)
    return infer_offset(case.traces["server"], case.traces["client"])


def _shortest_first(one: ActionTimes) -> tuple[int, int]:
    return one.longest.at_least_ns, one.at_most_ns


@dataclass(frozen=True, slots=True)
class _Clock:
    """Both ends' times, on the server's clock."""

    case: Case
    offset: ClockOffset

    def ns(self, ticks: float) -> int:
        """Ticks as nanoseconds; without a frequency a tick is shown as one, as in the report."""
        headers = [trace.header for trace in self.case.traces.values()]
        hz = next((header.tsc_hz for header in headers if header.tsc_hz), 10**9)
        return round(ticks * 1e9 / hz)

    def ticks(self, seconds: float) -> int:
        """Seconds as ticks."""
        return round(seconds * 1e9 / max(self.ns(10**9), 1) * 1e9)

    def of(self, role: Role, column: str) -> Ticks:
        """The times of all records of one end."""
        times = self.case.traces[role].records[column].astype(np.int64)
        return times - (self.offset.ticks if role == "client" else 0)

    def first(self, role: Role) -> int:
        """Its first record: before, the end was not there."""
        return int(self.of(role, "t0").min())

    def end(self) -> int:
        """When the run was over, or was last looked at."""
        last = max(int(self.of(role, "t1").max()) for role in self.case.traces)
        return last + self.ticks(_stood_still_seconds(self.case.evidence))


def _stood_still_seconds(evidence: Evidence) -> float:
    """Between the looks that show that nothing moved."""
    times = [look.get("at_seconds") for look in evidence.looks[-2:]]
    if not evidence.stands_still or not all(isinstance(at, int | float) for at in times):
        return 0.0
    first, second = cast(list[float], times)
    return max(second - first, 0.0)


def _missing(case: Case, one: Prepared | None, offset: ClockOffset) -> str:
    """Why nothing can be said of actions; empty: something can."""
    if any(trace.begins_later for trace in case.traces.values()):
        return A_WINDOW
    if case.level == "calls":
        return CALLS_ALONE
    if one is None:
        return THE_PROTOCOL_ALONE
    if not one.steps or one.lanes.needs:
        return "there is nothing that the spec could follow"
    return "" if offset.known else NO_SHARED_CLOCK


def _part(one: Prepared) -> Lanes:
    """All of it, or its first part."""
    lanes = one.lanes
    ends = (len(lanes.sender), len(lanes.receiver))
    # Up to half as much again goes into one piece.
    size = Size(steps=STEPS_MAX * 2 // 3)
    order = RunningOrder(lanes.comes_after["s"], lanes.comes_after["r"])
    for cut in cuts_of(lanes.sender, lanes.receiver, order, size):
        return lanes.piece((0, 0), cut.places, cut.side)
    return lanes.piece((0, 0), ends)


def _with_ranks(lanes: Lanes, one: Prepared, clock: _Clock) -> Lanes:
    ranks = ranked(one.lanes, clock.case.traces, clock.offset)
    sender = replace(lanes.sender, ranks=ranks["s"][: len(lanes.sender.steps)])
    receiver = replace(lanes.receiver, ranks=ranks["r"][: len(lanes.receiver.steps)])
    return replace(lanes, sender=sender, receiver=receiver)


@dataclass(frozen=True, slots=True)
class _Times:
    """The times of all actions along one behaviour."""

    one: Prepared
    clock: _Clock
    way: Way
    steps: Taken

    def every(self) -> Iterator[ActionTimes]:
        """Of each fair action that could be taken, and of each application's next call."""
        actions, states = self.one.actions, states_of(self.one.actions)
        for name, possible in self.way.enabled.items():
            side = states.side_of(name)
            # What takes a wake-up is due where one is there for sure: of those that may be, one may
            # have been lost in another.
            sure = possible & (self.way.least[side] > 0) if name == states.wait(side) else possible
            action = actions.actions[name.partition(" ")[0]]
            by = action.taken_by or {action.name}
            is_it = self._hidden(possible) if action.hidden else self._steps_of(side, by)
            yield from self._of(name, action.owner, side, sure, is_it, fair=True)
        calls = {action.name for action in actions.actions.values() if action.is_call}
        for side, possible in self.way.callable.items():
            name = f"next call of the {self.one.lanes.role(side)}"
            is_it = self._steps_of(side, calls)
            yield from self._of(name, CALLS_OWNER, side, possible, is_it, fair=False)

    def _steps_of(self, side: Side, names: frozenset[str] | set[str]) -> Flags:
        """The behaviour's steps that are one of a side's actions."""
        lane = self.one.lanes.lane(side)
        flags = np.zeros(len(self.steps.row), np.bool_)
        numbers = np.flatnonzero(self.steps.side == side)
        flags[numbers] = np.isin(self.way.done[side][numbers], lane.where(*names))
        return flags

    def _hidden(self, possible: Flags) -> Flags:
        """The behaviour's steps that no record shows, and behind which it could not be taken."""
        return np.asarray((self.steps.side == "") & possible[:-1] & ~possible[1:])

    def _of(
        self, name: str, owner: str, side: Side, possible: Flags, is_it: Flags, *, fair: bool
    ) -> Iterator[ActionTimes]:
        role = self.one.lanes.role(side)
        cut_short = len(self.steps.row) and self._is_part()
        until = int(self.steps.bounds[1][-1]) if cut_short else self.clock.end()
        found = durations_of(possible, is_it, self.steps, self.clock.first(role), until)
        if not len(found):
            return
        at_most = np.array([self.clock.ns(ticks) for ticks in found.longest.tolist()], np.int64)
        yield ActionTimes(
            action=name,
            owner=owner,
            fair=fair,
            count=len(found),
            not_taken=int(np.count_nonzero(~found.taken)),
            median_ns=int(np.percentile(at_most, 50, method="inverted_cdf")),
            p99_ns=int(np.percentile(at_most, 99, method="inverted_cdf")),
            at_most_ns=int(at_most.max()),
            longest=self._longest(found, side),
            histogram=tuple(bins(at_most, EDGES)),
        )

    def _is_part(self) -> bool:
        return bool(self.way.done["s"][-1] + self.way.done["r"][-1] < self.one.steps)

    def _longest(self, found: Durations, side: Side) -> Longest:
        number = int(np.lexsort((found.longest, found.shortest))[-1])
        never = found.last[number] >= len(self.steps.row)
        return Longest(
            at_least_ns=self.clock.ns(int(found.shortest[number])),
            at_most_ns=self.clock.ns(int(found.longest[number])),
            place=self._place(int(found.last[number]), side),
            ended="taken" if found.taken[number] else "never" if never else "no more possible",
        )

    def _place(self, number: int, side: Side) -> Place:
        """The record of a step; of one that no record shows, or never came, of its neighbour."""
        behind = np.flatnonzero(self.steps.row[number:] >= 0)
        if len(behind):
            number += int(behind[0])
        else:
            own = np.flatnonzero(self.steps.side == side)
            number = int(own[-1]) if len(own) else int(np.flatnonzero(self.steps.row >= 0)[-1])
        role = self.one.lanes.role(cast(Side, str(self.steps.side[number])))
        return place_of(self.clock.case.traces[role], int(self.steps.row[number]))


def _bytes(clock: _Clock) -> Iterator[ByteTimes]:
    traces = clock.case.traces
    for direction in DIRECTIONS:
        flow = flow_of(direction, traces["server"], traces["client"], clock.offset)
        found = latency_of(flow)
        if found is None:
            continue
        longest = int(np.argmax(found.ticks))
        unsure = clock.offset.uncertainty_ticks
        yield ByteTimes(
            direction=direction.name,
            bytes=int(found.sizes.sum()),
            unread_bytes=max(flow.bytes_put - flow.bytes_taken, 0),
            median_ns=clock.ns(found.at(50)),
            p99_ns=clock.ns(found.at(99)),
            longest=Longest(
                at_least_ns=clock.ns(max(float(found.at_least[longest]) - unsure, 0.0)),
                at_most_ns=clock.ns(float(found.ticks[longest]) + unsure),
                place=_read_by(flow, traces, int(found.takes[longest])),
                ended="taken",
            ),
        )


def _read_by(flow: Flow, traces: Mapping[Role, Trace], take: int) -> Place:
    return place_of(traces[flow.direction.receiver], int(flow.takes.records[take]))
