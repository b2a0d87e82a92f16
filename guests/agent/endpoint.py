"""Performs the operations of one endpoint on an open channel."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from vchan_testbed.bindings.errors import PeerGone
from vchan_testbed.guests import workload

WRITES = {"client": "left", "server": "right"}
READS = {"client": "right", "server": "left"}
OUT = ("write", "send", "buffer_space")
IN = ("read", "recv", "read_to_end", "data_ready")

Operation = dict[str, Any]
Moved = TypeVar("Moved", int, bytes)


class Channel(Protocol):
    """What an endpoint needs of bindings.channel."""

    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> int: ...
    def recv(self, size: int) -> bytes: ...
    def send(self, data: bytes) -> int: ...
    def wait(self) -> None: ...
    def data_ready(self) -> int: ...
    def buffer_space(self) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


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
    operation that begins, and `on_thread(tid)` of every thread that makes calls.
    """

    def __init__(
        self,
        channel: Channel,
        plan: Plan,
        *,
        on_payload: Callable[[int, int, bool], None],
        on_operation: Callable[[int], None],
        on_thread: Callable[[int], None],
    ) -> None:
        self._channel = channel
        self._plan = plan
        self._on_payload = on_payload
        self._on_operation = on_operation
        self._on_thread = on_thread
        self.result = Result()

    def perform(self) -> Result:
        """Do all operations. A peer that closes early ends them, and is noted in the result."""
        numbered = list(enumerate(self._plan.operations))
        if not self._plan.duplex:
            self._on_thread(threading.get_native_id())
            self._run(numbered)
            return self.result
        lanes = [[(n, o) for n, o in numbered if o["do"] in side] for side in (OUT, IN)]
        threads = [threading.Thread(target=self._lane, args=(lane,)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._run([(n, o) for n, o in numbered if o["do"] == "close"])
        return self.result

    def _lane(self, operations: list[tuple[int, Operation]]) -> None:
        self._on_thread(threading.get_native_id())
        self._run(operations)

    def _run(self, operations: list[tuple[int, Operation]]) -> None:
        for number, operation in operations:
            self._on_operation(number)
            try:
                self._one(number, operation)
            except PeerGone as error:
                if operation["do"] != "read_to_end":
                    self.result.ended_early.append(f"operation {number + 1}: {error.message}")
                    self._channel.close()
                    return

    def _one(self, number: int, operation: Operation) -> None:
        do = operation["do"]
        if do in ("write", "send"):
            self._put(number, operation)
        elif do in ("read", "recv"):
            self._take(number, operation)
        elif do == "read_to_end":
            self._take_to_end(number, operation)
        elif do == "pause":
            threading.Event().wait(operation["pause_seconds"])
        elif do == "close":
            self._channel.close()
        else:
            getattr(self._channel, do)()

    def _put(self, number: int, operation: Operation) -> None:
        direction = WRITES[self._plan.role]
        call = self._channel.send if operation["do"] == "send" else self._channel.write
        for size in self._sizes(number, operation):
            left = size
            while left:
                data = workload.payload(direction, self.result.written_bytes, left)
                put = self._again(partial(call, data))
                self.result.written_bytes += put
                left -= put
            _pause(operation)

    def _take(self, number: int, operation: Operation) -> None:
        packets = operation["do"] == "recv"
        left = operation["bytes"]
        if packets:
            for size in self._sizes(number, operation):
                self._receive(size, packets=True)
                _pause(operation)
            return
        wants = workload.endless(_choice(operation), self._seed(number))
        while left:
            left -= self._receive(min(next(wants), left), packets=False)
            _pause(operation)

    def _take_to_end(self, number: int, operation: Operation) -> None:
        for want in workload.endless(_choice(operation), self._seed(number)):
            self._receive(want, packets=False)

    def _receive(self, size: int, *, packets: bool) -> int:
        call = self._channel.recv if packets else self._channel.read
        data = self._again(partial(call, size))
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
        return len(data)

    def _again(self, call: Callable[[], Moved]) -> Moved:
        """Repeat a call that would block until it moved something, waiting on the event."""
        while True:
            moved = call()
            if moved or self._plan.blocking:
                return moved
            select.select([self._channel.fileno()], [], [])
            self._channel.wait()

    def _sizes(self, number: int, operation: Operation) -> Any:
        return workload.sizes(operation["bytes"], _choice(operation), self._seed(number))

    def _seed(self, number: int) -> int:
        return self._plan.seed * 1_000_003 + number * 2 + (self._plan.role == "client")


def _choice(operation: Operation) -> tuple[int, ...] | range:
    sizes = operation["sizes"]
    if sizes and sizes[0] == "from":
        return range(int(sizes[1]), int(sizes[3]) + 1)
    return tuple(int(size) for size in sizes)


def _pause(operation: Operation) -> None:
    if operation["pause_seconds"]:
        threading.Event().wait(operation["pause_seconds"])
