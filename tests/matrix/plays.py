"""The workloads of the detection matrix: what each end returns does not depend on who is quicker.

A write is a message that the peer is waiting for, or has to wait for room: the writer is held
before it moves its index until the peer has armed its bit and looked again. So each event is due
where it comes, and one that is lost is missed. A message is read as a whole, or as a packet.
Without a fault each run is ACCEPTED and PROGRESS and returns the same.

Each workload is there twice, with the ends' parts exchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vchan_testbed.guests.experiment import Experiment, parse_experiment

ENDS = ("client", "server")
RING_BYTES = 1024
HELD_SECONDS_MAX = 3.0
"""How long an end waits for its peer's step; in a run with a fault that may never come."""
TIMEOUTS = {"settle_seconds": 0.4, "run_seconds_max": 60}

Operations = list[dict[str, Any] | str]


@dataclass
class Play:
    """An experiment under construction. `first` speaks first, `second` answers."""

    first: str
    blocking: bool = True
    operations: dict[str, Operations] = field(default_factory=lambda: {e: [] for e in ENDS})
    faults: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """By side and action: how often it was taken so far, where holds go by that."""

    owed: dict[str, int] = field(default_factory=dict)
    """By side: how often its next read will be woken for nothing."""

    @property
    def second(self) -> str:
        """The other one."""
        return ENDS[self.first == "client"]

    def hold(self, side: str, at: str, nth: int, until: str, times: int) -> None:
        """Hold a side at an action until its peer has taken one so many times."""
        self.faults.append(
            {
                "side": side,
                "at": at,
                "nth": nth,
                "do": "delay",
                "until": {until: times},
                "seconds_max": HELD_SECONDS_MAX,
            }
        )

    def do(self, side: str, *operations: dict[str, Any] | str) -> None:
        """What a side does next."""
        self.operations[side] += operations

    def next(self, side: str, action: str, times: int = 1) -> int:
        """Count an action that holds go by."""
        count = self.counts.get((side, action), 0) + times
        self.counts[side, action] = count
        return count

    def experiment(self, name: str) -> Experiment:
        """As if it had been written by hand."""
        data = {
            "name": name,
            "channel": {
                "left_ring_bytes": RING_BYTES,
                "right_ring_bytes": 2 * RING_BYTES,
                "blocking": self.blocking,
            },
            **{end: [*own, "close"] for end, own in self.operations.items()},
            "timeouts": TIMEOUTS,
            "faults": self.faults,
        }
        return parse_experiment(json.dumps(data), name)


def message(play: Play, writer: str, size: int, words: tuple[str, str]) -> None:
    """One that the reader is waiting for before it is there."""
    reader = ENDS[writer == "client"]
    play.do(writer, {words[0]: {"bytes": size, "sizes": size}})
    play.do(reader, {words[1]: {"bytes": size, "sizes": size}})
    # The event that a new channel begins with wakes its reader once for nothing.
    is_new = not any(end == reader for end, action in play.counts if action == "r_have_again")
    looks = play.next(reader, "r_have_again", (2 if is_new else 1) + play.owed.pop(reader, 0))
    play.hold(writer, "w_put", play.next(writer, "w_put"), "r_have_again", looks)


def look(play: Play, side: str) -> None:
    """The calls that only look. One arms as a read does; for the other one the peer's next read
    raises an event, which wakes the side's own next read once for nothing.
    """
    play.do(side, {"is_open": {}}, {"data_ready": {}}, {"buffer_space": {}})
    play.next(side, "r_have_again")
    play.owed[side] = 1


def ending(play: Play, closer: str) -> None:
    """One closes while the other one waits for more."""
    other = ENDS[closer == "client"]
    play.do(other, {"read_to_end": {"sizes": 64}})
    looks = play.next(other, "r_have_again", 1 + play.owed.pop(other, 0))
    play.hold(closer, "c_close", 1, "r_have_again", looks)


def talk(play: Play) -> None:
    """Three messages there and back, and a close while the other end waits."""
    for _ in range(3):
        message(play, play.first, 64, ("write", "read"))
        message(play, play.second, 64, ("write", "read"))
    ending(play, play.first)


def packets(play: Play) -> None:
    """The same in packets."""
    for _ in range(2):
        message(play, play.first, 64, ("send", "recv"))
        message(play, play.second, 64, ("send", "recv"))
    ending(play, play.first)


def looks(play: Play) -> None:
    """The same with the calls that only look, at times at which their answers are known."""
    for _ in range(2):
        message(play, play.first, 64, ("write", "read"))
        look(play, play.second)
        message(play, play.second, 64, ("write", "read"))
        look(play, play.first)
    ending(play, play.first)


def full(play: Play) -> None:
    """A message that the ring does not hold: its writer waits for room, time and again."""
    crowded(play, ("write", "recv"), writes=1)


def full_packets(play: Play) -> None:
    """Packets of which two fit the ring: the third one waits for room."""
    crowded(play, ("send", "recv"), writes=4)


def crowded(play: Play, words: tuple[str, str], writes: int) -> None:
    """Twice what the ring holds, read in halves of it; then a word back."""
    ring = RING_BYTES * (2 if play.first == "server" else 1)
    play.do(play.first, {words[0]: {"bytes": 2 * ring, "sizes": 2 * ring // writes}})
    play.do(play.second, {words[1]: {"bytes": 2 * ring, "sizes": ring // 2}})
    looks = play.next(play.second, "r_have_again", 2)
    play.hold(play.first, "w_put", 1, "r_have_again", looks)
    # The event that a new channel begins with wakes its writer once for nothing.
    for take, waits in ((1, 2), (2, 3)):
        play.hold(play.second, "r_take", take, "w_space_again", waits)
    puts = 4 if writes > 1 else 3
    play.hold(play.second, "r_take", 3, "w_put", puts)
    play.next(play.first, "w_put", puts)
    play.next(play.first, "r_have_again", 0)
    message(play, play.second, 8, ("write", "read"))
    ending(play, play.first)


WORKLOADS: Mapping[str, tuple[Callable[[Play], None], bool]] = {
    "talk": (talk, True),
    "packets": (packets, True),
    "full": (full, True),
    "full packets": (full_packets, True),
    "looks": (looks, True),
    "talk polling": (talk, False),
}
"""By name: what happens, and whether the calls block."""


def experiments() -> dict[str, Experiment]:
    """Each workload, with either end as the first."""
    found = {}
    for name, (happens, blocking) in WORKLOADS.items():
        for first in ENDS:
            play = Play(first, blocking)
            happens(play)
            whole = f"{name}, {first} first"
            found[whole] = play.experiment(whole.replace(",", "").replace(" ", "-"))
    return found
