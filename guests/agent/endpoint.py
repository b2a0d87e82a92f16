"""Performs the operations of one endpoint on an open channel."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from vchan_testbed.bindings.errors import PeerGone
from vchan_testbed.guests import workload

WRITES = {"client": "left", "server": "right"}
READS = {"client": "right", "server": "left"}

Operation = dict[str, Any]
Moved = TypeVar("Moved", int, bytes)
Turns = Generator[bool, None, Moved]
"""Yields after each call whether it moved something, and goes on when it is its turn again."""
Lane = Generator[bool]


class Channel(Protocol):
    """What an endpoint needs of bindings.channel."""

    def read(self, size: int, /) -> bytes:
        """libxenvchan_read."""

    def write(self, data: bytes, /) -> int:
        """libxenvchan_write."""

    def recv(self, size: int, /) -> bytes:
        """libxenvchan_recv."""

    def send(self, data: bytes, /) -> int:
        """libxenvchan_send."""

    def wait(self) -> None:
        """libxenvchan_wait."""

    def data_ready(self) -> int:
        """libxenvchan_data_ready."""

    def buffer_space(self) -> int:
        """libxenvchan_buffer_space."""

    def is_open(self) -> int:
        """libxenvchan_is_open."""

    def fileno(self) -> int:
        """libxenvchan_fd_for_select."""

    def close(self) -> None:
        """libxenvchan_close."""


class Activity:
    """What each thread is doing now: a call of the library, "pause", or nothing."""

    def __init__(self) -> None:
        self._doing: dict[int, str | None] = {}

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """This thread does `what` while the block runs."""
        tid = threading.get_native_id()
        before = self._doing.get(tid)
        self._doing[tid] = what
        try:
            yield
        finally:
            self._doing[tid] = before

    def now(self) -> dict[int, str | None]:
        """By the kernel's thread number; asked for from another thread."""
        return dict(self._doing)


