"""Sends a trace file while it grows, without a word from the process that writes it.

The file is the writer's memory, mapped: what a killed writer had stored is there. A record that
has no sequence number yet was not written; a block is sent again when it is closed, for its CRC.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from vchan_testbed.tracer import layout

_SEQ = struct.Struct("<I")
_BLOCKS_USED = struct.Struct("<I")
PUNCH_HOLE_KEEP_SIZE = 3


class TraceStream:
    """Follows one trace file; `send(offset, data)` gets every new stretch of it."""

    def __init__(self, path: Path, send: Callable[[int, bytes], None]) -> None:
        self._path = path
        self._send = send
        self._map: mmap.mmap | None = None
        self._sent: dict[int, int] = {}
        self._closed: set[int] = set()
        self._file_bytes = 0

    def pump(self, *, final: bool = False) -> int:
        """Send what is new; how many bytes that was. `final` sends the header once more."""
        if self._map is None and not self._open():
            return 0
        assert self._map is not None
        (used,) = _BLOCKS_USED.unpack_from(self._map, layout.HEADER_BLOCKS_USED_OFFSET)
        sent = 0
        for number in range(used):
            if number not in self._closed:
                sent += self._pump_block(number)
        if sent or final:
            self._out(0, layout.HEADER_BYTES)
        return sent

    @property
    def file_bytes(self) -> int:
        """How far the file reaches that was sent so far."""
        return self._file_bytes

    def _open(self) -> bool:
        try:
            with self._path.open("r+b") as file:
                if os.fstat(file.fileno()).st_size < layout.HEADER_BYTES:
                    return False
                self._map = mmap.mmap(file.fileno(), 0)
        except FileNotFoundError:
            return False
        return True

    def _pump_block(self, number: int) -> int:
        assert self._map is not None
        start = layout.HEADER_BYTES + number * layout.BLOCK_BYTES
        if self._map[start + layout.BLOCK_STATE_OFFSET] == layout.BLOCK_CLOSED:
            self._out(start, layout.BLOCK_BYTES)
            self._closed.add(number)
            self._free(start)
            return layout.BLOCK_BYTES
        first = self._sent.get(number, 0)
        count = first
        while count < layout.RECORDS_PER_BLOCK and self._written(start, count):
            count += 1
        if count == first:
            return 0
        self._sent[number] = count
        at = start + layout.BLOCK_HEADER_BYTES + first * layout.RECORD_BYTES
        self._out(start, layout.BLOCK_HEADER_BYTES)
        self._out(at, (count - first) * layout.RECORD_BYTES)
        return (count - first) * layout.RECORD_BYTES

    def _written(self, start: int, record: int) -> bool:
        assert self._map is not None
        at = start + layout.BLOCK_HEADER_BYTES + record * layout.RECORD_BYTES
        return bool(_SEQ.unpack_from(self._map, at + layout.RECORD_SEQ_OFFSET)[0])

    def _out(self, offset: int, count: int) -> None:
        assert self._map is not None
        self._send(offset, self._map[offset : offset + count])
        self._file_bytes = max(self._file_bytes, offset + count)

    def _free(self, start: int) -> None:
        """Give a sent block's memory back: the file lies in a guest's small memory."""
        with contextlib.suppress(OSError), self._path.open("r+b") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            libc.fallocate(
                file.fileno(),
                PUNCH_HOLE_KEEP_SIZE,
                ctypes.c_long(start),
                ctypes.c_long(layout.BLOCK_BYTES),
            )
