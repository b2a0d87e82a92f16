"""How soon a step of a whole channel may go first: each lane has the steps of both directions.

The words are those of `goes_first` in the action map. An index is moved by one side and read by the
other. A notify byte has a bit for each direction; one side sets them, the other one tests and
clears them, and every access shows both. All of it is counted from the start of the channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vchan_testbed.validate.tlc.actions import Channel, Side
from vchan_testbed.validate.tlc.columns import Columns, Flags, Ints

NEVER = 2**31 - 1
OTHER: dict[Side, Side] = {"s": "r", "r": "s"}


@dataclass(frozen=True, slots=True)
class RingAtStart:
    """A ring where the lanes are taken up."""

    bytes: int
    held: int = 0
    """Bytes in it: by how much the writer's index is ahead of the reader's."""


def order_moves(
    lane: Columns, other: Columns, channel: Channel, rings: Mapping[str, RingAtStart], after: Ints
) -> None:
    """A move comes first when all looks of the other side that still show less are done."""
    for way, writer in channel.writers.items():
        held = rings[way].held
        if writer == lane.side:
            # Counted from what the ring holds at the start: the reader's index is so far behind.
            moves, seen_by, moved_by, less = channel.puts, channel.sees_bytes, channel.takes, held
        else:
            moves, seen_by, moved_by = channel.takes, channel.sees_space, channel.puts
            # The writer sees what is free: the reader's index, and one ring more.
            less = rings[way].bytes - held
        mine, places = _index(lane, moves), np.flatnonzero(other.named(seen_by))
        shown = _index(other, moved_by)[places] + other.values[places] - less
        # From each look on, the lowest that is still to be shown.
        lowest = np.minimum.accumulate(shown[::-1])[::-1]
        moving = lane.named((moves,))
        after[moving] = _done(places)[np.searchsorted(lowest, mine[moving], side="left")]


Begun: TypeAlias = Mapping[Side, Mapping[int, int]]
"""By the side that tests a notify byte, and by bit: what it is where both lanes begin.

Where that is no state of both (the one lane begins earlier) it is settings less clearings, counted
back from one that is: it need not be 0 or 1.
"""


def at_open(channel: Channel) -> Begun:
    """What the notify bytes are when a channel is opened."""
    return {
        owner: {bit: int(value & bit > 0) for bit in (1, 2)}
        for owner, value in channel.notify_at_start.items()
    }


def begun_from(
    sender: Columns, receiver: Columns, done: tuple[int, int], shown: Mapping[Side, int]
) -> Begun:
    """The same, from what the bytes are when so many steps of both lanes are done."""
    lanes: Mapping[Side, Columns] = {"s": sender, "r": receiver}
    places: Mapping[Side, int] = {"s": done[0], "r": done[1]}
    found: dict[Side, dict[int, int]] = {}
    for owner, value in shown.items():
        found[owner] = {bit: int(value & bit > 0) for bit in (1, 2)}
        for side, lane in lanes.items():
            one = _accesses(lane, channel_of(lane), owner)
            early = one.changes & (one.places < places[side])
            for bit in (1, 2):
                count = int(np.count_nonzero(early & (one.bits == bit)))
                found[owner][bit] += count if side == owner else -count
    return found


def channel_of(lane: Columns) -> Channel:
    """Of lanes with both directions."""
    assert lane.actions.channel is not None
    return lane.actions.channel


def order_bytes(
    lane: Columns, other: Columns, channel: Channel, after: Ints, begun: Begun | None
) -> None:
    """An access that changes nothing is a look: it may go first, because its value does not come
    again once the other side has changed the byte.

    Of lanes that are taken up in the middle of a run that may be all that is known (no `begun`).
    Else one that changes the byte comes after the looks of the other side that have to see it as it
    was. Which these are its value tells: how often the other side has changed the byte before.
    """
    for owner in channel.notify_at_start:
        mine = _accesses(lane, channel, owner)
        theirs = _accesses(other, channel, owner)
        after[mine.places[~mine.changes]] = 0
        if begun is None:
            continue
        places = mine.places[mine.changes]
        values = mine.shown[mine.changes]
        needed = _changes_needed(mine, begun[owner], sets=lane.side != owner)
        after[places] = _after_looks(theirs, needed, values)


@dataclass(frozen=True, slots=True, eq=False)
class _Accesses:
    """One side's accesses to a notify byte."""

    places: Ints
    bits: Ints
    """The bit that each sets or clears."""
    shown: Ints
    """The whole byte before."""
    changes: Flags


def _accesses(lane: Columns, channel: Channel, owner: Side) -> _Accesses:
    sets = lane.side != owner
    bit_of = channel.sets if sets else channel.clears
    bits = np.zeros(len(lane), np.int64)
    shown = lane.values
    for name, bit in bit_of.items():
        bits[lane.named((name,))] = bit
        if not lane.actions.actions[name].shows:
            # A store without a look: the first one of all, to a byte that is 0.
            shown = np.where(lane.named((name,)), 0, shown)
    places = np.flatnonzero(bits)
    bits, shown = bits[places], shown[places]
    is_set = (shown & bits) != 0
    return _Accesses(places, bits, shown, is_set != sets)


def _changes_needed(mine: _Accesses, at_start: Mapping[int, int], *, sets: bool) -> Ints:
    """For each change of the byte: the other side's changes before it, as its value tells."""
    needed = np.zeros(np.count_nonzero(mine.changes), np.int64)
    for bit in (1, 2):
        is_mine = mine.changes & (mine.bits == bit)
        before = (np.cumsum(is_mine) - is_mine)[mine.changes]
        now = (mine.shown[mine.changes] & bit) // bit
        theirs = at_start[bit] + before - now if sets else now + before - at_start[bit]
        needed = np.where((theirs < 0) | (needed == NEVER), NEVER, needed + theirs)
    return needed


def _after_looks(theirs: _Accesses, needed: Ints, values: Ints) -> Ints:
    """Steps of the other side that have to be done before changes that show `values`."""
    number: Ints = np.cumsum(theirs.changes) - theirs.changes
    changes = int(np.count_nonzero(theirs.changes))
    possible = (theirs.shown >= 0) & (theirs.shown <= 3)
    looks = ~theirs.changes & possible
    # The last look with each value among those before each change.
    last = np.full(((changes + 1), 4), -1, np.int64)
    np.maximum.at(last, (number[looks], theirs.shown[looks]), theirs.places[looks])
    found = np.full(len(needed), NEVER, np.int64)
    known = (needed <= changes) & (values >= 0) & (values <= 3)
    found[known] = last[needed[known], values[known]] + 1
    # Both would change the same value. Only one of them can, and both have to be tried.
    next_shown = np.append(theirs.shown[theirs.changes], -1)
    clash = np.zeros(len(needed), bool)
    clash[known] = next_shown[needed[known]] == values[known]
    found[clash] = NEVER
    return found


def _index(lane: Columns, moves: str) -> Ints:
    """One of a side's indices after each step, from 0 at the start."""
    return np.cumsum(np.where(lane.named((moves,)), lane.values, 0))


def _done(places: Ints) -> Ints:
    """For each n: steps that are done when the first n of `places` are."""
    return np.concatenate(([0], places + 1))
