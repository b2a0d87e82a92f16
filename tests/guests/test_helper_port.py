"""The helper's end of the stream: nothing blocks, nothing spins, nothing stale is sent."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from vchan_testbed.guests.helper import port as port_module
from vchan_testbed.guests.helper.port import (
    QUEUED_BYTES_MAX,
    READ_BYTES,
    READS_A_TURN,
    Port,
)

SECONDS_MAX = 20.0


class Heard:
    """What a port told."""

    def __init__(self) -> None:
        self.data = b""
        self.hung_up = asyncio.Event()
        self.some = asyncio.Event()

    def hear(self, data: bytes) -> None:
        """More arrived."""
        self.data += data
        self.some.set()

    async def until(self, count: int) -> None:
        """Wait until so much has arrived."""
        while len(self.data) < count:
            self.some.clear()
            await asyncio.wait_for(self.some.wait(), SECONDS_MAX)


def port_on(read_fd: int, write_fd: int, heard: Heard) -> Port:
    """A port that tells `heard`."""
    return Port(read_fd, write_fd, on_data=heard.hear, on_hang_up=heard.hung_up.set)


def test_more_than_one_turn_reads_arrives_and_then_the_hang_up() -> None:
    sent = os.urandom(READ_BYTES * (READS_A_TURN + 3) + 5)

    async def body() -> None:
        ours, theirs = socket.socketpair()
        heard = Heard()
        port = port_on(ours.fileno(), ours.fileno(), heard)
        await asyncio.to_thread(theirs.sendall, sent)
        await heard.until(len(sent))
        assert not heard.hung_up.is_set()
        theirs.close()
        await asyncio.wait_for(heard.hung_up.wait(), SECONDS_MAX)
        await port.close(1.0)
        ours.close()

        assert heard.data == sent

    asyncio.run(body())


def test_a_client_that_was_not_there_for_a_moment_has_not_hung_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(port_module, "HANG_UP_SECONDS", 0.1)

    async def body() -> None:
        ours, theirs = socket.socketpair()
        heard = Heard()
        port = port_on(ours.fileno(), ours.fileno(), heard)
        # A read returns nothing, and yet the other side is there.
        theirs.shutdown(socket.SHUT_WR)
        loop = asyncio.get_running_loop()
        looked = loop.create_future()
        loop.call_later(0.3, looked.set_result, None)
        await looked
        assert not heard.hung_up.is_set()
        port.write(b"answer")
        assert await asyncio.to_thread(theirs.recv, 100) == b"answer"
        theirs.close()
        await asyncio.wait_for(heard.hung_up.wait(), SECONDS_MAX)
        await port.close(1.0)
        ours.close()

    asyncio.run(body())


def test_who_has_spoken_since_is_not_taken_for_who_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(port_module, "HANG_UP_SECONDS", 0.2)

    async def body() -> None:
        ours, theirs = socket.socketpair()
        heard, hung_up = Heard(), asyncio.Queue[None]()
        port = Port(
            ours.fileno(),
            ours.fileno(),
            on_data=heard.hear,
            on_hang_up=lambda: hung_up.put_nowait(None),
        )
        # The client before left; the next one speaks, and leaves as well before that is looked at.
        port._at_end()
        theirs.sendall(b"hello")
        await heard.until(5)
        theirs.close()
        await asyncio.wait_for(hung_up.get(), SECONDS_MAX)
        # One left who was listened to: told once.
        assert hung_up.empty()
        await port.close(1.0)
        ours.close()

    asyncio.run(body())


def test_a_slow_reader_gets_all_of_it_and_writers_are_told_to_wait() -> None:
    async def body() -> None:
        ours, theirs = socket.socketpair()
        port = port_on(ours.fileno(), ours.fileno(), Heard())
        piece = bytes(1 << 16)
        for _ in range(2 * QUEUED_BYTES_MAX // len(piece)):
            port.write(piece)
        waiting = asyncio.create_task(port.drained())
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        total = 2 * QUEUED_BYTES_MAX
        got = await asyncio.to_thread(read_exactly, theirs, total - QUEUED_BYTES_MAX // 2)
        await asyncio.wait_for(waiting, SECONDS_MAX)
        got += await asyncio.to_thread(read_exactly, theirs, total - got)
        assert got == total
        await port.close(1.0)
        ours.close()
        theirs.close()

    asyncio.run(body())


def read_exactly(connection: socket.socket, count: int) -> int:
    """How many bytes were read: `count`."""
    got = 0
    while got < count:
        got += len(connection.recv(min(1 << 16, count - got)))
    return got


def test_what_was_queued_for_a_client_that_left_is_not_sent_to_the_next() -> None:
    async def body() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        port = port_on(ours.fileno(), ours.fileno(), Heard())
        for _ in range(64):
            port.write(b"old" * 1000)
        port.drop_queue()
        await asyncio.wait_for(port.drained(), SECONDS_MAX)
        port.write(b"new")
        reading = asyncio.create_task(asyncio.to_thread(read_all, theirs.fileno()))
        await port.close(SECONDS_MAX)
        ours.close()
        rest = await reading
        theirs.close()
        assert rest.endswith(b"new")
        assert len(rest) < 64 * 3000

    asyncio.run(body())


def test_what_is_queued_at_the_end_still_goes_out() -> None:
    async def body() -> None:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        port = port_on(in_read, out_write, Heard())
        last = bytes(300_000)
        port.write(last)
        reading = asyncio.create_task(asyncio.to_thread(read_all, out_read))
        await port.close(SECONDS_MAX)
        os.close(out_write)
        assert len(await reading) == len(last)
        for fd in (in_read, in_write, out_read):
            os.close(fd)

    asyncio.run(body())


def read_all(fd: int) -> bytes:
    """Until the other side closes."""
    found = b""
    while data := os.read(fd, 1 << 16):
        found += data
    return found


def test_a_reader_that_left_is_no_error_for_the_writer() -> None:
    async def body() -> None:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        port = port_on(in_read, out_write, Heard())
        os.close(out_read)
        port.write(b"nobody hears this")
        await asyncio.wait_for(port.drained(), SECONDS_MAX)
        await port.close(1.0)
        for fd in (in_read, in_write, out_write):
            os.close(fd)

    asyncio.run(body())
