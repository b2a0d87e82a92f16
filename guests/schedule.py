"""A schedule: which end takes which action of the spec, one after the other, and who is to go next.

An endpoint's tracer holds each of its steps until it is granted. A stretch of steps of one end is
granted at once; the other end's turn comes when the last of them is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vchan_testbed.guests.fault_rules import Injection, Refusal, Setting, not_taken
from vchan_testbed.guests.fault_steps import SIDES, Steps, load_steps
from vchan_testbed.tracer.faults import (
    FROM_FIRST_CALL,
    FROM_INIT,
    FaultPlan,
)
from vchan_testbed.tracer.layout import Call

Step = tuple[str, str]
"""Side and action."""
INITS = (Call.SERVER_INIT, Call.CLIENT_INIT)


def step_refusal(step: Step, setting: Setting, steps: Steps | None = None) -> Refusal | None:
    """Why an end cannot be held at this step; None if it can."""
    steps = steps or load_steps()
    side, action = step
    wrong = not_taken(side, side, action, setting, steps)
    if wrong and action in steps.owners and action not in steps.numbers:
        found = f"no record shows {action}, so nobody can be held at it"
        return Refusal(side, found, f"Leave it out. {wrong.expected}")
    return wrong


def begins_in_init(schedule: Sequence[Step], side: str) -> bool:
    """Whether the schedule has steps of this end's init."""
    own = load_steps().taken_in(side, INITS, blocking=True)
    return any(one == side and action in own for one, action in schedule)


def with_schedule(injection: Injection, schedule: Sequence[Step]) -> Injection:
    """The same, and each end's part of the schedule."""
    if not schedule:
        return injection
    steps = load_steps()
    plans = {side: _with_turns(injection.plans[side], schedule, side, steps) for side in SIDES}
    return replace(injection, plans=plans)


def _with_turns(plan: FaultPlan, schedule: Sequence[Step], side: str, steps: Steps) -> FaultPlan:
    return replace(
        plan,
        rows=steps.rows_for(side),
        turns=tuple(
            (number, steps.numbers[action])
            for number, (one, action) in enumerate(schedule, 1)
            if one == side
        ),
        scheduled=FROM_INIT if begins_in_init(schedule, side) else FROM_FIRST_CALL,
    )


@dataclass(frozen=True)
class Unfollowed:
    """Where a schedule could not be followed."""

    step: int
    """Counted from 1."""
    side: str
    expected: str
    instead: str
    """In words: what the end did."""
    is_certain: bool = True
    """Whether it is known that the step would not have come, and not only that it did not."""


class Conductor:
    """Who is to go next, from what both ends tell; knows nothing of how they are told."""

    def __init__(self, schedule: Sequence[Step]) -> None:
        self._schedule = tuple(schedule)
        self._names = {number: name for name, number in load_steps().numbers.items()}
        self._taken = 0
        self._granted = 0
        self.unfollowed: Unfollowed | None = None

    @property
    def is_over(self) -> bool:
        """Whether every step has been taken."""
        return self._taken == len(self._schedule)

    @property
    def is_due(self) -> str:
        """The side whose step is the next one; empty when there is none, or will be none."""
        if self.is_over or self.unfollowed:
            return ""
        return self._schedule[self._taken][0]

    def granted(self) -> tuple[str, int] | None:
        """The next stretch, if it has not been asked for yet: whose, and up to which step."""
        side = self.is_due
        if not side or self._granted > self._taken:
            return None
        last = self._taken
        while last < len(self._schedule) and self._schedule[last][0] == side:
            last += 1
        self._granted = last
        return side, last

    def took(self, number: int) -> None:
        """A step is over, and with it all before."""
        self._taken = max(self._taken, number)

    def came_to(self, side: str, action: int) -> None:
        """An end has come to another action than its next one."""
        own = [n for n, (one, _) in enumerate(self._schedule) if one == side and n >= self._taken]
        if own and not self.unfollowed:
            self._give_up(own[0], f"it came to {self._names[action]}")

    def ended(self, side: str, how: str) -> None:
        """An end takes no step any more; `how` in words."""
        if side == self.is_due:
            self._give_up(self._taken, how)

    def gave_up(self, why: str) -> None:
        """Time is up."""
        if self.is_due:
            self._give_up(self._taken, why, is_certain=False)

    def facts(self) -> dict[str, Any] | None:
        """For `run.json`; None without a schedule."""
        if not self._schedule:
            return None
        return {
            "steps": len(self._schedule),
            "taken": self._taken,
            "unfollowed": asdict(self.unfollowed) if self.unfollowed else None,
        }

    def _give_up(self, place: int, instead: str, *, is_certain: bool = True) -> None:
        side, action = self._schedule[place]
        self.unfollowed = Unfollowed(place + 1, side, action, instead, is_certain)
