"""Figures from traces: against hand-computed tiny traces, and properties of simulated ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vchan_testbed.tracer.format import RECORD_DTYPE
from vchan_testbed.tracer.header import Role, TraceHeader
from vchan_testbed.tracer.layout import NO_OFFSET, Call, Cell, Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report.clocks import ClockOffset, infer_offset
from vchan_testbed.validate.report.counts import calls_of, events_of
from vchan_testbed.validate.report.figures import flow_of, latency_of, occupancy_of, span_ticks
from vchan_testbed.validate.report.indices import LEFT, RIGHT, Direction, base_of, looks, moves

PROD, CONS = Cell.LEFT_PROD, Cell.LEFT_CONS
SAME_CLOCK = ClockOffset(-1, 1, 2)


@dataclass
class Recorder:
    """Collects one end's records; times are in that end's clock."""

    role: Role
    order: int = 12
    rows: list[dict[str, int]] = field(default_factory=list)

    def add(self, t0: int, t1: int, kind: int, **values: int) -> None:
        """One record of thread 1."""
        defaults = {"offset": NO_OFFSET, "thread": 1, "width": 4, "seq": len(self.rows) + 1}
        self.rows.append({"t0": t0, "t1": t1, "kind": kind, **defaults, **values})

    def load(self, t0: int, t1: int, offset: int, value: int) -> None:
        """A load of an index."""
        self.add(t0, t1, Kind.LOAD, offset=offset, old=value, new=value)

    def store(self, t0: int, t1: int, offset: int, old: int, new: int) -> None:
        """A store of an index."""
        self.add(t0, t1, Kind.STORE, offset=offset, old=old, new=new)

    def trace(self) -> Trace:
        """What the reader would give."""
        records = np.zeros(len(self.rows), RECORD_DTYPE)
        for number, row in enumerate(self.rows):
            for name, value in row.items():
                records[name][number] = value
        header = TraceHeader(self.role, 1, 2, self.order, self.order, tsc_hz=10**9)
        return Trace(header, records, "complete", 0, ())


def tiny_pair() -> tuple[Trace, Trace]:
    """The client writes 100 and 50 bytes, the server reads 120 and 30; one clock."""
    client, server = Recorder("client"), Recorder("server")
    client.load(10, 11, PROD, 0)
    client.store(20, 22, PROD, 0, 100)
    client.store(40, 42, PROD, 100, 150)
    server.load(50, 51, PROD, 150)
    server.load(52, 53, CONS, 0)
    server.store(60, 62, CONS, 0, 120)
    client.load(70, 71, CONS, 120)
    server.store(80, 82, CONS, 120, 150)
    return server.trace(), client.trace()


def test_the_moves_of_an_index_are_unwrapped_and_count_from_its_first_value() -> None:
    client = Recorder("client")
    near_the_end = (1 << 32) - 10
    client.load(1, 2, PROD, near_the_end)
    client.store(3, 4, PROD, near_the_end, near_the_end)
    client.store(5, 6, PROD, near_the_end, (1 << 32) - 1)
    client.store(7, 8, PROD, (1 << 32) - 1, 20)
    trace = client.trace()
    found = moves(trace, PROD)
    assert base_of(trace, PROD) == near_the_end
    assert found.positions.tolist() == [9, 30]
    assert found.steps.tolist() == [9, 21]
    assert found.records.tolist() == [2, 3]


def test_a_corrupted_index_shows_as_one_that_went_back() -> None:
    client = Recorder("client")
    client.store(1, 2, PROD, 0, 8)
    client.store(3, 4, PROD, 8, (1 << 32) - 1)
    assert moves(client.trace(), PROD).positions.tolist() == [8, -1]


def test_accesses_of_another_width_or_cell_are_not_moves() -> None:
    client = Recorder("client")
    client.add(1, 2, Kind.STORE, offset=PROD, width=8, new=7)
    client.store(3, 4, CONS, 0, 7)
    client.add(5, 6, Kind.NOTIFY, offset=PROD, new=7)
    assert moves(client.trace(), PROD).positions.tolist() == []
    assert looks(client.trace(), CONS, 0).positions.tolist() == []


def test_latency_by_hand() -> None:
    server, client = tiny_pair()
    flow = flow_of(LEFT, server, client, SAME_CLOCK)
    latency = latency_of(flow)
    assert latency is not None
    # Bytes 0-99: stored from 20, taken until 62. 100-119: 40 to 62. 120-149: 40 to 82.
    assert latency.sizes.tolist() == [100, 20, 30]
    assert latency.ticks.tolist() == [42, 22, 42]
    assert latency.at(50) == 42
    assert latency.at(10) == 22
    assert latency.at(100) == 42
    assert span_ticks(flow) == 82 - 20


def test_bytes_that_were_never_read_have_no_latency() -> None:
    server, client = tiny_pair()
    rows = client.records.copy()
    more = rows[-1:].copy()
    more["kind"], more["offset"], more["old"], more["new"] = Kind.STORE, PROD, 150, 190
    more["t0"], more["t1"] = 90, 91
    longer = Trace(client.header, np.concatenate((rows, more)), "complete", 0, ())
    flow = flow_of(LEFT, server, longer, SAME_CLOCK)
    latency = latency_of(flow)
    assert latency is not None
    assert (flow.bytes_put, flow.bytes_taken) == (190, 150)
    assert latency.sizes.sum() == 150


def test_occupancy_by_hand() -> None:
    occupancy = occupancy_of(flow_of(LEFT, *tiny_pair(), SAME_CLOCK))
    assert occupancy is not None
    assert occupancy.times.tolist() == [21, 41, 61, 81]
    assert occupancy.values.tolist() == [100, 150, 30, 0]
    assert occupancy.outside == 0


def test_a_direction_without_traffic_has_no_figures() -> None:
    flow = flow_of(RIGHT, *tiny_pair(), SAME_CLOCK)
    assert (flow.bytes_put, span_ticks(flow)) == (0, 0)
    assert latency_of(flow) is None
    assert occupancy_of(flow) is None


def test_without_aligned_clocks_nothing_is_said_across_them() -> None:
    flow = flow_of(LEFT, *tiny_pair(), ClockOffset(None, 4, 1))
    assert latency_of(flow) is None
    assert occupancy_of(flow) is None
    assert span_ticks(flow) == 42 - 20


def test_indices_beyond_the_ring_are_counted_and_drawn_inside_of_it() -> None:
    client, server = Recorder("client", order=10), Recorder("server", order=10)
    client.store(1, 2, PROD, 0, 5000)
    server.store(3, 4, CONS, 0, 6000)
    flow = flow_of(LEFT, server.trace(), client.trace(), SAME_CLOCK)
    occupancy = occupancy_of(flow)
    assert occupancy is not None
    assert occupancy.values.tolist() == [1024, 0]
    assert occupancy.outside == 2


def test_the_clock_offset_by_hand() -> None:
    server, client = tiny_pair()
    offset = infer_offset(server, client)
    # The server's load of 150 ended at 51 and the store of 150 began at 40: above 40 - 51. The
    # client's load of 120 began at 70, before the store of 150 that ended at 82: above 70 - 82.
    # It ended at 71 and the store of 120 began at 60: below 71 - 60. The client's later store
    # bounds nothing: the server read the newest value.
    assert (offset.low, offset.high) == (-11, 11)
    assert offset.pairs == 3
    assert offset.known
    assert (offset.ticks, offset.uncertainty_ticks) == (0, 11)


def test_contradicting_clocks_are_not_aligned() -> None:
    server, client = tiny_pair()
    skewed = client.records.copy()
    # The client says that it had read 120 long before the server stored it.
    skewed["t0"][-1], skewed["t1"][-1] = 29, 30
    offset = infer_offset(server, Trace(client.header, skewed, "complete", 0, ()))
    assert (offset.low, offset.high) == (-11, -30)
    assert not offset.known
    assert latency_of(flow_of(LEFT, server, client, offset)) is None


def test_events_are_told_apart() -> None:
    client, server = Recorder("client"), Recorder("server")
    client.add(1, 2, Kind.NOTIFY, old=3, new=0)
    client.add(3, 4, Kind.NOTIFY, old=3, new=0, flags=Flag.FAULT_INJECTED)
    client.add(5, 6, Kind.NOTIFY, old=3, new=(1 << 64) - 1)
    client.add(7, 8, Kind.NOTIFY, old=3, new=0)
    client.add(9, 10, Kind.NOTIFY, old=3, new=0)
    server.load(1, 2, PROD, 0)
    server.add(2, 3, Kind.PENDING_ENTER)
    server.add(4, 5, Kind.PENDING_EXIT, new=7)
    server.load(6, 7, PROD, 5)
    server.add(8, 9, Kind.PENDING_ENTER)
    server.add(10, 11, Kind.PENDING_EXIT, new=7)
    server.load(12, 13, PROD, 5)
    server.add(14, 15, Kind.PENDING_ENTER)
    server.add(16, 17, Kind.PENDING_EXIT, new=(1 << 64) - 1)
    sent = events_of(client.trace(), server.trace(), "client")
    assert (sent.sent, sent.failed, sent.dropped) == (3, 1, 1)
    assert (sent.wakeups, sent.spurious, sent.merged) == (0, 0, 0)
    woken = events_of(server.trace(), client.trace(), "server")
    assert (woken.wakeups, woken.spurious, woken.interrupted, woken.merged) == (2, 1, 1, 1)


def test_calls_are_counted_by_function() -> None:
    client = Recorder("client")
    write, read = Call.WRITE, Call.READ
    for number, (call, result, ticks) in enumerate(
        [(write, 9, 4), (write, 9, 8), (read, -1, 2)], 1
    ):
        start = 100 * number
        client.add(start, start, Kind.CALL_ENTER, call=call, call_seq=number, old=9)
        new = result % (1 << 64)
        end = start + ticks
        client.add(end, end, Kind.CALL_EXIT, call=call, call_seq=number, new=new)
    client.add(900, 900, Kind.CALL_ENTER, call=read, call_seq=4, old=9)
    writes, reads = calls_of(client.trace())
    assert (writes.name, writes.count, writes.failed, writes.unfinished) == ("write", 2, 0, 0)
    assert (writes.median_ticks, writes.longest_ticks) == (6, 8)
    assert (reads.name, reads.count, reads.failed, reads.unfinished) == ("read", 2, 1, 1)


def test_a_process_that_dies_in_its_first_call_left_none() -> None:
    client = Recorder("client")
    client.add(100, 100, Kind.CALL_ENTER, call=Call.CLIENT_INIT, call_seq=1)
    (init,) = calls_of(client.trace())
    assert (init.count, init.failed, init.unfinished, init.longest_ticks) == (1, 0, 1, 0)


def test_an_empty_trace_has_no_figures() -> None:
    server, client = Recorder("server").trace(), Recorder("client").trace()
    assert not infer_offset(server, client).known
    assert calls_of(server) == ()
    assert events_of(server, client, "server").wakeups == 0


Steps = list[tuple[bool, int, int, int]]
STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(1, 2000), st.integers(1, 50), st.integers(0, 400)),
    min_size=4,
    max_size=60,
)


def simulated(steps: Steps, shift: int, order: int, base: int) -> tuple[Trace, Trace]:
    """Two ends that keep the protocol; the client's clock is the server's plus `shift`.

    A step is: who acts, how many bytes at most, how far in time to its next access, and how wide
    the stamps lie around it. An end reads the peer's index, then moves its own.
    """
    ring = 1 << order
    ends = {True: Recorder("client", order), False: Recorder("server", order)}
    prod = cons = 0
    now = 10**6
    stamped = {True: 0, False: 0}

    def stamps(mine: bool, wait: int, width: int) -> tuple[int, int]:
        nonlocal now
        now = max(now + wait, stamped[mine] + 1)
        before = max(stamped[mine], now - width)
        after = now + width // 2
        stamped[mine] = after
        return (before + shift, after + shift) if mine else (before, after)

    def wrapped(position: int) -> int:
        return (base + position) % (1 << 32)

    for sends, amount, wait, width in steps:
        end = ends[sends]
        own, other = (PROD, CONS) if sends else (CONS, PROD)
        end.load(*stamps(sends, wait, width), own, wrapped(prod if sends else cons))
        end.load(*stamps(sends, wait, width), other, wrapped(cons if sends else prod))
        possible = min(amount, ring - (prod - cons) if sends else prod - cons)
        if possible and sends:
            end.store(*stamps(True, wait, width), PROD, wrapped(prod), wrapped(prod + possible))
            prod += possible
        elif possible:
            end.store(*stamps(False, wait, width), CONS, wrapped(cons), wrapped(cons + possible))
            cons += possible
    return ends[False].trace(), ends[True].trace()


@given(STEPS, st.integers(-(10**5), 10**5), st.sampled_from([10, 11, 12]), st.booleans())
@settings(deadline=None)
def test_the_inferred_bounds_enclose_the_true_offset(
    steps: Steps, shift: int, order: int, wraps: bool
) -> None:
    server, client = simulated(steps, shift, order, (1 << 32) - 700 if wraps else 0)
    offset = infer_offset(server, client)
    if offset.low is not None:
        assert offset.low < shift
    if offset.high is not None:
        assert shift < offset.high
    if offset.known:
        assert abs(offset.ticks - shift) <= offset.uncertainty_ticks


@given(STEPS, st.integers(-(10**5), 10**5), st.sampled_from([10, 11, 12]), st.booleans())
@settings(deadline=None)
def test_the_occupancy_of_a_valid_run_is_within_the_ring(
    steps: Steps, shift: int, order: int, wraps: bool
) -> None:
    server, client = simulated(steps, shift, order, (1 << 32) - 700 if wraps else 0)
    flow = flow_of(LEFT, server, client, infer_offset(server, client))
    occupancy = occupancy_of(flow)
    if occupancy is None:
        return
    assert occupancy.outside == 0
    assert np.all(occupancy.values >= 0)
    assert np.all(occupancy.values <= 1 << order)
    assert np.all(np.diff(occupancy.times) >= 0)
    assert occupancy.values[-1] == flow.bytes_put - flow.bytes_taken


@given(STEPS, st.integers(-(10**5), 10**5))
@settings(deadline=None)
def test_every_byte_that_was_read_has_one_latency(steps: Steps, shift: int) -> None:
    server, client = simulated(steps, shift, 12, 0)
    flow = flow_of(LEFT, server, client, ClockOffset(shift - 1, shift + 1, 2))
    latency = latency_of(flow)
    if latency is None:
        assert flow.bytes_taken == 0
        return
    assert latency.sizes.sum() == flow.bytes_taken
    assert np.all(latency.ticks >= 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([PROD, CONS]),
            st.sampled_from([Kind.LOAD, Kind.STORE, Kind.RMW_PLAIN]),
            st.integers(0, (1 << 32) - 1),
            st.integers(0, (1 << 32) - 1),
            st.booleans(),
        ),
        max_size=40,
    )
)
@settings(deadline=None)
def test_no_values_break_the_figures(rows: list[tuple[int, int, int, int, bool]]) -> None:
    ends = {True: Recorder("client"), False: Recorder("server")}
    for number, (offset, kind, old, new, mine) in enumerate(rows):
        ends[mine].add(number * 3, number * 3 + 1, kind, offset=offset, old=old, new=new)
    server, client = ends[False].trace(), ends[True].trace()
    for offset_used in (infer_offset(server, client), SAME_CLOCK):
        flow = flow_of(LEFT, server, client, offset_used)
        latency_of(flow)
        occupancy = occupancy_of(flow)
        if occupancy is not None:
            assert np.all((occupancy.values >= 0) & (occupancy.values <= flow.ring_bytes))


@pytest.mark.parametrize("direction", [LEFT, RIGHT])
def test_a_trace_without_a_connect_has_no_ring(direction: Direction) -> None:
    server, client = Recorder("server", 0).trace(), Recorder("client", 0).trace()
    flow = flow_of(direction, server, client, SAME_CLOCK)
    assert flow.ring_bytes == 0
    assert occupancy_of(flow) is None
