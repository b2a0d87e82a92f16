"""A channel of which one or both traces are windows: its lanes from a cut on, and all start states.

both lanes from their first calls -> indices of one count -> order by values, then by clocks ->
the cut (window_cut.py) -> where the threads are there (window_places.py) -> all states that fit
(window_starts.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.calls import order_by_clock
from vchan_testbed.validate.channel import SIDES as ROLE_OF
from vchan_testbed.validate.channel import ChannelLanes
from vchan_testbed.validate.channel_merge import ChannelLane
from vchan_testbed.validate.channel_order import order_of_bits, window_order
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import Start, State
from vchan_testbed.validate.merge import Ints
from vchan_testbed.validate.order import Order, RunningOrder
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.channel_first import Begun, RingAtStart, begun_from
from vchan_testbed.validate.tlc.columns import columns_of
from vchan_testbed.validate.tlc.paths import at
from vchan_testbed.validate.tlc.rows import AtStart, goes_first
from vchan_testbed.validate.two_lanes import TwoLanes
from vchan_testbed.validate.window_cut import PLACES_SOUGHT, Window, aligned, window_of
from vchan_testbed.validate.window_places import Local, places
from vchan_testbed.validate.window_starts import (
    PORT_MAX_RARELY,
    READER,
    THREAD,
    WRITER,
    Known,
    index_at,
    starts_of,
)

APART = "the two windows are of different times: no record of the one fits to the other"
NO_CUT = "no place is known at which both windows can be taken up"
ADVICE = "keep more records of each thread (--flight-recorder), and freeze both ends together"


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a channel is taken up, in the middle of its run."""

    starts: tuple[Start, ...]
    rare: tuple[Start, ...]
    """States that are seldom, and hide what went wrong: for what no other one explains."""
    records: Mapping[Role, int]
    """The first record of each end that is judged."""
    before: Mapping[str, int | None]
    """By direction, bytes that were read before it; None: nobody knows."""

    def told(self) -> str:
        """From when on it is judged, in words."""
        at = " and ".join(f"record {row} of the {role}" for role, row in self.records.items())
        bytes_of = "; ".join(
            f"{way}: {'it is not known how many' if count is None else count} bytes came before it"
            for way, count in self.before.items()
        )
        return f"A window was judged, from {at} on. {bytes_of}."


@dataclass(frozen=True, slots=True)
class Taken:
    """Lanes from a cut on, or why there is none."""

    lanes: ChannelLanes
    order: Order
    cut: Cut | None


def taken_up(
    lanes: ChannelLanes, traces: Mapping[Role, Trace], evidence: Evidence, actions: ActionMap
) -> Taken:
    """The lanes from where both can be taken up; if that is nowhere, with a need and no cut."""
    nothing = Order(np.zeros(len(lanes.sender), np.int64), np.zeros(len(lanes.receiver), np.int64))
    together = aligned(lanes, _times(lanes, traces))
    if together is None:
        return Taken(_without(lanes, APART), nothing, None)
    order = window_order(together)
    local = {side: dict(_places(side, together, traces, evidence)) for side in SIDES}
    known = {
        side: range(min(one), max(one) + 1) if one else range(0) for side, one in local.items()
    }
    whole = {side: not traces[role].begins_later for side, role in ROLE_OF.items()}
    running = order.running()
    window = window_of(running, known, whole)
    by_clock = order_by_clock(together, traces, running)
    if window is None or window.last - window.first > PLACES_SOUGHT:
        window = window_of(by_clock, known, whole)
    if window is None:
        return Taken(_without(lanes, NO_CUT), nothing, None)
    found = Known(together, local)
    starts, rare = starts_of(window, found), starts_of(window, found, PORT_MAX_RARELY)
    if not starts:
        return Taken(_without(lanes, NO_CUT), nothing, None)
    part = _from(window, together, by_clock, actions)
    cut = Cut(starts, rare, _records(part), _before(together, traces, window.begins))
    rest = (_counted(needs, window.begins, which) for which, needs in enumerate(_both(order)))
    return Taken(part, Order(*rest), cut)


def _without(lanes: ChannelLanes, need: str) -> ChannelLanes:
    return replace(lanes, needs=(*lanes.needs, need))


def _times(lanes: ChannelLanes, traces: Mapping[Role, Trace]) -> dict[Role, Ints]:
    return {
        role: traces[role].records["t1"][lanes.lane(side).rows].astype(np.int64)
        for side, role in ROLE_OF.items()
    }


