"""Test oracle: what libxenvchan does, access by access, on a simulated page and simulated ports.

Written by hand from the C code (tools/libs/vchan/io.c and init.c, Xen 4.22) and from what Linux
does with an event channel, not from the spec. A seeded scheduler picks whose next access happens.
Out come two trace files as the tracer writes them, and the facts that run.json would hold.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vchan_testbed.tracer.format import RECORD_DTYPE, Records, write_trace
from vchan_testbed.tracer.header import Role, TraceHeader
from vchan_testbed.tracer.layout import CELL_WIDTH, Call, Cell, Flag, Kind, Op
from vchan_testbed.validate.digest import BASE, MODULUS, digest_of

LARGE_ORDER = 20

Accesses = Generator[None, None, int]
"""Yields before each access; returns the C function's result."""
Operation = tuple[Any, ...]
"""("write", n), ("read", n), ("read_to_end", n), ("is_open",), ("wait",), ("close",) or any call
of the library by name."""

Outcome = Literal["finished", "stood still", "stopped while moving", "endpoint died"]

TSC_HZ = 1_000_000_000
WRITE_BIT, READ_BIT = 1, 2
PAGE_SHIFT = 12
INDICES = {
    "server": (Cell.LEFT_PROD, Cell.LEFT_CONS, Cell.RIGHT_PROD, Cell.RIGHT_CONS),
    "client": (Cell.RIGHT_PROD, Cell.RIGHT_CONS, Cell.LEFT_PROD, Cell.LEFT_CONS),
}
"""Of each role: read.prod, read.cons, write.prod, write.cons."""
PEER: dict[Role, Role] = {"server": "client", "client": "server"}
OWN_LIVE: dict[Role, Cell] = {"server": Cell.SRV_LIVE, "client": Cell.CLI_LIVE}
OWN_NOTIFY: dict[Role, Cell] = {"server": Cell.CLI_NOTIFY, "client": Cell.SRV_NOTIFY}
"""The byte in which a side asks to be told."""
PORTS: dict[Role, int] = {"server": 7, "client": 12}


@dataclass(frozen=True)
class Build:
    """What a compiler made of the library."""

    hoists: bool = True
    """gcc -O2: blocking write begins with a pair of index loads that nothing uses."""
    cons_first: bool = False
    adds_in_memory: bool = True
    """add mem, reg; else a load, an addition and a store."""
    exchanges: bool = True
    """fetch_and_and as a load and a lock cmpxchg; else lock and."""
    index_before_live: bool = False
    """The index is loaded before the live byte, and used."""
    copies: bool = True
    """memcpy is called, not inlined."""


@dataclass(frozen=True)
class Scenario:
    """One run."""

    server: tuple[Operation, ...]
    client: tuple[Operation, ...]
    left_order: int = 10
    right_order: int = 11
    seed: int = 0
    burst: float = 0.7
    """How often the same thread goes on."""
    drop: tuple[tuple[Role, int, int], ...] = ()
    """Dropped notifies: by whom, the n-th caused by the bit, the bit."""
    kill: tuple[Role, int] | None = None
    """A process that is killed, and after how many records."""
    lose: tuple[Role, int] | None = None
    """A domain that is destroyed, and after how many records of its process: it is held there."""
    told: bool = False
    """As on a host that would tell its peer of it: the live byte is cleared, an event raised."""
    unlogged: bool = False
    """The killed process made one access more than it recorded."""
    stop_after: int = 10**9
    """Both are killed after so many steps."""
    server_build: Build = Build()
    client_build: Build = Build()


@dataclass
class Port:
    """An event channel as Linux shows it to a process: /dev/xen/evtchn."""

    open: bool = False
    pending: bool = False
    masked: bool = True
    queued: bool = False

    def raise_event(self) -> None:
        """Somebody notified the port."""
        if self.open:
            self.pending = True
            self.deliver()

    def deliver(self) -> None:
        """The kernel masks the port and puts it into the file's queue."""
        if self.pending and not self.masked:
            self.pending, self.masked, self.queued = False, True, True

    def unmask(self) -> None:
        """Let the next event through."""
        self.masked = False
        self.deliver()


class Killed(Exception):
    """This process is no more."""


class Lost(Exception):
    """Its whole domain is no more."""


