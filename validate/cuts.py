"""Cuts: where a long trace may be taken apart.

Each piece is followed from all states in which the one before can have ended, so a trace that is
accepted piece by piece is a behaviour wherever it was cut. The other way round takes care: at a
cut every step before it is done and none behind it, and not every behaviour can be put into that
order. So cuts are closed under what must come before what (`order.py`), which keeps everything
but the counts of events that wait on a port; a cut at which an event and the wake-up that takes it
stand on the same side is better; and what a piece rejects is followed again with its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.validate.merge import LaneSteps
from vchan_testbed.validate.order import RunningOrder

Ints = npt.NDArray[np.int64]
Cut = tuple[int, int]
"""Steps of the sender's and of the receiver's lane that lie before it."""

STEPS_IN_A_PIECE = 60_000
BYTES_IN_A_PIECE = 1 << 29
"""A piece's stream positions have to stay small: TLC counts to 2**31."""
CANDIDATES = 64
"""Cuts that are looked at before the best of them is taken."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much goes into a piece."""

    steps: int = STEPS_IN_A_PIECE
    bytes: int = BYTES_IN_A_PIECE


def cuts_of(
    sender: LaneSteps, receiver: LaneSteps, order: RunningOrder, end: Cut, size: Size
) -> list[Cut]:
    """Closed cuts from (0, 0) to `end`, about `size` apart."""
    ports = _Ports(sender, receiver)
    cuts: list[Cut] = [(0, 0)]
    while (target := _target(cuts[-1], end, sender, size)) is not None:
        found = _closed(cuts[-1], target, order, end, size.steps)
        best = min(found, key=ports.hazards, default=end)
        if best == end or best[0] > end[0] or best[1] > end[1]:
            break
        cuts.append(best)
    return [*cuts, end] if cuts[-1] != end else cuts


def _target(start: Cut, end: Cut, sender: LaneSteps, size: Size) -> Cut | None:
    """Where the piece from `start` should end, in the longer lane; None: it goes to the end."""
    left = (end[0] - start[0], end[1] - start[1])
    first = int(sender.indices[start[0] - 1]) if start[0] else 0
    last = int(sender.indices[end[0] - 1]) if end[0] else 0
    if sum(left) <= size.steps * 3 // 2 and last - first <= size.bytes:
        return None
    by_bytes = max(int(np.searchsorted(sender.indices, first + size.bytes)), start[0] + 1)
    share = max(left) * size.steps // sum(left)
    if left[0] >= left[1] or last - first > size.bytes:
        return min(start[0] + max(share, 1), by_bytes, end[0]), 0
    return 0, min(start[1] + max(share, 1), end[1])


def _closed(start: Cut, target: Cut, order: RunningOrder, end: Cut, steps: int) -> Iterator[Cut]:
    """Different closed cuts behind `start`, from the target on."""
    lane = 0 if target[0] else 1
    at, latest = target[lane], min(end[lane], target[lane] + max(steps // 4, 1))
    last: Cut | None = None
    for _ in range(CANDIDATES):
        if at > latest:
            return
        least = order.closed(at, 0) if lane == 0 else order.closed(0, at)
        cut = (max(least[0], start[0]), max(least[1], start[1]))
        if cut != last:
            yield cut
        last, at = cut, max(at, cut[lane]) + 1


class _Ports:
    """Events and wake-ups of both ports, to tell how many stand across a cut."""

    def __init__(self, sender: LaneSteps, receiver: LaneSteps) -> None:
        self._to_receiver = sender.where("s_raise", "s_close_raise", "r_spurious")
        self._by_receiver = receiver.where("r_wait", "r_stolen")
        self._to_sender = receiver.where("r_raise", "r_close_raise", "s_spurious")
        self._by_sender = sender.where("s_wait", "s_stolen")

    def hazards(self, cut: Cut) -> tuple[int, int]:
        """Fewer is better: events before the cut less wake-ups before it, for both ports.

        Where as many were taken as were raised, no order of the steps around the cut can have let
        two events become one.
        """
        sender, receiver = cut
        raised = int(np.searchsorted(self._to_receiver, sender))
        taken = int(np.searchsorted(self._by_receiver, receiver))
        back = int(np.searchsorted(self._to_sender, receiver))
        took = int(np.searchsorted(self._by_sender, sender))
        return abs(raised - taken) + abs(back - took), sender + receiver
