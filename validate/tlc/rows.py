"""Lanes as rows of numbers for TLC, with how soon each step may go first.

TLC would try the two lanes' steps in every order. Many orders lead to the same state: then one of
them is enough, and which one is decided here as far as the lanes alone tell (`goes_first` in the
action map says why that is right). A row's `after` is the number of the other lane's steps that
have to be done before the step may go first, alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.validate.lanes import Lane, Lanes, Step
from vchan_testbed.validate.tlc.actions import SIDES, Action, ActionMap, Bit, Side
from vchan_testbed.validate.tlc.indices import Indices, indices_of

NEVER = 2**31 - 1
VALUE_MAX = 2**31 - 1
"""TLC's integers have 32 bits. A larger size argument asks for no more than this one does."""

LANE_NUMBER: dict[Side, int] = {"s": 1, "r": 2}


@dataclass(frozen=True, slots=True)
class AtStart:
    """What is the same in all states from which the lanes are followed."""

    ring_bytes: int | None
    """What the ring holds; None if the states differ."""
    bits: Mapping[str, int]
    """The notify bits in which the states agree."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step: the action's number, the value, and when it may go first."""

    action: int
    value: int
    after: int
    raises: int
    """The lane whose port must have room before it may go first, or 0."""


def write_rows(path: Path, rows: dict[Side, list[Row]]) -> None:
    """The CSV file that TLC's Java side reads."""
    with path.open("w") as file:
        file.write("lane,action,value,after,raises\n")
        for side in SIDES:
            lane = LANE_NUMBER[side]
            file.writelines(
                f"{lane},{row.action},{row.value},{row.after},{row.raises}\n" for row in rows[side]
            )


def rows_of(
    lanes: Lanes, actions: ActionMap, ring_bytes: int, known: AtStart
) -> dict[Side, list[Row]]:
    """Rows of both lanes. Raises TestbedError for a step that its lane cannot hold."""
    sender = _SideLane("s", lanes.sender, actions)
    receiver = _SideLane("r", lanes.receiver, actions)
    if known.ring_bytes is not None:
        # Positions count from the receiver's index at the start. The receiver sees `have` bytes
        # beyond its own index, which is the sender's; the sender sees `free` bytes, so that the
        # receiver's index is one ring less those behind its own.
        sender.count_positions(first=known.ring_bytes, seen_beyond=-ring_bytes)
        receiver.count_positions(first=0, seen_beyond=0)
    return {
        "s": _Order(sender, receiver, actions, known).rows(),
        "r": _Order(receiver, sender, actions, known).rows(),
    }


class _SideLane:
    """A lane with what the other lane's order needs to know of it."""

    def __init__(self, side: Side, lane: Lane, actions: ActionMap) -> None:
        self.side = side
        self.spec = actions.sides[side]
        self.unlogged = lane.unlogged
        self.steps = [(_known(step, side, actions), step.value) for step in lane.steps]
        self.indices: Indices | None = None
        self._lowest_from: list[int] = []

    def count_positions(self, first: int, seen_beyond: int) -> None:
        """Follow the indices; without it no step that moves one goes first."""
        self.indices = indices_of(self.steps, self.spec, first=first, seen_beyond=seen_beyond)
        shown = [index for _, index in reversed(self.indices.reads)]
        self._lowest_from = list(accumulate(shown, min))[::-1]

    def done_when_seen(self, position: int) -> int:
        """Steps after which no read of the other side's index shows one below `position`."""
        assert self.indices is not None
        reads = bisect_left(self._lowest_from, position)
        return self.indices.reads[reads - 1][0] + 1 if reads else 0

    def done_after(self, which: Callable[[Action, int], bool]) -> int:
        """Steps after which none of a kind is left."""
        return max((at + 1 for at, step in enumerate(self.steps) if which(*step)), default=0)

    def done_between_changes(self, accesses: frozenset[str], changing: int) -> list[int]:
        """For each number n: steps after which none of `accesses` is left before the change n+1.

        An access changes the bit when the value that it found is `changing`.
        """
        done, last = [], 0
        for at, (action, value) in enumerate(self.steps):
            if action.name in accesses:
                if value == changing:
                    done.append(last)
                last = at + 1
        return [*done, last]


def _known(step: Step, side: Side, actions: ActionMap) -> Action:
    action = actions.actions.get(step.action)
    if action is None or action.hidden or side not in action.by:
        raise TestbedError(
            f"Record {step.record} was mapped to {step.action!r}, which the lane of side "
            f"{side!r} cannot hold.",
            next_step=f"Correct the mapping of records or the action map of {actions.module}.",
        )
    return action


class _Order:
    """How soon each step of a lane may go first, given the other lane."""

    def __init__(
        self, lane: _SideLane, other: _SideLane, actions: ActionMap, known: AtStart
    ) -> None:
        self._lane, self._other = lane, other
        self._raised_by_owner = other.done_after(lambda action, _: action.raises == other.spec.port)
        self._bits = {
            name: _BitOrder(lane, other, bit, known.bits.get(name))
            for name, bit in actions.bits.items()
        }

    def rows(self) -> list[Row]:
        found = []
        for at, (action, value) in enumerate(self._lane.steps):
            after, room_in = self._after(at, action, value)
            found.append(Row(action.number, min(value, VALUE_MAX), after, room_in))
        return found

    def _after(self, at: int, action: Action, value: int) -> tuple[int, int]:
        if action.goes_first in ("always", "pinned"):
            return 0, 0
        if action.goes_first == "raise" and action.raises == self._lane.spec.port:
            return 0, 0
        if action.goes_first == "bit":
            return self._bits[action.bit].after(value), 0
        if self._other.unlogged or action.goes_first == "never":
            # An access without a record may still be one that has to come before this step.
            return NEVER, 0
        if action.goes_first == "raise":
            return self._raised_by_owner, LANE_NUMBER[self._other.side]
        return self._after_seen(at, action), 0

    def _after_seen(self, at: int, action: Action) -> int:
        lane, other = self._lane, self._other
        if action.name == lane.spec.moves:
            return NEVER if lane.indices is None else other.done_when_seen(lane.indices.own[at])
        # What else is seen is a live byte, and its old value is 1.
        return other.done_after(lambda read, value: read.name in action.seen_by and value == 1)


class _BitOrder:
    """Order of one lane's accesses to a notify bit, asked once for each of them in turn.

    Those that set the bit (they found 0) and those that clear it (they found 1) take turns, so
    their number tells how many of the other lane's have been done. Of the others, which leave the
    bit as it is, those before the other lane's next change found it as this one does, and come
    before this one.
    """

    def __init__(self, lane: _SideLane, other: _SideLane, bit: Bit, at_start: int | None) -> None:
        sets = any(action.name in bit.set_by for action, _ in lane.steps)
        self._changing = 0 if sets else 1
        accesses = bit.cleared_by if sets else bit.set_by
        self._done = other.done_between_changes(accesses, 1 - self._changing)
        self._changes = 0
        # Of a store without a look at the bit nobody knows whether it changed it.
        blind = at_start != 0 and any(
            action.name in bit.set_by and not action.shows
            for side in (lane, other)
            for action, _ in side.steps
        )
        self._unknown = at_start is None or blind or other.unlogged
        self._changes_before = (at_start or 0) if sets else -(at_start or 0) + 1

    def after(self, value: int) -> int:
        """The next access, which found the bit as `value`."""
        if value != self._changing:
            return 0
        before = self._changes + self._changes_before
        self._changes += 1
        return NEVER if self._unknown else self._done[min(before, len(self._done) - 1)]
