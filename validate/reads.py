"""Reads that decide: which load of the peer's index a thread can have acted on.

Compilers hoist dead pairs of index loads, repeat them and reorder the own ones. Of the loads of
the peer's index that a thread makes before it goes on (arms, tests, stores, waits, returns) the
last one is the one whose value decided; an earlier one is a look that decides nothing.

A thread that was killed may have gone on in the one access that left no record. So the last load
before a trace breaks off counts as one that decided, where it can have been: if it had not been,
nothing is lost, as the value was there to be read. A sender that has not yet asked whether the
peer is there cannot have acted on its load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.validate.table import SideTable

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

CHANGES = (Kind.STORE, Kind.RMW_LOCKED, Kind.RMW_PLAIN, Kind.CMPXCHG_OK, Kind.CMPXCHG_FAIL)
GOES_ON = (Kind.PENDING_ENTER, Kind.CALL_EXIT)


@dataclass(frozen=True, slots=True)
class Reads:
    """Rows of one side's loads, sorted out."""

    deciding: bytes
    """By row: 1 for a load of the peer's index that decided."""
    live_after: Mapping[int, tuple[int, int]]
    """By deciding load: a load of the peer's live byte after it, before the thread goes on, and
    what that showed. Only for a side whose table asks for it."""
    pending: int
    """Row of a deciding load that nothing has followed yet, because the trace breaks off; or -1."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What a side looks at when it moves bytes one way."""

    calls: frozenset[int]
    index: int
    """Offset of the peer's index."""
    live: int
    """Offset of the peer's live byte."""
    brings_forward: bool
    """Whether a load of the live byte can stand for one that came earlier."""


def reads_of(table: SideTable, records: Records, rows: Ints) -> Reads:
    """Sort out the loads among `rows`, which are in program order."""
    looks = Looks(
        frozenset((table.transfer,)),
        table.ring.cells[table.theirs],
        table.ring.cells[table.peer_live],
        table.brings_forward,
    )
    return loads_of(looks, records, rows)


def loads_of(looks: Looks, records: Records, rows: Ints) -> Reads:
    """The same for any calls and cells."""
    mine = rows[np.isin(records["call"][rows], list(looks.calls))]
    kind, offset = records["kind"][mine], records["offset"][mine]
    loads = kind == Kind.LOAD
    theirs = loads & (offset == looks.index)
    live = loads & (offset == looks.live)
    goes_on = np.isin(kind, CHANGES) | np.isin(kind, GOES_ON)
    deciding = _followed_by(theirs, goes_on)
    pending = _pending(theirs, goes_on)
    deciding[pending] = True
    flags = np.zeros(len(records), np.uint8)
    flags[mine[deciding]] = 1
    shown = _live_after(records, mine, deciding, live, goes_on) if looks.brings_forward else {}
    (row,) = mine[pending] if len(pending) else (-1,)
    return Reads(flags.tobytes(), shown, int(row))


def _live_after(
    records: Records, mine: Ints, deciding: Flags, live: Flags, goes_on: Flags
) -> dict[int, tuple[int, int]]:
    places = np.flatnonzero(deciding)
    followers = _next(places, np.flatnonzero(live | goes_on))
    return {
        int(mine[at]): (int(mine[follower]), int(records["old"][mine[follower]]))
        for at, follower in zip(places.tolist(), followers.tolist(), strict=True)
        if follower >= 0 and live[follower]
    }


def _followed_by(chosen: Flags, end: Flags) -> Flags:
    """Those of `chosen` that come last before an `end`."""
    places = np.flatnonzero(chosen | end)
    last = np.zeros(len(chosen), bool)
    last[places[:-1]] = chosen[places[:-1]] & end[places[1:]]
    return last


def _pending(chosen: Flags, end: Flags) -> Ints:
    """The last of `chosen`, if no `end` comes after it."""
    places = np.flatnonzero(chosen | end)[-1:]
    return places[chosen[places]].astype(np.int64)


def _next(places: Ints, others: Ints) -> Ints:
    """For each place the next one of `others`, -1 for none."""
    at = np.searchsorted(others, places, side="right")
    return np.append(others, -1)[np.minimum(at, len(others))]
