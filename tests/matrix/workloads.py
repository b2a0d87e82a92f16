"""Random experiments that conform: whatever they do, the library is to do as the spec says.

A run is told by its number and the sweep's seed. Runs of one group share the channel's settings, so
that their traces can be judged in one run of TLC; all else is drawn for each run by itself: who
speaks, how much, in which sizes, in streams or packets, who closes first, where the applications
pause or look, and at which accesses of the library its thread is held for a moment.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment, parse_experiment
from vchan_testbed.guests.experiment_model import Fault
from vchan_testbed.guests.fault_rules import Setting, refusal
from vchan_testbed.guests.fault_steps import load_steps

GROUP = 100
"""Runs that share the channel's settings."""
RING_BYTES = (1024, 2048, 4096, 8192, 65536)
INDEX_SPAN = 2**32
PHASES_MAX = 3
CALLS_MAX = 7
"""Of one phase, about."""
DELAYS_MAX = 5
DELAY_SECONDS = (0.0002, 0.004)
WAIT_SECONDS_MAX = 0.01
"""How long a thread is held at most for what its peer is to do."""
PAUSE_SECONDS = (0.0002, 0.003)
DRAWS_MAX = 200

Operations = dict[str, list[dict[str, Any]]]
PEER = dict(zip(ENDPOINTS, ENDPOINTS[::-1], strict=True))
LOOKS = ("data_ready", "buffer_space")
CONS_OF = {"client": "left_cons", "server": "right_cons"}
"""By who writes."""


@dataclass(frozen=True)
class Layout:
    """What the runs of a group share."""

    left_ring_bytes: int
    right_ring_bytes: int
    blocking: bool
    threads: str
    left_first_index: int
    right_first_index: int

    def ring_bytes(self, writer: str) -> int:
        """Of the ring that an endpoint writes, as it was asked for."""
        return self.left_ring_bytes if writer == "client" else self.right_ring_bytes

    def first_index(self, writer: str) -> int:
        """Of both indices of that ring."""
        return self.left_first_index if writer == "client" else self.right_first_index


def layout_of(seed: int, group: int) -> Layout:
    """The settings of a group."""
    source = random.Random(f"layout {seed} {group}")
    duplex = source.random() < 0.25
    rings = [source.choice(RING_BYTES) for _ in ENDPOINTS]
    return Layout(
        left_ring_bytes=rings[0],
        right_ring_bytes=rings[1],
        # Two threads that block on one channel take each other's events: no workload that ends.
        blocking=not duplex and source.random() < 0.6,
        threads="duplex" if duplex else "one",
        left_first_index=_first_index(source, rings[0]),
        right_first_index=_first_index(source, rings[1]),
    )


