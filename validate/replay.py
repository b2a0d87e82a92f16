"""Replay: follow one direction through the spec, piece by piece, and say where it cannot go on.

All deviations are forbidden at first. A piece that is rejected is followed again with its
neighbours, because a cut can be at fault; then with the smallest sets of known deviations. What
nothing explains is REJECTED. Time stamps play no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations

from vchan_testbed.progress import Progress
from vchan_testbed.validate.cuts import Cut
from vchan_testbed.validate.direction import DirectionLanes
from vchan_testbed.validate.lanes import EndState, FollowResult, Lanes, Position, SpecParams, State

REACHES = (1, 3)
"""Neighbours on each side with which a rejected piece is followed again."""

Follow = Callable[[Lanes, SpecParams, Sequence[State] | None, Progress], FollowResult]
"""The judge: TLC, or what stands in for it."""


@dataclass(frozen=True, slots=True)
class Use:
    """Deviations that a piece needed, and the position at which it could not go on without."""

    switches: tuple[str, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Replayed:
    """What following one direction gave."""

    accepted: bool
    undecided: str
    ends: tuple[EndState, ...]
    frontier: tuple[Position, ...]
    """Maximal positions, counted from the lanes' starts."""
    uses: tuple[Use, ...]
    pieces: int
    coverage: Mapping[str, int]
    overlap: int
    states: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece that was accepted."""

    result: FollowResult
    use: Use | None


@dataclass
class Replay:
    """One direction, its cuts, and how far it has been followed."""

    lanes: DirectionLanes
    cuts: list[Cut]
    judge: Follow
    progress: Progress
    switches: tuple[str, ...] = ("L1",)
    _pieces: list[_Piece] = field(default_factory=list)
    _states: int = 0

    def run(self) -> Replayed:
        """Follow every piece."""
        while len(self._pieces) < len(self.cuts) - 1:
            at = len(self._pieces)
            result = self._follow(at, at + 1)
            if not (result.accepted or result.undecided):
                result = self._again(at, result)
            if not result.accepted:
                return self._stopped(result)
        return self._result(self._pieces[-1].result.ends if self._pieces else ())

    def widened(self) -> tuple[EndState, ...]:
        """End states of the last piece followed together with those before it.

        Cuts can hide an end state in which two events became one; before something bad is said
        of the end it is looked for.
        """
        last = len(self._pieces)
        if last < 2 or any(piece.use for piece in self._pieces[-1 - REACHES[-1] :]):
            return self._pieces[-1].result.ends if self._pieces else ()
        result = self._follow(max(0, last - 1 - REACHES[-1]), last, keep=False)
        both = dict.fromkeys((*self._pieces[-1].result.ends, *result.ends))
        return tuple(both)

    def _again(self, at: int, result: FollowResult) -> FollowResult:
        """What was rejected, followed with its neighbours and then with deviations allowed."""
        first, last = at, at + 1
        for reach in REACHES:
            wider = (max(0, at - reach), min(len(self.cuts) - 1, at + 1 + reach))
            if wider == (first, last):
                break
            first, last = wider
            result = self._follow(first, last)
            if result.accepted or result.undecided:
                return result
        position = _counted(result.frontier[0], self.cuts[first])
        for switches in _sets(self.switches):
            allowed = self._follow(first, last, Use(switches, position))
            if allowed.accepted or allowed.undecided:
                return allowed
        return replace(
            result, frontier=tuple(_counted(one, self.cuts[first]) for one in result.frontier)
        )

    def _follow(
        self, first: int, last: int, use: Use | None = None, *, keep: bool = True
    ) -> FollowResult:
        """Follow from one cut to another; what is accepted takes the place of what was there."""
        params = self.lanes.params
        if use:
            params = replace(params, deviations=frozenset(use.switches))
        starts = None
        if first:
            starts = tuple(end.state for end in self._pieces[first - 1].result.ends)
        lanes = self.lanes.piece(self.cuts[first], self.cuts[last])
        with self._shown(last):
            result = self.judge(lanes, params, starts, self.progress)
        self._states += result.states
        if result.accepted and keep:
            self.cuts = self.cuts[: first + 1] + self.cuts[last:]
            self._pieces = [*self._pieces[:first], _Piece(result, use)]
        return result

    def _shown(self, piece: int) -> AbstractContextManager[None]:
        count = len(self.cuts) - 1
        if count == 1:
            return nullcontext()
        return self.progress.step(f"{self.lanes.direction}, piece {piece} of {count}")

    def _stopped(self, result: FollowResult) -> Replayed:
        return replace(
            self._result(()),
            accepted=False,
            undecided=result.undecided,
            frontier=result.frontier,
            coverage=self._coverage(result),
        )

    def _result(self, ends: tuple[EndState, ...]) -> Replayed:
        return Replayed(
            accepted=True,
            undecided="",
            ends=ends,
            frontier=(),
            uses=tuple(piece.use for piece in self._pieces if piece.use),
            pieces=len(self.cuts) - 1,
            coverage=self._coverage(),
            overlap=sum(piece.result.overlap for piece in self._pieces),
            states=self._states,
        )

    def _coverage(self, *more: FollowResult) -> dict[str, int]:
        total: Counter[str] = Counter()
        for result in (*(piece.result for piece in self._pieces), *more):
            total.update(result.coverage)
        return dict(total)


def _sets(switches: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Sets of deviations, the smallest first."""
    for size in range(1, len(switches) + 1):
        yield from combinations(switches, size)


def _counted(position: Position, cut: Cut) -> Position:
    return replace(position, sender=position.sender + cut[0], receiver=position.receiver + cut[1])
