"""A model of libxenvchan that is fed with what a log says was read: the tests' own oracle.

It follows tools/libs/vchan/{init,io}.c of Xen 4.17: each record has to be the next one that the
model does, and each call has to return what the model returns. Then some interleaving of both logs
has to be an execution of one memory. It is a second copy of the protocol, so it lives in the tests
only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.layout import CELL_WIDTH, Call, Cell, Flag, Kind, Op, Order
from vchan_testbed.tracer.reader import Trace

WRITE_BIT, READ_BIT = 1, 2
WRAP = 1 << 32


class Mismatch(AssertionError):
    """The log shows something else than the model does."""


class Model:
    """One end of a channel, single-threaded, replayed call by call."""

    def __init__(self, trace: Trace) -> None:
        own = trace.records[trace.records["kind"] != Kind.DIGEST]
        self.records = [dict(zip(r.dtype.names, r.tolist(), strict=True)) for r in own]
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
        unseen = {"old"} if record["flags"] & Flag.OLD_UNKNOWN else set()
        wrong = {
            name: record[name]
            for name, value in fields.items()
            if record[name] != value and name not in unseen
        }
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
        record = self.change(self.asked)
        assert record["new"] == record["old"] | bit

    def ask(self, look: Callable[[], int], request: int, bit: int) -> int:
        found = look()
        if found >= request:
            return found
        self.arm(bit)
        return look()

    def change(self, cell: Cell) -> dict[str, Any]:
        """A locked change of a byte, by one instruction or by comparing until it is as it was."""
        if self.peek()["kind"] == Kind.LOAD:
            self.load(cell)
        kinds = (Kind.CMPXCHG_FAIL, Kind.CMPXCHG_OK, Kind.RMW_LOCKED)
        while (record := self.take(*kinds, offset=cell, width=1))["kind"] == kinds[0]:
            assert record["old"] == record["new"] != record["operand"]
        return record

    def test_and_notify(self, bit: int) -> int:
        """0, or -1 if the event could not be sent."""
        record = self.change(self.tested)
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
            self.take(Kind.COPY, op=direction, operand=offset, new=count)
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
        self.take(Kind.PAGE)
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
        orders = dict(zip((Cell.LEFT_ORDER, Cell.RIGHT_ORDER), self.orders, strict=True))
        while orders:
            cell = Cell(self.peek()["offset"])
            assert self.load(cell) == orders.pop(cell)
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
    cells = _on_cells(server)
    in_init = cells[cells["call"] == Call.SERVER_INIT]
    left = {int(r["offset"]): int(r["new"]) for r in in_init}
    lanes = [_memory_lane(trace, left) for trace in (server, client)]
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


def _on_cells(trace: Trace) -> Records:
    records = trace.records
    found: Records = records[(records["kind"] <= Kind.BULK) & (records["offset"] < 24)]
    return found


def _memory_lane(trace: Trace, left: dict[int, int]) -> list[tuple[int, int, int, int]]:
    """Cell, old, new, time; a store that does not know overwrote what the server's init left."""
    return [
        (
            offset := int(r["offset"]),
            left[offset] if r["flags"] & Flag.OLD_UNKNOWN else int(r["old"]),
            int(r["new"]),
            int(r["t0"]),
        )
        for r in _on_cells(trace)
    ]


def _running_sums(lane: list[tuple[int, int, int, int]]) -> list[dict[Cell, int]]:
    values = dict.fromkeys(CELL_WIDTH, 0)
    sums = [dict(values)]
    for cell, old, new, _ in lane:
        values[Cell(cell)] += new - old
        sums.append(dict(values))
    return sums


def stamps_follow(trace: Trace) -> bool:
    """Of two records of a thread the first ends before the second begins, or they are one.

    Where the order is kept they have the bounds that calls give: the next ones are none earlier.
    """
    r = trace.records
    if trace.header.order == Order.KEPT:
        follows = (r["t0"][:-1] <= r["t0"][1:]) & (r["t1"][:-1] <= r["t1"][1:])
    else:
        same = (r["t0"][1:] == r["t0"][:-1]) & (r["site"][1:] == r["site"][:-1])
        follows = (r["t1"][:-1] <= r["t0"][1:]) | same
    follows |= r["thread"][1:] != r["thread"][:-1]
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
