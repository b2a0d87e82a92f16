"""Cuts: where a long trace is taken apart.

A cut is a number of steps of one lane. The piece before it ends as soon as that lane has done so
many, wherever the other one is then; the piece behind it is taken up from every such place, in
every state that there can be. Each behaviour passes through one of them, because a lane's steps are
done one by one, and each is one through which a behaviour passes. So what is followed piece by
piece is what would be followed in one go: nothing is lost at a cut and nothing put in.

A cut at fixed places in both lanes would not do. Which steps of the two lanes can lie before one is
not told by the values alone: an event that found one waiting is lost in it or is not, so that a
wake-up may need a later event than its number says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.validate.merge import LaneSteps
from vchan_testbed.validate.order import RunningOrder
from vchan_testbed.validate.table import Side

Ints = npt.NDArray[np.int64]

STEPS_IN_A_PIECE = 200_000
STEPS_AT_FIRST = 300
BYTES_IN_A_PIECE = 1 << 29
"""A piece's stream positions have to stay small: TLC counts to 2**31."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much goes into a piece, about."""

    steps: int = STEPS_IN_A_PIECE
    bytes: int = BYTES_IN_A_PIECE


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of a piece: this side has done so many steps of its lane."""

    side: Side
    steps: int
    horizon: int
    """The other lane's steps from here on need a later one of this side's: none of them can be done
    at the cut."""

    @property
    def places(self) -> tuple[int, int]:
        """Steps of the sender's and of the receiver's lane that can be done at the cut, at most."""
        return (self.steps, self.horizon) if self.side == "s" else (self.horizon, self.steps)


def cuts_of(
    sender: LaneSteps,
    receiver: LaneSteps,
    order: RunningOrder,
    size: Size,
    cut_off: frozenset[Side] = frozenset(),
) -> tuple[Cut, ...]:
    """Cuts about `size` apart.

    A side in `cut_off` may have done something after its last step: that step is in the last piece.
    """
    cuts: list[Cut] = []
    ends = (len(sender), len(receiver))
    start = (0, 0)
    while cut := _next(start, ends, (sender, receiver), order, size):
        other: Side = "r" if cut.side == "s" else "s"
        if other in cut_off and cut.horizon == ends[other == "r"]:
            break
        cuts.append(cut)
        # The next one has to lie behind every place that there can be at this one.
        start = (max(start[0], cut.places[0]), max(start[1], cut.places[1]))
    return tuple(cuts)


def with_early(
    cuts: tuple[Cut, ...],
    sender: LaneSteps,
    receiver: LaneSteps,
    order: RunningOrder,
    cut_off: frozenset[Side] = frozenset(),
) -> tuple[Cut, ...]:
    """The cuts, with one before them that is `STEPS_AT_FIRST` steps from the lanes' beginning.

    For lanes that are followed from many states, of which most lead nowhere.
    """
    horizon = int(np.searchsorted(order.receiver, STEPS_AT_FIRST, side="right"))
    early = Cut("s", STEPS_AT_FIRST, horizon)
    if len(sender) < 2 * STEPS_AT_FIRST or ("r" in cut_off and horizon == len(receiver)):
        return cuts
    behind = [cut for cut in cuts if min(cut.places) > max(early.places)]
    return (early, *behind)


def _next(
    start: tuple[int, int],
    ends: tuple[int, int],
    lanes: tuple[LaneSteps, LaneSteps],
    order: RunningOrder,
    size: Size,
) -> Cut | None:
    """The cut behind `start`, in the lane of which there is more left; None: all of it goes in."""
    left = (ends[0] - start[0], ends[1] - start[1])
    longer = int(left[1] > left[0])
    lane = lanes[longer]
    first = int(lane.indices[start[longer] - 1]) if start[longer] else 0
    last = int(lane.indices[-1]) if len(lane) else 0
    if sum(left) <= size.steps * 3 // 2 and last - first <= size.bytes:
        return None
    by_steps = start[longer] + max(left[longer] * size.steps // sum(left), 1)
    by_bytes = max(int(np.searchsorted(lane.indices, first + size.bytes)), start[longer] + 1)
    steps = min(by_steps, by_bytes)
    if steps >= ends[longer]:
        return None
    needs = order.receiver if longer == 0 else order.sender
    horizon = int(np.searchsorted(needs, steps, side="right"))
    return Cut("r" if longer else "s", steps, horizon)
