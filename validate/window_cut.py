"""A cut through two lanes of which one or both begin in the middle of a run.

Both lanes' indices are brought to one count first: they are known modulo 2**32, and a reader's
never stands beyond its writer's, nor more than a ring behind it. Then values and clocks bound, for
each place in one lane, at which places the other one can have been: an interval. Where that is
short, and begins behind the other lane's first call, is the cut: the one lane begins at its place,
the other at the first of the interval, and which of them it was is for the spec to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.channel import ChannelLanes
from vchan_testbed.validate.channel_merge import ChannelLane
from vchan_testbed.validate.merge import Ints
from vchan_testbed.validate.order import RunningOrder
from vchan_testbed.validate.table import SIDES, Side

SPAN = 1 << 32
PLACES_SOUGHT = 64
"""An interval with so few places is short enough: no better one is looked for."""
PLACES_MAX = 4000
"""More start places than this are not followed."""
OTHER: Mapping[Side, Side] = {"s": "r", "r": "s"}


@dataclass(frozen=True, slots=True)
class Window:
    """Where both lanes are taken up."""

    anchor: Side
    """The lane whose place is known."""
    place: int
    first: int
    """Of the other lane: the first place at which it can have been then, and the last."""
    last: int

    @property
    def begins(self) -> tuple[int, int]:
        """The first steps of the lanes s and r that are followed."""
        return (self.place, self.first) if self.anchor == "s" else (self.first, self.place)

    def pairs(self) -> list[tuple[int, int]]:
        """All places in s and r that both can have been at together."""
        others = range(self.first, self.last + 1)
        if self.anchor == "s":
            return [(self.place, other) for other in others]
        return [(other, self.place) for other in others]


def aligned(lanes: ChannelLanes, times: Mapping[Role, Ints]) -> ChannelLanes | None:
    """The lanes with the client's indices counted as the server's are.

    None if there is a direction in which the two never stood within a ring of each other: the
    windows are of different times. `times` has for each end's steps when they were done.
    """
    server, client = lanes.server, lanes.client
    left, right = lanes.ring_bytes("left"), lanes.ring_bytes("right")
    to_left = _turns(client, "out", server, "into", left, times)
    to_right = _turns(client, "into", server, "out", right, times)
    if to_left is None or to_right is None:
        return None
    moved = replace(
        client,
        out=client.out + to_left * SPAN,
        first_out=client.first_out + to_left * SPAN,
        into=client.into + to_right * SPAN,
        first_into=client.first_into + to_right * SPAN,
    )
    return replace(lanes, client=moved)


def _turns(
    client: ChannelLane,
    mine: str,
    server: ChannelLane,
    theirs: str,
    ring: int,
    times: Mapping[Role, Ints],
) -> int | None:
    """By how many times 2**32 the client's index is to be moved."""
    own, first = getattr(client, mine), int(getattr(client, f"first_{mine}"))
    peer, peer_first = getattr(server, theirs), int(getattr(server, f"first_{theirs}"))
    last, peer_last = (
        int(one[-1]) if len(one) else at for one, at in ((own, first), (peer, peer_first))
    )
    least = -(-(peer_first - ring - last) // SPAN)
    most = (peer_last + ring - first) // SPAN
    if least > most:
        return None
    return min(range(least, most + 1), key=lambda turns: _apart(own + turns * SPAN, peer, times))


def _apart(own: Ints, peer: Ints, times: Mapping[Role, Ints]) -> int:
    """How much later one end came to the last place of both than the other, by their clocks."""
    if not len(own) or not len(peer):
        return 0
    goal = min(int(own[-1]), int(peer[-1]))
    here, there = np.searchsorted(own, goal), np.searchsorted(peer, goal)
    return abs(int(times["client"][here]) - int(times["server"][there]))


def window_of(
    order: RunningOrder, known: Mapping[Side, range], whole: Mapping[Side, bool]
) -> Window | None:
    """The first cut with few places, or the one with fewest; None if there is none to be found.

    `known` has for each lane the places at which it is known where its thread is, without a gap;
    `whole` whether a lane is there from its start.
    """
    found = [
        one for anchor in SIDES if (one := _of_anchor(anchor, order, known, whole)) is not None
    ]
    return min(found, key=lambda one: _badness(one, known), default=None)


def _badness(window: Window, known: Mapping[Side, range]) -> tuple[int, int]:
    count = window.last - window.first
    lost = window.place - known[window.anchor].start
    return max(count - PLACES_SOUGHT, 0), lost


def _of_anchor(
    anchor: Side, order: RunningOrder, known: Mapping[Side, range], whole: Mapping[Side, bool]
) -> Window | None:
    mine, other = known[anchor], known[OTHER[anchor]]
    if not len(mine) or not len(other):
        return None
    needs, needed = order.sender, order.receiver
    if anchor == "r":
        needs, needed = needed, needs
    at = np.arange(mine.start, mine.stop)
    before = np.where(at > 0, needs[np.maximum(at - 1, 0)] if len(needs) else 0, 0)
    least = np.maximum(before, 0)
    most = np.minimum(np.searchsorted(needed, at, side="right"), other.stop - 1)
    # With no step before it the other lane may not have begun: then its window begins too late.
    possible = (least >= other.start) & (most >= least) & (whole[OTHER[anchor]] | (least > 0))
    count = np.where(possible, most - least, PLACES_MAX + 1)
    if not possible.any() or int(count.min()) > PLACES_MAX:
        return None
    short = np.flatnonzero(count <= PLACES_SOUGHT)
    chosen = int(short[0]) if len(short) else int(np.argmin(count))
    return Window(anchor, int(at[chosen]), int(least[chosen]), int(most[chosen]))
