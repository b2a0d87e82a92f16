"""Frames: what is written comes back, and a stream that is none is noticed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchan_testbed.guests.frames import (
    HEADER,
    PAYLOAD_BYTES_MAX,
    Decoder,
    Frame,
    FrameCut,
    FrameError,
    FrameStream,
    Kind,
    data_frame,
    encode,
    message_frame,
    read_frame,
    write_frame,
)

FRAMES = st.builds(
    Frame,
    tag=st.integers(0, 0xFFFF),
    kind=st.sampled_from(list(Kind)),
    payload=st.binary(max_size=300),
)


@given(st.lists(FRAMES, max_size=5), st.integers(1, 50))
def test_frames_come_back_however_the_stream_is_cut(frames: list[Frame], piece: int) -> None:
    stream = b"".join(encode(frame) for frame in frames)
    decoder = Decoder()
    found = [
        f for at in range(0, len(stream), piece) for f in decoder.feed(stream[at : at + piece])
    ]
    assert found == frames
    assert decoder.pending_bytes == 0


def test_a_file_gives_back_what_was_written_to_it() -> None:
    file = io.BytesIO()
    stream = FrameStream(file, file)
    stream.send({"type": "hello", "pid": 3})
    stream.write(data_frame(4096, b"abc", tag=7))
    file.seek(0)
    first, second = stream.read(), stream.read()
    assert first is not None
    assert first.message() == {"type": "hello", "pid": 3}
    assert second is not None
    assert (second.tag, second.data()) == (7, (4096, b"abc"))
    assert second.retagged(9).tag == 9
    assert stream.read() is None


class Narrow(io.BytesIO):
    """Takes and gives three bytes at a time, as a pipe may."""

    def write(self, data: object, /) -> int:
        return super().write(bytes(data)[:3])  # type: ignore[call-overload]

    def read(self, count: int | None = -1, /) -> bytes:
        return super().read(min(count or 3, 3))


def test_short_writes_and_reads_are_gone_on_with() -> None:
    file = Narrow()
    write_frame(file, message_frame({"type": "x", "text": "a" * 100}))
    file.seek(0)
    frame = read_frame(file)
    assert frame is not None
    assert frame.message()["text"] == "a" * 100


GOOD = encode(data_frame(0, b"some bytes"))
BROKEN = {
    "a bit of the payload": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "the CRC": GOOD[:8] + bytes([GOOD[8] ^ 1]) + GOOD[9:],
    "the kind": GOOD[:6] + b"\x09" + GOOD[7:],
    "the zero": GOOD[:7] + b"\x01" + GOOD[8:],
    "the length": HEADER.pack(PAYLOAD_BYTES_MAX + 1, 0, 2, 0, 0) + GOOD[12:],
    "a console's line": b"Kernel panic - not syncing" + GOOD,
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_stream_is_said(what: str) -> None:
    with pytest.raises(FrameError) as error:
        Decoder().feed(BROKEN[what])
    assert error.value.next_step
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(BROKEN[what]))


@pytest.mark.parametrize("kept", range(1, len(GOOD)))
def test_an_end_inside_of_a_frame_is_not_a_clean_end(kept: int) -> None:
    with pytest.raises(FrameCut, match="ended"):
        read_frame(io.BytesIO(GOOD[:kept]))


NOT_MESSAGES = [b"no json", b"[1]", b"{}", b'{"type": 3}']


@pytest.mark.parametrize("payload", NOT_MESSAGES)
def test_a_message_has_a_type(payload: bytes) -> None:
    with pytest.raises(FrameError):
        Frame(0, Kind.MESSAGE, payload).message()


def test_each_kind_is_read_as_itself_only() -> None:
    with pytest.raises(FrameError):
        data_frame(0, b"x").message()
    with pytest.raises(FrameError):
        message_frame({"type": "x"}).data()
    with pytest.raises(FrameError):
        Frame(0, Kind.DATA, b"short").data()
