"""Bounded progress: how long what was due waited, in numbers. So slow is told from stuck.

Of each action the times that it could be taken and was not; of each byte the time from its write to
its read. All of it is about one behaviour that explains the run, the one nearest to its times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vchan_testbed.validate.place import Place

BINS_A_DECADE = 2
"""Of a distribution: its bins are equally wide on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Longest:
    """The time that is longest for sure, and where it ended.

    Of a record it is known that it was made between two time stamps; so each time has two bounds.
    """

    at_least_ns: int
    at_most_ns: int
    place: Place
    """The record with which it ended; where it never did, the last one of the side that owes it."""
    ended: Literal["taken", "no more possible", "never"]
    """`never`: it could still be taken when the run ended."""


@dataclass(frozen=True, slots=True)
class ActionTimes:
    """How long one action could be taken and was not."""

    action: str
    owner: str
    """Who takes it: library, application or event channel."""
    fair: bool
    """The spec promises that it is taken at last; False: the next call of an application, of which
    it promises nothing."""
    count: int
    """How often it could be taken."""
    not_taken: int
    """Of these, how often that ended without it: something else was done, or the run ended."""
    median_ns: int
    p99_ns: int
    at_most_ns: int
    """None of the times is longer. These three are of the upper bounds."""
    longest: Longest
    histogram: tuple[tuple[int, int], ...]
    """Upper ends of bins in ns, and how many of the times lie in each; empty bins are left out."""


@dataclass(frozen=True, slots=True)
class ByteTimes:
    """From before the store of prod to after the store of cons, by bytes."""

    direction: Literal["left", "right"]
    bytes: int
    """That were written and read."""
    unread_bytes: int
    """Written and not read when the run ended."""
    median_ns: int
    p99_ns: int
    longest: Longest


@dataclass(frozen=True, slots=True)
class Bounded:
    """What was measured of a run."""

    steps: int = 0
    """Steps of both lanes along which it was asked what could be taken, from the first one on."""
    of_steps: int = 0
    """All steps of both lanes."""
    missing: str = ""
    """Why the times of actions are not known; empty if they are."""
    clock_uncertainty_ns: int = 0
    """The two ends' clocks are related by an offset that is known so well."""
    actions: tuple[ActionTimes, ...] = ()
    """The one with the time that is longest for sure first."""
    bytes: tuple[ByteTimes, ...] = ()
    states: int = 0
    """States that TLC visited for it."""
    seconds: float = 0.0

    @property
    def reach(self) -> str:
        """Which part of the run was measured."""
        if self.steps == self.of_steps:
            return "the whole run"
        return f"the first {self.steps:,} of {self.of_steps:,} steps"

    def slowest(self) -> dict[str, ActionTimes]:
        """By owner, the action with the time that is longest for sure; the slowest owner first."""
        found: dict[str, ActionTimes] = {}
        for one in self.actions:
            found.setdefault(one.owner, one)
        return found

    def at_most_ns(self, owner: str) -> int:
        """No action of this owner waited longer."""
        return max((one.at_most_ns for one in self.actions if one.owner == owner), default=0)
