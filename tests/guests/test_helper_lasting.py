"""A helper whose port outlives its clients: what was one client's never reaches the next."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from vchan_testbed.guests.frames import Decoder, Frame, Message, encode, message_frame
from vchan_testbed.guests.helper import session
from vchan_testbed.guests.helper.session import Helper
from vchan_testbed.guests.helper.wire import SYNC, opening

SECONDS_MAX = 30.0

Body = Callable[[Helper, "Client"], Coroutine[Any, Any, None]]


class Client:
    """The other end of the helper's port."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    async def hello(self, helper: Helper, token: str) -> Message:
        """Begin a session; the helper's first message in it."""
        helper._hear(opening({"type": "hello", "id": 1, "token": token}))
        return await self.answer_to_hello()

    async def answer_to_hello(self) -> Message:
        """The first message after the next SYNC."""
        await self._until(lambda: SYNC in self._data)
        self._data = self._data.split(SYNC, 1)[1]
        return (await self.frame()).message()

    async def frame(self) -> Frame:
        """The next frame."""
        frames: list[Frame] = []

        def whole() -> bool:
            frames[:] = Decoder().feed(self._data)
            return bool(frames)

        await self._until(whole)
        self._data = self._data[len(encode(frames[0])) :]
        return frames[0]

    async def nothing_comes(self) -> bool:
        """Whether the helper says nothing for a while."""
        loop = asyncio.get_running_loop()
        try:
            self._data += await asyncio.wait_for(loop.sock_recv(self._connection, 1 << 16), 0.3)
        except TimeoutError:
            return not self._data
        return False

    async def _until(self, done: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while not done():
            receiving = loop.sock_recv(self._connection, 1 << 16)
            self._data += await asyncio.wait_for(receiving, SECONDS_MAX)


def with_helper(body: Body) -> None:
    """Run `body` with a lasting helper, on a machine where no Xen is needed."""

    async def whole() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        helper = Helper(ours.fileno(), ours.fileno(), lasting=True)
        serving = asyncio.create_task(helper.serve())
        try:
            await body(helper, Client(theirs))
        finally:
            helper.stop()
            await asyncio.wait_for(serving, SECONDS_MAX)
            ours.close()
            theirs.close()

    asyncio.run(whole())


async def asked_to_count(
    helper: Helper, client: Client, monkeypatch: pytest.MonkeyPatch
) -> asyncio.Event:
    """A session whose request with the id 2 is not answered before the event is set."""
    go_on = asyncio.Event()

    async def slow_counts() -> dict[str, int]:
        await go_on.wait()
        return {}

    monkeypatch.setattr(session, "counts", slow_counts)
    await client.hello(helper, "one")
    helper._hear(encode(message_frame({"type": "counts", "id": 2})))
    return go_on


def test_a_hang_up_and_the_next_hello_at_once_do_not_wait_for_each_other() -> None:
    async def body(helper: Helper, client: Client) -> None:
        assert (await client.hello(helper, "one"))["token"] == "one"
        helper._hung_up()
        helper._hear(opening({"type": "hello", "id": 1, "token": "two"}))
        assert (await client.answer_to_hello())["token"] == "two"
        helper._hung_up()
        helper._hung_up()
        assert (await client.hello(helper, "three"))["token"] == "three"

    with_helper(body)


def test_an_answer_that_comes_too_late_is_not_given_to_the_next_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(helper: Helper, client: Client) -> None:
        go_on = await asked_to_count(helper, client, monkeypatch)
        hello = asyncio.create_task(client.hello(helper, "two"))
        # The new client waits for the old one's work: it may be making a domain.
        done, _ = await asyncio.wait({hello}, timeout=0.3)
        assert not done
        go_on.set()
        assert (await hello)["token"] == "two"
        assert await client.nothing_comes()

    with_helper(body)


def test_the_helper_says_no_word_without_a_client() -> None:
    async def body(helper: Helper, client: Client) -> None:
        helper._note("nobody hears this")
        assert await client.nothing_comes()
        await client.hello(helper, "one")
        helper._note("this is heard")
        assert (await client.frame()).payload == b"this is heard"
        helper._hear(b"\xff" * 64)
        assert b"is broken" in (await client.frame()).payload
        assert (await client.hello(helper, "two"))["token"] == "two"

    with_helper(body)


def test_it_tells_where_a_request_stands_that_has_no_answer_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(helper: Helper, client: Client) -> None:
        go_on = await asked_to_count(helper, client, monkeypatch)
        helper._hear(encode(message_frame({"type": "doing", "id": 3})))
        answer = (await client.frame()).message()
        assert answer["id"] == 3
        (place,) = (task for task in answer["tasks"] if "_counts" in task)
        assert place.startswith("_serve:")
        assert "_answer_to:" in place
        assert "> slow_counts:" in place
        go_on.set()
        assert (await client.frame()).message()["id"] == 2

    with_helper(body)
