"""Payload that tells where it was written, and sizes that come back for a seed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchan_testbed.guests.workload import Mismatch, check, endless, payload, position_of, sizes

DIRECTIONS = st.sampled_from(["left", "right"])
WHOLE = payload("left", 0, 4096)


@given(DIRECTIONS, st.integers(0, 1 << 33), st.integers(0, 200), st.integers(0, 200))
def test_a_stream_is_the_same_however_it_is_cut(
    direction: str, position: int, first: int, second: int
) -> None:
    parts = payload(direction, position, first) + payload(direction, position + first, second)
    assert parts == payload(direction, position, first + second)
    assert check(direction, position, parts) is None


@given(DIRECTIONS, st.integers(0, 1 << 33), st.integers(15, 100), st.integers(0, 1 << 33))
def test_fifteen_bytes_tell_their_position(
    direction: str, position: int, count: int, near: int
) -> None:
    assert position_of(direction, payload(direction, position, count), near) == position


def test_few_bytes_are_believed_where_they_fit() -> None:
    assert position_of("left", payload("left", 24, 3), 24) == 24
    assert position_of("left", b"\xff\xff\xff", 24) is None


def test_a_lost_byte_is_located() -> None:
    data = WHOLE[:1000] + WHOLE[1001:2000]
    assert check("left", 0, data) == Mismatch(1000, 1001)


def test_doubled_bytes_are_located() -> None:
    data = WHOLE[:1024] + WHOLE[1000:1024] + WHOLE[1024:]
    assert check("left", 0, data) == Mismatch(1024, 1000)


def test_moved_bytes_are_located() -> None:
    data = WHOLE[:512] + WHOLE[1024:1536] + WHOLE[512:1024]
    assert check("left", 0, data) == Mismatch(512, 1024)


def test_bytes_of_the_other_direction_are_nobodys() -> None:
    assert check("left", 0, payload("right", 0, 64)) == Mismatch(4, None)


@pytest.mark.parametrize("at", [0, 1, 7, 8, 63])
def test_a_changed_bit_is_located(at: int) -> None:
    data = bytearray(payload("right", 4096, 64))
    data[at] ^= 0x10
    mismatch = check("right", 4096, bytes(data))
    assert mismatch is not None
    assert mismatch.position == 4096 + at


def test_sizes_of_a_seed_come_back_and_add_up() -> None:
    first = list(sizes(10_000, range(1, 500), seed=7))
    assert first == list(sizes(10_000, range(1, 500), seed=7))
    assert first != list(sizes(10_000, range(1, 500), seed=8))
    assert sum(first) == 10_000
    assert max(first) < 500


def test_listed_sizes_are_taken_in_turn() -> None:
    assert list(sizes(10, (4, 1), seed=0)) == [4, 1, 4, 1]
    assert list(sizes(6, (4,), seed=0)) == [4, 2]
    assert list(itertools.islice(endless((1, 2), 0), 5)) == [1, 2, 1, 2, 1]
