"""Events and calls of one end, counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report.indices import DIRECTIONS, Ints

_LIVE = {"client": Cell.CLI_LIVE, "server": Cell.SRV_LIVE}


@dataclass(frozen=True)
class Events:
    """Events of one end."""

    sent: int
    """Calls of xenevtchn_notify that succeeded and that the test bed let through."""
    failed: int
    """Calls of xenevtchn_notify that returned an error."""
    dropped: int
    """Calls of xenevtchn_notify that the test bed dropped, as the experiment asked."""
    wakeups: int
    """Events that this end read from its event channel."""
    spurious: int
    """Wake-ups after which nothing that the peer writes had changed."""
    interrupted: int
    """Waits that ended with an error, by a signal for instance."""
    merged: int
    """Events sent to this end less its wake-ups: coalesced on the way, or never read."""


@dataclass(frozen=True)
class Calls:
    """One function of the library as one end called it."""

    name: str
    count: int
    failed: int
    """Calls that returned less than 0."""
    unfinished: int
    """Calls that had not returned when the trace ended."""
    median_ticks: float
    longest_ticks: int


def events_of(own: Trace, peer: Trace, role: Role) -> Events:
    """Event counts of the end `own`, whose role is `role`."""
    kinds = own.records["kind"]
    woken = (kinds == Kind.PENDING_EXIT) & _succeeded(own.records["new"])
    wakeups = int(np.count_nonzero(woken))
    sent, failed, dropped = _notifies(own)
    return Events(
        sent,
        failed,
        dropped,
        wakeups,
        _without_news(own, role, woken),
        int(np.count_nonzero(kinds == Kind.PENDING_EXIT)) - wakeups,
        max(0, _notifies(peer)[0] - wakeups),
    )


def calls_of(trace: Trace) -> tuple[Calls, ...]:
    """Each function that was called, in the order of the first call."""
    rows = trace.records
    entered = rows[rows["kind"] == Kind.CALL_ENTER]
    left = rows[rows["kind"] == Kind.CALL_EXIT]
    at, found = _partners(_key(entered), _key(left))
    # Who dies in its first call has left none: there is no row for those that found nothing.
    there = at[found]
    ticks, failed = np.zeros(len(entered), np.int64), np.zeros(len(entered), np.bool_)
    ticks[found] = left["t1"][there].astype(np.int64) - entered["t0"][found].astype(np.int64)
    failed[found] = ~_succeeded(left["new"][there])
    return tuple(
        Calls(
            Call(code).name.lower(),
            int(np.count_nonzero(mine)),
            int(np.count_nonzero(mine & failed)),
            int(np.count_nonzero(mine & ~found)),
            float(np.median(ticks[mine & found])) if np.any(mine & found) else 0.0,
            int(ticks[mine].max()),
        )
        for code in dict.fromkeys(entered["call"].tolist())
        for mine in (entered["call"] == code,)
    )


def _notifies(trace: Trace) -> tuple[int, int, int]:
    """Notifies of an end: sent (one that was repeated is two), failed, dropped."""
    at = np.flatnonzero(trace.records["kind"] == Kind.NOTIFY)
    rows, faults = trace.records[at], trace.records[np.maximum(at - 1, 0)]
    changed = (rows["flags"] & Flag.FAULT_INJECTED) != 0
    repeated = changed & (faults["kind"] == Kind.FAULT) & (faults["new"] == FaultKind.REPEAT)
    dropped = changed & ~repeated
    succeeded = _succeeded(rows["new"]) & ~dropped
    return (
        int(np.count_nonzero(succeeded) + np.count_nonzero(succeeded & repeated)),
        int(len(rows) - np.count_nonzero(succeeded | dropped)),
        int(np.count_nonzero(dropped)),
    )


def _without_news(trace: Trace, role: Role, woken: NDArray[np.bool_]) -> int:
    """Wake-ups until whose next wait no load of a cell of the peer's gave another value."""
    rows = trace.records
    news = np.zeros(len(rows), bool)
    for offset in _cells_of_the_peer(role):
        numbers = np.flatnonzero((rows["kind"] == Kind.LOAD) & (rows["offset"] == offset))
        values = rows["old"][numbers]
        news[numbers[1:]] = values[1:] != values[:-1]
        # The first look at a cell is news: what was there before it is not known.
        news[numbers[:1]] = True
    starts = np.flatnonzero(rows["kind"] == Kind.PENDING_ENTER)
    seen = np.concatenate(([0], np.cumsum(news)))
    wakes = np.flatnonzero(woken)
    ends = np.append(starts, len(rows))[np.searchsorted(starts, wakes)]
    return int(np.count_nonzero(seen[ends] == seen[wakes]))


def _cells_of_the_peer(role: Role) -> list[int]:
    offsets: list[int] = [_LIVE["server" if role == "client" else "client"]]
    for direction in DIRECTIONS:
        offsets.append(direction.cons_offset if direction.sender == role else direction.prod_offset)
    return offsets


def _succeeded(values: NDArray[np.void]) -> NDArray[np.bool_]:
    return values.astype(np.int64) >= 0


def _key(rows: Records) -> Ints:
    """Thread and call number of each record in one number."""
    return (rows["thread"].astype(np.int64) << 32) | rows["call_seq"].astype(np.int64)


def _partners(wanted: Ints, keys: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """For each wanted key its place among `keys` (0 if none) and whether it is there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    order = np.argsort(keys, kind="stable")
    place = order[np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)]
    return place, keys[place] == wanted
