"""Plays an experiment's bytes through its rings, to see whether it can end at all.

Each end has one list of blocking calls and each ring one writer and one reader: whether they come
to an end does not depend on who runs when, so one order of turns is enough.
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


@dataclass
class _End:
    """One end: its operations, where it is in them, and the ring that it writes."""

    operations: tuple[Operation, ...]
    room_bytes: int
    filled_bytes: int = 0
    at: int = 0
    done_bytes: int = 0
    calls: int = 0

    @property
    def through(self) -> bool:
        return self.at == len(self.operations)

    def next(self) -> None:
        self.at, self.done_bytes, self.calls = self.at + 1, 0, 0


def standing_still(experiment: Experiment) -> dict[str, int]:
    """Which endpoints never get past which operation: endpoint -> index in its list.

    Empty for what does not block, or has a thread for each direction: nothing is said of those.
    """
    if not experiment.channel.blocking or experiment.channel.threads != "one":
        return {}
    ends = {
        name: _End(experiment.operations(name), ring_bytes(experiment.channel, name, writes=True))
        for name in ENDPOINTS
    }
    server, client = ends["server"], ends["client"]
    while _turn(server, client) or _turn(client, server):
        pass
    return {name: end.at for name, end in ends.items() if not end.through}


def _turn(end: _End, peer: _End) -> bool:
    """Go on with one end until it would wait; whether anything moved."""
    moved = False
    while not end.through and _step(end, peer):
        moved = True
    return moved


def _step(end: _End, peer: _End) -> bool:
    operation = end.operations[end.at]
    if operation.do == "read_to_end":
        moved = peer.filled_bytes > 0
        peer.filled_bytes = 0
        if peer.through:
            end.next()
        return moved or peer.through
    if operation.do not in SENDING | RECEIVING:
        end.next()
        return True
    count = _movable(end, peer, operation)
    if operation.do in SENDING:
        end.filled_bytes += count
    else:
        peer.filled_bytes -= count
    end.done_bytes += count
    end.calls += 1
    if end.done_bytes == operation.bytes:
        end.next()
    return count > 0


def _movable(end: _End, peer: _End, operation: Operation) -> int:
    """How many bytes the next call moves: any number for a stream, all or none for a packet."""
    sending = operation.do in SENDING
    there = end.room_bytes - end.filled_bytes if sending else peer.filled_bytes
    missing = operation.bytes - end.done_bytes
    if operation.do not in ("send", "recv"):
        return min(missing, there)
    sizes = [size for size in operation.sizes if isinstance(size, int)]
    # Sizes drawn from a seed are not known here: they are taken for the smallest one.
    size = sizes[end.calls % len(sizes)] if len(sizes) == len(operation.sizes) else min(sizes)
    packet = min(size, missing)
    return packet if packet <= there else 0
