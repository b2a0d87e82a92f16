"""The shared page of a channel, as somebody sees it who only looks.

`struct vchan_interface`, xen/include/public/io/libxenvchan.h. "left" is what the client writes and
the server reads, "right" the other way round.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

LAYOUT = struct.Struct("<IIIIHHBBBB")
PAGE_BYTES = 4096
INDEX_SPAN = 1 << 32
ORDER_MIN = 10
ORDER_MAX = 20
SMALL_RINGS = {10, 11}
"""Orders of rings that lie in the page itself; larger ones have pages of their own."""


@dataclass(frozen=True, slots=True)
class Ring:
    """One direction's indices, as read; its size in bytes."""

    cons: int
    prod: int
    ring_bytes: int

    @property
    def held_bytes(self) -> int:
        """Bytes between the two indices; more than the size if one of them cannot be."""
        return (self.prod - self.cons) % INDEX_SPAN

    @property
    def can_be(self) -> bool:
        """Whether the ring holds no more than fits."""
        return self.held_bytes <= self.ring_bytes

    @property
    def filled(self) -> str:
        """As the table of places has it: "empty", "some" or "full"."""
        if self.held_bytes == 0:
            return "empty"
        return "full" if self.held_bytes == self.ring_bytes else "some"


@dataclass(frozen=True, slots=True)
class ControlPage:
    """The page's fields; live and notify by the side that the byte is named after."""

    left: Ring
    right: Ring
    live: dict[str, int]
    notify: dict[str, int]

    @property
    def key(self) -> str:
        """What the table of places is asked with."""
        parts = (self.left.filled, self.right.filled, self.notify["client"], self.notify["server"])
        return " ".join(map(str, (*parts, self.live["client"], self.live["server"])))


def parse(data: bytes) -> ControlPage:
    """The fields of a page's first bytes. Raises ValueError for what is no vchan's page."""
    if not plausible(data):
        raise ValueError(f"no page of a vchan: {data[: LAYOUT.size].hex()}")
    left_cons, left_prod, right_cons, right_prod, left, right, *rest = LAYOUT.unpack_from(data)
    client_live, server_live, client_notify, server_notify = rest
    return ControlPage(
        left=Ring(left_cons, left_prod, 1 << left),
        right=Ring(right_cons, right_prod, 1 << right),
        live={"client": client_live, "server": server_live},
        notify={"client": client_notify, "server": server_notify},
    )


def plausible(data: bytes) -> bool:
    """Whether a page may be a vchan's: its orders, live and notify bytes are such as there are.

    The rings of small orders lie in one half of the page each: they cannot both be the first one.
    """
    if len(data) < LAYOUT.size:
        return False
    *_, left, right, client_live, server_live, client_notify, server_notify = LAYOUT.unpack_from(
        data
    )
    orders = all(ORDER_MIN <= order <= ORDER_MAX for order in (left, right))
    alike = left == right and left in SMALL_RINGS
    flags = client_live <= 2 and server_live <= 1 and client_notify <= 3 and server_notify <= 3
    return orders and not alike and flags
