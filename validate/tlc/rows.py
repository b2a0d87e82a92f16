"""Lanes as rows of numbers for TLC, with how soon each step may go first.

TLC would try the two lanes' steps in every order. Many orders lead to the same state: then one of
them is enough, and which one is decided here as far as the lanes alone tell (`goes_first` in the
action map says why that is right). A row's `after` is the number of the other lane's steps that
have to be done before the step may go first, alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.validate.lanes import Lane, Lanes, Step
from vchan_testbed.validate.tlc.actions import SIDES, Action, ActionMap, Side
from vchan_testbed.validate.tlc.indices import Indices, indices_of

NEVER = 2**31 - 1
VALUE_MAX = 2**31 - 1
"""TLC's integers have 32 bits. A larger size argument asks for no more than this one does."""

LANE_NUMBER: dict[Side, int] = {"s": 1, "r": 2}


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
    lanes: Lanes, actions: ActionMap, ring_bytes: int, bytes_at_start: int | None
) -> dict[Side, list[Row]]:
    """Rows of both lanes.

    `bytes_at_start` is what the ring holds at the start, None when that is not the same in every
    state from which the lanes are followed. Raises TestbedError for a step that its lane cannot
    hold.
    """
    sender = _SideLane("s", lanes.sender, actions)
    receiver = _SideLane("r", lanes.receiver, actions)
    if bytes_at_start is not None:
        # Positions count from the receiver's index at the start. The receiver sees `have` bytes
        # beyond its own index, which is the sender's; the sender sees `free` bytes, so that the
        # receiver's index is one ring less those behind its own.
        sender.count_positions(first=bytes_at_start, seen_beyond=-ring_bytes)
        receiver.count_positions(first=0, seen_beyond=0)
    return {"s": _rows(sender, receiver), "r": _rows(receiver, sender)}


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


def _known(step: Step, side: Side, actions: ActionMap) -> Action:
    action = actions.actions.get(step.action)
    if action is None or action.hidden or side not in action.by:
        raise TestbedError(
            f"Record {step.record} was mapped to {step.action!r}, which the lane of side "
            f"{side!r} cannot hold.",
            next_step=f"Correct the mapping of records or the action map of {actions.module}.",
        )
    return action


def _rows(lane: _SideLane, other: _SideLane) -> list[Row]:
    still_raised = other.done_after(lambda action, _: action.raises == other.spec.port)
    rows = []
    for at, (action, value) in enumerate(lane.steps):
        port = action.raises if action.goes_first == "raise" else ""
        if other.unlogged and (action.goes_first == "seen by" or port == other.spec.port):
            # An access without a record may still be one that has to come before this step.
            after = NEVER
        elif action.goes_first == "seen by":
            after = _after_seen(lane, at, action, other)
        elif port == other.spec.port:
            after = still_raised
        else:
            after = (
                0
                if action.goes_first in ("always", "pinned", f"pinned {value}", "raise")
                else NEVER
            )
        room_in = LANE_NUMBER[other.side] if port == other.spec.port else 0
        rows.append(Row(action.number, min(value, VALUE_MAX), after, room_in))
    return rows


def _after_seen(lane: _SideLane, at: int, action: Action, other: _SideLane) -> int:
    if action.name == lane.spec.moves:
        return NEVER if lane.indices is None else other.done_when_seen(lane.indices.own[at])
    # What else is seen is a live byte, and its old value is 1.
    return other.done_after(lambda read, value: read.name in action.seen_by and value == 1)
