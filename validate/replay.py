"""Replay: follow one direction through the spec, piece by piece, and say where it cannot go on.

All deviations are forbidden at first. A piece that is rejected is followed again with the smallest
sets of known deviations, then together with the pieces before it, where one may have been needed
already. What nothing explains is REJECTED. Time stamps play no part.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Protocol, cast

from vchan_testbed.progress import Progress
from vchan_testbed.validate.cuts import Cut
from vchan_testbed.validate.lanes import EndState, FollowResult, Lanes, Position, SpecParams, Start
from vchan_testbed.validate.table import SIDES
from vchan_testbed.validate.two_lanes import TwoLanes

SPURIOUS_MAX = 8
"""So many wake-ups out of nowhere are looked for in a piece, at most."""
STEPS_BACK = 1000
"""A deviation may have been needed so many steps before the piece that is rejected without it."""


class Follow(Protocol):
    """The judge: TLC, or what stands in for it."""

    def __call__(
        self,
        lanes: Lanes,
        params: SpecParams,
        starts: Sequence[Start] | None,
        progress: Progress,
        *,
        explain: bool = True,
    ) -> FollowResult:
        """Follow a piece. `explain` False: where it gets stuck, if it does, will not be asked."""


@dataclass(frozen=True, slots=True)
class Use:
    """Deviations that a piece needed, and the position at which it could not go on without."""

    switches: tuple[str, ...]
    position: Position
    alternatives: tuple[tuple[str, ...], ...] = ()
    """Other sets of as few deviations that explain it as well."""


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
    """A piece that was followed; its places count from the lanes' starts."""

    number: int
    """Of the cut at its end; the last piece has none, and the number of all cuts."""
    result: FollowResult
    starts: tuple[Start, ...]
    """Where the next piece is taken up."""
    use: Use | None
    cramped: bool
    """A maximal position lies at the end of what the piece had of the other lane."""

    @property
    def rejected(self) -> bool:
        """No behaviour gets to its end."""
        return not (self.result.accepted or self.result.undecided)