def _places(
    side: Side, lanes: ChannelLanes, traces: Mapping[Role, Trace], evidence: Evidence
) -> dict[int, tuple[Local, ...]]:
    records = traces[ROLE_OF[side]].records
    rows = lanes.endings[side].rows
    sleeps = bool(len(rows)) and records["kind"][rows[-1]] == Kind.PENDING_ENTER
    return dict(places(lanes.lane(side), evidence.blocking, sleeps=sleeps))


def _from(
    window: Window, lanes: ChannelLanes, running: RunningOrder, actions: ActionMap
) -> ChannelLanes:
    """The lanes behind the cut, with what is known of their order there."""
    first = window.begins
    part = replace(
        lanes,
        sender=lanes.sender[first[0] :],
        receiver=lanes.receiver[first[1] :],
        server=_behind(lanes.server, first[0]),
        client=_behind(lanes.client, first[1]),
    )
    rest = RunningOrder(
        *(_counted(needs, first, which) for which, needs in enumerate(_both(running)))
    )
    return _told(part, rest, actions, None)


def learnt(lanes: TwoLanes, starts: Sequence[Start], actions: ActionMap) -> TwoLanes:
    """The lanes, with what the states to which a first piece of them leads tell of their order.

    The window's start states differ in the notify bytes, so that at first nothing is known of how
    often a bit was set and cleared. The wrong ones are gone soon, and then it is.
    """
    assert isinstance(lanes, ChannelLanes)
    columns = columns_of(lanes.sender, "s", actions), columns_of(lanes.receiver, "r", actions)
    found = [
        begun_from(*columns, (start.sender, start.receiver), _bytes_in(start.state))
        for start in starts
    ]
    if not found or any(one != found[0] for one in found):
        return lanes
    running = RunningOrder(*(lanes.comes_after[side] for side in SIDES))
    return _told(lanes, order_of_bits(lanes, found[0], running), actions, found[0])


def _bytes_in(state: State) -> dict[Side, int]:
    return {side: cast(int, at(state, f"notify[{THREAD[side]}]")) for side in SIDES}


def _told(
    lanes: ChannelLanes, running: RunningOrder, actions: ActionMap, begun: Begun | None
) -> ChannelLanes:
    rings = {
        "left": RingAtStart(
            lanes.ring_bytes("left"), lanes.client.first_out - lanes.server.first_into
        ),
        "right": RingAtStart(
            lanes.ring_bytes("right"), lanes.server.first_out - lanes.client.first_into
        ),
    }
    known = AtStart(None, {}, rings, from_start=False, begun=begun)
    return replace(
        lanes,
        goes_first=goes_first(lanes.sender, lanes.receiver, actions, 0, known),
        comes_after={"s": running.sender, "r": running.receiver},
    )


def _both(order: Order | RunningOrder) -> tuple[Ints, Ints]:
    return order.sender, order.receiver


def _counted(needs: Ints, first: tuple[int, int], which: int) -> Ints:
    return np.maximum(needs[first[which] :] - first[1 - which], 0)


def _behind(lane: ChannelLane, first: int) -> ChannelLane:
    return replace(
        lane,
        steps=lane.steps[first:],
        out=lane.out[first:],
        into=lane.into[first:],
        first_out=index_at(lane, "out", first),
        first_into=index_at(lane, "into", first),
    )


def _records(lanes: ChannelLanes) -> dict[Role, int]:
    return {
        role: int(lanes.lane(side).rows[0])
        if len(lanes.lane(side))
        else len(lanes.endings[side].rows)
        for side, role in ROLE_OF.items()
    }


def _before(
    lanes: ChannelLanes, traces: Mapping[Role, Trace], first: tuple[int, int]
) -> dict[str, int | None]:
    """Bytes that were read: known where the reader, or the writer, is there from its start."""
    known = Known(lanes, {})
    begins: Mapping[Side, int] = dict(zip(SIDES, first, strict=True))
    found: dict[str, int | None] = {}
    for way in WRITER:
        reader, writer = READER[way], WRITER[way]
        begun = None
        if not traces[ROLE_OF[reader]].begins_later:
            begun = known.lane(reader).first_into
        elif not traces[ROLE_OF[writer]].begins_later:
            begun = known.lane(writer).first_out
        found[way] = None if begun is None else known.taken(way, begins) - begun
    return found
