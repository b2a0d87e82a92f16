"""Reads a trace file: whole blocks by their CRC, an open or cut one record by record."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.format import (
    BLOCK_HEADER,
    RECORD_DTYPE,
    Records,
    TraceHeader,
    checks,
    unpack_header,
)


class TraceDamaged(TestbedError):
    """A trace that was complete once and has been changed or broken since."""


@dataclass(frozen=True)
class Trace:
    """One endpoint's trace: records by (thread, seq).

    `ending` is "complete" or "cut": after a cut the endpoint may have done one more access.
    """

    header: TraceHeader
    records: Records
    ending: str
    dropped: int
    notes: tuple[str, ...] = ()


def read_trace(path: Path) -> Trace:
    """Read the trace file `path`.

    Raises InputError (not a trace, another version), TraceDamaged (wrong CRC in a closed block).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", next_step="Name a trace or a run directory."
        ) from error
    _check_magic(path, data)
    if len(data) < layout.HEADER_BYTES:
        raise TraceDamaged(
            f"{path} is cut off inside its header, after {len(data)} bytes",
            next_step="Nothing can be judged from it; run the experiment again.",
        )
    header = unpack_header(data)
    (used,) = struct.unpack_from("<I", data, layout.HEADER_BLOCKS_USED_OFFSET)
    complete = data[layout.HEADER_STATE_OFFSET] == layout.STATE_COMPLETE
    notes: list[str] = []
    parts = [_block(path, data, number, notes) for number in range(used)]
    records = np.concatenate([*parts, np.zeros(0, RECORD_DTYPE)])
    records = records[np.lexsort((records["seq"], records["thread"]))]
    if notes:
        complete = False
    if not complete:
        notes.append("the trace is cut: its process ended without closing it")
    return Trace(header, records, "complete" if complete else "cut", header.dropped, tuple(notes))


def _check_magic(path: Path, data: bytes) -> None:
    if data[: len(layout.MAGIC)] != layout.MAGIC:
        raise InputError(
            f"{path} is not a trace of vchan-testbed",
            next_step="Name a .vtrace file or a run directory.",
        )
    version = int.from_bytes(data[8:10], "little")
    if len(data) >= 10 and version != layout.VERSION:
        raise InputError(
            f"{path} is a trace of version {version}; this program reads version {layout.VERSION}",
            next_step="Judge it with the version of vchan-testbed that made it.",
        )


def _block(path: Path, data: bytes, number: int, notes: list[str]) -> Records:
    start = layout.HEADER_BYTES + number * layout.BLOCK_BYTES
    raw = data[start : start + layout.BLOCK_BYTES]
    if len(raw) < layout.BLOCK_HEADER_BYTES:
        notes.append(f"block {number} and what follows is missing: the file was truncated")
        return np.zeros(0, RECORD_DTYPE)
    magic, _, _, state, _, count, crc = BLOCK_HEADER.unpack_from(raw)
    body = raw[layout.BLOCK_HEADER_BYTES :]
    if len(raw) < layout.BLOCK_BYTES:
        notes.append(f"block {number} ends early: the file was truncated")
        return _one_by_one(body)
    if magic != layout.BLOCK_MAGIC or state not in (layout.BLOCK_OPEN, layout.BLOCK_CLOSED):
        if not any(raw):
            # A block that was reserved and never written to.
            return np.zeros(0, RECORD_DTYPE)
        raise _damaged(path, number, "its header is not that of a block")
    if state == layout.BLOCK_OPEN:
        notes.append(f"block {number} was left open")
        return _one_by_one(body)
    used = body[: count * layout.RECORD_BYTES]
    if count > layout.RECORDS_PER_BLOCK or zlib.crc32(used) != crc:
        raise _damaged(path, number, "its CRC is wrong")
    return np.frombuffer(used, RECORD_DTYPE)


def _one_by_one(body: bytes) -> Records:
    """Records up to the first that was not written whole."""
    whole = len(body) // layout.RECORD_BYTES * layout.RECORD_BYTES
    records = np.frombuffer(body[:whole], RECORD_DTYPE)
    good = (records["seq"] != 0) & (records["check"] == checks(records))
    stop = len(good) if good.all() else int(np.argmin(good))
    return records[:stop]


def _damaged(path: Path, number: int, why: str) -> TraceDamaged:
    return TraceDamaged(
        f"{path}: block {number} is damaged: {why}",
        next_step="The file was changed after it was written; copy it again or run again.",
    )
