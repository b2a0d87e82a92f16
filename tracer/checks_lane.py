"""One endpoint for itself: numbers, calls and their results, events and what they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.checks_parts import (
    TESTS,
    WRITES,
    Indices,
    Mask,
    Numbers,
    Problem,
    by_library,
    channel_roles,
    is_any,
    ring_orders,
    signed,
)
from vchan_testbed.tracer.completed import copies_of_digests
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import (
    CHANGING_FAULTS,
    COPY_IN,
    COPY_OUT,
    HOLDING_FAULTS,
    NO_OFFSET,
    Call,
    Cell,
    FaultKind,
    Flag,
    Kind,
)
from vchan_testbed.tracer.reader import Trace, Window

READ_CELL: dict[Role, Cell] = {"server": Cell.LEFT_CONS, "client": Cell.RIGHT_CONS}
WRITE_CELL: dict[Role, Cell] = {"server": Cell.RIGHT_PROD, "client": Cell.LEFT_PROD}
TESTED_CELL: dict[Role, Cell] = {"server": Cell.SRV_NOTIFY, "client": Cell.CLI_NOTIFY}
LIVE_CELL: dict[Role, Cell] = {"server": Cell.SRV_LIVE, "client": Cell.CLI_LIVE}
NOTIFY_BITS = 3
SEQ_SPAN = 1 << 32
"""A thread's numbers count on modulo this."""
CHANGED = Flag.FAULT_INJECTED
HELD = Flag.HELD | Flag.HELD_IN_VAIN
RECEIVING = (Call.READ, Call.RECV)
SENDING = (Call.WRITE, Call.SEND)
MAY_NOTIFY_UNASKED = (Call.NONE, Call.SERVER_INIT, Call.CLIENT_INIT, Call.CLOSE)
"""Calls that raise an event for connecting or closing; NONE where the init was not seen."""


def lane_problems(role: Role, trace: Trace) -> Iterator[Problem]:
    """What is wrong with one trace."""
    if trace.dropped:
        text = f"{trace.dropped} records found no room in the file: make it larger."
        yield Problem(role, -1, "log", text, is_hole=True)
    lane = _Lane.of(role, trace)
    holes = list(_numbers(lane, trace.window))
    yield from holes
    if trace.dropped or holes:
        return
    yield from _known_kinds(lane)
    yield from _calls(lane)
    yield from _results(lane)
    if trace.header.level == "exact":
        yield from _moved(lane)
        yield from _copied(lane)
        yield from _events(lane)
    yield from _pending(lane)
    yield from _closes(lane)
    yield from _faults(lane)
    yield from _payloads(lane)
    yield from _digests(lane, trace.window)


@dataclass(frozen=True)
class _Lane:
    """The records, and to which call each of them belongs."""

    role: Role
    trace: Trace
    records: Records
    starts: Mask
    """First record of a thread."""
    enter: Indices
    """For each record the CALL_ENTER of the call it stands in, -1 outside."""
    exits: Indices
    """The CALL_EXIT records that follow a CALL_ENTER."""

    @staticmethod
    def of(role: Role, trace: Trace) -> _Lane:
        records = trace.records
        starts = np.ones(len(records), dtype=np.bool_)
        starts[1:] = records["thread"][1:] != records["thread"][:-1]
        kinds = records["kind"]
        entering = kinds == Kind.CALL_ENTER
        # What a record stands behind: an enter, or an exit or the thread's start.
        marks = np.where(entering, np.arange(len(records)), -1)
        after_exit = np.zeros(len(records), dtype=np.bool_)
        after_exit[1:] = kinds[:-1] == Kind.CALL_EXIT
        bounds = entering | after_exit | starts
        latest = np.maximum.accumulate(np.where(bounds, np.arange(len(records)), 0))
        enter = marks[latest] if len(records) else marks
        exits = np.flatnonzero((kinds == Kind.CALL_EXIT) & (enter >= 0))
        return _Lane(role, trace, records, starts, enter, exits)

    def problems(self, places: Indices, rule: str, text: str) -> Iterator[Problem]:
        """One problem for each place."""
        for place in places:
            yield Problem(self.role, int(place), rule, text)

    def on_cell(self, cells: Mapping[Role, Cell]) -> Mask:
        """Records of the cell that belongs to the role which this process has in the channel."""
        table = np.full(1 << 16, NO_OFFSET, dtype=np.uint16)
        for channel, role in channel_roles(self.trace).items():
            table[channel] = cells[role]
        wanted = table[self.records["channel"]]
        found: Mask = (self.records["offset"] == wanted) & (wanted != NO_OFFSET)
        return found

    def sum_by_call(self, places: Indices, amounts: Numbers) -> Numbers:
        """For each record the sum of the amounts at places of the call whose enter it is."""
        inside = self.enter[places] >= 0
        sums = np.zeros(len(self.records), dtype=np.int64)
        np.add.at(sums, self.enter[places[inside]], amounts[inside])
        return sums


