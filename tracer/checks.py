"""What every trace has to keep, whatever the protocol says: values, program order, counts.

No step of the protocol is written here. A cell has one writer (an index, a live byte) or one side
that sets a bit and one that clears it (a notify bit), so the values alone chain: what was read has
to have been written, not too late and not before it was. A trace that is cut may lack its last
access, and its peer may have seen it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records, Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, CELL_WIDTH, Call, Cell, Kind
from vchan_testbed.tracer.reader import Trace

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

WRITES = (Kind.STORE, Kind.RMW_LOCKED, Kind.RMW_PLAIN, Kind.CMPXCHG_OK, Kind.BULK)
OWNER: dict[Cell, Role] = {
    Cell.LEFT_CONS: "server",
    Cell.LEFT_PROD: "client",
    Cell.RIGHT_CONS: "client",
    Cell.RIGHT_PROD: "server",
    Cell.LEFT_ORDER: "server",
    Cell.RIGHT_ORDER: "server",
    Cell.CLI_LIVE: "client",
    Cell.SRV_LIVE: "server",
}
INDICES = (Cell.LEFT_CONS, Cell.LEFT_PROD, Cell.RIGHT_CONS, Cell.RIGHT_PROD)
NOTIFY_SET_BY: dict[Cell, Role] = {Cell.CLI_NOTIFY: "server", Cell.SRV_NOTIFY: "client"}
"""Who asks to be told, and so sets the bits of a notify byte; the other side clears them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that cannot be: row `row` of `endpoint`'s trace breaks `rule`.

    `rule` is one of R1 to R15 of the protocol's rules, "memory-order" where two ends contradict
    each other about one cell, or "log" where the trace contradicts itself.
    """

    endpoint: Role
    row: int
    rule: str
    text: str


def check_pair(server: Trace, client: Trace) -> list[Problem]:
    """All problems of both traces, the server's first, by row within an endpoint."""
    traces: dict[Role, Trace] = {"server": server, "client": client}
    found: list[Problem] = []
    for role, trace in traces.items():
        found += _order(role, trace.records)
        found += _calls(role, trace.records)
        found += _waits(role, trace.records)
    for cell, owner in OWNER.items():
        peer: Role = "client" if owner == "server" else "server"
        found += _owned(cell, owner, traces[owner], peer, traces[peer])
    for cell in NOTIFY_SET_BY:
        found += _bits(cell, traces)
    return sorted(found, key=lambda p: (p.endpoint != "server", p.row))


def _order(role: Role, records: Records) -> Iterator[Problem]:
    """Records of a thread are numbered from 1 without a gap."""
    threads = records["thread"].astype(np.int64)
    seqs = records["seq"].astype(np.int64)
    first = np.ones(len(records), bool)
    first[1:] = threads[1:] != threads[:-1]
    due = np.where(first, 1, np.concatenate([[0], seqs[:-1] + 1]) if len(seqs) else seqs)
    for row in np.flatnonzero(seqs != due)[:1]:
        text = f"record {seqs[row]} of its thread stands where {due[row]} is due"
        yield Problem(role, int(row), "log", text)


def _calls(role: Role, records: Records) -> Iterator[Problem]:
    """Enter and exit take turns in each thread, and an exit is of the call that was entered."""
    for thread in np.unique(records["thread"]):
        rows = np.flatnonzero(
            (records["thread"] == thread)
            & np.isin(records["kind"], (Kind.CALL_ENTER, Kind.CALL_EXIT))
        )
        kinds, calls = records["kind"][rows], records["call"][rows]
        due = np.where(np.arange(len(rows)) % 2 == 0, Kind.CALL_ENTER, Kind.CALL_EXIT)
        wrong = kinds != due
        wrong[1::2] |= calls[1::2] != calls[0::2][: len(calls[1::2])]
        for at in np.flatnonzero(wrong)[:1]:
            yield Problem(role, int(rows[at]), "log", "a call is entered or left out of turn")
        yield from _results(role, records, rows)


