"""One trace for each channel of a process, and which of them are two ends of one channel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.tracer.reader import Trace

NOT_KNOWN = 0xFFFFFFFF
"""A domid that nobody told the recorder."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of one channel."""

    trace: Trace
    """Of this channel alone."""
    name: str
    """The file's, with the channel's number if there are several."""
    port: int
    """The server's."""
    grant: int
    """Of the shared page."""
    server_domid: int
    opened: float
    """Seconds since 1970."""


def split(trace: Trace, name: str) -> list[End]:
    """The ends in a trace; a channel that was never opened so far that it met a page is none.

    Nor is, in a window of several, one that was opened before it: which it was nobody knows.
    """
    records = trace.records
    numbers = np.unique(records["channel"]).tolist()
    found = []
    for number in numbers:
        own = trace if len(numbers) == 1 else _of_channel(trace, number)
        if (end := _end(own, name if len(numbers) == 1 else f"{name}, channel {number}")) is None:
            continue
        found.append(end)
    return found


def pairs(ends: Iterable[End]) -> tuple[list[tuple[End, End]], list[End]]:
    """Server's and client's ends that belong together, and ends without another one.

    Ports and grants are used again after a close, so of several that have met at the same ones the
    n-th that was opened belongs to the n-th.
    """
    met: dict[tuple[int, int], dict[Role, list[End]]] = defaultdict(
        lambda: {"server": [], "client": []}
    )
    for end in sorted(ends, key=lambda end: end.opened):
        met[end.port, end.grant][end.trace.header.role].append(end)
    found, alone = [], []
    for sides in met.values():
        servers, clients = sides["server"], list(sides["client"])
        for server in servers:
            match = next((one for one in clients if _same_domain(server, one)), None)
            if match is None:
                alone.append(server)
            else:
                clients.remove(match)
                found.append((server, match))
        alone += clients
    return found, alone


def _same_domain(server: End, client: End) -> bool:
    domids = {server.server_domid, client.server_domid} - {NOT_KNOWN}
    return len(domids) <= 1


def _of_channel(trace: Trace, number: int) -> Trace:
    records: Records = trace.records[trace.records["channel"] == number].copy()
    records["channel"] = 0
    for thread in np.unique(records["thread"]):
        places = np.flatnonzero(records["thread"] == thread)
        records["seq"][places] = np.arange(1, len(places) + 1)
    window = trace.window and replace(trace.window, lost={})
    header = replace(trace.header, channels=1)
    return replace(trace, header=header, records=records, window=window)


def _end(trace: Trace, name: str) -> End | None:
    records = trace.records
    binds = records[np.isin(records["kind"], (Kind.BIND_UNBOUND, Kind.BIND_INTERDOMAIN))]
    pages = records[np.isin(records["kind"], (Kind.SHARE_PAGE, Kind.MAP_PAGE))]
    if not len(binds) or not len(pages):
        return None
    bind = binds[0]
    is_server = bind["kind"] == Kind.BIND_UNBOUND
    left, right = _orders(trace)
    header = replace(
        trace.header,
        role="server" if is_server else "client",
        peer_domid=int(bind["operand"]),
        left_order=left,
        right_order=right,
    )
    return End(
        trace=replace(trace, header=header),
        name=name,
        port=int(bind["new" if is_server else "old"]),
        grant=int(pages[0]["old"]),
        server_domid=header.domid if is_server else header.peer_domid,
        opened=header.start_realtime_ns / 1e9
        + (int(bind["t1"]) - header.start_tsc) / max(header.tsc_hz, 1),
    )


def _orders(trace: Trace) -> tuple[int, int]:
    attached = trace.records[trace.records["kind"] == Kind.ATTACH]
    if not len(attached):
        return trace.header.left_order, trace.header.right_order
    packed = int(attached["old"][0])
    return packed & 0xFFFF, packed >> 16 & 0xFFFF
