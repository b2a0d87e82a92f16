"""Trace records and headers as numpy and dataclasses; the bytes are drawn in layout.py."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vchan_testbed.tracer import layout

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
assert RECORD_DTYPE.itemsize == layout.RECORD_BYTES

Records = NDArray[np.void]

HEADER = struct.Struct("<8sHHIIIII Q 8B HH 4x Q Q QQ 16s 24x 64s 64s 128s 64s")
BLOCK_HEADER = struct.Struct("<4sIHxxBxxxIII")
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)


@dataclass(frozen=True)
class TraceHeader:
    """The header page. Orders are log2 of ring bytes, 0 when the trace has no connect."""

    role: str
    domid: int
    peer_domid: int
    left_order: int
    right_order: int
    run_id: bytes = bytes(16)
    seed: int = 0
    level: int = layout.LEVEL_EXACT
    order: int = layout.ORDER_FULL
    variant: int = layout.VARIANT_EMULATION
    dropped: int = 0
    tsc_hz: int = 1_000_000_000
    start_tsc: int = 0
    start_realtime_ns: int = 0
    xen_version: str = ""
    library: str = ""
    kernel: str = ""
    program: str = ""


def checks(records: Records) -> NDArray[np.uint32]:
    """The check of each record: a mix of its other 60 bytes, as in core/log.c."""
    words = np.ascontiguousarray(records).view("<u8").reshape(-1, 8)
    value = np.full(len(words), _GOLDEN)
    with np.errstate(over="ignore"):
        for column in range(8):
            word = words[:, column]
            if column == 7:
                word = word & np.uint64(0xFFFF_FFFF)
            value = (value ^ word) * _GOLDEN
            value ^= value >> np.uint64(32)
    return value.astype(np.uint32)


def pack_header(header: TraceHeader, *, blocks: int, complete: bool) -> bytes:
    """The header page."""
    data = HEADER.pack(
        layout.MAGIC,
        layout.VERSION,
        layout.HEADER_BYTES,
        layout.RECORD_BYTES,
        layout.BLOCK_BYTES,
        blocks,
        blocks,
        0,
        header.dropped,
        layout.STATE_COMPLETE if complete else layout.STATE_RECORDING,
        layout.ROLES[header.role],
        header.level,
        header.order,
        header.variant,
        header.left_order,
        header.right_order,
        0,
        header.domid,
        header.peer_domid,
        header.tsc_hz,
        header.seed,
        header.start_tsc,
        header.start_realtime_ns,
        header.run_id,
        header.xen_version.encode(),
        header.library.encode(),
        header.kernel.encode(),
        header.program.encode(),
    )
    return data.ljust(layout.HEADER_BYTES, b"\0")


def unpack_header(data: bytes) -> TraceHeader:
    """The inverse; magic, version and sizes are the reader's to check."""
    (_, _, _, _, _, _, _, _, dropped, _, role, level, order, variant, left, right, _, *rest) = (
        HEADER.unpack_from(data)
    )
    domid, peer, tsc_hz, seed, start_tsc, start_ns, run_id, *texts = rest
    xen, library, kernel, program = (t.rstrip(b"\0").decode(errors="replace") for t in texts)
    return TraceHeader(
        role="client" if role else "server",
        domid=domid,
        peer_domid=peer,
        left_order=left,
        right_order=right,
        run_id=run_id,
        seed=seed,
        level=level,
        order=order,
        variant=variant,
        dropped=dropped,
        tsc_hz=tsc_hz,
        start_tsc=start_tsc,
        start_realtime_ns=start_ns,
        xen_version=xen,
        library=library,
        kernel=kernel,
        program=program,
    )


def write_trace(
    path: Path, header: TraceHeader, records: Records, *, complete: bool = True
) -> None:
    """Write a trace, for tools and tests: one block after another, the last one open unless
    `complete`. Sequence numbers are taken as they are, checks are made anew."""
    records = records.copy()
    records["check"] = checks(records)
    per = layout.RECORDS_PER_BLOCK
    blocks: list[bytes] = []
    for thread in np.unique(records["thread"]):
        mine = records[records["thread"] == thread]
        starts = range(0, len(mine), per)
        for start in starts:
            chunk = mine[start : start + per]
            closed = complete or start + per < len(mine)
            blocks.append(_block(len(blocks), int(thread), chunk, closed=closed))
    with path.open("wb") as file:
        file.write(pack_header(header, blocks=len(blocks), complete=complete))
        file.writelines(blocks)


def _block(number: int, thread: int, chunk: Records, *, closed: bool) -> bytes:
    data = chunk.tobytes()
    head = BLOCK_HEADER.pack(
        layout.BLOCK_MAGIC,
        number,
        thread,
        layout.BLOCK_CLOSED if closed else layout.BLOCK_OPEN,
        int(chunk["seq"][0]),
        len(chunk) if closed else 0,
        zlib.crc32(data) if closed else 0,
    )
    body = data.ljust(layout.BLOCK_BYTES - layout.BLOCK_HEADER_BYTES, b"\0")
    return head.ljust(layout.BLOCK_HEADER_BYTES, b"\0") + body
