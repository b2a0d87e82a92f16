"""What must have come before what in a whole channel, by the values alone.

The rules are those of `order.py`, of both directions at once: the two ends' lanes hold the steps
of both, and one port a side wakes for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from vchan_testbed.validate.channel import ChannelLanes
from vchan_testbed.validate.channel_merge import ChannelLane
from vchan_testbed.validate.merge import Ints, LaneSteps
from vchan_testbed.validate.order import (
    Bit,
    Order,
    RunningOrder,
    View,
    as_read,
    closing,
    order_a_bit,
    raise_to,
    reads_of_the_index,
    wakes,
)
from vchan_testbed.validate.table import Side

Way = Literal["out", "into"]
EVENTS = ("w_raise", "r_raise", "c_give_back", "c_raise", "k_raise")
LIVE = ("w_live", "w_live_again", "r_live", "o_live", "live_look")
ARMS = {1: ("r_arm", "k_notify"), 2: ("w_arm",)}
TESTS = {1: ("w_test",), 2: ("r_test",)}
"""By the bit of a notify byte: who sets it, and who tests and clears it."""


def channel_order(lanes: ChannelLanes) -> Order:
    """The order that the values of both lanes ask for."""
    server, client = lanes.server, lanes.client
    before_server = np.zeros(len(server.steps), np.int64)
    before_client = np.zeros(len(client.steps), np.int64)
    for mine, other, before_mine, before_other in (
        (server, client, before_server, before_client),
        (client, server, before_client, before_server),
    ):
        for way, opposite in (("out", "into"), ("into", "out")):
            views = _view(mine, way), _view(other, opposite)  # type: ignore[arg-type]
            reads_of_the_index(*views, before_mine, before_other)
        closing(_view(mine, "out"), _view(other, "into"), before_mine, before_other)
        wakes(_view(mine, "out"), _view(other, "into"), before_mine)
    _bits(server.steps, client.steps, before_server, before_client, at_start={1: 1, 2: 0})
    _bits(client.steps, server.steps, before_client, before_server, at_start={1: 0, 2: 0})
    _opening(server.steps, client.steps, before_client)
    return Order(before_server, before_client)


def window_order(lanes: ChannelLanes) -> Order:
    """The same of lanes that begin in the middle of a run, by indices and live bytes alone.

    How often a bit was set and cleared before, and how many wake-ups waited, nobody knows. The
    indices of both lanes have to be of one count.
    """
    server, client = lanes.server, lanes.client
    before_server = np.zeros(len(server.steps), np.int64)
    before_client = np.zeros(len(client.steps), np.int64)
    for mine, other, before_mine, before_other in (
        (server, client, before_server, before_client),
        (client, server, before_client, before_server),
    ):
        for way in ("out", "into"):
            begins = {"out": mine.first_out, "into": mine.first_into}[way]
            theirs = {"out": other.first_into, "into": other.first_out}[way]
            opposite: Way = "into" if way == "out" else "out"
            reads_of_the_index(
                _view(mine, way, begins - theirs),
                _view(other, opposite),
                before_mine,
                before_other,
            )
        closing(_view(mine, "out"), _view(other, "into"), before_mine, before_other)
    return Order(before_server, before_client)


def order_of_bits(
    lanes: ChannelLanes, begun: Mapping[Side, Mapping[int, int]], known: RunningOrder
) -> RunningOrder:
    """`known`, and what the notify bits tell besides.

    `begun`: by the side that tests a byte, what its bits are where the lanes begin.
    """
    server, client = known.sender.copy(), known.receiver.copy()
    _bits(lanes.server.steps, lanes.client.steps, server, client, at_start=begun["r"])
    _bits(lanes.client.steps, lanes.server.steps, client, server, at_start=begun["s"])
    return Order(server, client).running()


def _view(lane: ChannelLane, way: Way, ahead: int = 0) -> View:
    """One lane as the writer or as the reader of a ring.

    `ahead`: by how many bytes its index begins ahead of the other lane's.
    """
    steps = lane.steps
    if way == "out":
        own, reads = lane.out - lane.first_out, steps.where("w_space", "w_space_again", "w_look")
        # A writer sees what is free: the reader's index is a ring less what is not behind its own.
        seen = own[reads] + steps.values[reads] - lane.ring_out
        moves = steps.where("w_put")
    else:
        own, reads = lane.into - lane.first_into, steps.where("r_have", "r_have_again", "r_look")
        seen = own[reads] + steps.values[reads]
        moves = steps.where("r_take")
    return View(
        lane=replace(steps, indices=own),
        reads=reads,
        seen=as_read(seen + ahead, steps.values[reads]),
        moves=moves,
        live_reads=steps.where(*LIVE),
        closes=steps.where("c_close"),
        takes=steps.where("wait"),
        own_events=steps.where("k_bind"),
        events=steps.where(*EVENTS),
        port_at_start=0,
    )


def _bits(
    setter: LaneSteps,
    tester: LaneSteps,
    before_set: Ints,
    before_test: Ints,
    at_start: Mapping[int, int],
) -> None:
    """The two bits of the byte that `setter` arms and `tester` tests."""
    for bit, first in at_start.items():
        found = Bit(setter.where(*ARMS[bit]), tester.where(*TESTS[bit]), first)
        order_a_bit(found, _bit_of(setter, bit), _bit_of(tester, bit), before_set, before_test)


def _bit_of(lane: LaneSteps, bit: int) -> LaneSteps:
    """The lane with the bit in the place of the byte."""
    return replace(lane, values=np.where(lane.values & bit, 1, 0))


def _opening(server: LaneSteps, client: LaneSteps, before_client: Ints) -> None:
    """The client finds the keys of a channel that is there."""
    shares, binds = server.where("i_share"), client.where("k_bind")
    if len(shares) and len(binds):
        raise_to(before_client, binds[:1], shares[:1] + 1)
