"""Read a trace file: all of it, or what is left of it.

A trace ends `complete` when its process said so; otherwise it is `cut`, and the notes say where.
What cannot have come about by being cut off (a closed block whose CRC is wrong) is damage.

The file of a flight recorder is a *window*: each thread's records begin behind those that were
written over, and follow on each other without a gap from there on. What is torn when a process is
killed is the record that takes the oldest one's place.
"""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.completed import completed
from vchan_testbed.tracer.format import BLOCK_HEADER_DTYPE, RECORD_DTYPE, Records, checks_of
from vchan_testbed.tracer.header import TraceHeader

_ZEROS = bytes(layout.BLOCK_BYTES)
_LOW_32 = 0xFFFFFFFF

Numbers = npt.NDArray[np.uint64]


class TraceDamaged(TestbedError):
    """A trace file whose bytes were changed after they were written."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a flight recorder has kept: of each thread the last records."""

    frozen_by: layout.FrozenBy
    """What froze it; NOTHING: it went on to the end of its process."""
    lost: Mapping[int, int]
    """By thread, how many of its records came before the first that is there."""
    left_out: int
    """Records that came when it was frozen."""

    @property
    def begins_later(self) -> bool:
        """Whether records are lost at its beginning."""
        return any(self.lost.values())

    @property
    def lost_records(self) -> int:
        """Of all threads together."""
        return sum(self.lost.values())

    def told(self) -> str:
        """In words, for a reader: by what it was frozen, what is missing at both ends."""
        by = {
            layout.FrozenBy.NOTHING: "kept when its process ended",
            layout.FrozenBy.SIGNAL: "frozen by a signal",
            layout.FrozenBy.SETTLE_TIME: "frozen when no record had come for the settle time",
            layout.FrozenBy.REQUEST: "frozen on request",
        }[self.frozen_by]
        lost = "; ".join(
            f"thread {thread}: {count} records ({count * layout.RECORD_BYTES} bytes) lost before it"
            for thread, count in self.lost.items()
            if count
        )
        left = f"{self.left_out} later records were left out" if self.left_out else ""
        return "; ".join(part for part in (f"a window, {by}", lost, left) if part)


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
    window: Window | None = None
    """Of a flight recorder's file."""

    @property
    def missed(self) -> int:
        """Accesses of the library that its translation does not have: a signal caught each."""
        inits = np.isin(self.records["call"], (layout.Call.SERVER_INIT, layout.Call.CLIENT_INIT))
        by_signal = self.records["flags"] & layout.Flag.BY_SIGNAL != 0
        return int(np.count_nonzero(by_signal & ~inits))

    @property
    def begins_later(self) -> bool:
        """Whether it is a window before which records are lost."""
        return self.window is not None and self.window.begins_later


