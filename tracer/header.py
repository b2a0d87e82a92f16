"""What a trace file says about itself: its first page, as `vchan_testbed.tracer.layout` draws it.

Without numpy: recording needs it in guests as well, which have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vchan_testbed.errors import InputError
from vchan_testbed.tracer import layout

Role = Literal["server", "client"]

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