@dataclass
class World:
    """What both domains share."""

    scenario: Scenario
    page: bytearray = field(default_factory=lambda: bytearray(24))
    ports: dict[Role, Port] = field(default_factory=lambda: {"server": Port(), "client": Port()})
    tick: int = 1000
    shared: bool = False
    """The server's keys are in xenstore."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.scenario.seed)

    def now(self) -> int:
        """The processor's clock."""
        self.tick += 25
        return self.tick

    def get(self, cell: Cell) -> int:
        """A cell's value."""
        width = CELL_WIDTH[cell]
        return int.from_bytes(self.page[cell : cell + width], "little")

    def put(self, cell: Cell, value: int) -> None:
        """Store a cell."""
        width = CELL_WIDTH[cell]
        value &= (1 << 8 * width) - 1
        self.page[cell : cell + width] = value.to_bytes(width, "little")


class Process:
    """One end: a thread that performs its operations through the library."""

    def __init__(self, role: Role, world: World) -> None:
        self.role = role
        self.world = world
        self.scenario = world.scenario
        self.build = self.scenario.server_build if role == "server" else self.scenario.client_build
        self.rows: list[tuple[int, ...]] = []
        self.call = Call.NONE
        self.call_seq = 0
        self.alive = True
        self.lost = False
        self.waiting = False
        self.finished = False
        self.silent = 0
        """Accesses that leave no record (the last one before a kill)."""
        self.peer: Role = PEER[role]
        self.copied: dict[int, int] = {}
        """Bytes that were copied into the ring (0) and out of it (1)."""
        self.rd_prod, self.rd_cons, self.wr_prod, self.wr_cons = INDICES[role]
        self.notified = {WRITE_BIT: 0, READ_BIT: 0}
        self.position = 0
        self.mapped = False
        orders = (self.scenario.left_order, self.scenario.right_order)
        self.rd_size, self.wr_size = (1 << order for order in orders)
        if role == "client":
            self.rd_size, self.wr_size = self.wr_size, self.rd_size

    # ---- records

    def log(
        self,
        kind: Kind,
        old: int = 0,
        new: int = 0,
        *,
        offset: int = 0xFFFF,
        width: int = 0,
        op: int = 0,
        operand: int = 0,
        flags: int = 0,
    ) -> None:
        """One record, with the clock's time around it."""
        if self.silent:
            self.silent -= 1
            raise Killed
        kill, lose = self.scenario.kill, self.scenario.lose
        seq = len(self.rows) + 1
        t0 = self.world.now()
        t1 = self.world.now()
        bits = (1 << 64) - 1
        call_seq = self.call_seq if self.call else 0
        head = (t0, t1, old & bits, new & bits, 0x1000 + kind, operand, seq, call_seq)
        self.rows.append((*head, 0, 0, offset, kind, op, self.call, width, flags, 0))
        if lose == (self.role, seq):
            raise Lost
        if kill and kill[0] == self.role and seq >= kill[1]:
            if self.scenario.unlogged and not self.silent:
                self.silent = 1
            else:
                raise Killed

    def load(self, cell: Cell) -> int:
        """A plain load."""
        value = self.world.get(cell)
        self.log(Kind.LOAD, value, value, offset=cell, width=CELL_WIDTH[cell])
        return value

    def store(self, cell: Cell, value: int, kind: Kind = Kind.STORE) -> None:
        """A plain store."""
        old = self.world.get(cell)
        self.world.put(cell, value)
        self.log(kind, old, self.world.get(cell), offset=cell, width=CELL_WIDTH[cell], op=Op.MOV)

    def modify(self, cell: Cell, op: Op, operand: int, kind: Kind) -> int:
        """A read-modify-write; returns the old value."""
        old = self.world.get(cell)
        new = {Op.OR: old | operand, Op.AND: old & operand, Op.ADD: old + operand}[op]
        self.world.put(cell, new)
        self.log(
            kind,
            old,
            self.world.get(cell),
            offset=cell,
            width=CELL_WIDTH[cell],
            op=op,
            operand=operand & 0xFFFFFFFF,
        )
        return old

    # ---- the library, io.c

    def request_notify(self, bit: int) -> Accesses:
        yield
        self.modify(OWN_NOTIFY[self.role], Op.OR, bit, Kind.RMW_LOCKED)
        return 0

    def send_notify(self, bit: int) -> Accesses:
        cell = OWN_NOTIFY[self.peer]
        mask = 0xFF & ~bit
        if self.build.exchanges:
            yield
            seen = self.load(cell)
            while True:
                yield
                prev = self.world.get(cell)
                if prev == seen:
                    self.world.put(cell, prev & mask)
                kind = Kind.CMPXCHG_OK if prev == seen else Kind.CMPXCHG_FAIL
                now = self.world.get(cell)
                self.log(kind, prev, now, offset=cell, width=1, op=Op.XCHG, operand=seen)
                if prev == seen:
                    break
                seen = prev
        else:
            yield
            prev = self.modify(cell, Op.AND, mask, Kind.RMW_LOCKED)
        if prev & bit:
            self.notified[bit] += 1
            yield
            self.notify((self.role, self.notified[bit], bit) in self.scenario.drop)
        return 0

    def notify(self, drop: bool = False) -> None:
        """xenevtchn_notify."""
        if drop:
            self.log(Kind.FAULT, 0, 1)
            self.log(Kind.NOTIFY, PORTS[self.role], 0, flags=Flag.FAULT_INJECTED)
            return
        self.world.ports[self.peer].raise_event()
        self.log(Kind.NOTIFY, PORTS[self.role], 0)

    def indices(self, own: Cell, theirs: Cell) -> Generator[None, None, tuple[int, int]]:
        """Both indices of a ring, in the build's order."""
        yield
        if self.build.cons_first:
            second = self.load(theirs)
            yield
            return self.load(own), second
        first = self.load(own)
        yield
        return first, self.load(theirs)

    def raw_data_ready(self) -> Accesses:
        cons, prod = yield from self.indices(self.rd_cons, self.rd_prod)
        ready = (prod - cons) & 0xFFFFFFFF
        return 0 if ready > self.rd_size else ready

    def raw_buffer_space(self) -> Accesses:
        prod, cons = yield from self.indices(self.wr_prod, self.wr_cons)
        space = self.wr_size - ((prod - cons) & 0xFFFFFFFF)
        return 0 if space < 0 else space

    def fast_data_ready(self, request: int) -> Accesses:
        ready = yield from self.raw_data_ready()
        if ready >= request:
            return ready
        yield from self.request_notify(WRITE_BIT)
        return (yield from self.raw_data_ready())

    def fast_buffer_space(self, request: int, known: int | None = None) -> Accesses:
        space = known
        if space is None:
            space = yield from self.raw_buffer_space()
        if space >= request:
            return space
        yield from self.request_notify(READ_BIT)
        return (yield from self.raw_buffer_space())

    def is_open(self) -> Accesses:
        yield
        return self.load(OWN_LIVE[self.peer])

    def wait(self) -> Accesses:
        port = self.world.ports[self.role]
        self.log(Kind.PENDING_ENTER)
        self.waiting = True
        yield
        self.waiting = False
        port.queued = False
        self.log(Kind.PENDING_EXIT, 0, PORTS[self.role])
        yield
        port.unmask()
        self.log(Kind.UNMASK, PORTS[self.role], 0)
        return 0

    def move(self, cell: Cell, size: int) -> Accesses:
        yield
        if self.build.adds_in_memory:
            self.modify(cell, Op.ADD, size, Kind.RMW_PLAIN)
        else:
            now = self.load(cell)
            yield
            self.store(cell, now + size)
        return size

    def copy(self, own: Cell, size: int, ring: int, op: int) -> Accesses:
        yield
        at = self.load(own) & (ring - 1)
        if self.build.copies:
            first = min(size, ring - at)
            yield
            position = self.copied.get(op, 0)
            self.copied[op] = position + size
            digest = self.digest_at(op, position, first)
            self.log(Kind.COPY, digest, first, op=op, operand=at)
            if first < size:
                digest = self.digest_at(op, position + first, size - first)
                self.log(Kind.COPY, digest, size - first, op=op)
        return size

    def digest_at(self, op: int, position: int, count: int) -> int:
        """The digest of some bytes of a stream.

        What a writer hands in is its own, what it reads the peer's. Over large rings gigabytes are
        moved: there all bytes of a stream are the same, and their digest is a geometric series.
        """
        writer = self.role if op == 0 else self.peer
        if max(self.scenario.left_order, self.scenario.right_order) < LARGE_ORDER:
            told = range(position, position + count)
            return digest_of(bytes((at * 31 + len(writer)) % 251 for at in told))
        series = (pow(BASE, count, MODULUS) - 1) * pow(BASE - 1, -1, MODULUS)
        return len(writer) * series % MODULUS

    def do_send(self, size: int) -> Accesses:
        yield from self.copy(self.wr_prod, size, self.wr_size, 0)
        yield from self.move(self.wr_prod, size)
        yield from self.send_notify(WRITE_BIT)
        return size

    def do_recv(self, size: int) -> Accesses:
        yield from self.copy(self.rd_cons, size, self.rd_size, 1)
        yield from self.move(self.rd_cons, size)
        yield from self.send_notify(READ_BIT)
        return size

    def write(self, size: int) -> Accesses:
        known = None
        if self.build.index_before_live:
            known = yield from self.raw_buffer_space()
        elif self.build.hoists:
            yield from self.raw_buffer_space()
        if not (yield from self.is_open()):
            return -1
        done = 0
        while True:
            avail = yield from self.fast_buffer_space(size - done, known)
            known = None
            avail = min(avail, size - done)
            if avail:
                done += yield from self.do_send(avail)
            if done == size:
                return done
            yield from self.wait()
            if not (yield from self.is_open()):
                return -1

    def read(self, size: int) -> Accesses:
        while True:
            avail = yield from self.fast_data_ready(size)
            if avail:
                return (yield from self.do_recv(min(size, avail)))
            if not (yield from self.is_open()):
                return -1
            yield from self.wait()

    def recv(self, size: int) -> Accesses:
        while True:
            avail = yield from self.fast_data_ready(size)
            if size <= avail:
                return (yield from self.do_recv(size))
            if not (yield from self.is_open()):
                return -1
            yield from self.wait()

    def send(self, size: int) -> Accesses:
        while True:
            if not (yield from self.is_open()):
                return -1
            avail = yield from self.fast_buffer_space(size)
            if size <= avail:
                return (yield from self.do_send(size))
            yield from self.wait()

    def data_ready(self) -> Accesses:
        yield from self.request_notify(WRITE_BIT)
        return (yield from self.raw_data_ready())

    def buffer_space(self) -> Accesses:
        yield from self.request_notify(READ_BIT)
        return (yield from self.raw_buffer_space())

    def close(self) -> Accesses:
        live = OWN_LIVE[self.role]
        yield
        self.store(live, 0)
        yield
        held = bytes(self.world.page)
        left, right, last = struct.unpack("<QQI", held[:16] + held[Cell.CLI_LIVE :])
        self.log(Kind.PAGE, left, right, operand=last)
        self.unmap()
        kind = Kind.UNSHARE_PAGE if self.role == "server" else Kind.UNMAP_PAGE
        self.log(kind, 0, 0, offset=live)
        yield
        self.notify()
        self.world.ports[self.role].open = False
        self.log(Kind.EVTCHN_CLOSE, 0, 0)
        return 0

    def unmap(self) -> None:
        """The kernel clears the live byte and raises the event."""
        if self.mapped:
            self.mapped = False
            self.world.put(OWN_LIVE[self.role], 0)
            self.world.ports[self.peer].raise_event()

    # ---- init.c

    def server_init(self) -> Accesses:
        world = self.world
        world.ports["server"].open = True
        self.log(Kind.BIND_UNBOUND, 2, PORTS["server"])
        world.ports["server"].unmask()
        self.log(Kind.UNMASK, PORTS["server"], 0)
        self.mapped = True
        self.log(Kind.SHARE_PAGE, 8, 1, offset=Cell.SRV_LIVE)
        for cell in Cell:
            self.store(cell, 0, Kind.BULK)
        self.log(Kind.BULK, 0, 0, offset=24, width=8, op=Op.MOV, operand=4096 - 24)
        self.store(Cell.LEFT_ORDER, self.scenario.left_order)
        self.store(Cell.RIGHT_ORDER, self.scenario.right_order)
        self.store(Cell.CLI_LIVE, 2)
        self.store(Cell.SRV_LIVE, 1)
        self.store(Cell.CLI_NOTIFY, WRITE_BIT)
        self.rings(Kind.SHARE_RING)
        self.attach(0)
        yield
        world.shared = True
        return 0

    def client_init(self) -> Accesses:
        world = self.world
        while not world.shared:
            yield
        port = world.ports["client"]
        port.open = True
        port.raise_event()
        self.log(Kind.BIND_INTERDOMAIN, PORTS["server"], PORTS["client"])
        yield
        port.unmask()
        self.log(Kind.UNMASK, PORTS["client"], 0)
        self.mapped = True
        self.log(Kind.MAP_PAGE, 8, 1, offset=Cell.CLI_LIVE)
        yield
        self.load(Cell.LEFT_ORDER)
        self.load(Cell.RIGHT_ORDER)
        self.rings(Kind.MAP_RING)
        yield
        self.store(Cell.CLI_LIVE, 1)
        yield
        self.store(Cell.SRV_NOTIFY, WRITE_BIT)
        yield
        self.notify()
        self.attach(1)
        return 0

    def rings(self, kind: Kind) -> None:
        """Rings that are larger than what fits into the page have pages of their own."""
        at = 24
        for order in (self.scenario.left_order, self.scenario.right_order):
            if order >= PAGE_SHIFT:
                pages = 1 << (order - PAGE_SHIFT)
                self.log(kind, 9, pages, offset=at)
                at += 4 * pages

    def attach(self, role: int) -> None:
        """The tracer's own record."""
        orders = self.scenario.left_order | self.scenario.right_order << 16
        self.log(Kind.ATTACH, orders, PORTS[self.role], operand=role)

    # ---- the application

    def api(self, call: Call, argument: int, body: Callable[[], Accesses]) -> Accesses:
        """A call of the library, with its enter and exit."""
        self.call = call
        self.call_seq += 1
        self.log(Kind.CALL_ENTER, argument, 0)
        result = yield from body()
        self.log(Kind.CALL_EXIT, 0, result)
        self.call = Call.NONE
        return result

    def run(self) -> Generator[None, None, None]:
        """The whole life of the process."""
        try:
            yield from self.live()
        except Killed:
            self.die()
        except Lost:
            self.lost = True
            self.die(cleaned_up=self.scenario.told)

    def live(self) -> Generator[None, None, None]:
        init = f"{self.role}_init"
        yield from self.api(Call[init.upper()], 0, getattr(self, init))
        operations = self.scenario.server if self.role == "server" else self.scenario.client
        for name, *arguments in operations:
            if name == "read_to_end":
                while (yield from self.perform("read", *arguments)) >= 0:
                    pass
            elif (yield from self.perform(name, *arguments)) < 0:
                break
        if self.mapped:
            # As the agent does it: the channel is closed however the operations ended.
            yield from self.perform("close")
        self.log(Kind.DETACH)
        self.finished = True

    def perform(self, name: str, *arguments: int) -> Accesses:
        """One operation; a transfer of n bytes may take several calls of read."""
        if name != "read":
            body = getattr(self, name)
            argument = sum(arguments)
            return (yield from self.api(Call[name.upper()], argument, lambda: body(*arguments)))
        left, result = arguments[0], 0
        while left > 0 or arguments[0] == 0:
            result = yield from self.api(Call.READ, left, partial(self.read, left))
            if result < 0:
                return result
            self.log(Kind.PAYLOAD, self.position, result)
            self.position += result
            left -= result
            if len(arguments) > 1 or arguments[0] == 0:
                break
        return result

    def die(self, *, cleaned_up: bool = True) -> None:
        """The kernel cleans up, if it still does."""
        self.alive = False
        self.waiting = False
        if cleaned_up:
            self.unmap()
        self.world.ports[self.role].open = False

    def records(self) -> Records:
        """The records so far."""
        return np.array(self.rows, RECORD_DTYPE)