@dataclass
class Replay:
    """One direction, its cuts, and how far it has been followed."""

    lanes: TwoLanes
    cuts: Sequence[Cut]
    judge: Follow
    progress: Progress
    switches: tuple[str, ...] = ("L1",)
    may_be_spurious: bool = False
    """The spec has wake-ups that nobody raised, and counts them."""
    starts: tuple[Start, ...] | None = None
    """States in which the lanes are taken up; None: the spec's own."""
    learn: Callable[[TwoLanes, Sequence[Start]], TwoLanes] | None = None
    """What the states behind the first piece tell of the lanes' order."""
    _pieces: list[_Piece] = field(default_factory=list)
    _states: int = 0
    _began: float = field(default_factory=time.monotonic)

    def run(self) -> Replayed:
        """Follow every piece."""
        for number in range(self._count):
            piece = self._follow(self._pieces, number)
            if piece.rejected and piece.cramped:
                piece = self._follow(self._pieces, number, wide=True)
            if piece.rejected and self.may_be_spurious:
                piece = self._woken(piece)
            if piece.rejected:
                piece = self._explained(piece)
            if piece.rejected or piece.result.undecided:
                # Of an undecided one some end states may be known. What comes next, and what is
                # said of progress, needs all of them.
                return self._stopped(piece.result)
            if number == 0 and self.learn and piece.starts:
                self.lanes = self.learn(self.lanes, piece.starts)
        return self._result(self._pieces[-1].result.ends if self._pieces else ())

    @property
    def _count(self) -> int:
        """Pieces; of empty lanes there is none, and nothing is known of their end."""
        return len(self.cuts) + 1 if len(self.lanes.sender) + len(self.lanes.receiver) else 0

    def _woken(self, rejected: _Piece) -> _Piece:
        """What was rejected, followed with as few wake-ups out of nowhere as it takes.

        None is allowed before: where a recorded event explains a wake-up, none is used.
        """
        if not any(_lacks_an_event(at, self.lanes) for at in rejected.result.frontier):
            return rejected
        before = _awakened(self._pieces[-1].starts) if self._pieces else 0
        for count in range(1, SPURIOUS_MAX + 1):
            piece = self._follow(self._pieces, rejected.number, spurious=before + count)
            if not piece.rejected:
                return piece
        return rejected

    def _explained(self, rejected: _Piece) -> _Piece:
        """What was rejected, followed with the smallest sets of deviations that explain it.

        A switch only adds behaviours: what all of them together do not explain, no set does.
        """
        place = rejected.result.frontier[0]
        before = self._pieces
        for kept in dict.fromkeys((len(before), self._some_steps_back())):

            def with_switches(switches: tuple[str, ...], kept: int = kept) -> _Piece:
                self._pieces = before
                return self._follow(before[:kept], rejected.number, Use(switches, place))

            if len(self.switches) > 1 and with_switches(self.switches).rejected:
                continue
            for sets in _by_size(self.switches):
                found = [one for one in map(with_switches, sets) if not one.rejected]
                if found:
                    return self._taken(found, before[:kept])
        self._pieces = before
        return rejected

    def _taken(self, found: Sequence[_Piece], before: Sequence[_Piece]) -> _Piece:
        """The first of several pieces that go on; the others' deviations are told as well."""
        others = tuple(one.use.switches for one in found[1:] if one.use)
        use = replace(found[0].use, alternatives=others) if found[0].use else None
        piece = replace(found[0], use=use)
        self._pieces = [*before, piece] if piece.result.accepted else list(before)
        return piece

    def _some_steps_back(self) -> int:
        """How many pieces lie before the last `STEPS_BACK` steps."""
        here = sum(_least(self._pieces[-1].starts)) if self._pieces else 0
        return sum(sum(_least(piece.starts)) <= here - STEPS_BACK for piece in self._pieces)

    def _follow(
        self,
        before: Sequence[_Piece],
        number: int,
        use: Use | None = None,
        *,
        wide: bool = False,
        spurious: int | None = None,
    ) -> _Piece:
        """Follow from the end of the pieces before to a cut; what is accepted is kept."""
        if spurious is None:
            spurious = _awakened(before[-1].starts) if before else 0
        params = replace(self.lanes.params, spurious_max=spurious)
        if use:
            params = replace(params, deviations=frozenset(use.switches))
        starts = before[-1].starts if before else self.starts
        first = _least(starts)
        cut = self.cuts[number] if number < len(self.cuts) else None
        last = self._last(cut, number, wide=wide)
        lanes = self.lanes.piece(first, last, cut.side if cut else None)
        is_woken = spurious > (_awakened(before[-1].starts) if before else 0)
        if is_woken:
            # The order that values tell counts wake-ups by recorded events alone.
            lanes = _in_any_order(lanes)
        shown = _Shown(self.progress, self._title(number), self._began)
        shown.note(self._records(first))
        explain = use is None and not is_woken
        result = self.judge(lanes, params, _moved(starts, first), shown, explain=explain)
        self._states += result.states
        result = _counted(result, first)
        cramped = any(self._is_cramped(at, last, cut) for at in result.frontier)
        piece = _Piece(number, result, _places(result, last), use, cramped)
        if result.accepted:
            self._pieces = [*before, piece]
        return piece

    def _last(self, cut: Cut | None, number: int, *, wide: bool) -> tuple[int, int]:
        """The places at which the lanes of a piece end.

        No behaviour of the whole needs more of the other lane than the cut's horizon. But one that
        goes wrong can go further there, and how far it comes is to be told.
        """
        ends = (len(self.lanes.sender), len(self.lanes.receiver))
        if cut is None:
            return ends
        reach = ends
        if not wide and number + 1 < len(self.cuts):
            reach = self.cuts[number + 1].places
        if cut.side == "s":
            return cut.steps, max(cut.horizon, reach[1])
        return max(cut.horizon, reach[0]), cut.steps

    def _is_cramped(self, at: Position, last: tuple[int, int], cut: Cut | None) -> bool:
        if cut is None:
            return False
        if cut.side == "s":
            return at.receiver == last[1] < len(self.lanes.receiver)
        return at.sender == last[0] < len(self.lanes.sender)

    def _title(self, number: int) -> str:
        return f"piece {number + 1} of {self._count}"

    def _records(self, first: tuple[int, int]) -> str:
        """Which records of both ends a piece begins with."""
        lanes = (self.lanes.sender, self.lanes.receiver)
        pairs = list(zip(lanes, first, strict=True))
        done = sum(int(lane.rows[at]) for lane, at in pairs if at < len(lane))
        whole = sum(int(lane.rows[-1]) + 1 for lane in lanes if len(lane))
        return f"from record {done:,} of {whole:,}"

    def _stopped(self, result: FollowResult) -> Replayed:
        stopped = self._result((), result)
        return replace(
            stopped, accepted=False, undecided=result.undecided, frontier=result.frontier
        )

    def _result(self, ends: tuple[EndState, ...], *more: FollowResult) -> Replayed:
        results = (*(piece.result for piece in self._pieces), *more)
        return Replayed(
            accepted=True,
            undecided="",
            ends=ends,
            frontier=(),
            uses=tuple(piece.use for piece in self._pieces if piece.use),
            pieces=self._count,
            coverage=self._coverage(results),
            overlap=self.lanes.overlap,
            states=self._states,
        )

    def _coverage(self, results: Sequence[FollowResult]) -> dict[str, int]:
        """Steps of the lanes as far as they were followed, and the hidden ones of each piece."""
        counts: Counter[str] = Counter()
        stopped = results[-1].frontier[:1] if results else ()
        for lane, done in (
            (self.lanes.sender, stopped[0].sender if stopped else None),
            (self.lanes.receiver, stopped[0].receiver if stopped else None),
        ):
            counts.update(lane[:done].counts())
        shown = {*self.lanes.sender.names, *self.lanes.receiver.names}
        for result in results:
            hidden = {name: n for name, n in result.coverage.items() if name not in shown}
            counts.update(hidden)
        return dict(counts)


