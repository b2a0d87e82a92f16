"""Digests of copies, put together: whether both ends moved the same bytes.

The tracer gives each copy into and out of a ring a digest of its bytes (`tracer/core/digest.h`).
The bytes are the digits of a number to the base 256, modulo a prime; so the digest of a stream
follows from those of its parts, however it was cut. Only streams of one length are compared. It
knows nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MODULUS = 2**64 - 59
BASE = 256


@dataclass(frozen=True, slots=True)
class Copied:
    """One copy: how many bytes, their digest, and the trace's row."""

    count: int
    digest: int
    row: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two streams first differ, as far as their digests tell."""

    same_up_to: int
    """Position up to which they are the same."""
    position: int
    """The first common position behind it: the difference is before it."""
    written: int
    """Row of the writer's copy that ends there."""
    read: int
    """Row of the reader's copy that ends there."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of comparing two streams."""

    positions: int
    """Common positions at which they are the same."""
    difference: Difference | None


def digest_of(data: bytes) -> int:
    """The digest of some bytes."""
    return int.from_bytes(data, "big") % MODULUS


def joined(first: int, second: int, second_count: int) -> int:
    """The digest of what was copied first and, behind it, `second_count` bytes."""
    return (first * pow(BASE, second_count, MODULUS) + second) % MODULUS


def compared(written: Sequence[Copied], read: Iterable[Copied]) -> Compared:
    """Compare both ends' copies wherever both have come to the same position of the stream."""
    writes = _prefixes(written)
    position, digest, row = 0, 0, -1
    same_up_to = positions = 0
    for read_position, read_digest, read_row in _prefixes(read):
        while position < read_position:
            following = next(writes, None)
            if following is None:
                return Compared(positions, None)
            position, digest, row = following
        if position != read_position:
            continue
        if digest != read_digest:
            return Compared(positions, Difference(same_up_to, position, row, read_row))
        positions, same_up_to = positions + 1, position
    return Compared(positions, None)


def _prefixes(copies: Iterable[Copied]) -> Iterator[tuple[int, int, int]]:
    """Behind each copy: the position, the digest of all up to there, the copy's row."""
    powers: dict[int, int] = {}
    position = digest = 0
    for copy in copies:
        power = powers.get(copy.count)
        if power is None:
            power = powers[copy.count] = pow(BASE, copy.count, MODULUS)
        digest = (digest * power + copy.digest) % MODULUS
        position += copy.count
        yield position, digest, copy.row
