"""The trace file for numpy: record type, header, and a writer for tests and tools.

The bytes are drawn in `vchan_testbed.tracer.layout`; what runs in a guest imports that one alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vchan_testbed.errors import InputError
from vchan_testbed.tracer import layout

Records = npt.NDArray[np.void]
"""An array of `RECORD_DTYPE`."""

Role = Literal["server", "client"]

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


WINDOW_FIELDS = (
    "ring_blocks",
    "settle_milliseconds",
    "request",
    "frozen",
    "frozen_tsc",
    "left_out",
    "left_out_tsc",
    "look",
    "in_call",
    "page",
)
"""What the header of a flight recorder's file says of its window."""


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """What a trace file says about itself; orders as in 2**order bytes, left: client to server."""

    role: Role
    domid: int
    peer_domid: int
    left_order: int
    right_order: int
    tsc_hz: int
    seed: int = 0
    run_id: bytes = bytes(16)
    start_tsc: int = 0
    start_realtime_ns: int = 0
    level: Literal["exact", "calls"] = "exact"
    variant: int = layout.Variant.EMULATION
    order: int = layout.Order.FULL
    channels: int = 1
    xen_version: str = ""
    library: str = ""
    kernel: str = ""
    program: str = ""
    dropped: int = 0
    complete: bool = True
    blocks_used: int = 0
    blocks_max: int = 0
    version: int = layout.VERSION
    ring_blocks: int = 0
    settle_milliseconds: int = 0
    request: int = 0
    frozen: int = layout.FrozenBy.NOTHING
    frozen_tsc: int = 0
    left_out: int = 0
    left_out_tsc: int = 0
    look: int = 0
    in_call: int = 0
    page: bytes = bytes(layout.LOOK_BYTES)

    def order_of(self, direction: Literal["left", "right"]) -> int:
        """Order of the ring of a direction."""
        return self.left_order if direction == "left" else self.right_order

    def pack(self) -> bytes:
        """The header page."""
        state = layout.FileState.COMPLETE if self.complete else layout.FileState.RECORDING
        packed = layout.HEADER.pack(
            layout.MAGIC,
            self.version,
            layout.HEADER_BYTES,
            layout.RECORD_BYTES,
            layout.BLOCK_BYTES,
            self.blocks_used,
            self.blocks_max,
            self.dropped,
            state,
            layout.ROLES.index(self.role),
            layout.Level[self.level.upper()],
            self.order,
            self.variant,
            self.domid,
            self.peer_domid,
            self.left_order,
            self.right_order,
            self.channels,
            self.tsc_hz,
            self.seed,
            self.start_tsc,
            self.start_realtime_ns,
            self.run_id,
            *(_text(text) for text in (self.xen_version, self.library, self.kernel, self.program)),
            self.ring_blocks,
            self.settle_milliseconds,
            self.request,
            self.frozen,
            self.frozen_tsc,
            self.left_out,
            self.left_out_tsc,
            self.look,
            self.in_call,
            self.page,
        )
        return packed.ljust(layout.HEADER_BYTES, b"\0")

    @staticmethod
    def unpack(page: bytes, name: str) -> TraceHeader:
        """Read a header page; `name` is the file's, for the message.

        Raises InputError if it is not a trace's header, or one of another version.
        """
        _refuse_foreign(page, name)
        (
            _magic,
            version,
            _header_bytes,
            _record_bytes,
            _block_bytes,
            blocks_used,
            blocks_max,
            dropped,
            state,
            role,
            level,
            order,
            variant,
            domid,
            peer_domid,
            left_order,
            right_order,
            channels,
            tsc_hz,
            seed,
            start_tsc,
            start_realtime_ns,
            run_id,
            *more,
        ) = layout.HEADER.unpack_from(page)
        texts, window = more[:4], dict(zip(WINDOW_FIELDS, more[4:], strict=True))
        return TraceHeader(
            role="server" if role == 0 else "client",
            domid=domid,
            peer_domid=peer_domid,
            left_order=left_order,
            right_order=right_order,
            tsc_hz=tsc_hz,
            seed=seed,
            run_id=run_id,
            start_tsc=start_tsc,
            start_realtime_ns=start_realtime_ns,
            level="exact" if level == layout.Level.EXACT else "calls",
            variant=variant,
            order=order,
            channels=channels,
            xen_version=_plain(texts[0]),
            library=_plain(texts[1]),
            kernel=_plain(texts[2]),
            program=_plain(texts[3]),
            dropped=dropped,
            complete=state == layout.FileState.COMPLETE,
            blocks_used=blocks_used,
            blocks_max=blocks_max,
            version=version,
            **window,
        )


def _refuse_foreign(page: bytes, name: str) -> None:
    again = "Hand in a .vtrace file that `vchan-testbed run` wrote, whole."
    if (len(page) >= 8 and page[:8] != layout.MAGIC) or not page:
        raise InputError(f"{name} is not a trace: it does not begin as one.", next_step=again)
    if len(page) >= 12 and (version := int.from_bytes(page[8:12], "little")) != layout.VERSION:
        raise InputError(
            f"{name} is a trace of version {version}; this program reads {layout.VERSION}.",
            next_step="Judge it with the version of vchan-testbed that recorded it.",
        )
    if len(page) < layout.HEADER_BYTES:
        raise InputError(
            f"{name} is cut off within its header: {len(page)} of {layout.HEADER_BYTES} bytes.",
            next_step=again,
        )
    sizes = layout.HEADER.unpack_from(page)[2:5]
    known = (layout.HEADER_BYTES, layout.RECORD_BYTES, layout.BLOCK_BYTES)
    fields = layout.HEADER.unpack_from(page)
    if sizes != known or fields[8] not in (1, 2) or fields[9] > 1 or fields[10] not in (1, 2):
        raise InputError(f"{name} has a header that makes no sense.", next_step=again)


def _text(text: str) -> bytes:
    return text.encode()[:63]


def _plain(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")


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
