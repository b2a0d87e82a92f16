"""What a direction carried and how fast: from traces to numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report.clocks import ClockOffset
from vchan_testbed.validate.report.downsample import Floats, percentile
from vchan_testbed.validate.report.indices import Direction, Ints, Moves, moves


@dataclass(frozen=True)
class Flow:
    """Both indices' moves in one direction, on one clock: the server's, in ticks."""

    direction: Direction
    ring_bytes: int
    """0 when neither end recorded a connect."""
    puts: Moves
    """The sender's moves of prod."""
    takes: Moves
    """The receiver's moves of cons."""
    aligned: bool
    """Both ends' ticks may be compared."""

    @property
    def bytes_put(self) -> int:
        """Bytes that were written into the ring."""
        return int(self.puts.positions[-1]) if len(self.puts.positions) else 0

    @property
    def bytes_taken(self) -> int:
        """Bytes that were read out of the ring."""
        return int(self.takes.positions[-1]) if len(self.takes.positions) else 0


@dataclass(frozen=True)
class Latency:
    """From before the store of prod to after the store of cons, for stretches of bytes.

    All bytes of a stretch were written by one store and read by one store. `ticks` of the TSC,
    `sizes` in bytes.
    """

    ticks: Floats
    sizes: Floats
    at_least: Floats
    """Ticks from after the one store to before the other; below 0 where clocks are not so exact."""
    takes: Ints
    """The number of the receiver's move that read it, in `Flow.takes`."""

    def at(self, per_cent: float) -> float:
        """Ticks within which `per_cent` of the bytes were read."""
        return percentile(self.ticks, self.sizes, per_cent)


@dataclass(frozen=True)
class Occupancy:
    """Bytes in the ring after each move of an index; 0 before the first one.

    `values` lie in [0, ring]; `outside` counts the moves after which the indices said otherwise.
    """

    times: Floats
    values: Floats
    outside: int


def flow_of(direction: Direction, server: Trace, client: Trace, offset: ClockOffset) -> Flow:
    """The moves of a direction's two indices."""
    traces: dict[Role, Trace] = {"server": server, "client": client}
    shift = {"server": 0, "client": offset.ticks}
    order = server.header.order_of(direction.name) or client.header.order_of(direction.name)
    return Flow(
        direction,
        1 << order if order else 0,
        _shifted(moves(traces[direction.sender], direction.prod_offset), shift[direction.sender]),
        _shifted(
            moves(traces[direction.receiver], direction.cons_offset), shift[direction.receiver]
        ),
        offset.known,
    )


def span_ticks(flow: Flow) -> int:
    """From the first write to the last read; to the last write where clocks cannot be compared."""
    if not len(flow.puts.t0):
        return 0
    end = flow.puts.t1[-1]
    if flow.aligned and len(flow.takes.t1):
        end = max(end, flow.takes.t1[-1])
    return int(end - flow.puts.t0[0])


def latency_of(flow: Flow) -> Latency | None:
    """How long bytes lay in the ring; None when clocks are not aligned or nothing was read.

    The stores' real times lie between t0 and t1 of their records, so this is an upper bound.
    """
    taken = min(flow.bytes_put, flow.bytes_taken)
    if not flow.aligned or taken <= 0:
        return None
    if np.any(flow.puts.steps <= 0) or np.any(flow.takes.steps <= 0):
        # An index went backwards: which byte was read when is not defined.
        return None
    ends = np.union1d(flow.puts.positions, flow.takes.positions)
    ends = ends[ends <= taken]
    put = np.searchsorted(flow.puts.positions, ends, side="left")
    take = np.searchsorted(flow.takes.positions, ends, side="left")
    ticks = flow.takes.t1[take] - flow.puts.t0[put]
    sizes = np.diff(ends, prepend=0)
    # The offset is exact to a few ticks only: a latency is at least one tick.
    return Latency(
        np.maximum(ticks, 1).astype(np.float64),
        sizes.astype(np.float64),
        (flow.takes.t0[take] - flow.puts.t1[put]).astype(np.float64),
        take,
    )


def occupancy_of(flow: Flow) -> Occupancy | None:
    """The ring's fill over time; None without aligned clocks, a ring and a write."""
    if not flow.aligned or not flow.ring_bytes or not len(flow.puts.t0):
        return None
    times = np.concatenate(((flow.puts.t0 + flow.puts.t1) / 2, (flow.takes.t0 + flow.takes.t1) / 2))
    steps = np.concatenate((flow.puts.steps, -flow.takes.steps))
    order = np.argsort(times, kind="stable")
    filled = np.cumsum(steps[order])
    if np.any(filled < 0) or np.any(filled > flow.ring_bytes):
        order = _possible_order(flow)
        filled = np.cumsum(steps[order])
    outside = int(np.count_nonzero((filled < 0) | (filled > flow.ring_bytes)))
    # A move that had to wait for another one in the order is drawn no earlier than that one.
    return Occupancy(
        np.maximum.accumulate(times[order]),
        np.clip(filled, 0, flow.ring_bytes).astype(np.float64),
        outside,
    )


def _possible_order(flow: Flow) -> Ints:
    """Puts and takes (numbered on after the puts) by time, where the ring's bounds allow it.

    An access happened somewhere between its two time stamps, and the clocks' offset is known to
    some ticks only: by their middles a take can come before its put. Then the put goes first.
    """
    put_ends, take_ends = flow.puts.positions.tolist(), flow.takes.positions.tolist()
    put_times = (flow.puts.t0 + flow.puts.t1).tolist()
    take_times = (flow.takes.t0 + flow.takes.t1).tolist()
    order: list[int] = []
    put = take = 0
    while put < len(put_ends) and take < len(take_ends):
        put_first = put_times[put] <= take_times[take]
        put_fits = put_ends[put] - (take_ends[take - 1] if take else 0) <= flow.ring_bytes
        take_fits = take_ends[take] <= (put_ends[put - 1] if put else 0)
        if put_fits != take_fits:
            # Only one of them keeps the ring's bounds; if none or both do, time decides.
            put_first = put_fits
        if put_first:
            order.append(put)
            put += 1
        else:
            order.append(len(put_ends) + take)
            take += 1
    order += range(put, len(put_ends))
    order += range(len(put_ends) + take, len(put_ends) + len(take_ends))
    return np.asarray(order, np.int64)


def _shifted(cell: Moves, ticks: int) -> Moves:
    return Moves(cell.records, cell.t0 - ticks, cell.t1 - ticks, cell.positions)
