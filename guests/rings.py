"""Plays an experiment's bytes through its rings, to see whether it can end at all.

Each lane is one list of calls of which each is repeated until it is done, whether it blocks or not,
and each ring has one writer and one reader: whether they come to an end does not depend on who runs
when, so one order of turns is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from vchan_testbed.guests.experiment_model import (
    ENDPOINTS,
    RECEIVING,
    SENDING,
    Experiment,
    Operation,
    ring_bytes,
)
from vchan_testbed.guests.workload import LANES, joined

CALLS_MAX = 100_000
"""Calls that are played one by one: where packets meet a stream. More say nothing new."""


@dataclass
class _Ring:
    room_bytes: int
    filled_bytes: int = 0


@dataclass
class _Lane:
    """Operations in their order, with their places in the endpoint's list."""

    operations: tuple[tuple[int, Operation], ...]
    out: _Ring
    into: _Ring
    behind: tuple[_Lane, ...] = ()
    """Lanes that have to be through before this one begins."""
    at: int = 0
    done_bytes: int = 0
    calls: int = 0

    @property
    def through(self) -> bool:
        return self.at == len(self.operations)

    @property
    def goes_on(self) -> bool:
        return not self.through and all(lane.through for lane in self.behind)

    @property
    def operation(self) -> Operation:
        return self.operations[self.at][1]

    @property
    def missing_bytes(self) -> int:
        return self.operation.bytes - self.done_bytes

    def does(self, *what: str) -> bool:
        return self.goes_on and self.operation.do in what

    def move(self, count: int) -> None:
        """So many bytes of the operation are done."""
        self.done_bytes += count
        if not self.missing_bytes:
            self.next()

    def next(self) -> None:
        self.at, self.done_bytes, self.calls = self.at + 1, 0, 0


def standing_still(experiment: Experiment) -> dict[str, int]:
    """Which endpoints never get past which operation: endpoint -> index in its list.

    Empty when all end, or when that would take too long to find out.
    """
    rings = {name: _Ring(ring_bytes(experiment.channel, name, writes=True)) for name in ENDPOINTS}
    server, client = (
        _lanes(experiment, name, rings[name], rings[peer])
        for name, peer in (ENDPOINTS, ENDPOINTS[::-1])
    )
    for _ in range(CALLS_MAX):
        if not (_flow(server, client) or _flow(client, server)) and not (
            _turn(server, client) or _turn(client, server)
        ):
            stuck = {
                name: [lane.operations[lane.at][0] for lane in lanes if not lane.through]
                for name, lanes in (("server", server), ("client", client))
            }
            return {name: min(places) for name, places in stuck.items() if places}
    return {}


def _lanes(experiment: Experiment, name: str, out: _Ring, into: _Ring) -> list[_Lane]:
    """One for each thread, or for each direction that one thread serves."""
    numbered = tuple(enumerate(experiment.operations(name)))
    if experiment.channel.threads == "one":
        return [_Lane(numbered, out, into)]
    together, after = joined(numbered, [operation.do for _, operation in numbered])
    lanes = [_Lane(tuple((n, o) for n, o in together if o.do in side), out, into) for side in LANES]
    return [*lanes, _Lane(tuple(after), out, into, tuple(lanes))]


def _flow(writers: list[_Lane], readers: list[_Lane]) -> bool:
    """Where a stream is written and read, let as much through as both have left, at once."""
    for writer in writers:
        for reader in readers:
            if writer.does("write") and reader.does("read", "read_to_end"):
                ring = writer.out
                there = ring.filled_bytes + writer.missing_bytes
                count = min(there, reader.missing_bytes) if reader.does("read") else there
                written = max(0, count - ring.filled_bytes)
                ring.filled_bytes += written - count
                writer.move(written)
                if reader.does("read"):
                    reader.move(count)
                return True
    return False


def _turn(lanes: list[_Lane], peer: list[_Lane]) -> bool:
    """One call of each lane that need not wait; whether anything moved."""
    peer_closed = all(lane.through for lane in peer)
    return any(_step(lane, peer_closed) for lane in lanes if lane.goes_on)


def _step(lane: _Lane, peer_closed: bool) -> bool:
    do = lane.operation.do
    if do == "stop":
        return False
    if do == "read_to_end":
        moved = lane.into.filled_bytes > 0
        lane.into.filled_bytes = 0
        if peer_closed:
            lane.next()
        return moved or peer_closed
    if do not in SENDING | RECEIVING:
        lane.next()
        return True
    count = _movable(lane)
    if do in SENDING:
        lane.out.filled_bytes += count
    else:
        lane.into.filled_bytes -= count
    if count:
        lane.calls += 1
        lane.move(count)
    return count > 0


def _movable(lane: _Lane) -> int:
    """How many bytes the next call moves: any number for a stream, all or none for a packet."""
    operation = lane.operation
    if operation.do in SENDING:
        there = lane.out.room_bytes - lane.out.filled_bytes
    else:
        there = lane.into.filled_bytes
    if operation.do not in ("send", "recv"):
        return min(lane.missing_bytes, there)
    sizes = [size for size in operation.sizes if isinstance(size, int)]
    # Sizes drawn from a seed are not known here: they are taken for the smallest one.
    size = sizes[lane.calls % len(sizes)] if len(sizes) == len(operation.sizes) else min(sizes)
    packet = min(size, lane.missing_bytes)
    return packet if packet <= there else 0
