"""Payload and sizes of a workload. Only the standard library: this runs in guests.

Payload is position-coded: the eight bytes at stream position 8k are the number k under the
direction's own key, so that any eight-byte stretch of what arrives tells where in which stream it
was written. A byte that was lost, doubled or moved is located, not only noticed.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

WORD_BYTES = 8
KEYS = {"left": 0x6C65_6674_0000_0000, "right": 0x7269_6768_0000_0000}
"""The upper half of every word: which direction it belongs to."""


STREAM_BYTES_MAX = WORD_BYTES << 32
"""The lower half of a word counts no further."""
LANES = (("write", "send", "buffer_space"), ("read", "recv", "read_to_end", "data_ready"))
"""What the two lanes of an endpoint do that has one for each direction: out and in."""
JOIN = "join"
"""Where the two lanes meet: what stands behind it is done in order, when both are through."""

Entry = TypeVar("Entry")


def joined(entries: Sequence[Entry], does: Sequence[str]) -> tuple[list[Entry], list[Entry]]:
    """What the lanes of an endpoint do, and what is done behind them: from a join, or the close on.

    `does` has the word of each entry.
    """
    ends = [at for at, do in enumerate(does) if do in (JOIN, "close")]
    end = ends[0] if ends else len(does)
    behind = [entry for entry, do in zip(entries, does, strict=True) if do != JOIN][end:]
    return list(entries[:end]), behind


@dataclass(frozen=True)
class Mismatch:
    """Where received bytes differ from what was due.

    `position` is the stream position of the first wrong byte, `found_position` the position that
    its neighbourhood was written at, None when it was never written in this direction.
    """

    position: int
    found_position: int | None


def payload(direction: str, position: int, count: int) -> bytes:
    """`count` bytes of the stream `direction` from `position` on."""
    first = position // WORD_BYTES
    words = (position + count + WORD_BYTES - 1) // WORD_BYTES - first
    key = KEYS[direction]
    data = struct.pack(f"<{words}Q", *range(key + first, key + first + words))
    start = position - first * WORD_BYTES
    return data[start : start + count]


def check(direction: str, position: int, data: bytes) -> Mismatch | None:
    """Compare what was read at stream position `position` with what was written there."""
    due = payload(direction, position, len(data))
    if data == due:
        return None
    wrong = next(
        i for i, (found, meant) in enumerate(zip(data, due, strict=True)) if found != meant
    )
    return Mismatch(position + wrong, _locate(direction, data, wrong))


def position_of(direction: str, data: bytes, near: int) -> int | None:
    """The stream position of data[0], decoded from the data itself; None when it cannot be.

    Fewer than 15 bytes may hold no whole word: then `near` is right if the bytes fit there.
    """
    if data == payload(direction, near, len(data)):
        return near
    return _locate(direction, data, 0)


def _locate(direction: str, data: bytes, offset: int) -> int | None:
    key = KEYS[direction] >> 32
    for at in range(offset, min(offset + WORD_BYTES, len(data) - WORD_BYTES + 1)):
        (word,) = struct.unpack_from("<Q", data, at)
        if word >> 32 == key:
            return int((word & 0xFFFF_FFFF) * WORD_BYTES - (at - offset))
    return None


def endless(choice: tuple[int, ...] | range, seed: int) -> Iterator[int]:
    """Call sizes without end: a tuple is taken in turn, a range is drawn from the seed."""
    if isinstance(choice, range):
        source = random.Random(seed)
        while True:
            yield source.randrange(choice.start, choice.stop)
    yield from itertools.cycle(choice)


def sizes(total_bytes: int, choice: tuple[int, ...] | range, seed: int) -> Iterator[int]:
    """Call sizes, as `endless` gives them, that add up to `total_bytes`."""
    left = total_bytes
    for size in endless(choice, seed):
        if not left:
            return
        size = min(size, left)
        left -= size
        yield size