@dataclass
class Run:
    """What came of a scenario."""

    scenario: Scenario
    processes: dict[Role, Process]
    outcome: Outcome
    quiescence: dict[str, Any] | None

    def records(self, role: Role) -> Records:
        """One end's records."""
        return self.processes[role].records()

    def facts(self, **expect: Any) -> dict[str, Any]:
        """What run.json would hold."""
        ended = {
            role: "finished" if process.finished else "lost" if process.lost else "killed"
            for role, process in self.processes.items()
        }
        acts = [
            {"side": role, "do": "destroy", "domain": role, "records": records}
            for role, records in [self.scenario.lose or ("", 0)]
            if role and self.processes[role].lost
        ]
        return {
            "format": 1,
            "state": "complete",
            "host": {"kind": "model", "xen_version": None},
            "domain_type": "none",
            "experiment": {"channel": {"blocking": True}, "expect": expect},
            "endpoints": {role: {"ended": how} for role, how in ended.items()},
            "quiescence": self.quiescence,
            "outcome": "domain died" if acts else self.outcome,
            "acts": acts,
        }

    def write(self, folder: Path, changed: dict[Role, Records] | None = None) -> dict[Role, Path]:
        """Both trace files."""
        folder.mkdir(parents=True, exist_ok=True)
        return {
            role: write_run_trace(
                folder / f"{role}.vtrace",
                self.scenario,
                role,
                (changed or {}).get(role, process.records()),
                complete=process.finished,
            )
            for role, process in self.processes.items()
        }


