"""States with a number of wake-ups in each port, and states with an interval of numbers.

While a trace is followed a port is (least, most): one state stands for all those that differ only
in how many wake-ups are to come (`specs/Intervals.tla`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias, cast

from vchan_testbed.validate.lanes import State, Value
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.paths import at, changed

Held: TypeAlias = tuple[Value, ...]


def as_numbers(state: State, actions: ActionMap) -> State:
    """The state with numbers, of a state whose intervals hold one number each.

    Behind the interval may stand more of a port: whether it is held back until it is unmasked.
    """
    changes: dict[str, Value] = {}
    for side in actions.sides.values():
        port = at(state, side.port)
        if isinstance(port, tuple):
            changes[side.port] = (port[0], *port[2:]) if len(port) > 2 else port[0]
    return changed(state, changes)


def as_intervals(states: Iterable[State], actions: ActionMap) -> tuple[State, ...]:
    """As few states with intervals as stand for exactly these states with numbers."""
    paths = (actions.sides["s"].port, actions.sides["r"].port)
    pairs: dict[tuple[State, Held, Held], set[tuple[int, int]]] = defaultdict(set)
    for state in states:
        sender, receiver = (_split(at(state, path)) for path in paths)
        rest = changed(state, dict.fromkeys(paths, 0))
        pairs[rest, sender[1], receiver[1]].add((sender[0], receiver[0]))
    return tuple(
        changed(rest, {paths[0]: (*of_sender, *held[0]), paths[1]: (*of_receiver, *held[1])})
        for (rest, *held), numbers in pairs.items()
        for of_sender, of_receiver in _rectangles(numbers)
    )


def _split(port: Value) -> tuple[int, Held]:
    """The number of wake-ups, and what else there is of a port."""
    return (cast(int, port[0]), port[1:]) if isinstance(port, tuple) else (cast(int, port), ())


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
