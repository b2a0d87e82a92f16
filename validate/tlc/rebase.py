"""Move the stream positions in a state, so that they stay small in a long trace.

TLC's integers have 32 bits, and a piece of a trace does not need the bytes that all its start
states have already received. A stream is a sequence of intervals (from, to), both ends inclusive.
"""

from __future__ import annotations

from typing import TypeAlias, cast

from vchan_testbed.validate.lanes import State, Value
from vchan_testbed.validate.tlc.actions import ActionMap

Intervals: TypeAlias = tuple[tuple[int, int], ...]


def size(stream: Value) -> int:
    """Bytes in a stream."""
    return sum(last - first + 1 for first, last in cast(Intervals, stream))


def settled(state: State, actions: ActionMap) -> int:
    """The first bytes of the stream, without a gap, that lie behind this state."""
    return min((_prefix(state[name]) for name in actions.from_the_start), default=0)


def without_first(state: State, count: int, actions: ActionMap) -> State:
    """The state without the stream's first `count` bytes, which must be settled in it."""
    values = state.as_dict()
    for name in actions.positions:
        values[name] = tuple(
            (max(first - count, 1), last - count)
            for first, last in cast(Intervals, values[name])
            if last > count
        )
    return State.of(values)


def with_first(state: State, count: int, actions: ActionMap) -> State:
    """The reverse of `without_first`."""
    values = state.as_dict()
    for name in actions.positions:
        stream = tuple((a + count, b + count) for a, b in cast(Intervals, values[name]))
        if name in actions.from_the_start and count:
            stream = _joined((1, count), stream)
        values[name] = stream
    return State.of(values)


def _joined(head: tuple[int, int], stream: Intervals) -> Intervals:
    if stream and stream[0][0] == head[1] + 1:
        return ((head[0], stream[0][1]), *stream[1:])
    return (head, *stream)


def _prefix(stream: Value) -> int:
    intervals = cast(Intervals, stream)
    return intervals[0][1] if intervals and intervals[0][0] == 1 else 0