def _first_numbers(lane: _Lane, window: Window | None) -> Numbers:
    """Of each thread's first record: 1, if nothing of it was lost before a window."""
    lost = window.lost if window else {}
    threads = lane.records["thread"][lane.starts].tolist()
    return np.array([(lost.get(thread, 0) + 1) % SEQ_SPAN for thread in threads], np.int64)


def _numbers(lane: _Lane, window: Window | None) -> Iterator[Problem]:
    records = lane.records
    expected = np.ones(len(records), dtype=np.int64)
    expected[1:] = (records["seq"][:-1].astype(np.int64) + 1) % SEQ_SPAN
    expected[lane.starts] = _first_numbers(lane, window)
    for place in np.flatnonzero(records["seq"] != expected):
        text = (
            f"Thread {records['thread'][place]}: record {records['seq'][place]} stands where "
            f"{expected[place]} is due: records are missing or doubled."
        )
        yield Problem(lane.role, int(place), "log", text, is_hole=True)


def _known_kinds(lane: _Lane) -> Iterator[Problem]:
    records = lane.records
    unknown = ~is_any(records["kind"], tuple(Kind))
    yield from lane.problems(np.flatnonzero(unknown), "log", "A record of no known kind.")
    accesses = is_any(records["kind"], (Kind.LOAD, *WRITES, Kind.CMPXCHG_FAIL))
    wrong = accesses & ((records["offset"] == NO_OFFSET) | (records["width"] == 0))
    yield from lane.problems(np.flatnonzero(wrong), "log", "An access that names no place.")
    seen = is_any(records["kind"], (Kind.LOAD, Kind.CMPXCHG_FAIL))
    changed = seen & (records["old"] != records["new"])
    text = "An access that stores nothing and yet changes the value."
    yield from lane.problems(np.flatnonzero(changed), "log", text)


def _calls(lane: _Lane) -> Iterator[Problem]:
    records, enter = lane.records, lane.enter
    inside = enter >= 0
    at = np.where(inside, enter, 0)
    if not len(records):
        return
    fits = (records["call"] == records["call"][at]) & (
        records["call_seq"] == records["call_seq"][at]
    )
    outside = (records["call"] == 0) & (records["call_seq"] == 0)
    wrong = np.where(inside, ~fits, ~outside)
    text = "A record that does not belong to the call it stands in."
    yield from lane.problems(np.flatnonzero(wrong), "log", text)
    enters = np.flatnonzero(records["kind"] == Kind.CALL_ENTER)
    yield from _call_numbers(lane, enters)
    # An enter directly inside of a call: the one before it never returned.
    before = np.where(enters > 0, enters - 1, 0)
    nested = (
        ~lane.starts[enters] & (enter[before] >= 0) & (records["kind"][before] != Kind.CALL_EXIT)
    )
    yield from lane.problems(
        enters[nested], "log", "A call begins while another one has not ended."
    )
    unmatched = np.flatnonzero((records["kind"] == Kind.CALL_EXIT) & (enter < 0))
    yield from lane.problems(unmatched, "log", "A call returns that has not begun.")


def _call_numbers(lane: _Lane, enters: Indices) -> Iterator[Problem]:
    records = lane.records
    threads, numbers = records["thread"][enters], records["call_seq"][enters].astype(np.int64)
    firsts = np.ones(len(enters), dtype=np.bool_)
    firsts[1:] = threads[1:] != threads[:-1]
    expected = np.ones(len(enters), dtype=np.int64)
    # Behind the last number comes 1: 0 is no call.
    expected[1:] = np.where(firsts[1:], 1, numbers[:-1] % (SEQ_SPAN - 1) + 1)
    lost = lane.trace.window.lost if lane.trace.window else {}
    anywhere = firsts & np.isin(threads, [thread for thread, count in lost.items() if count])
    expected = np.where(anywhere, numbers, expected)
    text = "A call whose number does not follow on the one before."
    yield from lane.problems(enters[numbers != expected], "log", text)