def write_run_trace(
    path: Path, scenario: Scenario, role: Role, records: Records, *, complete: bool
) -> Path:
    """One trace file."""
    header = TraceHeader(
        role=role,
        domid=1 if role == "server" else 2,
        peer_domid=2 if role == "server" else 1,
        left_order=scenario.left_order,
        right_order=scenario.right_order,
        tsc_hz=TSC_HZ,
        seed=scenario.seed,
        start_tsc=1000,
        library="library_model",
    )
    write_trace(path, header, records, complete=complete)
    return path


def simulate(scenario: Scenario) -> Run:
    """Run a scenario to its end: finished, or nothing can move any more."""
    world = World(scenario)
    processes: dict[Role, Process] = {
        "server": Process("server", world),
        "client": Process("client", world),
    }
    threads = {role: process.run() for role, process in processes.items()}
    outcome: Outcome = _schedule(scenario, world, processes, threads)
    quiescence = looks(world, processes) if outcome == "stood still" else None
    died = any(not process.alive for process in processes.values())
    if died and outcome == "finished":
        outcome = "endpoint died"
    run = Run(scenario, processes, outcome, quiescence)
    if outcome == "stopped while moving":
        for process in processes.values():
            process.die()
    return run


def _schedule(
    scenario: Scenario,
    world: World,
    processes: dict[Role, Process],
    threads: dict[Role, Generator[None, None, None]],
) -> Outcome:
    current: Role | None = None
    for _ in range(scenario.stop_after):
        able = [role for role in threads if _runnable(world, processes[role])]
        if not threads:
            return "finished"
        if not able:
            return "stood still"
        if current not in able or world.rng.random() > scenario.burst:
            current = world.rng.choice(able)
        assert current is not None
        if next(threads[current], ...) is ...:
            del threads[current]
    return "stopped while moving"


def _runnable(world: World, process: Process) -> bool:
    if process.call == Call.CLIENT_INIT and not world.shared:
        return False
    return not process.waiting or world.ports[process.role].queued


def looks(world: World, processes: dict[Role, Process]) -> dict[str, Any]:
    """Two looks at a run that stands still, as run.json has them."""

    def endpoint(process: Process) -> dict[str, Any]:
        over = process.finished or not process.alive
        thread = {"tid": 1, "state": "S", "syscall": 0, "blocked_in_kernel": True}
        return {
            "alive": not over,
            "threads": [] if over else [thread],
            "event_fd_readable": None if over else world.ports[process.role].queued,
            "records": None if over else len(process.rows),
            "page": None if over else world.page.hex(),
            "in_call": None if over else process.call.name.lower(),
        }

    looks = [
        {"at_seconds": at, "endpoints": {role: endpoint(p) for role, p in processes.items()}}
        for at in (5.0, 7.0)
    ]
    return {"settle_seconds": 2.0, "quiescent": True, "looks": looks}


def words(page: str) -> tuple[int, ...]:
    """The page's head as numbers: indices, orders, live and notify bytes."""
    return struct.unpack("<4I2H4B", bytes.fromhex(page))