def workload_of(seed: int, number: int) -> Experiment:
    """The experiment of a run."""
    layout = layout_of(seed, number // GROUP)
    source = random.Random(f"workload {seed} {number}")
    for _ in range(DRAWS_MAX):
        try:
            return _with_delays(_drawn(source, layout, f"conforming-{number}"), source)
        except InputError:
            # Packets that no ring holds, for example: the checks of experiments know them all.
            continue
    raise AssertionError(f"no workload for the run {number} of seed {seed}")


def _first_index(source: random.Random, ring_bytes: int) -> int:
    kind = source.random()
    if kind < 0.4:
        return 0
    if kind < 0.8:
        return INDEX_SPAN - source.randrange(1, 3 * ring_bytes)
    return source.randrange(INDEX_SPAN)


def _drawn(source: random.Random, layout: Layout, name: str) -> Experiment:
    operations: Operations = {endpoint: [] for endpoint in ENDPOINTS}
    faults: list[dict[str, Any]] = []
    if layout.threads == "duplex":
        _at_once(source, layout, operations)
    elif source.random() < 0.2:
        return _checked(name, layout, *_one_way(source, layout, operations))
    speaker = source.choice(ENDPOINTS)
    for _ in range(source.randint(1, PHASES_MAX)):
        _phase(source, layout, operations, speaker)
        speaker = PEER[speaker]
    _acknowledged(source, layout, operations, speaker)
    return _checked(name, layout, operations, faults)


def _at_once(source: random.Random, layout: Layout, operations: Operations) -> None:
    """Both directions together, then one after the other."""
    for writer in ENDPOINTS:
        words = ("send", "recv") if source.random() < 0.3 else ("write", "read")
        total, sizes = _amount(source, layout, writer, packets=words[0] == "send")
        operations[writer].append({words[0]: {"bytes": total, "sizes": sizes[0]}})
        operations[PEER[writer]].append({words[1]: {"bytes": total, "sizes": sizes[1]}})
    for endpoint in ENDPOINTS:
        source.shuffle(operations[endpoint])
        operations[endpoint].append({"join": {}})


def _one_way(
    source: random.Random, layout: Layout, operations: Operations
) -> tuple[Operations, list[dict[str, Any]]]:
    """One end writes all, and closes when its peer has taken it: nothing comes back."""
    writer = source.choice(ENDPOINTS)
    written = _phase(source, layout, operations, writer)
    operations[PEER[writer]].append({"read_to_end": {"sizes": source.choice((1, 64, 1000))}})
    until = (layout.first_index(writer) + written) % INDEX_SPAN
    held = {
        "side": writer,
        "at": "c_close",
        "nth": 1,
        "do": "delay",
        "until": {CONS_OF[writer]: until},
    }
    return operations, [held]


def _acknowledged(source: random.Random, layout: Layout, operations: Operations, last: str) -> None:
    """The last word is `last`'s, and its peer, which has read it, closes first."""
    words = ("send", "recv") if source.random() < 0.2 else ("write", "read")
    size = source.randint(1, 64)
    operations[last].append({words[0]: {"bytes": size, "sizes": size}})
    operations[PEER[last]].append({words[1]: {"bytes": size, "sizes": size}})
    operations[last].append({"read_to_end": {"sizes": source.choice((1, 64, 1000))}})


def _phase(source: random.Random, layout: Layout, operations: Operations, writer: str) -> int:
    """One end writes and the other one reads; how many bytes."""
    packets = source.random() < 0.3
    total, sizes = _amount(source, layout, writer, packets=packets)
    for endpoint, word, own in (
        (writer, "send" if packets else "write", sizes[0]),
        (PEER[writer], "recv" if packets else "read", sizes[1]),
    ):
        _idle(source, layout, operations[endpoint])
        entry = {"bytes": total, "sizes": own}
        if source.random() < 0.15 and layout.threads == "one":
            entry["pause_seconds"] = round(source.uniform(*PAUSE_SECONDS), 5)
        operations[endpoint].append({word: entry})
    return total


def _amount(
    source: random.Random, layout: Layout, writer: str, *, packets: bool
) -> tuple[int, tuple[Any, Any]]:
    """Bytes in all, and the sizes in which they are written and read."""
    ring = layout.ring_bytes(writer)
    total = source.choice(
        (
            source.randint(1, 64),
            source.randint(1, ring),
            ring,
            source.randint(ring, 3 * ring),
        )
    )
    if not packets:
        return total, (_sizes(source, total, 2 * ring), _sizes(source, total, 2 * ring))
    if source.random() < 0.4:
        size = source.randint(max(1, total // CALLS_MAX), max(1, min(total, ring)))
        return total, (min(size, ring), min(size, ring))
    # A packet that does not fit yet and one that is not there as a whole yet are never both larger
    # than what is free and what is not: the two ends would wait for each other.
    return total, (_sizes(source, total, ring // 2), _sizes(source, total, ring // 2))


def _sizes(source: random.Random, total: int, largest: int) -> Any:
    usual = max(1, -(-total // source.randint(1, CALLS_MAX)))
    usual = min(usual, largest)
    kind = source.random()
    if kind < 0.5:
        return usual
    if kind < 0.8:
        return {"from": max(1, usual // 2), "to": min(usual * 2, largest)}
    return [min(largest, usual + extra) for extra in (0, 1, usual)]


def _idle(source: random.Random, layout: Layout, operations: list[dict[str, Any]]) -> None:
    if source.random() < 0.15:
        operations.append({source.choice(LOOKS): {}})
    if source.random() < 0.15 and layout.threads == "one":
        operations.append({"pause": {"seconds": round(source.uniform(*PAUSE_SECONDS), 5)}})


def _checked(
    name: str, layout: Layout, operations: Operations, faults: Sequence[dict[str, Any]]
) -> Experiment:
    """As if it had been written by hand. Raises InputError for what cannot end."""
    data = {
        "name": name,
        "channel": {
            "left_ring_bytes": layout.left_ring_bytes,
            "right_ring_bytes": layout.right_ring_bytes,
            "blocking": layout.blocking,
            "threads": layout.threads,
            "left_first_index": layout.left_first_index,
            "right_first_index": layout.right_first_index,
        },
        **{endpoint: [*own, "close"] for endpoint, own in operations.items()},
        "timeouts": {"settle_seconds": 5, "run_seconds_max": 60},
        **({"faults": list(faults)} if faults else {}),
    }
    return parse_experiment(json.dumps(data), name)


def _with_delays(experiment: Experiment, source: random.Random) -> Experiment:
    """With its threads held at some of their accesses, each for a moment."""
    setting, steps = Setting.of(experiment), load_steps()
    delays = []
    for _ in range(source.randint(0, DELAYS_MAX)):
        side = source.choice(ENDPOINTS)
        fault = _delay(source, side, steps.actions(side), steps.actions(PEER[side]))
        if refusal(fault, setting, steps) is None:
            delays.append(fault)
    return replace(experiment, faults=(*experiment.faults, *delays))


def _delay(source: random.Random, side: str, own: Sequence[str], peers: Sequence[str]) -> Fault:
    delay = Fault(side, source.choice(own), source.choice((1, 1, 2, 3, 5, 8)), "delay")
    if source.random() < 0.7:
        return replace(delay, seconds=round(source.uniform(*DELAY_SECONDS), 5))
    until = (source.choice(peers), source.choice((1, 2, 3)))
    return replace(delay, until=until, seconds_max=WAIT_SECONDS_MAX)


def numbers_of(group: int, runs: int) -> Iterator[int]:
    """The runs of a group, of so many in all."""
    yield from range(group * GROUP, min((group + 1) * GROUP, runs))
