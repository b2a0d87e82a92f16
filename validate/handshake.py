"""What frames the protocol: opening, the port that is used, closing (R12, R13).

The spec begins with a channel that is there and ends with a live byte and an event. That the page
and the port are the same at both ends, that an init did all of its parts, and that a close gave
everything back is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ROLES, Call, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.merge import Problem, signed

Ints = npt.NDArray[np.int64]

PAGE_SHIFT = 12
INIT = {"server": Call.SERVER_INIT, "client": Call.CLIENT_INIT}
BIND = {"server": Kind.BIND_UNBOUND, "client": Kind.BIND_INTERDOMAIN}
PAGE = {"server": Kind.SHARE_PAGE, "client": Kind.MAP_PAGE}
RING = {"server": Kind.SHARE_RING, "client": Kind.MAP_RING}
GIVES_BACK = (Kind.UNSHARE_PAGE, Kind.UNMAP_PAGE)


@dataclass(frozen=True, slots=True)
class _End:
    """One end's records of the channel."""

    role: Role
    trace: Trace
    rows: Ints

    def where(self, kind: Kind, call: Call | None = None) -> list[int]:
        """Rows of a kind, in a call."""
        # One field at a time: whole records of a long trace are too much to copy for each question.
        wanted = self.trace.records["kind"][self.rows] == kind
        if call is not None:
            wanted &= self.trace.records["call"][self.rows] == call
        found: list[int] = self.rows[wanted].tolist()
        return found

    def record(self, row: int) -> Records:
        """One record."""
        found: Records = self.trace.records[row]
        return found

    def problem(self, row: int, text: str) -> Problem:
        """A finding at a record of this end."""
        return Problem(self.role, row, text)


def handshake_problems(
    traces: Mapping[Role, Trace], endings: Mapping[Role, Ending]
) -> list[Problem]:
    """What is wrong with how the channel was opened, named and closed."""
    ends = {role: _End(role, trace, endings[role].rows) for role, trace in traces.items()}
    found: list[Problem] = []
    for end in ends.values():
        found += _opening(end)
        found += _ports(end)
        found += _closing(end)
    found += _same_channel(ends["server"], ends["client"])
    return found


def _opening(end: _End) -> Iterator[Problem]:
    """An init that returned a channel did all of its parts."""
    done = [row for row in end.where(Kind.CALL_EXIT, INIT[end.role]) if _result(end, row) == 0]
    if not done:
        return
    for kind in (BIND[end.role], PAGE[end.role], Kind.ATTACH):
        if len(end.where(kind)) != 1:
            count = len(end.where(kind))
            text = f"R12: the channel was opened with {count} records of {_words(kind)}"
            yield end.problem(done[0], text)
            return
    (attach,) = end.where(Kind.ATTACH)
    record, header = end.record(attach), end.trace.header
    orders = int(record["old"])
    (bound,) = end.where(BIND[end.role])
    for row in end.where(Kind.UNBIND)[:1]:
        yield end.problem(row, "R12: the port is given up, and the channel is used on")
    if ROLES[min(int(record["operand"]), 1)] != end.role:
        yield end.problem(attach, f"R12: it is attached as the {ROLES[1 - ROLES.index(end.role)]}")
    if (orders & 0xFFFF, orders >> 16) != (header.left_order, header.right_order):
        yield end.problem(attach, "R15: its orders are not those of the trace's header")
    if record["new"] != end.record(bound)["new"]:
        yield end.problem(attach, f"R12: its port is {record['new']}, another one was bound")
    yield from _rings(end, done[0])


def _rings(end: _End, done: int) -> Iterator[Problem]:
    """Rings of a page and more have grants of their own, the left one's first."""
    header = end.trace.header
    orders = (header.left_order, header.right_order)
    due = [1 << (order - PAGE_SHIFT) for order in orders if order >= PAGE_SHIFT]
    rows = end.where(RING[end.role], INIT[end.role])
    for row, pages in zip(rows, due, strict=False):
        if end.record(row)["new"] != pages:
            text = f"R12: the ring has {end.record(row)['new']} pages, its order asks for {pages}"
            yield end.problem(row, text)
    if len(rows) != len(due):
        yield end.problem(done, f"R12: {len(rows)} rings have pages of their own, {len(due)} need")


def _ports(end: _End) -> Iterator[Problem]:
    """Every event goes through the port that was bound."""
    bound = end.where(BIND[end.role])
    if len(bound) != 1:
        return
    port = int(end.record(bound[0])["new"])
    for kind, name in ((Kind.NOTIFY, "old"), (Kind.PENDING_EXIT, "new"), (Kind.UNMASK, "old")):
        mine = np.array(end.where(kind), np.int64)
        used = end.trace.records[name][mine]
        failed = used >> np.uint64(63) == 1
        for row in mine[(used != port) & ~failed][:1].tolist():
            text = f"R5: port {end.record(row)[name]} is used, the channel's is {port}"
            yield end.problem(row, text)


def _closing(end: _End) -> Iterator[Problem]:
    """A close gives the page back, with its live byte cleared, and then the event channel."""
    for row in end.where(Kind.CALL_EXIT, Call.CLOSE):
        given = [at for kind in GIVES_BACK for at in end.where(kind, Call.CLOSE)]
        if len(given) != 1:
            yield end.problem(row, f"R13: the close gave the page back {len(given)} times")
            continue
        record = end.record(given[0])
        if record["old"]:
            text = f"R8: the live byte was {record['old']} when the page was given back"
            yield end.problem(given[0], text)
        elif record["new"]:
            yield end.problem(given[0], "R13: the page could not be given back")
        if len(end.where(Kind.EVTCHN_CLOSE, Call.CLOSE)) != 1:
            yield end.problem(row, "R13: the close did not close the event channel")


def _same_channel(server: _End, client: _End) -> Iterator[Problem]:
    """The client binds the port and maps the page that the server offered."""
    for kind, offered, name, field in (
        (Kind.BIND_INTERDOMAIN, Kind.BIND_UNBOUND, "port", "new"),
        (Kind.MAP_PAGE, Kind.SHARE_PAGE, "grant", "old"),
    ):
        here, there = client.where(kind), server.where(offered)
        if len(here) != 1 or len(there) != 1:
            continue
        used, due = int(client.record(here[0])["old"]), int(server.record(there[0])[field])
        if used != due:
            text = f"R12: it takes {name} {used}, the server offers {due}"
            yield client.problem(here[0], text)


def _result(end: _End, row: int) -> int:
    return signed(int(end.record(row)["new"]))


def _words(kind: Kind) -> str:
    return kind.name.lower().replace("_", " ")
