"""The order that the values of a whole channel tell is kept by every behaviour of Libxenvchan."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from library_walks import ACTIONS, Kind, Walk, walks

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.channel import ChannelLanes
from vchan_testbed.validate.channel_merge import ChannelLane
from vchan_testbed.validate.channel_order import channel_order
from vchan_testbed.validate.lanes import Lane
from vchan_testbed.validate.merge import LaneSteps
from vchan_testbed.validate.order import Order

ALL = ("write", "send", "read", "recv", "wait", "data_ready", "buffer_space", "is_open", "close")
KINDS = {
    "streams": Kind(calls=("write", "read", "close"), blocking="AlwaysBlocking"),
    "packets": Kind(calls=("send", "recv", "wait", "close"), blocking="AlwaysBlocking"),
    "everything": Kind(calls=ALL),
}


def columns(role: Role, lane: Lane, ring: int, first: tuple[int, int]) -> ChannelLane:
    """A lane as the merge makes it; `first` are its indices at the start."""
    steps = list(lane.steps)
    names = tuple(sorted(ACTIONS.actions))
    values = np.array([step.value for step in steps], np.int64)
    put, taken = (
        np.cumsum([step.value * (step.action == name) for step in steps], dtype=np.int64)
        for name in ("w_put", "r_take")
    )
    return ChannelLane(
        steps=LaneSteps(
            role=role,
            names=names,
            codes=np.array([names.index(step.action) for step in steps], np.uint8),
            values=values,
            rows=np.arange(len(steps), dtype=np.int64),
            indices=put + taken,
            remarks={},
            stutters=0,
        ),
        out=put + first[0],
        into=taken + first[1],
        first_out=first[0],
        first_into=first[1],
        ring_out=ring,
        problems=(),
        needs={},
    )


def order_of(walk: Walk) -> Order:
    left, right = walk.kind.ring_bytes
    at_left, at_right = walk.kind.first
    server = columns("server", walk.lanes.sender, right, (at_right, at_left))
    client = columns("client", walk.lanes.receiver, left, (at_left, at_right))
    return channel_order(
        ChannelLanes(
            params=walk.kind.params(),
            sender=server.steps,
            receiver=client.steps,
            endings={},
            problems=(),
            needs=(),
            server=server,
            client=client,
        )
    )


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_asked_for_that_was_not_so(name: str) -> None:
    told = 0
    for walk in walks(KINDS[name], 60, 120, seed=5):
        order, done = order_of(walk), walk.done_before()
        assert order.cycle() is None
        for needs, before in ((order.sender, done["s"]), (order.receiver, done["r"])):
            late = np.flatnonzero(needs > np.array(before, np.int64))
            assert not len(late), (walk.lanes, late)
            told += int(np.count_nonzero(needs))
    assert told > 500
