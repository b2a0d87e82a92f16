"""Read a trace file: all of it, or what is left of it.

A trace ends `complete` when its process said so; otherwise it is `cut`, and the notes say where.
What cannot have come about by being cut off (a closed block whose CRC is wrong) is damage.
"""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.completed import completed
from vchan_testbed.tracer.format import (
    BLOCK_HEADER_DTYPE,
    RECORD_DTYPE,
    Records,
    TraceHeader,
    checks_of,
)

_ZEROS = bytes(layout.BLOCK_BYTES)


class TraceDamaged(TestbedError):
    """A trace file whose bytes were changed after they were written."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One endpoint's trace."""

    header: TraceHeader
    records: Records
    """`RECORD_DTYPE`, ordered by thread and then by number in the thread."""
    ending: Literal["complete", "cut"]
    dropped: int
    """Records that found no room in the file."""
    notes: tuple[str, ...]
    """What a reader should know: where it was cut, what is missing."""


def read_trace(path: Path) -> Trace:
    """Read the trace file `path`.

    Raises InputError if it is none or one of another version, TraceDamaged if a closed block has
    a wrong CRC or a block's header makes no sense.
    """
    header, found = _load(path)
    cuts = list(found.cuts)
    if header.complete and found.reach < header.blocks_used:
        cuts.append(f"It reaches to block {found.reach}, of {header.blocks_used}.")
    if not header.complete:
        cuts.insert(0, "The process did not end its trace.")
    lost = [f"{header.dropped} records found no room in the file."] if header.dropped else []
    records: Records = np.concatenate([np.empty(0, RECORD_DTYPE), *found.parts])
    records = completed(header, records[np.lexsort((records["seq"], records["thread"]))])
    ending: Literal["complete", "cut"] = "cut" if cuts else "complete"
    return Trace(header, records, ending, header.dropped, tuple(cuts + lost))


@dataclass
class _Found:
    """What the blocks hold, gathered block by block."""

    name: str
    parts: list[Records] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    reach: int = 0
    """Blocks up to the last one with something in it; some before it may never have been used."""

    def take(self, number: int, block: bytes) -> None:
        """Take in one block, which may be cut short."""
        if block == _ZEROS[: len(block)]:
            # Claimed by a thread that never got to write into it, or never claimed.
            return
        self.reach = number + 1
        if len(block) < layout.BLOCK_HEADER_BYTES:
            self.cuts.append(f"Block {number} is cut off within its header.")
            return
        head = np.frombuffer(block, BLOCK_HEADER_DTYPE, 1)[0]
        count = int(head["count"])
        closed = head["state"] == layout.BlockState.CLOSED
        known = closed or head["state"] == layout.BlockState.OPEN
        if head["magic"] != layout.BLOCK_MAGIC or head["number"] != number or not known:
            raise self._damaged(f"Block {number} of {self.name} does not begin as a block.")
        if count > layout.RECORDS_PER_BLOCK:
            raise self._damaged(f"Block {number} of {self.name} claims {count} records.")
        records = _whole_records(block)
        if closed and len(records) >= count:
            self._take_closed(number, records[:count], int(head["crc"]))
        else:
            self._take_open(number, records)

    def _take_closed(self, number: int, records: Records, crc: int) -> None:
        checks = checks_of(records)
        if (checks != records["check"]).any() or zlib.crc32(checks.tobytes()) != crc:
            raise self._damaged(f"Block {number} of {self.name} has a wrong CRC.")
        self.parts.append(records)

    def _take_open(self, number: int, records: Records) -> None:
        right = checks_of(records) == records["check"]
        count = len(records) if right.all() else int(np.argmin(right))
        self.cuts.append(f"Block {number} was not closed: {count} records taken one by one.")
        # A copy made while the block was being written can miss a record and have the next one.
        if behind := int(right[count:].sum()):
            self.cuts.append(f"Block {number}: {behind} records behind a torn one are left out.")
        self.parts.append(records[:count])

    @staticmethod
    def _damaged(message: str) -> TraceDamaged:
        return TraceDamaged(
            message, next_step="The file was changed after recording: repeat the run."
        )


def _load(path: Path) -> tuple[TraceHeader, _Found]:
    found = _Found(str(path))
    try:
        with path.open("rb") as file:
            header = TraceHeader.unpack(file.read(layout.HEADER_BYTES), str(path))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for start in _block_starts(file.fileno(), len(data)):
                    number = (start - layout.HEADER_BYTES) // layout.BLOCK_BYTES
                    found.take(number, data[start : start + layout.BLOCK_BYTES])
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.", next_step="Name a trace file."
        ) from error
    return header, found


def _block_starts(fd: int, file_bytes: int) -> Iterator[int]:
    """Where blocks may begin that hold something; not in the holes of a file that was not ended.

    Beyond blocks_used as well: a copy's header can be older than its blocks.
    """
    start = layout.HEADER_BYTES
    while start < file_bytes:
        try:
            data = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            # The file system does not know holes.
            data = start
        start += (data - start) // layout.BLOCK_BYTES * layout.BLOCK_BYTES
        yield start
        start += layout.BLOCK_BYTES


def _whole_records(block: bytes) -> Records:
    count = (len(block) - layout.BLOCK_HEADER_BYTES) // layout.RECORD_BYTES
    return np.frombuffer(block, RECORD_DTYPE, count, layout.BLOCK_HEADER_BYTES)