def _results(lane: _Lane) -> Iterator[Problem]:
    records, exits = lane.records, lane.exits
    enters = lane.enter[exits]
    result, size = signed(records["new"][exits]), signed(records["old"][enters])
    call = records["call"][exits]
    exact = (call == Call.RECV) | (call == Call.SEND)
    partial = (call == Call.READ) | (call == Call.WRITE)
    plain = np.isin(call, (Call.WAIT, Call.SERVER_INIT, Call.CLIENT_INIT))
    right = result >= 0
    right = np.where(exact, (result == -1) | (result == 0) | (result == size), right)
    right = np.where(partial, (result >= -1) & (result <= size), right)
    right = np.where(plain, (result == -1) | (result == 0), right)
    right |= _notify_failed(lane)[enters]
    for place in exits[~right]:
        text = (
            f"{Call(records['call'][place]).name.lower()} of {records['old'][lane.enter[place]]} "
            f"returns {signed(records['new'][place : place + 1])[0]}."
        )
        yield Problem(lane.role, int(place), "log", text)


def _notify_failed(lane: _Lane) -> Mask:
    """For each CALL_ENTER whether an event could not be sent: results then mean little (L2, L4)."""
    failed = np.flatnonzero(
        (lane.records["kind"] == Kind.NOTIFY) & (signed(lane.records["new"]) < 0)
    )
    return lane.sum_by_call(failed, np.ones(len(failed), dtype=np.int64)) > 0


def _moved(lane: _Lane) -> Iterator[Problem]:
    """What a transfer says it moved is what its index moved by."""
    records, exits = lane.records, lane.exits
    enters = lane.enter[exits]
    transfers = np.isin(records["call"][exits], RECEIVING + SENDING)
    transfers &= ~_notify_failed(lane)[enters]
    stepped = np.zeros(len(records), dtype=np.int64)
    for calls, cells in ((RECEIVING, READ_CELL), (SENDING, WRITE_CELL)):
        stepped += lane.sum_by_call(*_steps(lane, calls, cells))
    result = signed(records["new"][exits])
    for place in exits[transfers & (result >= 0) & (result != stepped[enters])]:
        moved = stepped[lane.enter[place]]
        text = f"The call returns {records['new'][place]}, but its index moved by {moved}."
        yield Problem(lane.role, int(place), "R2", text)


def _copied(lane: _Lane) -> Iterator[Problem]:
    """Before an index moves, as many bytes are copied.

    A compiler may have made some of the copies without calling memcpy: copying in or out, the part
    up to the ring's end or the one behind it. So a move is only held against others of its like.
    """
    for calls, cells, op in ((RECEIVING, READ_CELL, COPY_OUT), (SENDING, WRITE_CELL, COPY_IN)):
        moves, steps = _steps(lane, calls, cells)
        copied = _copied_before(lane, moves, op)
        rings = _ring_bytes(lane, op)[lane.records["channel"][moves]]
        start = signed(lane.records["old"][moves]) % rings
        wraps = start + steps > rings
        for like in (wraps, ~wraps):
            if not (copied == steps)[like & (steps > 0)].any():
                continue
            for i in np.flatnonzero(like & (copied != steps)):
                text = f"{copied[i]} bytes were copied, but the index moved by {steps[i]}."
                yield Problem(lane.role, int(moves[i]), "R2", text)


def _copied_before(lane: _Lane, moves: Indices, op: int) -> Numbers:
    """Bytes copied in a thread and channel since the move before."""
    records = lane.records
    copies = (records["kind"] == Kind.COPY) & (records["op"] == op)
    wanted = copies.copy()
    wanted[moves] = True
    places, keys = _by_thread_and_channel(lane, wanted)
    amounts = np.where(copies[places], signed(records["new"][places]), 0)
    total = np.cumsum(amounts)
    at = np.flatnonzero(~copies[places])
    # Each move's share: from the one before in its group, or from where the group begins.
    first = np.searchsorted(keys, keys[at], side="left")
    base = total[first] - amounts[first]
    follows = np.append(False, keys[at][1:] == keys[at][:-1])
    before = np.append(0, total[at][:-1]) if len(at) else total[at]
    shares = np.zeros(len(records), dtype=np.int64)
    shares[places[at]] = total[at] - np.where(follows, before, base)
    found: Numbers = shares[moves]
    return found


