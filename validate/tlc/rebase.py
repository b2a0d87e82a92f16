"""Move the stream positions in a state, so that they stay small in a long trace.

TLC's integers have 32 bits, and a piece of a trace does not need the bytes that all its start
states have already received. A stream is a sequence of intervals (from, to), both ends inclusive.
Each direction of a channel has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

from vchan_testbed.validate.lanes import State, Value
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.paths import at, changed

Intervals: TypeAlias = tuple[tuple[int, int], ...]
Bases: TypeAlias = Mapping[str, int]
"""Of each direction's stream the bytes that are left out."""


def size(stream: Value) -> int:
    """Bytes in a stream."""
    return sum(last - first + 1 for first, last in cast(Intervals, stream))


def settled(states: Iterable[State], actions: ActionMap) -> Bases:
    """The first bytes of each stream, without a gap, that lie behind all these states."""
    every = list(states)
    return {
        name: min(
            (_prefix(at(state, path)) for state in every for path in streams.from_the_start),
            default=0,
        )
        for name, streams in actions.streams.items()
    }


def without_first(state: State, bases: Bases, actions: ActionMap) -> State:
    """The state without the streams' first bytes, which must be settled in it."""
    changes: dict[str, Value] = {}
    for name, count in bases.items():
        for path in actions.streams[name].positions:
            changes[path] = tuple(
                (max(first - count, 1), last - count)
                for first, last in cast(Intervals, at(state, path))
                if last > count
            )
    return changed(state, changes)


def with_first(state: State, bases: Bases, actions: ActionMap) -> State:
    """The reverse of `without_first`."""
    changes: dict[str, Value] = {}
    for name, count in bases.items():
        streams = actions.streams[name]
        for path in streams.positions:
            stream = tuple((a + count, b + count) for a, b in cast(Intervals, at(state, path)))
            if path in streams.from_the_start and count:
                stream = _joined((1, count), stream)
            changes[path] = stream
    return changed(state, changes)


def _joined(head: tuple[int, int], stream: Intervals) -> Intervals:
    if stream and stream[0][0] == head[1] + 1:
        return ((head[0], stream[0][1]), *stream[1:])
    return (head, *stream)


def _prefix(stream: Value) -> int:
    intervals = cast(Intervals, stream)
    return intervals[0][1] if intervals and intervals[0][0] == 1 else 0
