"""What the checks work on: a problem, one end of a channel, which ends belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import CELL_WIDTH, Call, Cell, Flag, Kind
from vchan_testbed.tracer.reader import Trace

Indices = npt.NDArray[np.intp]
"""Places in a trace's `records`."""
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

READS = (Kind.LOAD, Kind.CMPXCHG_FAIL)
WRITES = (Kind.STORE, Kind.RMW_LOCKED, Kind.RMW_PLAIN, Kind.CMPXCHG_OK, Kind.BULK)
CELLS_END = 24
TESTS = (Kind.RMW_LOCKED, Kind.RMW_PLAIN, Kind.CMPXCHG_OK)
INDEX_CELLS = (Cell.LEFT_CONS, Cell.LEFT_PROD, Cell.RIGHT_CONS, Cell.RIGHT_PROD)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be so."""

    endpoint: Role
    record: int
    """Place in the trace's `records`, -1 if it is about no single one."""
    rule: str
    """R1 to R15 where one of them fits, "log" for a fault of the log, "order" for a cycle."""
    text: str
    is_hole: bool = False
    """Records are missing, so other checks would only report that again."""


def is_any(kinds: npt.NDArray[Any], wanted: tuple[Kind, ...]) -> Mask:
    """Where `kinds` is one of `wanted`."""
    table = np.zeros(256, dtype=np.bool_)
    table[list(wanted)] = True
    found: Mask = table[kinds]
    return found


def signed(values: npt.NDArray[Any]) -> Numbers:
    """u64 fields that hold an i64."""
    return np.ascontiguousarray(values).view(np.int64)


@dataclass(frozen=True)
class Side:
    """One end of a channel in one trace."""

    role: Role
    trace: Trace
    channel: int

    @property
    def records(self) -> Records:
        """All records of the trace, of other channels too."""
        return self.trace.records

    @property
    def ends_complete(self) -> bool:
        """Whether nothing was done that is not in the trace."""
        return self.trace.ending == "complete" and not self.trace.dropped

    @cached_property
    def own(self) -> Indices:
        """Where this channel's records are."""
        return np.flatnonzero(self.records["channel"] == self.channel)

    @cached_property
    def accesses(self) -> Indices:
        """Where its accesses to the cells are; the bulk of an init above the cells is none."""
        own = self.own
        accesses = is_any(self.records["kind"][own], READS + WRITES)
        return _chosen(own, accesses & (self.records["offset"][own] < CELLS_END))

    @cached_property
    def prepared(self) -> Indices:
        """Where the server's application set the indices that the rings begin with.

        It does so right behind a server_init that succeeded, and before anything else: what comes
        later is as foreign as ever.
        """
        own, records = self.own, self.records
        exits = records["kind"][own] == Kind.CALL_EXIT
        inits = exits & (records["call"][own] == Call.SERVER_INIT)
        made = np.flatnonzero(inits & (records["new"][own] == 0))
        if not len(made):
            return own[:0]
        behind = own[made[0] + 1 :]
        stores = (records["kind"][behind] == Kind.STORE) & ~by_library(records[behind])
        stores &= np.isin(records["offset"][behind], INDEX_CELLS)
        stores &= records["width"][behind] == CELL_WIDTH[Cell.LEFT_CONS]
        stores &= (records["call"][behind] == Call.NONE) & (
            records["thread"][behind] == records["thread"][own[made[0]]]
        )
        return behind[: len(behind) if stores.all() else int(np.argmin(stores))]

    def first_index(self, cell: Cell) -> int:
        """What an index begins with: 0, if the server's application did not set it."""
        set_there = self.prepared[self.records["offset"][self.prepared] == cell]
        return int(self.records["new"][set_there[-1]]) if len(set_there) else 0

    def on_cell(self, cell: Cell) -> Indices:
        """Where the accesses to one cell are, its server's init and what prepared it left out."""
        at = self.accesses
        wanted = self.records["offset"][at] == cell
        wanted &= self.records["call"][at] != Call.SERVER_INIT
        places = _chosen(at, wanted)
        return _chosen(places, ~np.isin(places, self.prepared)) if len(self.prepared) else places

    def in_init(self, cell: Cell) -> Indices:
        """Where the server's init wrote the cell."""
        at = self.accesses
        wanted = self.records["offset"][at] == cell
        return _chosen(at, wanted & (self.records["call"][at] == Call.SERVER_INIT))

    def first(self, kind: Kind) -> int:
        """Where the channel's first record of a kind is, -1 if there is none."""
        places = self.own[self.records["kind"][self.own] == kind]
        return int(places[0]) if len(places) else -1

    def orders(self) -> tuple[int, int] | None:
        """Left and right order, None if it was never attached."""
        place = self.first(Kind.ATTACH)
        if place < 0:
            return None
        packed = int(self.records["old"][place])
        return packed & 0xFFFF, packed >> 16


def channel_roles(trace: Trace) -> dict[int, Role]:
    """Role of each channel that was attached; of a window's only one, the header's."""
    records = trace.records
    at = np.flatnonzero(records["kind"] == Kind.ATTACH)
    found: dict[int, Role] = {
        int(records["channel"][i]): "client" if records["operand"][i] else "server" for i in at
    }
    if trace.begins_later and trace.header.channels == 1 and not found:
        found[0] = trace.header.role
    return found


def ring_orders(trace: Trace) -> dict[int, tuple[int, int]]:
    """Left and right order of each channel that was attached; as `channel_roles`."""
    attached = trace.records[trace.records["kind"] == Kind.ATTACH]
    found = {
        int(one["channel"]): (int(one["old"]) & 0xFFFF, int(one["old"]) >> 16 & 0xFFFF)
        for one in attached
    }
    if trace.begins_later and trace.header.channels == 1 and not found:
        found[0] = (trace.header.left_order, trace.header.right_order)
    return found


def by_library(records: Records) -> Mask:
    """Where the application did not do it by itself."""
    found: Mask = (records["flags"] & Flag.BY_APPLICATION) == 0
    return found


def _chosen(places: Indices, wanted: Mask) -> Indices:
    return places[wanted]


def paired_sides(server: Trace, client: Trace) -> Iterator[tuple[Side, Side]]:
    """The two ends of each channel, found by grant and port.

    Numbers are given again after a close, so the n-th use here belongs to the n-th there. Where
    that cannot be told (a server that took several clients, an end that is not in these traces)
    there is no pair.
    """
    servers = _meeting_points(server, Kind.BIND_UNBOUND, "new", Kind.SHARE_PAGE)
    clients = _meeting_points(client, Kind.BIND_INTERDOMAIN, "old", Kind.MAP_PAGE)
    for point, channels in servers.items():
        others = clients.get(point, [])
        if len(channels) == len(others):
            for one, other in zip(channels, others, strict=True):
                yield Side("server", server, one), Side("client", client, other)


def _meeting_points(
    trace: Trace, bind: Kind, port_field: str, page: Kind
) -> dict[tuple[int, int], list[int]]:
    """Channels by the server's port and the grant of the page."""
    records = trace.records
    ports = {int(r["channel"]): int(r[port_field]) for r in records[records["kind"] == bind]}
    points: dict[tuple[int, int], list[int]] = defaultdict(list)
    for record in records[(records["kind"] == page) & (records["new"] == 1)]:
        channel = int(record["channel"])
        if channel in ports:
            points[ports[channel], int(record["old"])].append(channel)
    return points
