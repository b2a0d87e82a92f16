"""Traces of calls and events alone: what is left of a trace, and in which order its steps came.

Without the accesses there are no values of indices, notify bits and live bytes to tell which of two
ends came first. What tells it is how many bytes each call has moved (who has read a byte came after
who began to write it), and the two ends' time stamps. These count only as far as they must be
right: the counters of both ends run alike, but one may have begun later, so their distance is taken
from what the bytes and the wake-ups tell, as an interval, and of two steps that it leaves open
neither comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.channel import ChannelLanes
from vchan_testbed.validate.channel_merge import ChannelLane
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.kept import kept_only
from vchan_testbed.validate.merge import Ints
from vchan_testbed.validate.order import Order, RunningOrder, raise_to

WITHIN_CALLS = frozenset((*ACCESS_KINDS, Kind.COPY, Kind.DIGEST))
"""Kinds of records that a trace of calls does not have."""
FAR = 1 << 62
"""More ticks than any two counters are apart."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """By how many ticks the server's counter is ahead of the client's: at least, and at most."""

    least: int
    most: int

    @property
    def contradicts(self) -> bool:
        """No distance fits: the counters do not run alike."""
        return self.least > self.most


def calls_alone(trace: Trace, ending: Ending) -> tuple[Trace, Ending]:
    """What a tracer of calls would have written down of the same run, and how it ends."""
    records = trace.records
    keep = ~np.isin(records["kind"], list(WITHIN_CALLS))
    # A fault's record stands before what it hit, perhaps behind others, and goes with it.
    faults = records["kind"] == Kind.FAULT
    stays = np.append(np.flatnonzero(~faults), len(records) - 1)
    keep &= ~faults | keep[stays[np.searchsorted(stays[:-1], np.arange(len(records)))]]
    left, ends = kept_only(trace, ending, keep)
    return replace(trace, header=replace(trace.header, level="calls"), records=left), ends


def order_by_results(lanes: ChannelLanes, known: Order) -> Order:
    """`known`, and what the calls' results tell: who has got a byte came after who handed it in."""
    server, client = known.sender.copy(), known.receiver.copy()
    for mine, other, before in (
        (lanes.server, lanes.client, server),
        (lanes.client, lanes.server, client),
    ):
        got = _Moved.of(mine, ("call_read", "call_recv"))
        put = _Moved.of(mine, ("call_write", "call_send"))
        theirs = _Moved.of(other, ("call_write", "call_send"))
        _come_after(got.total, got.returns, theirs, before)
        taken = _Moved.of(other, ("call_read", "call_recv"))
        _come_after(put.total - mine.ring_out, put.returns, taken, before)
    return Order(server, client)


def order_by_clock(
    lanes: ChannelLanes, traces: Mapping[Role, Trace], known: RunningOrder
) -> RunningOrder:
    """`known`, and what the time stamps tell besides."""
    began, done = {}, {}
    for role, lane in (("server", lanes.server), ("client", lanes.client)):
        records = traces["server" if role == "server" else "client"].records
        began[role] = records["t0"][lane.steps.rows].astype(np.int64)
        done[role] = np.maximum.accumulate(records["t1"][lane.steps.rows].astype(np.int64))
    ahead = _ahead(began, done, known)
    if ahead.contradicts or not len(began["server"]) or not len(began["client"]):
        return known
    server = np.searchsorted(done["client"], began["server"] - ahead.most, side="left")
    client = np.searchsorted(done["server"], began["client"] + ahead.least, side="left")
    return RunningOrder(
        np.maximum.accumulate(np.maximum(known.sender, server)),
        np.maximum.accumulate(np.maximum(known.receiver, client)),
    )


def _ahead(began: Mapping[str, Ints], done: Mapping[str, Ints], known: RunningOrder) -> Ahead:
    """The distances with which every step comes after those that it needs."""
    at = np.flatnonzero(known.sender)
    most = (done["server"][at] - began["client"][known.sender[at] - 1]).min(initial=FAR)
    at = np.flatnonzero(known.receiver)
    least = (began["server"][known.receiver[at] - 1] - done["client"][at]).max(initial=-FAR)
    # On one machine, without anything between it and its counter, they are the same counter.
    return Ahead(0, 0) if least <= 0 <= most else Ahead(int(least), int(most))


@dataclass(frozen=True, slots=True)
class _Moved:
    """The calls of one end that move bytes of one direction."""

    enters: Ints
    """Steps of the lane."""
    may_have: Ints
    """Bytes of the stream that may have been moved once this call or one before has begun."""
    returns: Ints
    """Steps at which calls return that have moved something."""
    total: Ints
    """Bytes of the stream moved until then."""

    @staticmethod
    def of(lane: ChannelLane, names: tuple[str, ...]) -> _Moved:
        """The calls with these names."""
        steps = lane.steps
        calls = steps.where(*(name for name in steps.names if name.startswith("call_")))
        returns = steps.where("return")
        enters = steps.where(*names)
        # An opening has no call step, and returns none: each return is of the last call before it.
        call_of = calls[np.searchsorted(calls, returns) - 1] if len(calls) else returns[:0]
        returns = returns[: len(call_of)]
        own = np.isin(call_of, enters) & (steps.values[returns] > 0)
        moved = np.where(own, steps.values[returns], 0)
        total = np.cumsum(moved)
        before = np.concatenate(([0], total))[np.searchsorted(returns, enters)]
        may_have = np.maximum.accumulate(before + steps.values[enters])
        return _Moved(enters, may_have, returns[own], total[own])


def _come_after(due: Ints, steps: Ints, theirs: _Moved, before: Ints) -> None:
    """Steps that need so many bytes of the stream moved come after the call that may have done it.

    What no call of the other end can have moved is no order: the search finds no way there.
    """
    wanted = due > 0
    at = np.searchsorted(theirs.may_have, due[wanted], side="left")
    possible = at < len(theirs.enters)
    raise_to(before, steps[wanted][possible], theirs.enters[at[possible]] + 1)
