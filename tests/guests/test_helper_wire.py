"""A client and a helper find each other's first frame, whatever was in the stream before."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchan_testbed.guests.frames import Frame, FrameError, Kind, encode, message_frame
from vchan_testbed.guests.helper.wire import SYNC, SessionDecoder, opening

HELLO = {"type": "hello", "id": 1}
LOG = Frame(0, Kind.LOG, b"a line")


def fed(decoder: SessionDecoder, data: bytes, cuts: list[int]) -> list[Frame | None]:
    """Everything that comes out when `data` arrives in pieces."""
    found: list[Frame | None] = []
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(places):
        found += decoder.feed(data[begin:end])
    return found


@given(before=st.binary(max_size=200), cuts=st.lists(st.integers(0, 1000), max_size=8))
def test_a_session_begins_at_its_sync_whatever_came_before(before: bytes, cuts: list[int]) -> None:
    decoder = SessionDecoder()
    data = before + opening(HELLO) + encode(LOG)
    assert fed(decoder, data, cuts) == [None, message_frame(HELLO), LOG]


@given(cuts=st.lists(st.integers(0, 1000), max_size=8), held=st.integers(0, 100))
def test_a_frame_that_was_left_half_sent_swallows_nothing(cuts: list[int], held: int) -> None:
    decoder = SessionDecoder()
    decoder.feed(opening(HELLO))
    half = encode(Frame(0, Kind.DATA, bytes(4096)))[: 12 + held]
    found = fed(decoder, half + opening({"type": "hello", "id": 2}) + encode(LOG), cuts)
    assert found == [None, message_frame({"type": "hello", "id": 2}), LOG]


def test_of_two_sessions_at_once_the_last_counts() -> None:
    decoder = SessionDecoder()
    found = decoder.feed(opening({"type": "hello", "id": 1}) + opening({"type": "hello", "id": 2}))
    assert found == [None, message_frame({"type": "hello", "id": 2})]


def test_nothing_counts_before_the_first_sync_nor_after_a_hang_up() -> None:
    decoder = SessionDecoder()
    assert decoder.feed(encode(LOG)) == []
    assert decoder.feed(opening(HELLO)) == [None, message_frame(HELLO)]
    decoder.forget()
    assert decoder.feed(encode(LOG)) == []


def test_a_broken_frame_is_told_once_and_the_rest_dropped_up_to_the_next_sync() -> None:
    decoder = SessionDecoder()
    decoder.feed(opening(HELLO))
    with pytest.raises(FrameError):
        decoder.feed(b"\xff" * 40)
    assert decoder.feed(encode(LOG)) == []
    assert decoder.feed(SYNC + encode(LOG)) == [None, LOG]
