"""Sends a trace file while it grows, without a word from the process that writes it.

The file is the writer's memory, mapped: what a killed writer had stored is there. A record that
has no sequence number yet was not written. A block is sent again as a whole when it is closed, for
its CRC, and then its memory is given back.

It is read by calls, never through a mapping: the writer cuts the blocks off that it had ready and
did not need, and who reads there in a mapping at that moment is killed by SIGBUS.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vchan_testbed.tracer import layout

U32 = struct.Struct("<I")
SEQ_OFFSET = 40
BLOCKS_USED_OFFSET = 24
BLOCK_STATE_OFFSET = 20


class TraceStream:
    """Follows one trace file; `send(offset, data)` gets every new stretch of it."""

    def __init__(self, path: Path, send: Callable[[int, bytes], None]) -> None:
        self._path = path
        self._send = send
        self._file: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._sent: dict[int, int] = {}
        self._tails: dict[int, bytes] = {}
        self._first_open = 0
        self._closed: set[int] = set()
        self._file_bytes = 0

    def pump(self, *, final: bool = False) -> int:
        """Send what is new; how many bytes that was. `final` sends the header in any case."""
        if self._file is None and not self._open():
            return 0
        sent = 0
        for number in range(self._first_open, self._u32(BLOCKS_USED_OFFSET)):
            if number not in self._closed:
                sent += self._pump_block(number)
        while self._first_open in self._closed:
            self._closed.remove(self._first_open)
            self._first_open += 1
        if sent or final:
            self._out(0, layout.HEADER_BYTES)
        return sent

    @property
    def file_bytes(self) -> int:
        """How far the file reaches that was sent so far."""
        return self._file_bytes

    def close(self) -> None:
        """Let the file go."""
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()

    def _open(self) -> bool:
        try:
            file = self._path.open("r+b", buffering=0)
        except FileNotFoundError:
            return False
        if os.fstat(file.fileno()).st_size < layout.HEADER_BYTES + layout.BLOCK_BYTES:
            file.close()
            return False
        self._file, self._map = file, mmap.mmap(file.fileno(), 0)
        return True

    def _pump_block(self, number: int) -> int:
        start = layout.HEADER_BYTES + number * layout.BLOCK_BYTES
        if self._u32(start + BLOCK_STATE_OFFSET) == layout.BlockState.CLOSED:
            self._out(start, layout.BLOCK_BYTES)
            self._closed.add(number)
            self._give_back(start)
            return layout.BLOCK_BYTES
        return self._pump_open_block(number, start)

    def _pump_open_block(self, number: int, start: int) -> int:
        before = self._sent.get(number, 0)
        count = self._complete(start, before)
        if not count:
            return 0
        # The newest record may have been read half written: it goes out again when it has changed,
        # or else the last record before a kill would be lost though it was complete.
        tail = self._bytes(_record_at(start, count - 1), layout.RECORD_BYTES)
        if count == before and tail == self._tails[number]:
            return 0
        first = max(before - 1, 0)
        self._sent[number], self._tails[number] = count, tail
        self._out(start, layout.BLOCK_HEADER_BYTES)
        return self._out(_record_at(start, first), (count - first) * layout.RECORD_BYTES)

    def _complete(self, start: int, before: int) -> int:
        """How many records of the block have their number; `before` are known to.

        They are read once more when they go out: what was read here may be older than its number.
        """
        at = _record_at(start, before)
        words = memoryview(self._bytes(at, start + layout.BLOCK_BYTES - at)).cast("I")
        numbers = words[SEQ_OFFSET // U32.size :: layout.RECORD_BYTES // U32.size].tolist()
        return before + (numbers.index(0) if 0 in numbers else len(numbers))

    def _u32(self, at: int) -> int:
        return int(U32.unpack(self._bytes(at, U32.size))[0])

    def _bytes(self, offset: int, count: int) -> bytes:
        """Bytes of the file; zeros where it ends before, as in a block that was not begun."""
        assert self._file is not None
        return os.pread(self._file.fileno(), count, offset).ljust(count, b"\0")

    def _out(self, offset: int, count: int) -> int:
        self._send(offset, self._bytes(offset, count))
        self._file_bytes = max(self._file_bytes, offset + count)
        return count

    def _give_back(self, start: int) -> None:
        """The file lies in a guest's small memory: punch a hole where the block was."""
        assert self._map is not None
        # A file system that cannot do this keeps the block; only tmpfs has little room.
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_REMOVE, start, layout.BLOCK_BYTES)


def _record_at(start: int, record: int) -> int:
    return start + layout.BLOCK_HEADER_BYTES + record * layout.RECORD_BYTES
