"""The offset between the two ends' clocks, inferred from values.

Each end stamps its records with its own TSC, and a guest's may be shifted against the other's. An
index has one writer and only grows, so a value read names its write: the write came before the
read, and the read before the next write. Each such pair of records bounds the offset from one
side. The offset is taken as constant, which it is for domains of one host with native TSC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report.indices import (
    DIRECTIONS,
    Direction,
    Ints,
    Moves,
    base_of,
    looks,
    moves,
)


@dataclass(frozen=True)
class ClockOffset:
    """The client's TSC less the server's lies between `low` and `high` ticks.

    A bound is None when no pair of records gave one.
    """

    low: int | None
    high: int | None
    pairs: int
    """Pairs of records that were used."""

    @property
    def known(self) -> bool:
        """Both bounds are there and leave room: otherwise the clocks cannot be aligned."""
        return self.low is not None and self.high is not None and self.low < self.high

    @property
    def ticks(self) -> int:
        """The middle between the bounds; 0 when they are not known."""
        if self.low is None or self.high is None or self.low >= self.high:
            return 0
        return (self.low + self.high) // 2

    @property
    def uncertainty_ticks(self) -> int:
        """How far the true offset can be from `ticks`."""
        if self.low is None or self.high is None:
            return 0
        return (self.high - self.low + 1) // 2


def infer_offset(server: Trace, client: Trace) -> ClockOffset:
    """Bounds from every read of every index; contradicting ones are returned as they are."""
    traces = {"server": server, "client": client}
    above: list[Ints] = []  # each value is above the offset
    below: list[Ints] = []
    for direction in DIRECTIONS:
        for writer, reader, offset in _cells(direction):
            own = moves(traces[writer], offset)
            seen = looks(traces[reader], offset, base_of(traces[writer], offset))
            if np.any(own.steps <= 0):
                # A corrupted index: a value does not name its write.
                continue
            after, before = _gaps(own, seen)
            if writer == "server":
                above.append(after)
                below.append(before)
            else:
                above.append(-before)
                below.append(-after)
    high = np.concatenate(above) if above else np.empty(0, np.int64)
    low = np.concatenate(below) if below else np.empty(0, np.int64)
    return ClockOffset(
        int(low.max()) if len(low) else None,
        int(high.min()) if len(high) else None,
        len(low) + len(high),
    )


def _cells(direction: Direction) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
    """Writer, reader and offset in the page of a direction's two indices."""
    return (
        (direction.sender, direction.receiver, direction.prod_offset),
        (direction.receiver, direction.sender, direction.cons_offset),
    )


def _gaps(own: Moves, seen: Moves) -> tuple[Ints, Ints]:
    """The reader's clock less the writer's: values above it, values below it.

    Above: from before the write to after the read of its value. Below: from after the next write
    to before the read.
    """
    # The number of writes that had been done when a value was read; 0 is the value at the start.
    done = np.searchsorted(own.positions, seen.positions, side="right")
    written = done > 0
    matches = np.zeros(len(done), bool)
    matches[written] = own.positions[done[written] - 1] == seen.positions[written]
    matches |= ~written & (seen.positions == 0)
    from_write = written & matches
    above = seen.t1[from_write] - own.t0[done[from_write] - 1]
    overwritten = matches & (done < len(own.positions))
    below = seen.t0[overwritten] - own.t1[done[overwritten]]
    return above, below
