"""Lanes as rows of numbers for TLC, with how soon each step may go first.

TLC would try the two lanes' steps in every order. Many orders lead to the same state: then one of
them is enough, and which one is decided here as far as the lanes alone tell (`goes_first` in the
action map says why that is right). A row's `after` is the number of the other lane's steps that
have to be done before the step may go first, alone.

It depends on steps that may come much later in the other lane. So it is worked out on whole lanes,
before they are taken to pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vchan_testbed.validate.lanes import Lane, Lanes, SpecParams, Step
from vchan_testbed.validate.tlc.actions import SIDES, ActionMap, Bit, Channel, Side
from vchan_testbed.validate.tlc.channel_first import (
    NEVER,
    OTHER,
    Begun,
    RingAtStart,
    at_open,
    order_bytes,
    order_moves,
)
from vchan_testbed.validate.tlc.columns import Columns, Flags, Ints, columns_of

VALUE_MIN, VALUE_MAX = -(2**31), 2**31 - 1
"""TLC's integers have 32 bits. A larger size asks for no more than the largest does, and no
state shows a result beyond them: cut down to one of these it is as wrong as before."""

LANE_NUMBER: dict[Side, int] = {"s": 1, "r": 2}


@dataclass(frozen=True, slots=True)
class AtStart:
    """What is the same in all states from which the lanes are followed."""

    ring_bytes: int | None
    """What the ring holds; None if the states differ."""
    bits: Mapping[str, int]
    """The notify bits in which the states agree."""
    rings: Mapping[str, RingAtStart] = field(default_factory=dict)
    """Of lanes with both directions: each ring, if it is known."""
    from_start: bool = True
    """The lanes begin where the channel does, so that each notify byte is known."""
    begun: Begun | None = None
    """The notify bytes, if the lanes begin elsewhere and they are known all the same."""

    def bytes_of(self, channel: Channel) -> Begun | None:
        """What the notify bytes are; None if nobody knows."""
        return at_open(channel) if self.from_start else self.begun


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One lane's steps, in columns."""

    action: Ints
    """The action's number."""
    value: Ints
    after: Ints
    raises: Ints
    """The lane whose port must have room before the step may go first, or 0."""
    comes_after: Ints
    """Steps of the other lane that came before it, as the values tell."""
    rank: Ints
    """Its place in the order of both lanes' times; 0 where nobody asks for it."""


def write_rows(path: Path, *traces: Mapping[Side, Rows]) -> None:
    """The CSV file that TLC's Java side reads: the lanes of one trace, or of many."""
    with path.open("w") as file:
        file.write("lane,action,value,after,raises,comes_after,rank\n")
        for number, rows in enumerate(traces):
            for side in SIDES:
                lane = len(SIDES) * number + LANE_NUMBER[side]
                file.writelines(f"{lane},{cells}\n" for cells in _cells(rows[side]))


def _cells(rows: Rows) -> Iterator[str]:
    columns = (rows.action, rows.value, rows.after, rows.raises, rows.comes_after, rows.rank)
    for row in zip(*(column.tolist() for column in columns), strict=True):
        yield ",".join(map(str, row))


def rows_of(lanes: Lanes, actions: ActionMap, ring_bytes: int, known: AtStart) -> dict[Side, Rows]:
    """Rows of both lanes. Raises TestbedError for a step that its lane cannot hold."""
    lane: dict[Side, Lane] = {"s": lanes.sender, "r": lanes.receiver}
    columns = {side: columns_of(lane[side].steps, side, actions) for side in SIDES}
    if lanes.sender.goes_first is None or lanes.receiver.goes_first is None:
        first = _goes_first(columns["s"], columns["r"], ring_bytes, known)
    else:
        first = {"s": lanes.sender.goes_first, "r": lanes.receiver.goes_first}
    return {
        side: _rows(columns[side], first[side], lane[side], lane[OTHER[side]]) for side in SIDES
    }


def goes_first(
    sender: Sequence[Step],
    receiver: Sequence[Step],
    actions: ActionMap,
    ring_bytes: int,
    known: AtStart,
) -> dict[Side, Ints]:
    """For each step of two whole lanes, after how many of the other lane's it may go first.

    Raises TestbedError for a step that its lane cannot hold.
    """
    columns = columns_of(sender, "s", actions), columns_of(receiver, "r", actions)
    return _goes_first(*columns, ring_bytes, known)


def rings_of(params: SpecParams) -> dict[str, RingAtStart]:
    """Each direction's ring, empty, as the spec of a whole channel is told."""
    given = dict(params.given)
    return {
        "left": RingAtStart(int(given["LeftBytes"])),
        "right": RingAtStart(int(given["RightBytes"])),
    }


def counted_from(after: Ints, first: int) -> Ints:
    """The same for lanes that begin `first` steps of the other lane later."""
    return np.where(after == NEVER, NEVER, np.maximum(after - first, 0))


def _rows(lane: Columns, first: Ints, mine: Lane, other: Lane) -> Rows:
    others = _raises_the_others(lane)
    if other.unlogged:
        # An access without a record may still be one that has to come before this step.
        may_conflict = lane.where(lambda action: action.goes_first == "seen by") | others
        if lane.actions.channel:
            may_conflict |= lane.where(lambda action: action.goes_first == "bit")
        for bit in lane.actions.bits.values():
            may_conflict |= _changes(lane, bit)
        first = np.where(may_conflict, NEVER, first)
    return Rows(
        action=lane.numbers,
        value=np.clip(lane.values, VALUE_MIN, VALUE_MAX),
        after=first,
        raises=np.where(others, LANE_NUMBER[OTHER[lane.side]], 0),
        comes_after=np.zeros_like(first) if mine.comes_after is None else mine.comes_after,
        rank=np.zeros_like(first) if mine.ranks is None else mine.ranks,
    )