def read_trace(path: Path) -> Trace:
    """Read the trace file `path`.

    The `seq` of a window's records has the low 32 bits of their numbers.

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
    if header.left_out:
        cuts.append(f"{header.left_out} records came when it was frozen, and are left out.")
    records: Records = np.concatenate([np.empty(0, RECORD_DTYPE), *found.parts])
    numbers = np.concatenate([np.empty(0, np.uint64), *found.numbers])
    in_order = np.lexsort((numbers, records["thread"]))
    window = _window(header, records["thread"], numbers) if header.ring_blocks else None
    records = completed(header, records[in_order])
    ending: Literal["complete", "cut"] = "cut" if cuts else "complete"
    return Trace(header, records, ending, header.dropped, tuple(cuts + lost), window)


def from_first_calls(trace: Trace) -> Trace:
    """A window without what lies before each thread's first call.

    Of the call that the window begins in nobody knows the beginning, and so not what it was about.
    A trace that is no window, and a thread that is there from its start, stay as they are.
    """
    if trace.window is None or not trace.window.begins_later:
        return trace
    records, lost = trace.records, dict(trace.window.lost)
    keep = np.ones(len(records), np.bool_)
    for thread, before in trace.window.lost.items():
        own = np.flatnonzero(records["thread"] == thread)
        entered = np.flatnonzero(records["kind"][own] == layout.Kind.CALL_ENTER)
        gone = 0 if not before else int(entered[0]) if len(entered) else len(own)
        keep[own[:gone]] = False
        lost[thread] = before + gone
    return replace(trace, records=records[keep], window=replace(trace.window, lost=lost))


def _window(header: TraceHeader, threads: Numbers, numbers: Numbers) -> Window:
    lost = {int(thread): int(numbers[threads == thread].min()) - 1 for thread in np.unique(threads)}
    return Window(layout.FrozenBy(header.frozen), lost, header.left_out)


@dataclass
class _Found:
    """What the blocks hold, gathered block by block."""

    name: str
    ring_blocks: int = 0
    """Of a thread's ring, in a flight recorder's file."""
    parts: list[Records] = field(default_factory=list)
    numbers: list[Numbers] = field(default_factory=list)
    """Of the records of each part, in their thread."""
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
        of_ring = head["state"] == layout.BlockState.OF_RING and self.ring_blocks > 0
        known = closed or of_ring or head["state"] == layout.BlockState.OPEN
        if head["magic"] != layout.BLOCK_MAGIC or head["number"] != number or not known:
            raise self._damaged(f"Block {number} of {self.name} does not begin as a block.")
        if count > layout.RECORDS_PER_BLOCK:
            raise self._damaged(f"Block {number} of {self.name} claims {count} records.")
        records = _whole_records(block)
        if of_ring:
            self._take_of_ring(number, records, int(head["thread"]), int(head["first"]))
        elif closed and len(records) >= count:
            self._take_closed(number, records[:count], int(head["crc"]))
        else:
            self._take_open(number, records)

    def _take_closed(self, number: int, records: Records, crc: int) -> None:
        checks = checks_of(records)
        if (checks != records["check"]).any() or zlib.crc32(checks.tobytes()) != crc:
            raise self._damaged(f"Block {number} of {self.name} has a wrong CRC.")
        self._add(records, records["seq"].astype(np.uint64))

    def _add(self, records: Records, numbers: Numbers) -> None:
        self.parts.append(records)
        self.numbers.append(numbers)

    def _take_of_ring(self, number: int, records: Records, thread: int, first: int) -> None:
        """Records of this round, and of the one before where this one has not come to them."""
        places = np.arange(len(records), dtype=np.int64) + first
        before = places - self.ring_blocks * layout.RECORDS_PER_BLOCK
        seq = records["seq"].astype(np.int64)
        is_new = seq == places & _LOW_32
        is_old = ~is_new & (before > 0) & (seq == before & _LOW_32)
        right = (checks_of(records) == records["check"]) & (records["thread"] == thread)
        taken = right & (is_new | is_old)
        if (right & ~taken).any():
            raise self._damaged(f"Block {number} of {self.name} has records out of their places.")
        self._add(records[taken], np.where(is_new, places, before)[taken].astype(np.uint64))

    def _take_open(self, number: int, records: Records) -> None:
        right = checks_of(records) == records["check"]
        count = len(records) if right.all() else int(np.argmin(right))
        self.cuts.append(f"Block {number} was not closed: {count} records taken one by one.")
        # A copy made while the block was being written can miss a record and have the next one.
        if behind := int(right[count:].sum()):
            self.cuts.append(f"Block {number}: {behind} records behind a torn one are left out.")
        self._add(records[:count], records["seq"][:count].astype(np.uint64))

    @staticmethod
    def _damaged(message: str) -> TraceDamaged:
        return TraceDamaged(
            message, next_step="The file was changed after recording: repeat the run."
        )


def _load(path: Path) -> tuple[TraceHeader, _Found]:
    try:
        with path.open("rb") as file:
            header = TraceHeader.unpack(file.read(layout.HEADER_BYTES), str(path))
            found = _Found(str(path), header.ring_blocks)
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
