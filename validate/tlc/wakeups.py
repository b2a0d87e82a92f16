"""States with a number of wake-ups in each port, and states with an interval of numbers.

While a trace is followed a port is (least, most): one state stands for all those that differ only
in how many wake-ups are to come (`specs/Intervals.tla`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

from vchan_testbed.validate.lanes import State
from vchan_testbed.validate.tlc.actions import ActionMap


def as_numbers(state: State, actions: ActionMap) -> State:
    """The state with numbers, of a state whose intervals hold one number each."""
    values = state.as_dict()
    for side in actions.sides.values():
        port = values[side.port]
        values[side.port] = port[0] if isinstance(port, tuple) else port
    return State.of(values)


def as_intervals(states: Iterable[State], actions: ActionMap) -> tuple[State, ...]:
    """As few states with intervals as stand for exactly these states with numbers."""
    sender, receiver = actions.sides["s"].port, actions.sides["r"].port
    pairs: dict[State, set[tuple[int, int]]] = defaultdict(set)
    for state in states:
        values = state.as_dict()
        pair = (cast(int, values.pop(sender)), cast(int, values.pop(receiver)))
        pairs[State.of(values)].add(pair)
    return tuple(
        State.of({**rest.as_dict(), sender: of_sender, receiver: of_receiver})
        for rest, numbers in pairs.items()
        for of_sender, of_receiver in _rectangles(numbers)
    )


def _rectangles(pairs: set[tuple[int, int]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cover of the pairs: runs of second numbers, joined over neighbouring first numbers."""
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for first in sorted({first for first, _ in pairs}):
        for run in _runs({second for one, second in pairs if one == first}):
            before = [
                at
                for at, (firsts, seconds) in enumerate(found)
                if firsts[1] == first - 1 and seconds == run
            ]
            if before:
                found[before[0]] = ((found[before[0]][0][0], first), run)
            else:
                found.append(((first, first), run))
    return found


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return list(zip(starts, ends, strict=True))
