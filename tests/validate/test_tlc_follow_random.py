"""Random runs of a simulated ring: every trace that it makes is a behaviour of the spec.

The simulator says what libxenvchan's blocking calls do to a shared ring, one access at a time, in
an order that a seeded generator picks. It is written from the C code and not from the spec.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from vchan_testbed.validate.lanes import Lane, Lanes, SpecParams, Step
from vchan_testbed.validate.tlc.follow import follow
from vchan_testbed.validate.tlc.module import Search


@dataclass
class Port:
    """An event channel port as Linux shows it to a process."""

    pending: bool = False
    delivered: bool = False

    def raise_event(self, rng: random.Random) -> None:
        self.pending = True
        if rng.random() < 0.7:
            self.deliver()

    def deliver(self) -> None:
        """The kernel takes the event and queues it; while it is unread the port is masked."""
        if self.pending and not self.delivered:
            self.pending, self.delivered = False, True

    def ready(self) -> bool:
        self.deliver()
        return self.delivered


@dataclass
class Ring:
    """What both sides share."""

    size: int
    prod: int = 0
    cons: int = 0
    tell_writes: int = 1
    tell_reads: int = 0
    live: dict[str, int] = field(default_factory=lambda: {"s": 1, "r": 1})
    port: dict[str, Port] = field(default_factory=lambda: {"s": Port(), "r": Port()})


@dataclass(frozen=True)
class Workload:
    """What the two applications do."""

    ring_bytes: int = 4
    writes: int = 6
    write_max: int = 7
    read_max: int = 5
    other_calls: float = 0.2
    """How often a side is in a call of the other direction."""
    close: bool = True
    connects: bool = False


class Side(ABC):
    """A thread: a generator of accesses, each logged as it is made."""

    def __init__(self, name: str, ring: Ring, work: Workload, rng: random.Random) -> None:
        self.name, self.ring, self.work, self.rng = name, ring, work, rng
        self.peer = "r" if name == "s" else "s"
        self.log: list[Step] = []
        self.waiting = False

    @abstractmethod
    def run(self) -> Iterator[None]:
        """What the thread does."""

    def say(self, action: str, value: int = 0) -> None:
        self.log.append(Step(action, value, len(self.log)))

    def runnable(self) -> bool:
        return not self.waiting or self.ring.port[self.name].ready()

    def wait(self, action: str) -> Iterator[None]:
        self.waiting = True
        yield
        self.waiting = False
        self.ring.port[self.name].delivered = False
        self.say(action)

    def other_direction(self) -> Iterator[None]:
        """A call of the other direction: it may take our event, and it may raise one."""
        self.say(f"{self.name}_away")
        yield
        if self.ring.port[self.name].ready() and self.rng.random() < 0.5:
            yield from self.wait(f"{self.name}_stolen")
        if self.rng.random() < 0.5:
            self.ring.port[self.peer].raise_event(self.rng)
            self.say(f"{self.peer}_spurious")
            yield
        self.say(f"{self.name}_back")
        yield

    def notify(self) -> None:
        self.ring.port[self.peer].raise_event(self.rng)
        self.say(f"{self.name}_raise")

    def shut(self) -> Iterator[None]:
        self.ring.live[self.name] = 0
        self.say(f"{self.name}_close")
        yield
        self.ring.port[self.peer].raise_event(self.rng)
        self.say(f"{self.peer}_spurious")
        yield
        self.ring.port[self.peer].raise_event(self.rng)
        self.say(f"{self.name}_close_raise")


class Sender(Side):
    """libxenvchan_write, again and again, then perhaps close."""

    def run(self) -> Iterator[None]:
        for _ in range(self.work.writes):
            if self.rng.random() < self.work.other_calls:
                yield from self.other_direction()
            yield from self.write(self.rng.randint(0, self.work.write_max))
        if self.work.close:
            yield from self.shut()

    def is_open(self, action: str) -> bool:
        self.say(action, self.ring.live["r"])
        return bool(self.ring.live["r"])

    def space(self, action: str) -> int:
        free = self.ring.size - (self.ring.prod - self.ring.cons)
        self.say(action, free)
        return free

    def write(self, size: int) -> Iterator[None]:
        self.say("s_call", size)
        yield
        open_, done = self.is_open("s_live"), 0
        yield
        while open_:
            free = self.space("s_space")
            yield
            if free < size - done:
                self.say("s_arm", self.ring.tell_reads)
                self.ring.tell_reads = 1
                yield
                free = self.space("s_space_again")
                yield
            if min(free, size - done):
                yield from self.put(min(free, size - done))
                done += min(free, size - done)
            if done == size:
                break
            yield from self.wait("s_wait")
            yield
            open_ = self.is_open("s_live_again")
            yield
        self.say("s_return", size if open_ else -1)
        yield

    def put(self, count: int) -> Iterator[None]:
        self.ring.prod += count
        self.say("s_put", count)
        yield
        bit, self.ring.tell_writes = self.ring.tell_writes, 0
        self.say("s_test", bit)
        yield
        if bit:
            self.notify()
            yield


class Receiver(Side):
    """libxenvchan_read until it reports the end, then perhaps close."""

    def run(self) -> Iterator[None]:
        if self.work.connects:
            self.ring.tell_writes = 1
            self.say("r_connect")
            yield
        while True:
            if self.rng.random() < self.work.other_calls:
                yield from self.other_direction()
            yield from self.read(self.rng.randint(1, self.work.read_max))
            if self.log[-1].value < 0:
                break
        if self.work.close:
            yield from self.shut()

    def have(self, action: str) -> int:
        ready = self.ring.prod - self.ring.cons
        self.say(action, ready)
        return ready

    def read(self, size: int) -> Iterator[None]:
        self.say("r_call", size)
        yield
        result = -1
        while True:
            ready = self.have("r_have")
            yield
            if ready < size:
                self.say("r_arm", self.ring.tell_writes)
                self.ring.tell_writes = 1
                yield
                ready = self.have("r_have_again")
                yield
            if ready:
                result = min(ready, size)
                yield from self.take(result)
                break
            live = self.ring.live["s"]
            self.say("r_live", live)
            yield
            if live:
                yield from self.wait("r_wait")
                yield
            elif self.ring.prod == self.ring.cons:
                break
        self.say("r_return", result)
        yield

    def take(self, count: int) -> Iterator[None]:
        self.ring.cons += count
        self.say("r_take", count)
        yield
        bit, self.ring.tell_reads = self.ring.tell_reads, 0
        self.say("r_test", bit)
        yield
        if bit:
            self.notify()
            yield


def simulate(seed: int, work: Workload, steps_max: int = 10**9) -> Lanes:
    """The lanes of one run, or of its first steps."""
    rng = random.Random(seed)
    ring = Ring(work.ring_bytes, tell_writes=0 if work.connects else 1)
    sides = [Sender("s", ring, work, rng), Receiver("r", ring, work, rng)]
    running = {side.name: side.run() for side in sides}
    for _ in range(steps_max):
        able = [side for side in sides if side.name in running and side.runnable()]
        if not able:
            break
        side = rng.choice(able)
        if next(running[side.name], ...) is ...:
            del running[side.name]
    return Lanes(*(Lane(tuple(side.log)) for side in sides))


def params(work: Workload) -> SpecParams:
    return SpecParams(
        ring_bytes=work.ring_bytes,
        notify_at_start=0 if work.connects else 1,
        connects=work.connects,
    )


def changed(steps: Sequence[Step], rng: random.Random) -> tuple[Step, ...]:
    """A lane with one step changed, dropped, doubled or moved."""
    found = list(steps)
    at = rng.randrange(len(found) - 1)
    how = rng.choice(["value", "value", "drop", "double", "swap"])
    if how == "value":
        old = found[at].value
        found[at] = replace(found[at], value=1 - old if old < 2 else old + rng.choice([-1, 1]))
    elif how == "drop":
        del found[at]
    elif how == "double":
        found.insert(at, found[at])
    else:
        found[at], found[at + 1] = found[at + 1], found[at]
    return tuple(found)


def cut_off(steps: Sequence[Step], rng: random.Random) -> Lane:
    """A lane that ends early."""
    kept = tuple(steps)[: max(0, len(steps) - rng.randint(1, 6))]
    return Lane(kept, unlogged=rng.random() < 0.7, death=rng.choice(["no", "may", "must"]))


WORKLOADS = {
    "tiny ring": Workload(ring_bytes=1, write_max=3),
    "a client that reads": Workload(connects=True, other_calls=0.5),
    "never closed": Workload(close=False),
    "a page": Workload(ring_bytes=4096, write_max=6000, read_max=5000, writes=40),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_the_ring_can_do_is_accepted(name: str) -> None:
    work = WORKLOADS[name]
    lanes = simulate(seed=len(name), work=work)
    result = follow(lanes, params(work))
    assert result.accepted, result.frontier
    assert not result.undecided
    owed = {word for end in result.ends for word in end.owed}
    assert owed == set()


def test_a_long_run_is_accepted() -> None:
    work = Workload(ring_bytes=1024, writes=900, write_max=3000, read_max=1024)
    lanes = simulate(seed=11, work=work)
    assert len(lanes.sender.steps) + len(lanes.receiver.steps) > 20_000
    result = follow(lanes, params(work))
    assert result.accepted, result.frontier
    assert result.overlap > 100


@pytest.mark.parametrize("seed", range(8))
def test_one_order_is_as_good_as_all(seed: int) -> None:
    """The orders left out lead to no other end, and to no other place where nothing goes on."""
    rng = random.Random(seed)
    work = Workload(
        ring_bytes=rng.choice([1, 2, 4]),
        writes=rng.randint(2, 6),
        connects=seed % 3 == 0,
        close=rng.random() < 0.7,
        other_calls=rng.choice([0, 0.2, 0.5]),
    )
    lanes = simulate(seed, work, steps_max=80)
    if seed % 2:
        lanes = replace(lanes, sender=Lane(changed(lanes.sender.steps, rng)))
    elif seed % 4 == 0:
        lanes = replace(lanes, receiver=cut_off(lanes.receiver.steps, rng))
    few = follow(lanes, params(work))
    every = follow(lanes, params(work), search=Search(reduce=False))
    assert not few.undecided
    assert not every.undecided
    assert set(few.ends) == set(every.ends)
    assert set(few.frontier) == set(every.frontier)
    assert few.states < every.states


def test_some_changed_runs_are_rejected_and_some_are_not() -> None:
    """What the comparison above compares: both kinds are among its seeds."""
    accepted = set()
    for seed in (1, 3, 5, 7):
        rng = random.Random(seed)
        work = Workload(ring_bytes=2, writes=3)
        lanes = simulate(seed, work)
        changed_lanes = replace(lanes, sender=Lane(changed(lanes.sender.steps, rng)))
        accepted.add(follow(changed_lanes, params(work)).accepted)
    assert False in accepted
