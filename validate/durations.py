"""When the steps of one behaviour were taken, and how long each action could be taken before.

The time of a step lies between the two stamps of its record, or between those around it where its
own were not taken; the behaviour's order narrows that down, as far as the two clocks are known. So
a time that an action could be taken has two bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report.clocks import ClockOffset
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.tlc.along import Way
from vchan_testbed.validate.two_lanes import TwoLanes

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
ALWAYS = np.iinfo(np.int64).max // 4


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The steps of a behaviour: the one with number k leads from its state k to the next one.

    Times are ticks of the server's clock.
    """

    side: npt.NDArray[np.str_]
    """s, r, or empty where no record shows it."""
    row: Ints
    """The row of its record; -1 where there is none."""
    stamps: tuple[Ints, Ints]
    """Its record's own bounds."""
    bounds: tuple[Ints, Ints]
    """Those of the behaviour: no step comes before one that it follows. They are wider by what is
    not known of the clocks' offset."""


@dataclass(frozen=True, slots=True, eq=False)
class Durations:
    """Each time that an action could be taken, from when it could on."""

    shortest: Ints
    """Ticks, at least."""
    longest: Ints
    """Ticks, at most."""
    last: Ints
    """The number of the step with which it ended; as many as there are steps: it did not."""
    taken: Flags
    """It ended with the action."""

    def __len__(self) -> int:
        return len(self.last)


def ranked(
    lanes: TwoLanes, traces: Mapping[Role, Trace], offset: ClockOffset
) -> Mapping[Side, Ints]:
    """The place of each step of both lanes in the order of their times."""
    times = []
    for side in SIDES:
        earliest, latest = _stamps(lanes, side, traces, offset)
        times.append(earliest + latest)
    order = np.argsort(np.concatenate(times), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    first = len(times[0])
    return {"s": ranks[:first], "r": ranks[first:]}


def taken_of(way: Way, lanes: TwoLanes, traces: Mapping[Role, Trace], offset: ClockOffset) -> Taken:
    """The steps of a behaviour, with their times."""
    count = len(way) - 1
    side = np.full(count, "", "U1")
    row = np.full(count, -1, np.int64)
    stamps = np.full(count, -ALWAYS), np.full(count, ALWAYS)
    unsure = np.zeros(count, np.int64)
    for one in SIDES:
        numbers = np.flatnonzero(np.diff(way.done[one]))
        steps = way.done[one][numbers]
        side[numbers] = one
        row[numbers] = lanes.lane(one).rows[steps]
        for bound, known in zip(stamps, _stamps(lanes, one, traces, offset), strict=True):
            bound[numbers] = known[steps]
        if lanes.role(one) == "client":
            unsure[numbers] = offset.uncertainty_ticks
    earliest = np.maximum.accumulate(stamps[0] - unsure)
    latest = np.minimum.accumulate((stamps[1] + unsure)[::-1])[::-1]
    # A clock that jumped makes them cross.
    bounds = np.minimum(earliest, latest), np.maximum(earliest, latest)
    return Taken(side, row, stamps, bounds)


def durations_of(possible: Flags, is_it: Flags, steps: Taken, since: int, until: int) -> Durations:
    """The times that an action could be taken.

    `possible` has a flag for each state, `is_it` one for each step that is this action. Nothing
    counts from before `since`, when its side came; what did not end lasted until `until`.
    """
    count = len(steps.row)
    # What was taken could be taken, and ends one time even if the next begins with it.
    possible = possible.copy()
    possible[:count] |= is_it
    ends = possible & np.append(~possible[1:] | is_it, True)
    begins = possible & np.insert(~possible[:-1] | is_it, 0, True)
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    shortest, longest = _between(steps.bounds, first - 1, last, since, until)
    # Of one end's own steps the other one's clock says nothing.
    own = np.append(steps.side, "")
    same = (own[first - 1] == own[np.minimum(last, count)]) & (own[first - 1] != "")
    by_stamps = _between(steps.stamps, first - 1, last, since, until)
    return Durations(
        shortest=np.where(same, np.maximum(shortest, by_stamps[0]), shortest),
        longest=np.where(same, np.minimum(longest, by_stamps[1]), longest),
        last=last,
        taken=np.append(is_it, False)[last],
    )


def _between(
    bounds: tuple[Ints, Ints], begun: Ints, over: Ints, since: int, until: int
) -> tuple[Ints, Ints]:
    """The least and the most between two steps each; -1 is `since`, and the last is `until`."""
    begins = [np.clip(_at(each, begun, since), since, until) for each in bounds]
    ends = [np.clip(_at(each, over, until), since, until) for each in bounds]
    return np.maximum(ends[0] - begins[1], 0), np.maximum(ends[1] - begins[0], 0)


def _at(times: Ints, numbers: Ints, outside: int) -> Ints:
    inside = (numbers >= 0) & (numbers < len(times))
    found = np.full(len(numbers), outside, np.int64)
    found[inside] = times[numbers[inside]]
    return found


def _stamps(
    lanes: TwoLanes, side: Side, traces: Mapping[Role, Trace], offset: ClockOffset
) -> tuple[Ints, Ints]:
    """Of each step of a lane the times before and after it, on the server's clock."""
    lane = lanes.lane(side)
    records = traces[lane.role].records[["t0", "t1"]][lane.rows]
    shift = offset.ticks if lane.role == "client" else 0
    return records["t0"].astype(np.int64) - shift, records["t1"].astype(np.int64) - shift


def bins(ticks: Ints, edges: npt.NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """The upper end of each bin that is not empty, and how many times lie in it."""
    at, counts = np.unique(np.searchsorted(edges, ticks, side="left"), return_counts=True)
    for number, count in zip(at.tolist(), counts.tolist(), strict=True):
        yield round(float(edges[number])), count