@dataclass
class Result:
    """What an endpoint did: bytes each way, mismatches, and why it stopped early, if so."""

    written_bytes: int = 0
    read_bytes: int = 0
    mismatches: list[dict[str, int | None]] = field(default_factory=list)
    ended_early: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Role, operations and how to make the calls."""

    role: str
    operations: tuple[Operation, ...]
    blocking: bool
    duplex: bool
    seed: int


class Endpoint:
    """One end at work.

    `on_payload(position, count, ok)` is told of every read, `on_operation(number)` of every
    operation that begins; `await_hold()` returns when the peer's tracer has begun to hold it, or
    raises PeerGone; `stop()` stops this process.
    """

    def __init__(
        self,
        channel: Channel,
        plan: Plan,
        activity: Activity,
        *,
        on_payload: Callable[[int, int, bool], None],
        on_operation: Callable[[int], None],
        await_hold: Callable[[], object],
        stop: Callable[[], object],
    ) -> None:
        self._channel = channel
        self._plan = plan
        self._activity = activity
        self._on_payload = on_payload
        self._on_operation = on_operation
        self._await_hold = await_hold
        self._stop = stop
        self.result = Result()

    def perform(self) -> Result:
        """Do all operations. A peer that closes early ends them, and is noted in the result."""
        numbered = list(enumerate(self._plan.operations))
        if not self._plan.duplex:
            self._drive([self._lane(numbered)])
            return self.result
        together, after = workload.joined(numbered, [o["do"] for o in self._plan.operations])
        lanes = [
            self._lane([(n, o) for n, o in together if o["do"] in side]) for side in workload.LANES
        ]
        if self._plan.blocking:
            with ThreadPoolExecutor(len(lanes)) as pool:
                for lane in [pool.submit(self._drive, [lane]) for lane in lanes]:
                    lane.result()
        else:
            self._drive(lanes)
        self._drive([self._lane(after)])
        return self.result

    def _drive(self, lanes: list[Lane]) -> None:
        """Let each lane make one call in its turn, and wait for an event when none moved anything.

        One loop for both lanes: two threads that wait on one channel take each other's events. Each
        call that moves nothing has asked for an event and then looked again, in the library; so
        there is one to come for each lane, and after it each is asked again.
        """
        while lanes:
            turns = [(lane, next(lane, None)) for lane in lanes]
            lanes = [lane for lane, moved in turns if moved is not None]
            if lanes and not any(moved for _, moved in turns):
                with self._activity.doing("wait"):
                    select.select([self._channel.fileno()], [], [])
                    self._channel.wait()

    def _lane(self, operations: list[tuple[int, Operation]]) -> Lane:
        for number, operation in operations:
            self._on_operation(number)
            try:
                yield from self._one(number, operation)
            except PeerGone as error:
                if not operation["once"] and operation["do"] != "read_to_end":
                    self.result.ended_early.append(f"operation {number + 1}: {error.message}")
                    return

    def _one(self, number: int, operation: Operation) -> Lane:
        do = operation["do"]
        if do in ("write", "send"):
            yield from self._put(number, operation)
        elif do in ("read", "recv"):
            yield from self._take(number, operation)
        elif do == "read_to_end":
            for want in workload.endless(_choice(operation), self._seed(number)):
                yield from self._receive({**operation, "do": "read"}, want)
        elif do == "pause":
            self._pause(operation)
        elif do == "await_hold":
            # Idleness of the workload, as a pause is.
            with self._activity.doing("pause"):
                self._await_hold()
        elif do == "stop":
            self._stop()
        else:
            with self._activity.doing(do):
                getattr(self._channel, do)()

    def _put(self, number: int, operation: Operation) -> Lane:
        direction = WRITES[self._plan.role]
        for size in workload.sizes(operation["bytes"], _choice(operation), self._seed(number)):
            left = size
            while left:
                data = workload.payload(direction, self.result.written_bytes, left)
                call = getattr(self._channel, operation["do"])
                put = yield from self._again(operation, partial(call, data))
                self.result.written_bytes += put
                left -= left if operation["once"] else put
                yield True
            self._pause(operation)

    def _take(self, number: int, operation: Operation) -> Lane:
        left = operation["bytes"]
        wants = workload.endless(_choice(operation), self._seed(number))
        while left:
            took = yield from self._receive(operation, min(next(wants), left))
            left -= left if operation["once"] else took
            self._pause(operation)

    def _receive(self, operation: Operation, size: int) -> Turns[int]:
        call = getattr(self._channel, operation["do"])
        data: bytes = yield from self._again(operation, partial(call, size))
        position = self.result.read_bytes
        self.result.read_bytes += len(data)
        direction = READS[self._plan.role]
        mismatch = workload.check(direction, position, data)
        if mismatch is None:
            self._on_payload(position, len(data), True)
        else:
            found = workload.position_of(direction, data, position)
            self._on_payload(position if found is None else found, len(data), False)
            self.result.mismatches.append(
                {"position": mismatch.position, "found_position": mismatch.found_position}
            )
        yield True
        return len(data)

    def _again(self, operation: Operation, call: Callable[[], Moved]) -> Turns[Moved]:
        """Repeat a call until it moves something; blocking ones always do."""
        while True:
            with self._activity.doing(operation["do"]):
                moved = call()
            if moved or self._plan.blocking or operation["once"]:
                return moved
            yield False

    def _pause(self, operation: Operation) -> None:
        if operation["pause_seconds"]:
            with self._activity.doing("pause"):
                threading.Event().wait(operation["pause_seconds"])

    def _seed(self, number: int) -> int:
        return self._plan.seed * 1_000_003 + number * 2 + (self._plan.role == "client")


def _choice(operation: Operation) -> tuple[int, ...] | range:
    sizes = operation["sizes"]
    if sizes and sizes[0] == "from":
        return range(int(sizes[1]), int(sizes[3]) + 1)
    return tuple(int(size) for size in sizes)
