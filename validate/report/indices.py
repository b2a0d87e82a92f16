"""How the four ring indices moved, as both ends recorded it.

An index is a free-running uint32 in the shared page. Here a position is the number of bytes that
an index has moved since the trace began, in 64 bits, so that a wrap is nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Cell, Kind
from vchan_testbed.tracer.reader import Trace

Ints: TypeAlias = NDArray[np.int64]

_CHANGES = (Kind.STORE, Kind.RMW_LOCKED, Kind.RMW_PLAIN, Kind.CMPXCHG_OK)


@dataclass(frozen=True)
class Direction:
    """One direction of a channel: who sends, who receives, and where its two indices stand."""

    name: Literal["left", "right"]
    sender: Role
    receiver: Role
    prod_offset: int
    """Byte offset in the shared page; only the sender writes there."""
    cons_offset: int
    """Byte offset in the shared page; only the receiver writes there."""


LEFT = Direction("left", "client", "server", Cell.LEFT_PROD, Cell.LEFT_CONS)
RIGHT = Direction("right", "server", "client", Cell.RIGHT_PROD, Cell.RIGHT_CONS)
DIRECTIONS = (LEFT, RIGHT)


@dataclass(frozen=True)
class Moves:
    """What one end did with one index, in the order of its own clock.

    `records` are row numbers in the trace, `t0` and `t1` its TSC before and after the access,
    `positions` bytes since the trace began: after the access for a move, as read for a look.
    """

    records: Ints
    t0: Ints
    t1: Ints
    positions: Ints

    @property
    def steps(self) -> Ints:
        """Bytes by which each access moved the index, from 0."""
        return np.diff(self.positions, prepend=0)


def base_of(owner: Trace, offset: int) -> int:
    """The index' value when the trace began, as the end that owns it saw it first; 0 if never."""
    rows = owner.records
    first = np.flatnonzero(_accesses(owner, offset) & np.isin(rows["kind"], (Kind.LOAD, *_CHANGES)))
    return int(rows["old"][first[0]]) if len(first) else 0


def moves(owner: Trace, offset: int) -> Moves:
    """The owner's changes of its index; a store of the value that is there already is none."""
    rows = owner.records
    changed = np.isin(rows["kind"], _CHANGES) & (rows["old"] != rows["new"])
    chosen = _accesses(owner, offset) & changed
    return _cell(owner, chosen, "new", base_of(owner, offset))


def looks(reader: Trace, offset: int, base: int) -> Moves:
    """Loads of an index by one end; `base` is from `base_of` its owner's trace."""
    chosen = _accesses(reader, offset) & (reader.records["kind"] == Kind.LOAD)
    return _cell(reader, chosen, "old", base)


def _accesses(trace: Trace, offset: int) -> NDArray[np.bool_]:
    return np.asarray((trace.records["offset"] == offset) & (trace.records["width"] == 4))


def _cell(trace: Trace, chosen: NDArray[np.bool_], value: str, base: int) -> Moves:
    numbers = np.flatnonzero(chosen)
    rows = trace.records[numbers]
    # Threads of one end share its clock; a trace lists one thread after the other.
    order = np.argsort(rows["t0"], kind="stable")
    return Moves(
        numbers[order].astype(np.int64),
        rows["t0"][order].astype(np.int64),
        rows["t1"][order].astype(np.int64),
        _unwrapped(rows[value][order], base),
    )


def _unwrapped(values: NDArray[np.void], base: int) -> Ints:
    """Positions from uint32 values. A step is taken as the shorter way round.

    No index moves by more than a ring (1 MiB) between two reads of it, so 2^31 tells forwards
    from backwards; and an index that an end corrupted shows as one that went backwards.
    """
    whole = np.concatenate(([base], values)).astype(np.int64)
    steps = np.diff(whole)
    return np.cumsum((steps + (1 << 31)) % (1 << 32) - (1 << 31))
