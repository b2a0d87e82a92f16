"""The helper's end of the byte stream: two pipes, or one virtio-serial port."""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import Callable

READ_BYTES = 1 << 16
READS_A_TURN = 16
QUEUED_BYTES_MAX = 1 << 20
HANG_UP_SECONDS = 5.0
"""How long a port has to be without a client before that counts as a hang-up. On a busy machine the
kernel was seen to learn of a new client more than a quarter of a second after its first data; the
next client's hello ends the session before it in any case."""


class Port:
    """Reads and writes without ever blocking the event loop.

    `on_data(bytes)` gets what arrives, `on_hang_up()` is called when the other side is gone. A
    virtio-serial port goes on after that, with the next client; a pipe does not.

    The descriptors are watched edge-triggered, in an epoll set of their own that the loop watches:
    a port without a client is readable for ever (its read returns nothing at once), and only the
    edge, a client that comes or goes, is news.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        *,
        on_data: Callable[[bytes], None],
        on_hang_up: Callable[[], None],
    ) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._on_data = on_data
        self._on_hang_up = on_hang_up
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._pieces = 0
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        if read_fd == write_fd:
            self._watch(read_fd, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._watch(read_fd, select.EPOLLIN)
            self._watch(write_fd, select.EPOLLOUT)
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def write(self, data: bytes) -> None:
        """Send, after all that waits already."""
        self._queue.append(memoryview(data))
        self._queued_bytes += len(data)
        self._flush()

    async def drained(self) -> None:
        """Wait until not too much is queued: whoever passes on a lot asks before more."""
        await self._drained.wait()

    def drop_queue(self) -> None:
        """Forget what is queued: it was meant for a client that is gone."""
        self._queue.clear()
        self._count(-self._queued_bytes)

    async def close(self, seconds_max: float) -> None:
        """Stop, after what is queued has gone out, if that takes no longer than `seconds_max`."""
        deadline = self._loop.time() + seconds_max
        while self._queue and (left := deadline - self._loop.time()) > 0:
            await asyncio.to_thread(select.select, [], [self._write_fd], [], left)
            self._flush()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _watch(self, fd: int, events: int) -> None:
        os.set_blocking(fd, False)
        self._epoll.register(fd, events | select.EPOLLET)

    def _ready(self) -> None:
        for fd, events in self._epoll.poll(0):
            if fd == self._read_fd and events & ~select.EPOLLOUT:
                self._read(READS_A_TURN)
        self._flush()

    def _read(self, turns: int) -> None:
        """Read until nothing is left, as an edge comes once; now and then let others run."""
        for _ in range(turns):
            try:
                data = os.read(self._read_fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._at_end()
                return
            self._pieces += 1
            self._on_data(data)
        self._loop.call_soon(self._read, READS_A_TURN)

    def _at_end(self) -> None:
        """Nobody is at the other side of a port: now, or for good?

        The kernel learns of clients by a queue of its own, beside that of the data. When one leaves
        and the next one comes while the machine stands still (its state is saved), the next one's
        hello can be read, and answered, before the first one's leaving is seen. Taken for the next
        one's hang-up it would cut off a session that has just begun, and its first question would
        never be answered.
        """
        if self._read_fd != self._write_fd:
            self._on_hang_up()
        else:
            self._loop.call_later(HANG_UP_SECONDS, self._look_whether_gone, self._pieces)

    def _look_whether_gone(self, pieces: int) -> None:
        # Who has spoken since then is there, or will be missed by an end of its own.
        if self._epoll.closed or pieces != self._pieces:
            return
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
            self._on_hang_up()

    def _flush(self) -> None:
        while self._queue:
            try:
                written = os.write(self._write_fd, self._queue[0])
            except BlockingIOError:
                break
            except OSError:
                # The reader hung up; the reading side says so.
                self.drop_queue()
                return
            self._queue[0] = self._queue[0][written:]
            if not self._queue[0]:
                self._queue.popleft()
            self._count(-written)
        self._count(0)

    def _count(self, change: int) -> None:
        self._queued_bytes += change
        if self._queued_bytes > QUEUED_BYTES_MAX:
            self._drained.clear()
        else:
            self._drained.set()