@dataclass(frozen=True)
class _Shown:
    """A piece's share of the progress."""

    progress: Progress
    title: str
    began: float

    def step(self, title: str) -> AbstractContextManager[None]:
        """A part of the work on this piece."""
        return self.progress.step(f"{self.title}, {title}")

    def note(self, text: str) -> None:
        """How far it is, and for how long the direction has been followed."""
        self.progress.note(f"{self.title}, {text}, {time.monotonic() - self.began:.0f} s")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.progress.say(f"{self.title}, {text}")


def _lacks_an_event(position: Position, lanes: TwoLanes) -> bool:
    """Whether a lane shows a wake-up next, and there is none to come."""
    done = {"s": position.sender, "r": position.receiver}
    return any(
        done[side] < len(lanes.lane(side))
        and lanes.lane(side)[done[side]].action == "wait"
        and not any(one.side == side and one.action == "wait" for one in position.candidates)
        for side in SIDES
    )


def _awakened(starts: Sequence[Start]) -> int:
    """Wake-ups out of nowhere that were used up to here, the most of all states."""
    return max((cast(int, one.state.as_dict().get("awakened", 0)) for one in starts), default=0)


def _in_any_order(lanes: Lanes) -> Lanes:
    sender, receiver = (replace(lane, comes_after=None) for lane in (lanes.sender, lanes.receiver))
    return replace(lanes, sender=sender, receiver=receiver)


def _by_size(switches: tuple[str, ...]) -> Iterator[list[tuple[str, ...]]]:
    """All sets of one deviation, then all of two, and so on."""
    for size in range(1, len(switches) + 1):
        yield list(combinations(switches, size))


def _least(starts: Sequence[Start] | None) -> tuple[int, int]:
    """The place before which no lane is needed."""
    if starts is None:
        return 0, 0
    return min(start.sender for start in starts), min(start.receiver for start in starts)


def _moved(starts: Sequence[Start] | None, first: tuple[int, int]) -> tuple[Start, ...] | None:
    """Starts, counted from where the piece's lanes begin."""
    if starts is None:
        return None
    return tuple(
        Start(start.state, start.sender - first[0], start.receiver - first[1]) for start in starts
    )


def _places(result: FollowResult, last: tuple[int, int]) -> tuple[Start, ...]:
    """The ends of a piece, as starts of the next one."""
    return tuple(
        dict.fromkeys(
            Start(end.state, last[0] - end.left[0], last[1] - end.left[1]) for end in result.ends
        )
    )


def _counted(result: FollowResult, first: tuple[int, int]) -> FollowResult:
    """Positions counted from the lanes' starts."""
    frontier = tuple(
        replace(at, sender=at.sender + first[0], receiver=at.receiver + first[1])
        for at in result.frontier
    )
    return replace(result, frontier=frontier)
