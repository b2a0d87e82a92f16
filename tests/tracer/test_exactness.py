"""Is every access in the trace, with the value it really had?

The oracle is a model of libxenvchan (tools/libs/vchan/{init,io}.c, Xen 4.17) that is fed with the
values that the log says were read: each record has to be the next one that the model does, and
each call has to return what the model returns. Then some interleaving of both logs has to be an
execution of one memory. The model is a second copy of the protocol, so it lives in the tests only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.layout import CELL_WIDTH, COPY_IN, COPY_OUT, Call, Cell, Flag, Kind, Op
from vchan_testbed.tracer.reader import Trace

if TYPE_CHECKING:
    from conftest import TracedPair

WRITE_BIT, READ_BIT = 1, 2
WRAP = 1 << 32


class Mismatch(AssertionError):
    """The log shows something else than the model does."""


class Model:
    """One end of a channel, single-threaded, replayed call by call."""

    def __init__(self, trace: Trace) -> None:
        self.records = [dict(zip(r.dtype.names, r.tolist(), strict=True)) for r in trace.records]
        self.at = 0
        self.is_server = trace.header.role == "server"
        server = self.is_server
        self.own_live = Cell.SRV_LIVE if server else Cell.CLI_LIVE
        self.peer_live = Cell.CLI_LIVE if server else Cell.SRV_LIVE
        self.asked = Cell.CLI_NOTIFY if server else Cell.SRV_NOTIFY
        self.tested = Cell.SRV_NOTIFY if server else Cell.CLI_NOTIFY
        left = (Cell.LEFT_PROD, Cell.LEFT_CONS, 1 << trace.header.left_order)
        right = (Cell.RIGHT_PROD, Cell.RIGHT_CONS, 1 << trace.header.right_order)
        self.reading, self.writing = (left, right) if server else (right, left)
        self.orders = (trace.header.left_order, trace.header.right_order)
        self.blocking = True
        # gcc -Os makes `rep movsb` of the one direction's copies: those are no calls.
        copies = trace.records[trace.records["kind"] == Kind.COPY]
        self.copies = set(copies["op"].tolist())

    # ---- records ----

    def peek(self) -> dict[str, Any]:
        if self.at >= len(self.records):
            raise Mismatch("the log ends within a call")
        return self.records[self.at]

    def take(self, *kinds: Kind, **fields: int) -> dict[str, Any]:
        record = self.peek()
        wrong = {name: record[name] for name, value in fields.items() if record[name] != value}
        if record["kind"] not in kinds or wrong:
            raise Mismatch(f"record {self.at}: {record} where {kinds} {fields} is due")
        self.at += 1
        return record

    def load(self, cell: Cell) -> int:
        return int(self.take(Kind.LOAD, offset=cell, width=CELL_WIDTH[cell])["old"])

    # ---- io.c ----

    def indices(self, ring: tuple[Cell, Cell, int]) -> tuple[int, int]:
        """Both indices, in the order that the compiler chose."""
        prod, cons, _ = ring
        first = cons if self.peek()["offset"] == cons else prod
        second = cons if first == prod else prod
        values = {first: self.load(first), second: self.load(second)}
        return values[prod], values[cons]

    def data(self) -> int:
        prod, cons = self.indices(self.reading)
        ready = (prod - cons) % WRAP
        return 0 if ready > self.reading[2] else ready

    def space(self) -> int:
        prod, cons = self.indices(self.writing)
        free = (self.writing[2] - (prod - cons)) % WRAP
        return 0 if free > self.writing[2] else free

    def arm(self, bit: int) -> None:
        record = self.take(Kind.RMW_LOCKED, offset=self.asked, width=1, op=Op.OR, operand=bit)
        assert record["new"] == record["old"] | bit

    def ask(self, look: Callable[[], int], request: int, bit: int) -> int:
        found = look()
        if found >= request:
            return found
        self.arm(bit)
        return look()

    def test_and_notify(self, bit: int) -> int:
        """0, or -1 if the event could not be sent."""
        if self.peek()["kind"] == Kind.LOAD:
            self.load(self.tested)
        kinds = (Kind.CMPXCHG_FAIL, Kind.CMPXCHG_OK, Kind.RMW_LOCKED)
        while (record := self.take(*kinds, offset=self.tested, width=1))["kind"] == kinds[0]:
            assert record["old"] == record["new"] != record["operand"]
        assert record["new"] == record["old"] & ~bit
        return self.notify() if record["old"] & bit else 0

    def notify(self) -> int:
        if self.peek()["kind"] == Kind.FAULT:
            self.take(Kind.FAULT)
        record = self.take(Kind.NOTIFY)
        assert not record["flags"] & Flag.BY_APPLICATION
        return -1 if record["new"] else 0

    def wait(self, _: int = 0) -> int:
        self.take(Kind.PENDING_ENTER)
        port = self.take(Kind.PENDING_EXIT)["new"]
        if port >> 63:
            return -1
        self.take(Kind.UNMASK, old=port)
        return 0

    def live(self) -> int:
        return self.load(self.peer_live)

    def move(self, index: Cell, ring_bytes: int, size: int, direction: int) -> None:
        """Read the own index, copy in one or two parts, move it."""
        start = self.load(index)
        parts = [(start % ring_bytes, min(size, ring_bytes - start % ring_bytes))]
        if parts[0][1] < size:
            parts.append((0, size - parts[0][1]))
        for offset, count in parts if direction in self.copies else ():
            self.take(Kind.COPY, op=direction, old=offset, new=count)
        new = (start + size) % WRAP
        if self.peek()["kind"] == Kind.RMW_PLAIN:
            self.take(
                Kind.RMW_PLAIN, offset=index, width=4, op=Op.ADD, operand=size, old=start, new=new
            )
        else:
            assert self.load(index) == start
            self.take(Kind.STORE, offset=index, width=4, old=start, new=new)

    def do_send(self, size: int) -> int:
        self.move(self.writing[0], self.writing[2], size, 0)
        return -1 if self.test_and_notify(WRITE_BIT) else size

    def do_recv(self, size: int) -> int:
        self.move(self.reading[1], self.reading[2], size, 1)
        return -1 if self.test_and_notify(READ_BIT) else size

    def write(self, size: int) -> int:
        if not self.live():
            return -1
        if not self.blocking:
            count = min(size, self.ask(self.dead_or_space, size, READ_BIT))
            return self.do_send(count) if count else 0
        self.dead_pair()
        position = 0
        while True:
            count = min(self.ask(self.space, size - position, READ_BIT), size - position)
            if count:
                position += self.do_send(count)
            if position == size:
                return position
            if self.wait() or not self.live():
                return -1

    def dead_pair(self) -> None:
        """gcc hoists a pair of loads out of both branches and reads them again in the one."""
        following = [
            r["offset"] for r in self.records[self.at : self.at + 4] if r["kind"] == Kind.LOAD
        ]
        if len(following) == 4 and set(following[:2]) == set(following[2:]):
            self.indices(self.writing)

    def dead_or_space(self) -> int:
        return self.space()

    def send(self, size: int) -> int:
        while True:
            if not self.live():
                return -1
            if self.ask(self.space, size, READ_BIT) >= size:
                return self.do_send(size)
            if not self.blocking:
                return 0
            if size > self.writing[2] or self.wait():
                return -1

    def read(self, size: int) -> int:
        while True:
            count = self.ask(self.data, size, WRITE_BIT)
            if count:
                return self.do_recv(min(size, count))
            if not self.live():
                return -1
            if not self.blocking:
                return 0
            if self.wait():
                return -1

    def recv(self, size: int) -> int:
        while True:
            if self.ask(self.data, size, WRITE_BIT) >= size:
                return self.do_recv(size)
            if not self.live():
                return -1
            if not self.blocking:
                return 0
            if size > self.reading[2] or self.wait():
                return -1

    def data_ready(self, _: int) -> int:
        self.arm(WRITE_BIT)
        return self.data()

    def buffer_space(self, _: int) -> int:
        self.arm(READ_BIT)
        return self.space()

    def close(self, _: int) -> int:
        self.take(Kind.STORE, offset=self.own_live, width=1, new=0)
        unmap = Kind.UNSHARE_PAGE if self.is_server else Kind.UNMAP_PAGE
        self.take(unmap, offset=self.own_live, old=0)
        self.notify()
        self.take(Kind.EVTCHN_CLOSE)
        self.take(Kind.DETACH)
        return 0

    # ---- init.c ----

    def server_init(self, _: int) -> int:
        port = self.take(Kind.BIND_UNBOUND)["new"]
        self.take(Kind.UNMASK, old=port)
        self.take(Kind.SHARE_PAGE, offset=Cell.SRV_LIVE, new=1)
        zeroed: set[int] = set()
        while len(zeroed & set(range(4096))) < 4096:
            record = self.take(Kind.STORE, Kind.BULK, new=0)
            count = record["operand"] if record["offset"] >= 24 and record["operand"] else 0
            zeroed |= set(range(record["offset"], record["offset"] + (count or record["width"])))
        stored = {}
        for _ in range(5):
            record = self.take(Kind.STORE)
            stored[record["offset"]] = record["new"]
        assert stored == {
            Cell.LEFT_ORDER: self.orders[0],
            Cell.RIGHT_ORDER: self.orders[1],
            Cell.CLI_LIVE: 2,
            Cell.SRV_LIVE: 1,
            Cell.CLI_NOTIFY: WRITE_BIT,
        }
        self.rings(Kind.SHARE_RING)
        return self.attached(port)

    def client_init(self, _: int) -> int:
        port = self.take(Kind.BIND_INTERDOMAIN)["new"]
        self.take(Kind.UNMASK, old=port)
        self.take(Kind.MAP_PAGE, offset=Cell.CLI_LIVE, new=1)
        for cell, order in zip((Cell.LEFT_ORDER, Cell.RIGHT_ORDER), self.orders, strict=True):
            assert self.load(cell) == order
        self.rings(Kind.MAP_RING)
        self.take(Kind.STORE, offset=Cell.CLI_LIVE, width=1, old=2, new=1)
        self.take(Kind.STORE, offset=Cell.SRV_NOTIFY, width=1, old=0, new=WRITE_BIT)
        self.notify()
        return self.attached(port)

    def rings(self, kind: Kind) -> None:
        offset = 24
        for order in self.orders:
            if order >= 12:
                pages = 1 << (order - 12)
                self.take(kind, offset=offset, new=pages)
                offset += 4 * pages

    def attached(self, port: int) -> int:
        packed = self.orders[0] | self.orders[1] << 16
        self.take(Kind.ATTACH, old=packed, new=port, operand=0 if self.is_server else 1)
        return 0

    # ---- all of it ----

    def replay(self) -> int:
        """Every record, in order; how many calls there were."""
        calls = 0
        while self.at < len(self.records):
            enter = self.take(Kind.CALL_ENTER)
            calls += 1
            name = Call(enter["call"]).name.lower()
            if name == "fd_for_select":
                self.take(Kind.CALL_EXIT)
                continue
            method = self.live if name == "is_open" else None
            result = method() if method else getattr(self, name)(enter["old"])
            self.take(Kind.CALL_EXIT, new=result % (1 << 64), call=enter["call"])
        return calls


def one_memory(server: Trace, client: Trace) -> bool:
    """Is some interleaving of both an execution of one memory?

    Every record takes its cell from `old` to `new`, so what a cell holds after i records of the
    one and j of the other is the same whatever their order: each pair (i, j) is visited once.
    """
    lanes = [_memory_lane(trace) for trace in (server, client)]
    sums = [_running_sums(lane) for lane in lanes]
    goal = (len(lanes[0]), len(lanes[1]))
    seen = set()
    stack = [(0, 0)]
    while stack:
        place = stack.pop()
        if place == goal:
            return True
        if place in seen:
            continue
        seen.add(place)
        steps = []
        for side in (0, 1):
            if place[side] < goal[side]:
                cell, old, _, t0 = lanes[side][place[side]]
                if sums[0][place[0]][Cell(cell)] + sums[1][place[1]][Cell(cell)] == old:
                    steps.append((t0, side))
        # The earlier one is tried first: it is pushed last.
        for _, side in sorted(steps, reverse=True):
            stack.append((place[0] + (side == 0), place[1] + (side == 1)))
    return False


def _memory_lane(trace: Trace) -> list[tuple[int, int, int, int]]:
    records = trace.records
    wanted = records[(records["kind"] <= Kind.BULK) & (records["offset"] < 24)]
    return [(int(r["offset"]), int(r["old"]), int(r["new"]), int(r["t0"])) for r in wanted]


def _running_sums(lane: list[tuple[int, int, int, int]]) -> list[dict[Cell, int]]:
    values = dict.fromkeys(CELL_WIDTH, 0)
    sums = [dict(values)]
    for cell, old, new, _ in lane:
        values[Cell(cell)] += new - old
        sums.append(dict(values))
    return sums


def stamps_follow(trace: Trace) -> bool:
    """Of two records of a thread the first ends before the second begins, or they are one."""
    r = trace.records
    same = (r["t0"][1:] == r["t0"][:-1]) & (r["site"][1:] == r["site"][:-1])
    follows = (r["t1"][:-1] <= r["t0"][1:]) | same | (r["thread"][1:] != r["thread"][:-1])
    return bool(follows.all() and (r["t0"] <= r["t1"]).all())


def assert_exact(server: Trace, client: Trace, *, blocking: bool = True) -> None:
    for trace in (server, client):
        assert (trace.ending, trace.notes) == ("complete", ())
        model = Model(trace)
        model.blocking = blocking
        assert model.replay() > 2
        assert stamps_follow(trace)
    assert one_memory(server, client)
    assert check_pair(server, client) == []


RINGS = [
    pytest.param(1024, 2048, (10, 11), id="1K+2K in the page"),
    pytest.param(2048, 1000, (11, 10), id="2K+1K in the page"),
    pytest.param(1024, 4096, (11, 12), id="2K in the page, 4K"),
    pytest.param(4096, 4096, (12, 12), id="4K"),
    pytest.param(65536, 8192, (16, 13), id="64K+8K"),
    pytest.param(1 << 20, 1 << 20, (20, 20), id="1M"),
]


@pytest.mark.parametrize(("left", "right", "orders"), RINGS)
def test_every_access_is_in_the_trace(
    traced: TracedPair, left: int, right: int, orders: tuple[int, int]
) -> None:
    source = random.Random(left)
    up = source.randbytes(5 * left if left < 1 << 20 else (3 << 19))
    down = source.randbytes(3 * right if right < 1 << 20 else (3 << 19))
    sizes = [max(1, left // 3), 1, left + 7, left // 2]
    traced.trace()
    traced.connect(left, right)
    traced.client.start("write_all", up, sizes)
    assert traced.server("read_all", len(up), max(1, left // 2)) == up
    traced.client.finish()
    traced.server.start("write_all", down, [max(1, right // 2), right, 3])
    assert traced.client("read_all", len(down), right) == down
    traced.server.finish()
    server, client = traced.end()
    assert (server.header.left_order, server.header.right_order) == orders
    assert (client.header.left_order, client.header.right_order) == orders
    assert_exact(server, client)
    copies = client.records[client.records["kind"] == Kind.COPY]
    for direction, data in ((COPY_IN, up), (COPY_OUT, down)):
        copied = int(copies["new"][copies["op"] == direction].sum())
        assert copied in (len(data), 0)
    for cell, data in ((Cell.LEFT_PROD, up), (Cell.RIGHT_CONS, down)):
        assert int(client.records["new"][client.records["offset"] == cell][-1]) == len(data)


def test_packets_and_questions(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    packets = [bytes([i]) * size for i, size in enumerate((1, 600, 4096, 17, 4095, 2048))]
    traced.client.start("send_all", packets)
    assert traced.server("recv_all", [len(packet) for packet in packets]) == packets
    assert traced.client.finish() == [len(packet) for packet in packets]
    assert traced.server("call", "is_open") == 1
    assert traced.server("call", "data_ready") == 0
    assert traced.server("call", "buffer_space") == 4096
    assert traced.client("call", "fileno") > 0
    assert_exact(*traced.end())


def test_non_blocking_ends(traced: TracedPair) -> None:
    traced.trace()
    traced.connect(blocking=False)
    data = random.Random(5).randbytes(30000)
    assert traced.server("call", "read", 10) == b""
    traced.client.start("write_all", data, [5000, 1, 4096])
    assert traced.server("read_all", len(data), 3000) == data
    traced.client.finish()
    assert traced.client("call", "send", b"x" * 4000) == 4000
    assert traced.client("call", "send", b"x" * 4000) == 0
    assert traced.server("call", "recv", 4096) == b""
    assert_exact(*traced.end(), blocking=False)


def test_the_end_of_the_stream(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    traced.server.start("read_to_end", 100)
    traced.client("write_all", b"a" * 10, [10])
    traced.client("close")
    # The client may close before the last bytes are read (L1), but here they were few.
    assert traced.server.finish() in (b"a" * 10, b"")
    server, client = traced.end()
    assert_exact(server, client)
    result = server.records[server.records["kind"] == Kind.CALL_EXIT]["new"]
    assert (result == np.uint64(2**64 - 1)).any()


def test_a_server_nobody_comes_to(traced: TracedPair) -> None:
    traced.trace()
    traced.server("server", 2, "data/vchan", 4096, 4096, False)
    assert traced.server("call", "is_open") == 2
    assert traced.server("call", "write", b"x" * 100) == 100
    server, client = traced.end()
    model = Model(server)
    model.blocking = False
    assert model.replay() == 4
    assert len(client.records) == 0
    assert check_pair(server, client) == []


def test_the_oracle_sees_what_is_wrong(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    traced.client("write_all", b"x" * 3000, [1000])
    traced.server("read_all", 3000, 700)
    server, client = traced.end()
    assert_exact(server, client)
    source = random.Random(8)
    accesses = np.flatnonzero((client.records["kind"] <= Kind.BULK) & (client.records["call"] == 4))
    for place in source.sample(list(accesses), 12):
        kept = np.delete(client.records, place)
        missing = Trace(client.header, kept, "complete", 0, ())
        twice = np.insert(client.records, place, client.records[place])
        doubled = Trace(client.header, twice, "complete", 0, ())
        changed = client.records.copy()
        changed["old"][place] += 1
        other = Trace(client.header, changed, "complete", 0, ())
        for wrong in (missing, doubled, other):
            # The hoisted pair that gcc makes may stand there or not, so one of it is no loss
            # to the model: the other half is.
            with pytest.raises(AssertionError):
                assert_exact(server, wrong)
