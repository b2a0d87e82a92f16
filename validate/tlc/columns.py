"""A lane in columns of numbers: what TLC gets of its steps, and what they tell by themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.errors import TestbedError
from vchan_testbed.validate.lanes import Step
from vchan_testbed.validate.merge import LaneSteps
from vchan_testbed.validate.tlc.actions import Action, ActionMap, Side

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The steps of one lane: for each its action's number and its value."""

    side: Side
    actions: ActionMap
    numbers: Ints
    values: Ints

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, wanted: Callable[[Action], bool]) -> Flags:
        """The steps whose action is one of the wanted."""
        numbers = [action.number for action in self.actions.actions.values()]
        # They are few: a table answers at once what np.isin would sort them for.
        chosen = np.zeros(max(numbers, default=0) + 1, np.bool_)
        for number, action in zip(numbers, self.actions.actions.values(), strict=True):
            chosen[number] = wanted(action)
        return chosen[self.numbers]

    def named(self, names: Collection[str]) -> Flags:
        """The steps with one of these actions."""
        return self.where(lambda action: action.name in names)

    def counts(self, done: int) -> dict[str, int]:
        """How often each action is among the first `done` steps."""
        name_of = {action.number: name for name, action in self.actions.actions.items()}
        counts = np.bincount(self.numbers[:done]).tolist()
        return {name_of[number]: count for number, count in enumerate(counts) if count}

    def own(self) -> Ints:
        """The side's own index after each step, from 0 at the start."""
        moves = self.named((self.actions.sides[self.side].moves,))
        return np.cumsum(np.where(moves, self.values, 0))

    def reads(self) -> tuple[Ints, Ints]:
        """Steps that read the other side's index, and how far it stands beyond 0 of the own one.

        For the sender, which sees what is free, that is one ring too far.
        """
        places = np.flatnonzero(self.named(self.actions.sides[self.side].reads))
        return places, self.own()[places] + self.values[places]


def columns_of(steps: Sequence[Step], side: Side, actions: ActionMap) -> Columns:
    """The steps in columns. Raises TestbedError for a step that the side's lane cannot hold."""
    if isinstance(steps, LaneSteps):
        names, codes, values = steps.names, steps.codes.astype(np.int64), steps.values
    else:
        names = tuple(sorted({step.action for step in steps}))
        code_of = {name: code for code, name in enumerate(names)}
        codes = np.array([code_of[step.action] for step in steps], np.int64)
        values = np.array([step.value for step in steps], np.int64)
    number_of = np.zeros(len(names), np.int64)
    for code in np.unique(codes).tolist():
        action = actions.actions.get(names[code])
        if action is None or action.hidden or side not in action.by:
            raise _cannot_hold(steps[int(np.argmax(codes == code))], side, actions)
        number_of[code] = action.number
    return Columns(side, actions, number_of[codes], values)


def _cannot_hold(step: Step, side: Side, actions: ActionMap) -> TestbedError:
    return TestbedError(
        f"Record {step.record} was mapped to {step.action!r}, which the lane of side "
        f"{side!r} cannot hold.",
        next_step=f"Correct the mapping of records or the action map of {actions.module}.",
    )
