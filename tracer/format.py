"""The trace file for numpy: record type, and a writer for tests and tools.

The bytes are drawn in `vchan_testbed.tracer.layout`; guests have no numpy, and so not this.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer import layout
from vchan_testbed.tracer.header import TraceHeader

Records = npt.NDArray[np.void]
"""An array of `RECORD_DTYPE`."""

RECORD_DTYPE = np.dtype(
    [
        ("t0", "<u8"),
        ("t1", "<u8"),
        ("old", "<u8"),
        ("new", "<u8"),
        ("site", "<u4"),
        ("operand", "<u4"),
        ("seq", "<u4"),
        ("call_seq", "<u4"),
        ("channel", "<u2"),
        ("thread", "<u2"),
        ("offset", "<u2"),
        ("kind", "u1"),
        ("op", "u1"),
        ("call", "u1"),
        ("width", "u1"),
        ("flags", "<u2"),
        ("check", "<u4"),
    ]
)

PAGE_CELLS = (
    *(layout.Cell.LEFT_CONS, layout.Cell.LEFT_PROD, layout.Cell.RIGHT_CONS, layout.Cell.RIGHT_PROD),
    *(layout.Cell.CLI_LIVE, layout.Cell.SRV_LIVE, layout.Cell.CLI_NOTIFY, layout.Cell.SRV_NOTIFY),
)
"""In the order of a PAGE record."""

BLOCK_HEADER_DTYPE = np.dtype(
    [
        ("magic", "<u4"),
        ("number", "<u4"),
        ("thread", "<u4"),
        ("first_seq", "<u4"),
        ("count", "<u4"),
        ("state", "<u4"),
        ("crc", "<u4"),
        ("tid", "<u4"),
        ("first", "<u8"),
    ]
)


def page_cells(record: np.void) -> dict[layout.Cell, int]:
    """What a record of the kind PAGE says of each cell."""
    page = struct.pack("<QQI", *(int(record[name]) for name in ("old", "new", "operand")))
    return dict(zip(PAGE_CELLS, struct.unpack("<4I4B", page), strict=True))


def checks_of(records: Records) -> npt.NDArray[np.uint32]:
    """The check that each record ought to have (see `layout.record_check`)."""
    raw = np.ascontiguousarray(records).view(np.uint8).reshape(-1, layout.RECORD_BYTES)
    words: npt.NDArray[np.uint64] = raw.view("<u8")
    last = raw.view("<u4")[:, 14].astype(np.uint64)
    mixed = np.full(len(raw), layout.CHECK_START, dtype=np.uint64)
    factor = power = np.uint64(layout.CHECK_FACTOR)
    half = np.uint64(32)
    with np.errstate(over="ignore"):
        for word in (*(words[:, i] for i in range(7)), last):
            mixed += word * power
            power = power * factor
        mixed = (mixed ^ mixed >> half) * factor
    return (mixed >> half).astype(np.uint32)


def write_trace(
    path: Path,
    header: TraceHeader,
    records: Records,
    *,
    complete: bool = True,
    lost: Mapping[int, int] | None = None,
) -> None:
    """Write a trace file; `records` in any order, their `check` is computed here.

    Not `complete`: as a killed process leaves it, with the last block of each thread open. If the
    header is that of a flight recorder, `lost` has for each thread how many of its records came
    before those that are there; its rings are made as large as it takes.
    """
    whole = np.array(records, dtype=RECORD_DTYPE)
    whole["check"] = checks_of(whole)
    rings = _rings(whole, lost or {}) if header.ring_blocks else None
    blocks = list(rings or _blocks(whole, complete=complete))
    largest = max((len(one) for one in _by_thread(whole)), default=0)
    ring_blocks = header.ring_blocks and max(
        header.ring_blocks, -(-largest // layout.RECORDS_PER_BLOCK)
    )
    final = replace(
        header,
        complete=complete,
        blocks_used=len(blocks),
        blocks_max=max(header.blocks_max, len(blocks)),
        ring_blocks=ring_blocks,
    )
    path.write_bytes(final.pack() + b"".join(blocks))


def _by_thread(records: Records) -> Iterator[Records]:
    for thread in np.unique(records["thread"]):
        yield records[records["thread"] == thread]


def _parts(records: Records) -> Iterator[tuple[Records, int, bool]]:
    """Each block's records, how many of its thread's lie before them, whether they are its last."""
    for own in _by_thread(records):
        for at in range(0, len(own), layout.RECORDS_PER_BLOCK):
            part = own[at : at + layout.RECORDS_PER_BLOCK]
            yield part, at, at + layout.RECORDS_PER_BLOCK >= len(own)


def _blocks(records: Records, *, complete: bool) -> Iterator[bytes]:
    for number, (part, _, is_last) in enumerate(_parts(records)):
        if complete or not is_last:
            crc = zlib.crc32(part["check"].tobytes())
            yield _block(number, part, (len(part), layout.BlockState.CLOSED, crc))
        else:
            yield _block(number, part, (0, layout.BlockState.OPEN, 0))


def _rings(records: Records, lost: Mapping[int, int]) -> Iterator[bytes]:
    for number, (part, before, _) in enumerate(_parts(records)):
        first = lost.get(int(part["thread"][0]), 0) + before + 1
        yield _block(number, part, (0, layout.BlockState.OF_RING, 0), first)


def _block(number: int, part: Records, ending: tuple[Any, ...], first: int | None = None) -> bytes:
    seq = int(part["seq"][0])
    head = layout.BLOCK_HEADER.pack(
        layout.BLOCK_MAGIC,
        number,
        int(part["thread"][0]),
        seq,
        *ending,
        0,
        seq if first is None else first,
    )
    return (head + part.tobytes()).ljust(layout.BLOCK_BYTES, b"\0")
