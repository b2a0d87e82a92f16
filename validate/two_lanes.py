"""Two lanes, ready to be followed through a spec: whole, or taken to pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.endings import Death, Ending
from vchan_testbed.validate.lanes import Lane, Lanes, SpecParams
from vchan_testbed.validate.merge import LaneSteps, Problem
from vchan_testbed.validate.table import Side
from vchan_testbed.validate.tlc.columns import Ints
from vchan_testbed.validate.tlc.rows import counted_from

Part: TypeAlias = Literal["left", "right", "both"]
"""What the lanes are of: one direction, or the whole channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLanes(ABC):
    """What the judge gets: the lanes s and r, and what is known of them.

    Of one direction s is the sender and r the receiver; of a whole channel s is the server and r
    its remote end, the client.
    """

    params: SpecParams
    sender: LaneSteps
    """The lane s."""
    receiver: LaneSteps
    """The lane r."""
    endings: Mapping[Side, Ending]
    problems: tuple[Problem, ...]
    needs: tuple[str, ...]
    goes_first: Mapping[Side, Ints] = field(default_factory=dict)
    """What `Lane.goes_first` says of the whole lanes."""
    comes_after: Mapping[Side, Ints] = field(default_factory=dict)
    """What `Lane.comes_after` says of the whole lanes."""
    searched: bool = False
    """What `Lanes.searched` says."""
    overlap: int = 0
    """Calls of one side that saw the other side move while they ran."""

    @property
    @abstractmethod
    def direction(self) -> Part:
        """What the lanes are of."""

    @abstractmethod
    def role(self, side: Side) -> Role:
        """Whose lane it is."""

    def death_of(self, side: Side) -> Death:
        """How a side died behind its lane."""
        return self.endings[side].death

    def lane(self, side: Side) -> LaneSteps:
        """The lane s or r."""
        return self.sender if side == "s" else self.receiver

    def whole(self) -> Lanes:
        """The lanes, with how an end died."""
        ends = (len(self.sender), len(self.receiver))
        sender, receiver = Lane(self.sender), Lane(self.receiver)
        return Lanes(
            self._ending("s", sender, ends[0]),
            self._ending("r", receiver, ends[1]),
            searched=self.searched,
        )

    def piece(
        self, first: tuple[int, int], last: tuple[int, int], stop: Side | None = None
    ) -> Lanes:
        """The lanes between two places, with what only the whole tells of their order.

        How an end died belongs to the last piece alone.
        """
        sender, receiver = self._part("s", first, last), self._part("r", first, last)
        if stop:
            return Lanes(sender, receiver, stop=stop, searched=self.searched)
        return Lanes(
            self._ending("s", sender, last[0]),
            self._ending("r", receiver, last[1]),
            searched=self.searched,
        )

    def _part(self, side: Side, first: tuple[int, int], last: tuple[int, int]) -> Lane:
        mine, other = (0, 1) if side == "s" else (1, 0)
        part = slice(first[mine], last[mine])
        told: list[Ints | None] = [
            counted_from(column[side][part], first[other]) if side in column else None
            for column in (self.goes_first, self.comes_after)
        ]
        return Lane(self.lane(side)[part], goes_first=told[0], comes_after=told[1])

    def _ending(self, side: Side, lane: Lane, last: int) -> Lane:
        if last < len(self.lane(side)):
            return lane
        ending, death = self.endings[side], self.death_of(side)
        left = ending.live_left if death == "domain" else None
        return replace(lane, unlogged=ending.unlogged, death=death, live_left=left)
