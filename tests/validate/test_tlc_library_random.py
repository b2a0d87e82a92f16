"""Random behaviours of Libxenvchan, as they are and changed: nothing that is left out is missed.

Each pair of lanes is followed twice: as runs are followed, with few orders and ports as intervals,
and with every order of the steps and ports as the spec has them. Both have to find the same end
states and the same places where nothing goes on.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from library_walks import ACTIONS, Kind, Walk, walks
from one_jvm import follow_all

from vchan_testbed.validate.lanes import Candidate, FollowResult, Lane, Lanes, State, Step, Value
from vchan_testbed.validate.tlc.module import Search

WALKS, STEPS = 6, 45

Plain: TypeAlias = frozenset[tuple[str, Value]]
ALL = ("write", "send", "read", "recv", "wait", "data_ready", "buffer_space", "is_open", "close")
KINDS = {
    "streams": Kind(calls=("write", "read", "close"), blocking="AlwaysBlocking"),
    "packets": Kind(calls=("send", "recv", "wait", "close"), blocking="AlwaysBlocking"),
    "one poll loop a side": Kind(calls=ALL, blocking="NeverBlocking"),
    "everything": Kind(calls=ALL),
    "known deviations": Kind(deviations=frozenset({"L1", "L2", "L4", "L5", "L8", "L9"})),
    "a process dies": Kind(deaths=("dies",), close_one_in=20),
    "a domain dies": Kind(deaths=("domain_dies",), deviations=frozenset({"L9"}), close_one_in=20),
}


def wake_ups(port: Value) -> int:
    """How many are to come, of a port as the spec has it and of one as it is told."""
    if isinstance(port, tuple):
        return cast(int, port[0])
    fields = dict(_function(port))
    return cast(int, fields["queued"]) + bool(fields["pending"])


def plain(state: State) -> Plain:
    """A state without what only tells how far the kernel is with an event.

    Nobody takes anything from the port of a side that has not bound it or is gone: as an interval
    it may have one wake-up more than the kernel would have put there.
    """
    values = state.as_dict()
    at, fate, ports = (dict(_function(values[name])) for name in ("at", "fate", "port"))
    values["port"] = frozenset(
        (side, wake_ups(port))
        for side, port in ports.items()
        if at[side] not in ("i_bind", "k_keys", "k_bind", "gone") and fate[side] == "alive"
    )
    return frozenset(values.items())


def _function(value: Value) -> frozenset[tuple[str, Value]]:
    return cast(frozenset[tuple[str, Value]], value)


def ends_of(result: FollowResult) -> dict[Any, frozenset[str]]:
    """End states, and which fair actions are enabled once the kernel has delivered what it has."""
    found: dict[Any, set[str]] = defaultdict(set)
    for end in result.ends:
        found[plain(end.state), end.owed, end.left] |= set(end.enabled)
    return {key: frozenset(names) for key, names in found.items()}


def frontier_of(result: FollowResult) -> dict[Any, frozenset[Candidate]]:
    found: dict[Any, set[Candidate]] = defaultdict(set)
    for at in result.frontier:
        found[at.sender, at.receiver, plain(at.state)] |= set(at.candidates)
    return {key: frozenset(candidates) for key, candidates in found.items()}


def changed(steps: Sequence[Step], rng: random.Random) -> tuple[Step, ...]:
    """A lane with one step changed, dropped, doubled or moved."""
    found = list(steps)
    at = rng.randrange(len(found) - 1)
    how = rng.choice(["value", "value", "drop", "double", "swap"])
    if how == "value":
        old = found[at].value
        found[at] = replace(found[at], value=old + rng.choice([-1, 1]))
    elif how == "drop":
        del found[at]
    elif how == "double":
        found.insert(at, found[at])
    else:
        found[at], found[at + 1] = found[at + 1], found[at]
    return tuple(found)


def cut_off(lane: Lane, rng: random.Random) -> Lane:
    """A lane that ends early, killed there or at an access that was not recorded any more."""
    kept = tuple(lane.steps)[: max(0, len(lane.steps) - rng.randint(1, 4))]
    return Lane(
        kept, unlogged=rng.random() < 0.5, death=rng.choice(["no", "may", "must", "domain"])
    )


def with_lane(lanes: Lanes, name: str, lane: Lane) -> Lanes:
    return replace(lanes, sender=lane) if name == "sender" else replace(lanes, receiver=lane)


def variants(walk: Walk, rng: random.Random) -> Iterator[Lanes]:
    """The walk's lanes, and the same with a fault or without their last steps."""
    yield walk.lanes
    for name in ("sender", "receiver"):
        lane: Lane = getattr(walk.lanes, name)
        if len(lane.steps) > 2:
            steps = changed(lane.steps, rng)
            yield with_lane(walk.lanes, name, replace(lane, steps=steps))
        if rng.random() < 0.3:
            yield with_lane(walk.lanes, name, cut_off(lane, rng))


@pytest.mark.parametrize("name", KINDS)
def test_one_order_is_as_good_as_all(name: str) -> None:
    rng = random.Random(name)
    kind = KINDS[name]
    found = walks(kind, WALKS, STEPS, seed=1)
    cases = [(lanes, kind.params()) for walk in found for lanes in variants(walk, rng)]
    few, _ = follow_all(cases, actions=ACTIONS)
    every, _ = follow_all(cases, Search(reduce=False), actions=ACTIONS)
    for (lanes, _), one, other in zip(cases, few, every, strict=True):
        assert (one.undecided, other.undecided) == ("", "")
        assert one.accepted == other.accepted, lanes
        assert ends_of(one) == ends_of(other), lanes
        assert frontier_of(one) == frontier_of(other), lanes
    states = [sum(result.states for result in results) for results in (few, every)]
    assert 5 * states[0] < states[1]
    as_they_are = [few[at] for at, (lanes, _) in enumerate(cases) if lanes in walked(found)]
    assert len(as_they_are) >= WALKS
    assert all(result.accepted for result in as_they_are)
    assert not all(result.accepted for result in few)


def walked(found: Sequence[Walk]) -> list[Lanes]:
    return [walk.lanes for walk in found]
