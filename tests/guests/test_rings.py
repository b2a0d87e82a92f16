"""Whether an experiment can end: held against a few bytes at a time, whoever's turn it is."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from vchan_testbed.guests.experiment import (
    ENDPOINTS,
    ChannelConfig,
    Experiment,
    Operation,
    ring_bytes,
)
from vchan_testbed.guests.rings import standing_still
from vchan_testbed.guests.workload import LANES

SIZES = st.lists(st.integers(1, 1500), min_size=1, max_size=3).map(tuple)
MOVES = st.builds(
    Operation,
    do=st.sampled_from(["write", "read", "send", "recv"]),
    bytes=st.integers(1, 4000),
    sizes=SIZES,
)
OTHERS = st.builds(Operation, do=st.sampled_from(["data_ready", "pause", "read_to_end"]))
OPERATIONS = st.lists(MOVES | OTHERS, max_size=5).map(tuple)


class Slow:
    """Plays the same as threads would: a packet or a few bytes at a time, in a random order."""

    def __init__(self, experiment: Experiment, chance: random.Random) -> None:
        self._chance = chance
        self._room = {name: ring_bytes(experiment.channel, name, writes=True) for name in ENDPOINTS}
        self._filled = dict.fromkeys(ENDPOINTS, 0)
        self._todo: dict[tuple[str, int], list[tuple[int, str, int]]] = {}
        for name in ENDPOINTS:
            sides = [None] if experiment.channel.threads == "one" else list(LANES)
            for number, side in enumerate(sides):
                self._todo[name, number] = [
                    (at, *call)
                    for at, operation in enumerate(experiment.operations(name))
                    if side is None or operation.do in side
                    for call in calls_of(operation)
                ]

    def stuck(self) -> dict[str, int]:
        """Where each endpoint stands when nobody can go on."""
        while any(self._one(*lane) for lane in self._in_some_order()):
            pass
        return {
            name: min(at for (n, _), todo in self._todo.items() if n == name for at, *_ in todo[:1])
            for name in ENDPOINTS
            if any(todo for (n, _), todo in self._todo.items() if n == name)
        }

    def _in_some_order(self) -> list[tuple[str, int]]:
        lanes = list(self._todo)
        self._chance.shuffle(lanes)
        return lanes

    def _one(self, name: str, number: int) -> bool:
        todo = self._todo[name, number]
        if not todo:
            return False
        peer = ENDPOINTS[1 - ENDPOINTS.index(name)]
        at, do, size = todo[0]
        if do == "read_to_end":
            closed = not any(left for (n, _), left in self._todo.items() if n == peer)
            if not self._filled[peer] and closed:
                todo.pop(0)
                return True
        source = peer if do in ("read", "recv", "read_to_end") else name
        there = self._filled[peer] if source == peer else self._room[name] - self._filled[name]
        some = min(self._chance.randint(1, 300), there)
        if do in ("read", "write"):
            some = min(some, size)
        count = size if do in ("send", "recv") else some
        if do not in ("read", "recv", "read_to_end", "write", "send"):
            todo.pop(0)
            return True
        if not count or count > there:
            return False
        self._filled[source] += count if source == name else -count
        if do != "read_to_end":
            todo[0] = (at, do, size - count)
            if size == count:
                todo.pop(0)
        return True


def calls_of(operation: Operation) -> list[tuple[str, int]]:
    """Packets one by one; all else as one."""
    if operation.do not in ("send", "recv"):
        return [(operation.do, operation.bytes)]
    calls: list[tuple[str, int]] = []
    left = operation.bytes
    while left:
        size = min(int(operation.sizes[len(calls) % len(operation.sizes)]), left)
        calls.append((operation.do, size))
        left -= size
    return calls


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    server=OPERATIONS,
    client=OPERATIONS,
    threads=st.sampled_from(["one", "duplex"]),
    left=st.sampled_from([1024, 4096]),
    seed=st.integers(0, 1000),
)
def test_it_stands_still_where_threads_would(
    server: tuple[Operation, ...],
    client: tuple[Operation, ...],
    threads: str,
    left: int,
    seed: int,
) -> None:
    channel = ChannelConfig(left_ring_bytes=left, right_ring_bytes=2048, threads=threads)
    experiment = Experiment("any", server, client, channel=channel)
    assert standing_still(experiment) == Slow(experiment, random.Random(seed)).stuck()