def _goes_first(
    sender: Columns, receiver: Columns, ring_bytes: int, known: AtStart
) -> dict[Side, Ints]:
    looks = None
    if known.ring_bytes is not None:
        # Positions count from the receiver's index at the start. The receiver sees `have` bytes
        # beyond its own index, which is the sender's; the sender sees `free` bytes, so that the
        # receiver's index is one ring less those behind its own.
        looks = {
            "s": _Looks(sender, known.ring_bytes, known.ring_bytes - ring_bytes),
            "r": _Looks(receiver, 0, 0),
        }
    found: dict[Side, Ints] = {}
    for lane, other in ((sender, receiver), (receiver, sender)):
        after = np.full(len(lane), NEVER, np.int64)
        after[lane.where(lambda action: action.goes_first in ("always", "pinned"))] = 0
        _raises(lane, other, after)
        _closes(lane, other, after)
        channel = lane.actions.channel
        if channel and known.rings:
            order_moves(lane, other, channel, known.rings, after)
            order_bytes(lane, other, channel, after, known.bytes_of(channel))
        for name, bit in lane.actions.bits.items():
            _changes_of_a_bit(lane, other, bit, known.bits.get(name), after)
        if looks is not None:
            moves = lane.named((lane.actions.sides[lane.side].moves,))
            after[moves] = looks[other.side].done_when_seen(looks[lane.side].own[moves])
        found[lane.side] = after
    return found


class _Looks:
    """A lane's own index, counted from a common start, and its looks at the other one."""

    def __init__(self, lane: Columns, first: int, seen_from: int) -> None:
        self.own = first + lane.own()
        self._places, shown = lane.reads()
        # From each look on, the lowest that is still to be shown.
        self._lowest = np.minimum.accumulate((shown + seen_from)[::-1])[::-1]

    def done_when_seen(self, positions: Ints) -> Ints:
        """Steps after which no look shows an index below each of `positions`."""
        looks = np.searchsorted(self._lowest, positions, side="left")
        return _done(self._places)[looks]


def _done(places: Ints) -> Ints:
    """For each n: steps that are done when the first n of `places` are."""
    return np.concatenate(([0], places + 1))


def _done_after(which: Flags) -> int:
    """Steps after which none of a kind is left."""
    return int(_done(np.flatnonzero(which))[-1])


def _raises_the_others(lane: Columns) -> Flags:
    ports = (lane.actions.sides[OTHER[lane.side]].port, "peer")
    return lane.where(lambda action: action.goes_first == "raise" and action.raises in ports)


def _raises(lane: Columns, other: Columns, after: Ints) -> None:
    """Events: an own one any time, one on the other's port when its owner raises none any more."""
    sides = lane.actions.sides
    own, others = sides[lane.side].port, sides[other.side].port
    after[lane.where(lambda action: action.goes_first == "raise" and action.raises == own)] = 0
    owners = other.where(lambda action: action.raises in (others, "own"))
    after[_raises_the_others(lane)] = _done_after(owners)


def _closes(lane: Columns, other: Columns, after: Ints) -> None:
    """What else is seen than an index is a live byte, and its old value is 1."""
    channel = lane.actions.channel
    moves = (channel.puts, channel.takes) if channel else (lane.actions.sides[lane.side].moves,)
    for action in lane.actions.actions.values():
        if action.seen_by and action.name not in moves:
            # 2 is the byte of a client that has not connected yet.
            seen_open = other.named(action.seen_by) & (other.values != 0)
            after[lane.numbers == action.number] = _done_after(seen_open)


def _accesses(lane: Columns, bit: Bit) -> tuple[Flags, int]:
    """Steps that set the bit or that clear it, and what those that change it have found."""
    sets = lane.named(bit.set_by)
    return (sets, 0) if sets.any() else (lane.named(bit.cleared_by), 1)


def _changes(lane: Columns, bit: Bit) -> Flags:
    accesses, changing = _accesses(lane, bit)
    changes: Flags = accesses & (lane.values == changing)
    return changes


def _changes_of_a_bit(
    lane: Columns, other: Columns, bit: Bit, at_start: int | None, after: Ints
) -> None:
    """Order of one lane's accesses to a notify bit.

    Those that set the bit (they found 0) and those that clear it (they found 1) take turns, so
    their number tells how many of the other lane's have been done. Of the others, which leave the
    bit as it is, those before the other lane's next change found it as this one does, and come
    before this one.
    """
    accesses, changing = _accesses(lane, bit)
    after[accesses] = 0
    mine = accesses & (lane.values == changing)
    if at_start is None or (at_start and (_blind(lane, bit) or _blind(other, bit))):
        after[mine] = NEVER
        return
    before = np.arange(np.count_nonzero(mine)) + (at_start if changing == 0 else 1 - at_start)
    theirs = bit.cleared_by if changing == 0 else bit.set_by
    done = _done_between_changes(other, theirs, 1 - changing)
    after[mine] = done[np.minimum(before, len(done) - 1)]


def _blind(lane: Columns, bit: Bit) -> bool:
    """Of a store without a look at the bit nobody knows whether it changed it."""
    return bool(lane.where(lambda action: action.name in bit.set_by and not action.shows).any())


def _done_between_changes(lane: Columns, accesses: frozenset[str], changing: int) -> Ints:
    """For each number n: steps after which none of `accesses` is left before the change n+1."""
    places = np.flatnonzero(lane.named(accesses))
    changes = np.flatnonzero(lane.values[places] == changing)
    done: Ints = _done(places)[np.append(changes, len(places))]
    return done