def _results(role: Role, records: Records, rows: Ints) -> Iterator[Problem]:
    """No transfer moves more than it was asked to."""
    enters, exits = rows[0::2], rows[1::2]
    enters = enters[: len(exits)]
    moves = np.isin(records["call"][exits], (Call.READ, Call.WRITE, Call.RECV, Call.SEND))
    result = records["new"][exits].astype(np.int64)
    asked = records["old"][enters].astype(np.int64)
    for at in np.flatnonzero(moves & ((result > asked) | (result < -1)))[:1]:
        text = f"the call returns {result[at]} and was asked for {asked[at]}"
        yield Problem(role, int(exits[at]), "log", text)


def _waits(role: Role, records: Records) -> Iterator[Problem]:
    """What a wait took is unmasked before the next wait (R10)."""
    wanted = (Kind.PENDING_ENTER, Kind.PENDING_EXIT, Kind.UNMASK)
    for thread in np.unique(records["thread"]):
        for channel in np.unique(records["channel"]):
            rows = np.flatnonzero(
                (records["thread"] == thread)
                & (records["channel"] == channel)
                & np.isin(records["kind"], wanted)
            )
            # The unmask of an init stands before the first wait.
            kinds = records["kind"][rows]
            start = int(np.argmax(kinds == Kind.PENDING_ENTER)) if len(kinds) else 0
            yield from _turns(role, records, rows[start:])


def _turns(role: Role, records: Records, rows: Ints) -> Iterator[Problem]:
    kinds = records["kind"][rows].astype(np.int64)
    if not len(kinds) or kinds[0] != Kind.PENDING_ENTER:
        return
    failed = (kinds == Kind.PENDING_EXIT) & (records["new"][rows].astype(np.int64) < 0)
    follows = {
        int(Kind.PENDING_ENTER): int(Kind.PENDING_EXIT),
        int(Kind.PENDING_EXIT): int(Kind.UNMASK),
        int(Kind.UNMASK): int(Kind.PENDING_ENTER),
    }
    due = np.array([follows[int(kind)] for kind in kinds[:-1]], np.int64)
    due[failed[:-1]] = Kind.PENDING_ENTER
    for at in np.flatnonzero(kinds[1:] != due)[:1]:
        text = f"{Kind(kinds[at + 1]).name} where {Kind(due[at]).name} is due"
        yield Problem(role, int(rows[at + 1]), "R10", text)


def _accesses(trace: Trace, cell: Cell) -> Ints:
    records = trace.records
    return np.flatnonzero(
        np.isin(records["kind"], list(ACCESS_KINDS))
        & (records["offset"] == cell)
        & (records["width"] == CELL_WIDTH[cell])
    )


def _owned(cell: Cell, owner: Role, own: Trace, peer: Role, other: Trace) -> Iterator[Problem]:
    """One writer: its values chain, and the peer reads them in that order."""
    if len(_channels(own)) > 1 or len(_channels(other)) > 1:
        return
    rows = _accesses(own, cell)
    written, problem = _written(cell, owner, own, rows, other)
    if problem:
        yield problem
        return
    yield from _peer_writes(cell, peer, other)
    yield from _peer_reads(cell, peer, other, written, open_end=own.ending == "cut")


def _channels(trace: Trace) -> Ints:
    attached = trace.records["kind"] == Kind.ATTACH
    return np.unique(trace.records["channel"][attached]).astype(np.int64)


def _written(
    cell: Cell, owner: Role, own: Trace, rows: Ints, other: Trace
) -> tuple[Ints, Problem | None]:
    """The values that the cell had, in order."""
    records = own.records
    old, new = records["old"][rows].astype(np.int64), records["new"][rows].astype(np.int64)
    # The server's init writes for the client too; the client has no record of it.
    start = 0 if owner == "server" else _start_of_client(cell)
    before = np.concatenate([[start], new[:-1]]) if len(rows) else old
    fresh = np.zeros(len(rows), bool)
    if owner == "server" and len(rows):
        # What stood in the page before init cleared it does not count.
        fresh[: int(np.argmax(new == old)) + 1] = True
        fresh &= np.isin(records["call"][rows], (Call.SERVER_INIT,))
    wrong = (old != before) & ~fresh
    for at in np.flatnonzero(wrong)[:1]:
        text = f"{cell.name} is {old[at]} where its owner left {before[at]}"
        rule = "log" if records["kind"][rows[at]] == Kind.LOAD else "R1"
        return np.zeros(0, np.int64), Problem(owner, int(rows[at]), rule, text)
    values = np.concatenate([[start], new])
    return values[np.concatenate([[True], values[1:] != values[:-1]])], None