def _ring_bytes(lane: _Lane, op: int) -> Numbers:
    """Size of each channel's ring that is read (COPY_OUT) or written (COPY_IN); 1 if unknown."""
    sizes = np.ones(1 << 16, dtype=np.int64)
    roles = channel_roles(lane.trace)
    for channel, orders in ring_orders(lane.trace).items():
        is_left = (roles[channel] == "client") == (op == COPY_IN)
        sizes[channel] = 1 << min(orders[0 if is_left else 1], 31)
    return sizes


def _steps(
    lane: _Lane, calls: tuple[Call, ...], cells: Mapping[Role, Cell]
) -> tuple[Indices, Numbers]:
    """Where the own index was written in calls that move it, and by how much."""
    records = lane.records
    writes = is_any(records["kind"], WRITES) & by_library(records)
    writes &= np.isin(records["call"], calls)
    places = np.flatnonzero(writes & lane.on_cell(cells))
    amounts = (signed(records["new"][places]) - signed(records["old"][places])) % (1 << 32)
    return places, amounts


def _pending(lane: _Lane) -> Iterator[Problem]:
    """In each thread and channel: wait, port, unmask of that port, or none of them."""
    records = lane.records
    kinds = (Kind.PENDING_ENTER, Kind.PENDING_EXIT, Kind.UNMASK, Kind.CALL_EXIT)
    for before, after in _neighbours(lane, is_any(records["kind"], kinds)):
        kind, following = records["kind"][before], records["kind"][after]
        unread = (kind == Kind.PENDING_ENTER) != (following == Kind.PENDING_EXIT)
        text = "A wait for an event and its end do not follow on each other."
        yield from lane.problems(after[unread], "log", text)
        port = signed(records["new"][before])
        taken = (kind == Kind.PENDING_EXIT) & (port >= 0)
        unmasked = (following == Kind.UNMASK) & (signed(records["old"][after]) == port)
        text = "An event was taken and its port was not unmasked next."
        yield from lane.problems(before[taken & ~unmasked], "R10", text)
        inits = (Call.SERVER_INIT, Call.CLIENT_INIT)
        unasked = (following == Kind.UNMASK) & ~taken & ~np.isin(records["call"][after], inits)
        text = "A port was unmasked whose event was not taken."
        yield from lane.problems(after[unasked], "R10", text)


def _neighbours(lane: _Lane, wanted: Mask) -> Iterator[tuple[Indices, Indices]]:
    """Each two records of a thread and channel that follow on each other among the wanted."""
    places, keys = _by_thread_and_channel(lane, wanted & by_library(lane.records))
    together = keys[1:] == keys[:-1]
    if together.any():
        yield places[:-1][together], places[1:][together]


def _by_thread_and_channel(lane: _Lane, wanted: Mask) -> tuple[Indices, Numbers]:
    """The wanted records, those of a thread and channel together, and which these are."""
    places = np.flatnonzero(wanted)
    # The records are ordered by thread already; a stable sort keeps program order.
    keys = lane.records["thread"][places].astype(np.int64) << 16
    keys |= lane.records["channel"][places]
    order = np.argsort(keys, kind="stable")
    return places[order], keys[order]


def _cleared(lane: _Lane) -> Mask:
    """Test-and-clears that found a bit: an event is due."""
    records = lane.records
    found = is_any(records["kind"], TESTS) & lane.on_cell(TESTED_CELL)
    found &= (records["old"] & ~records["new"] & NOTIFY_BITS) != 0
    return found


def _events(lane: _Lane) -> Iterator[Problem]:
    records = lane.records
    cleared = _cleared(lane)
    wanted = cleared | is_any(records["kind"], (Kind.NOTIFY, Kind.CALL_EXIT, Kind.CALL_ENTER))
    for before, after in _neighbours(lane, wanted):
        due, sent = cleared[before], records["kind"][after] == Kind.NOTIFY
        text = "A notify bit was cleared and no event sent."
        yield from lane.problems(before[due & ~sent], "R4", text)
        asked = due | np.isin(records["call"][after], MAY_NOTIFY_UNASKED)
        text = "An event was sent for which no notify bit was cleared."
        yield from lane.problems(after[sent & ~asked], "R4", text)


