"""What a lane alone tells of the two indices of its ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vchan_testbed.validate.lanes import Lane, Lanes
from vchan_testbed.validate.tlc.actions import Action, ActionMap, SideOfSpec


@dataclass(frozen=True, slots=True)
class Indices:
    """One side's own index after each step, and its reads of the other side's."""

    own: tuple[int, ...]
    reads: tuple[tuple[int, int], ...]
    """Step number and the index that it shows."""


def indices_of(
    steps: Sequence[tuple[Action, int]], spec: SideOfSpec, *, first: int, seen_beyond: int
) -> Indices:
    """Follow the indices along `steps`, pairs of action and value.

    `first` is the own index at the start. A read shows bytes beyond the own index, plus
    `seen_beyond`: 0 for the receiver, which sees what is in the ring; minus the ring's size for
    the sender, which sees what is free.
    """
    own, reads, index = [], [], first
    for at, (action, value) in enumerate(steps):
        if action.name == spec.moves:
            index += value
        elif action.name in spec.reads:
            reads.append((at, index + value + seen_beyond))
        own.append(index)
    return Indices(tuple(own), tuple(reads))


def overlap(lanes: Lanes, actions: ActionMap) -> int:
    """Calls of one side that saw the other side move its index while they ran."""
    return _calls_that_saw_a_move(lanes.sender, actions, actions.sides["s"]) + (
        _calls_that_saw_a_move(lanes.receiver, actions, actions.sides["r"])
    )


def _calls_that_saw_a_move(lane: Lane, actions: ActionMap, spec: SideOfSpec) -> int:
    steps = [(actions.actions[step.action], step.value) for step in lane.steps]
    shown = dict(indices_of(steps, spec, first=0, seen_beyond=0).reads)
    calls, seen, moved = 0, None, False
    for at, (action, _) in enumerate(steps):
        if action.chooses:
            calls += moved
            seen, moved = None, False
        elif at in shown:
            moved = moved or (seen is not None and shown[at] != seen)
            seen = shown[at]
    return calls + moved
