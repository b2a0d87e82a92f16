"""What a tracer is to inject, as plain numbers: the core's rules, the table of steps for them, and
which steps are to be taken when it is their turn.

Made from the spec's tables where the experiment is read (`guests/fault_rules.py`), and carried to
the agent as JSON: a guest has neither the tables nor what reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vchan_testbed.errors import InputError

FAULTS_MAX = 16
"""Faults of one endpoint. As many more rules may wait for what the peer waits for."""
RULES_MAX = 64
ACTIONS_MAX = 64
ROWS_MAX = 1024
TURNS_MAX = 4096
"""Steps of one endpoint in a schedule."""
NO_CELL = 255
WAITS_FOR_TIME, WAITS_FOR_RELEASE, WAITS_FOR_CELL = range(3)

StepRow = tuple[int, int, int, int, int, int, list[int], list[int], list[int]]
"""`struct vt_step_row` (core/tracer.h)."""
Rule = tuple[int, int, int, int, int, int, int, int, int, int]
"""`struct vt_rule` (core/tracer.h)."""
Turn = tuple[int, int]
"""`struct vt_turn` (core/tracer.h)."""
NO_SCHEDULE, FROM_FIRST_CALL, FROM_INIT = -1, 0, 1


@dataclass(frozen=True)
class FaultPlan:
    """The faults of one endpoint."""

    rows: tuple[StepRow, ...] = ()
    rules: tuple[Rule, ...] = ()
    """First the faults in their order, then what the tracer has only to tell of."""
    faults: int = 0
    """How many of the rules are faults."""
    turns: tuple[Turn, ...] = ()
    """This endpoint's steps in the schedule: number among those of both ends, and action."""
    scheduled: int = NO_SCHEDULE
    """From where on a step waits for its turn."""

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> FaultPlan:
        """The inverse of `to_plain`. Raises InputError for what is none."""
        try:
            plan = cls(
                tuple(_row(row) for row in data["rows"]),
                tuple(_rule(rule) for rule in data["rules"]),
                int(data["faults"]),
                tuple((int(number), int(action)) for number, action in data["turns"]),
                int(data["scheduled"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _refusal(f"it is none ({error!r})") from error
        if len(plan.rows) > ROWS_MAX or len(plan.rules) > RULES_MAX:
            raise _refusal(f"it has {len(plan.rows)} rows and {len(plan.rules)} rules")
        if len(plan.turns) > TURNS_MAX:
            raise _refusal(f"it has {len(plan.turns)} turns")
        if not 0 <= plan.faults <= min(len(plan.rules), FAULTS_MAX):
            raise _refusal(f"{plan.faults} of its {len(plan.rules)} rules are faults")
        return plan


def _row(data: Any) -> StepRow:
    after, calls, kind, offset, action, decides, lasts, dues, places = data
    return (after, calls, kind, offset, action, decides, [*lasts], [*dues], [*places])


def _rule(data: Any) -> Rule:
    limit, kind, nth, behind_nth, value, action, behind, is_mask, waits, until = data
    return (limit, kind, nth, behind_nth, value, action, behind, is_mask, waits, until)


def _refusal(why: str) -> InputError:
    return InputError(
        f"The tracer cannot inject this plan of faults: {why}.",
        next_step="Make it with vchan_testbed.guests.fault_rules, of the same version.",
    )