def _start_of_client(cell: Cell) -> int:
    return 2 if cell is Cell.CLI_LIVE else 0


def _peer_writes(cell: Cell, peer: Role, other: Trace) -> Iterator[Problem]:
    rows = _accesses(other, cell)
    records = other.records[rows]
    foreign = np.isin(records["kind"], WRITES) & (records["call"] != Call.SERVER_INIT)
    for at in np.flatnonzero(foreign)[:1]:
        yield Problem(peer, int(rows[at]), "R1", f"{cell.name} is not this side's to write")


def _peer_reads(
    cell: Cell, peer: Role, other: Trace, written: Ints, *, open_end: bool
) -> Iterator[Problem]:
    """Each value read was written, and no later read sees an earlier one."""
    rows = _accesses(other, cell)
    rows = rows[other.records["kind"][rows] == Kind.LOAD]
    seen = other.records["new"][rows].astype(np.int64)
    place = _places(cell, written, seen)
    unknown = place < 0
    if open_end and unknown.any():
        # After a cut the owner may have gone on: what comes after its last value is unknown.
        unknown[int(np.argmax(unknown)) :] = False
        place[place < 0] = len(written)
    back = np.zeros(len(place), bool)
    back[1:] = place[1:] < np.maximum.accumulate(place)[:-1]
    for at in np.flatnonzero(unknown | back)[:1]:
        what = "was never written" if unknown[at] else "had been overwritten when it was read"
        yield Problem(peer, int(rows[at]), "memory-order", f"{cell.name} = {seen[at]} {what}")


def _places(cell: Cell, written: Ints, seen: Ints) -> Ints:
    """Which of the written values each read saw, -1 for none; indices wrap and come again."""
    places = np.full(len(seen), -1, np.int64)
    if cell in INDICES:
        unwrapped = _unwrapped(written, written[0])
        wanted = _unwrapped(seen, written[0])
        at = np.searchsorted(unwrapped, wanted)
        inside = at < len(unwrapped)
        fits = np.zeros(len(seen), bool)
        fits[inside] = unwrapped[at[inside]] == wanted[inside]
        places[fits] = at[fits]
        return places
    for number, value in enumerate(written):
        later = places < 0
        places[later & (seen == value)] = number
    return places


def _unwrapped(values: Ints, start: int) -> Ints:
    """uint32 values along their order as 64-bit ones; a step back counts as none."""
    steps = np.diff(np.concatenate([[start], values])) & 0xFFFFFFFF
    steps = np.where(steps >= 1 << 31, steps - (1 << 32), steps)
    return start + np.cumsum(steps)


def _bits(cell: Cell, traces: dict[Role, Trace]) -> Iterator[Problem]:
    """A bit is set and cleared in turn: after k sets there are k or k - 1 clears."""
    if any(len(_channels(trace)) > 1 for trace in traces.values()):
        return
    # After a cut the last change of that side may be missing.
    slack = int(any(trace.ending == "cut" for trace in traces.values()))
    for bit in (1, 2):
        sets, clears, last = 0, 0, (NOTIFY_SET_BY[cell], 0)
        for role, trace in traces.items():
            rows = _accesses(trace, cell)
            records = trace.records[rows]
            counted = records["call"] != Call.SERVER_INIT
            had = (records["old"].astype(np.int64) & bit) != 0
            has = (records["new"].astype(np.int64) & bit) != 0
            sets += int(np.sum(~had & has & counted))
            clears += int(np.sum(had & ~has & counted))
            if len(rows):
                last = (role, int(rows[-1]))
        sets += int(cell is Cell.CLI_NOTIFY and bit == 1)
        if not -slack <= sets - clears <= 1 + slack:
            text = f"bit {bit} of {cell.name} was set {sets} times and cleared {clears} times"
            yield Problem(last[0], last[1], "memory-order", text)