def _closes(lane: _Lane) -> Iterator[Problem]:
    records, exits = lane.records, lane.exits
    stores = lane.on_cell(LIVE_CELL) & is_any(records["kind"], WRITES) & (records["new"] == 0)
    events = np.flatnonzero(records["kind"] == Kind.NOTIFY)
    sent = lane.sum_by_call(events, np.ones(len(events), dtype=np.int64))
    places = np.flatnonzero(stores & (records["call"] == Call.CLOSE))
    returned = np.isin(lane.enter[places], lane.enter[exits])
    silent = places[returned & (sent[lane.enter[places]] == 0)]
    yield from lane.problems(silent, "R8", "The live byte was cleared and no event sent.")


def _faults(lane: _Lane) -> Iterator[Problem]:
    """What a fault hit stands behind it, and nothing is hit without a fault.

    Several faults may be at one step: each of them stands before it. Behind one that kills nothing
    stands.
    """
    records = lane.records
    if not len(records):
        return
    faults = records["kind"] == Kind.FAULT
    unknown = faults & ~np.isin(records["new"], tuple(FaultKind))
    yield from lane.problems(np.flatnonzero(unknown), "log", "A fault of no known kind.")
    follower = _next_but(lane, faults)
    killed = faults & (records["new"] == FaultKind.KILL) & (follower < len(records))
    text = "A thread goes on behind the fault that killed its process."
    yield from lane.problems(np.flatnonzero(killed), "log", text)
    for kinds, hit, more, text in (
        (CHANGING_FAULTS, *_hit(records, CHANGED), "The effect of a record was changed"),
        (HOLDING_FAULTS, *_hit(records, HELD), "A step was held"),
    ):
        mine = np.flatnonzero(faults & np.isin(records["new"], kinds))
        followed = mine[follower[mine] < len(records)]
        alone = followed[~hit[follower[followed]]]
        yield from lane.problems(alone, "log", "A fault that hit nothing.")
        said = np.zeros(len(records), dtype=np.bool_)
        said[follower[followed]] = True
        unsaid = np.flatnonzero(hit & ~more & ~said)
        yield from lane.problems(unsaid, "log", f"{text}, and no fault says so.")


def _next_but(lane: _Lane, passed: Mask) -> Indices:
    """For each record its thread's next one that is not passed over; without one, their number."""
    count = len(passed)
    others = np.append(np.flatnonzero(~passed), count)
    at = np.arange(count)
    found = others[np.searchsorted(others, at, side="right")]
    thread = np.cumsum(lane.starts)
    same = thread[np.minimum(found, count - 1)] == thread
    follower: Indices = np.where((found < count) & same, found, count)
    return follower


def _hit(records: Records, flags: Flag) -> tuple[Mask, Mask]:
    """Records that a fault hit, and those of them that are more of the access before.

    An access of which an update was lost is two records: its load, and then the rest.
    """
    hit: Mask = (records["flags"] & flags) != 0
    more = np.zeros(len(records), dtype=np.bool_)
    fields = ("thread", "t0", "site")
    same = np.logical_and.reduce([records[name][1:] == records[name][:-1] for name in fields])
    more[1:] = same & hit[:-1]
    return hit, more


def _digests(lane: _Lane, window: Window | None) -> Iterator[Problem]:
    """One that was put off belongs to a copy of its call, and comes before the call's end."""
    records = lane.records
    for digest, copy in zip(*copies_of_digests(records), strict=True):
        if window and lane.enter[digest] < 0:
            # Its call, and perhaps its copy, began before the window.
            continue
        same = ("new", "call_seq", "channel")
        if copy < 0 or any(records[name][digest] != records[name][copy] for name in same):
            yield Problem(lane.role, int(digest), "log", "It is the digest of no copy of its call.")
    if not len(records):
        return
    ended = _next_but(lane, records["kind"] != Kind.CALL_EXIT)
    lacking = (records["kind"] == Kind.COPY) & (records["flags"] & Flag.DIGEST_FOLLOWS != 0)
    late = np.flatnonzero(lacking & (ended < len(records)))
    yield from lane.problems(late, "log", "Its call has ended, and its digest is missing.")


def _payloads(lane: _Lane) -> Iterator[Problem]:
    records = lane.records
    for place in np.flatnonzero((records["kind"] == Kind.PAYLOAD) & (records["operand"] != 0)):
        text = (
            f"{records['new'][place]} bytes were read that are not those which were written; "
            f"they begin as position {records['old'][place]} of the stream."
        )
        yield Problem(lane.role, int(place), "R2", text)
