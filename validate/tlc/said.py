"""What TLC says while it follows two lanes, read: the lines that the generated module prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from vchan_testbed.validate.lanes import Candidate, EndState, Position, State, Value
from vchan_testbed.validate.tlc.actions import ActionMap, Side
from vchan_testbed.validate.tlc.module import fair_actions
from vchan_testbed.validate.tlc.rebase import Bases, with_first
from vchan_testbed.validate.tlc.values import parse_value
from vchan_testbed.validate.tlc.wakeups import as_numbers


@dataclass(frozen=True, slots=True)
class Reading:
    """What has to be known to read it."""

    actions: ActionMap
    bases: Bases
    """Bytes of each stream that lie before what was followed."""
    sender: int
    """Steps of the sender's lane."""
    receiver: int

    def ends(self, said: Iterable[str]) -> list[tuple[EndState, int]]:
        """Each end state once, with the fewest hidden steps that lead to it."""
        fewest: dict[EndState, int] = {}
        for sender, receiver, values, hidden, enabled, owed in _said(said, "END"):
            end = EndState(
                state=self._state(values),
                enabled=_chosen(fair_actions(self.actions), enabled),
                owed=frozenset(_chosen(self.actions.owed, owed)),
                left=(self.sender - cast(int, sender), self.receiver - cast(int, receiver)),
            )
            fewest[end] = min(cast(int, hidden), fewest.get(end, cast(int, hidden)))
        return list(fewest.items())

    def frontier(self, said: Sequence[str]) -> tuple[Position, ...]:
        """The places that were asked for, the farthest first, and what could be done there."""
        candidates: dict[tuple[int, int, State], set[Candidate]] = defaultdict(set)
        for sender, receiver, values in _said(said, "STATE"):
            candidates[cast(int, sender), cast(int, receiver), self._state(values)] = set()
        for sender, receiver, values, side, name, shown in _said(said, "MAY"):
            action = self.actions.actions[cast(str, name)]
            value = None if action.chooses or not action.shows else cast(int, shown)
            place = (cast(int, sender), cast(int, receiver), self._state(values))
            candidates[place].add(Candidate(cast(Side, side), action.name, value))
        positions = [
            Position(*place, tuple(sorted(found, key=lambda one: one.action)))
            for place, found in candidates.items()
        ]
        return tuple(sorted(positions, key=self._by_place))

    def _by_place(self, at: Position) -> tuple[int, int, int, str]:
        """The farthest first; of states at one place, first those in which nothing is hidden."""
        hidden = sum(self.actions.actions[one.action].hidden for one in at.candidates)
        state = sorted(at.state.as_dict().items())
        return -at.sender - at.receiver, at.sender, hidden, repr(state)

    def _state(self, values: Value) -> State:
        named = zip(self.actions.variables, cast(tuple[Value, ...], values), strict=True)
        state = with_first(State.of(dict(named)), self.bases, self.actions)
        return as_numbers(state, self.actions)


def _said(lines: Iterable[str], word: str) -> Iterable[tuple[Value, ...]]:
    for line in lines:
        if line.startswith(word + " "):
            yield cast(tuple[Value, ...], parse_value(line[len(word) + 1 :]))


def _chosen(names: Iterable[str], flags: Value) -> tuple[str, ...]:
    pairs = zip(names, cast(tuple[bool, ...], flags), strict=True)
    return tuple(name for name, flag in pairs if flag)
