"""Frames: the one byte stream that helper and agents speak, whatever carries it.

A frame, little endian:

     0       4     6      7        8         12
     +-------+-----+------+--------+---------+----------------+
     | bytes | tag | kind | zero   | CRC-32  | payload        |
     | u32   | u16 | u8   | u8     | u32     | `bytes` bytes  |
     +-------+-----+------+--------+---------+----------------+

`tag` tells streams apart that share a carrier: 0 is the speaker itself, n an agent behind it.
The CRC is over the payload: a console that mixes a line into the stream is noticed at once.
Only the standard library is used: this runs in guests.
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from vchan_testbed.errors import TestbedError

HEADER = struct.Struct("<IHBBI")
PAYLOAD_BYTES_MAX = 1 << 24
DATA_OFFSET = struct.Struct("<Q")

Message = dict[str, Any]


class Kind(IntEnum):
    """What a frame's payload is."""

    MESSAGE = 1
    """A JSON object with a "type"."""
    DATA = 2
    """u64 offset in the trace file, then the bytes that belong there."""
    LOG = 3
    """UTF-8 text, for people."""
    END = 4
    """The stream with this tag is over; no payload."""


class FrameError(TestbedError):
    """The byte stream is not one of frames any more."""


class FrameCut(FrameError):
    """The byte stream ended inside a frame: whoever wrote it was killed as it wrote."""


@dataclass(frozen=True)
class Frame:
    """One frame: stream tag, kind, payload."""

    tag: int
    kind: Kind
    payload: bytes = b""

    def message(self) -> Message:
        """The JSON object of a MESSAGE frame. Raises FrameError for anything else."""
        if self.kind is not Kind.MESSAGE:
            raise FrameError(f"a {self.kind.name} frame where a message was expected")
        try:
            message = json.loads(self.payload)
        except ValueError as error:
            raise FrameError(f"a message that is not JSON: {error}") from error
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise FrameError('a message that is not a JSON object with a "type"')
        return message

    def data(self) -> tuple[int, bytes]:
        """Offset in the trace file and the bytes of a DATA frame."""
        if self.kind is not Kind.DATA or len(self.payload) < DATA_OFFSET.size:
            raise FrameError(f"a {self.kind.name} frame where trace data was expected")
        return DATA_OFFSET.unpack_from(self.payload)[0], self.payload[DATA_OFFSET.size :]

    def retagged(self, tag: int) -> Frame:
        """The same frame under another tag."""
        return Frame(tag, self.kind, self.payload)


def message_frame(message: Message, tag: int = 0) -> Frame:
    """A frame with a JSON message."""
    return Frame(tag, Kind.MESSAGE, json.dumps(message, separators=(",", ":")).encode())


def data_frame(offset: int, data: bytes, tag: int = 0) -> Frame:
    """A frame with trace bytes that belong at `offset` of the trace file."""
    return Frame(tag, Kind.DATA, DATA_OFFSET.pack(offset) + data)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    head = HEADER.pack(
        len(frame.payload), frame.tag, frame.kind, 0, zlib.crc32(frame.payload) & 0xFFFFFFFF
    )
    return head + frame.payload


class Decoder:
    """Bytes in, whole frames out: for readers that wait on several streams at once."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are complete after `data`. Raises FrameError on a broken stream."""
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame is there."""
        return len(self._buffer)

    def _next(self) -> Frame | None:
        if len(self._buffer) < HEADER.size:
            return None
        length, tag, kind, crc = _parse_header(bytes(self._buffer[: HEADER.size]))
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return Frame(tag, kind, _checked(payload, crc))


class Reads(Protocol):
    """What `read_frame` needs of a binary file."""

    def read(self, count: int, /) -> bytes | None:
        """As in io."""


class Writes(Protocol):
    """What `write_frame` needs of a binary file."""

    def write(self, data: bytes, /) -> int | None:
        """As in io."""

    def flush(self) -> None:
        """As in io."""


def read_frame(file: Reads) -> Frame | None:
    """The next frame; None at a clean end. Raises FrameCut for an end inside a frame."""
    head = _read_exactly(file, HEADER.size)
    if not head:
        return None
    if len(head) < HEADER.size:
        raise FrameCut("the stream ended inside a frame's header")
    length, tag, kind, crc = _parse_header(head)
    payload = _read_exactly(file, length)
    if len(payload) < length:
        raise FrameCut(f"the stream ended after {len(payload)} of {length} bytes of a frame")
    return Frame(tag, kind, _checked(payload, crc))


def write_frame(file: Writes, frame: Frame) -> None:
    """Write one frame and flush."""
    data = memoryview(encode(frame))
    while data:
        written = file.write(bytes(data))
        data = data[written if written is not None else len(data) :]
    file.flush()


class FrameStream:
    """Frames over one pair of binary files; several threads may write."""

    def __init__(self, reader: Reads, writer: Writes) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()

    def read(self) -> Frame | None:
        """The next frame, None at the end."""
        return read_frame(self._reader)

    def write(self, frame: Frame) -> None:
        """Write one frame, whole."""
        with self._lock:
            write_frame(self._writer, frame)

    def send(self, message: Message) -> None:
        """Write one message under tag 0."""
        self.write(message_frame(message))


def _parse_header(head: bytes) -> tuple[int, int, Kind, int]:
    length, tag, kind, zero, crc = HEADER.unpack(head)
    if zero or length > PAYLOAD_BYTES_MAX or kind not in set(Kind):
        raise FrameError(
            f"not a frame: {head.hex()}",
            next_step="Something else writes to this stream; look at the run's console folder.",
        )
    return length, tag, Kind(kind), crc


def _checked(payload: bytes, crc: int) -> bytes:
    if zlib.crc32(payload) & 0xFFFFFFFF != crc:
        raise FrameError(
            f"a frame of {len(payload)} bytes arrived with a wrong CRC",
            next_step="Run again; if it comes back, the carrier between host and domain is broken.",
        )
    return payload


def _read_exactly(file: Reads, count: int) -> bytes:
    parts: list[bytes] = []
    missing = count
    while missing:
        part = file.read(missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
