"""The client of a helper, against a peer that says what the test wants."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.frames import Decoder, Frame, Kind, Message, encode, message_frame
from vchan_testbed.guests.helper.wire import SYNC, opening
from vchan_testbed.guests.hosts import client
from vchan_testbed.guests.hosts.carrier import ProcessCarrier, SocketCarrier
from vchan_testbed.guests.hosts.client import HelperClient, HelperGone

SECONDS_MAX = 20.0
HELLO = {"type": "hello", "facts": {"xen_version": "4.17"}, "problems": [], "domains": []}

Peer = Callable[[socket.socket, Message], None]


def client_of(peer: Peer, **options: Any) -> HelperClient:
    """A client whose helper is `peer`, told the hello that was said."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        data = b""
        while not (frames := Decoder().feed(data.partition(SYNC)[2])):
            data += theirs.recv(1 << 16)
        peer(theirs, frames[0].message())

    threading.Thread(target=serve, daemon=True).start()
    return HelperClient(SocketCarrier(ours), **options)


def welcome(connection: socket.socket, said: Message, **changes: Any) -> None:
    """Answer a hello."""
    answer = {**HELLO, "id": said["id"], "token": said["token"], **changes}
    connection.sendall(opening(answer))


def answer_all(connection: socket.socket, answers: Callable[[Message], bytes]) -> None:
    """Answer every message with what `answers` makes of it, until the client hangs up."""
    decoder = Decoder()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while data := connection.recv(1 << 16):
            for frame in decoder.feed(data):
                if frame.kind is Kind.MESSAGE and frame.tag == 0:
                    connection.sendall(answers(frame.message()))
                elif frame.kind is Kind.END:
                    connection.sendall(encode(frame))


def test_what_was_meant_for_another_client_is_passed_over() -> None:
    def peer(connection: socket.socket, said: Message) -> None:
        connection.sendall(b"half a frame of the last client")
        welcome(connection, said, token="another", facts={"xen_version": "old"})
        connection.sendall(encode(message_frame({"type": "counts", "id": said["id"]})))
        connection.sendall(b"rubbish" * 100)
        welcome(connection, said)
        connection.recv(1)

    with client_of(peer) as client:
        assert client.facts["xen_version"] == "4.17"


class InPieces:
    """A carrier whose bytes come in pieces as the test cuts them."""

    def __init__(self, pieces: Callable[[Message], list[bytes]]) -> None:
        self._pieces = pieces
        self._asked = b""
        self._left: queue.Queue[bytes] = queue.Queue()

    def read(self) -> bytes:
        return self._left.get(timeout=SECONDS_MAX)

    def write(self, data: bytes) -> None:
        said = Decoder().feed(data.partition(SYNC)[2])[0].message()
        for piece in self._pieces(said):
            self._left.put(piece)

    def close(self) -> None:
        self._left.put(b"")

    def last_words(self) -> str:
        return ""


def test_what_another_client_was_told_may_end_in_the_middle_of_anything() -> None:
    def pieces(said: Message) -> list[bytes]:
        other = opening({**HELLO, "id": said["id"], "token": "another"})
        own = opening({**HELLO, "id": said["id"], "token": said["token"]})
        return [other + b"rubbish" * 9, b"rubbish" * 9, own]

    with HelperClient(InPieces(pieces)) as client:
        assert client.facts["xen_version"] == "4.17"


def test_answers_find_their_questions_in_any_order() -> None:
    held: list[bytes] = []

    def answers(message: Message) -> bytes:
        held.insert(
            0, encode(message_frame({"type": "ok", "id": message["id"], "n": message["n"]}))
        )
        return b"".join(held) if len(held) == 3 else b""

    def peer(connection: socket.socket, said: Message) -> None:
        welcome(connection, said)
        answer_all(connection, answers)

    with client_of(peer) as client:
        found: queue.Queue[tuple[int, int]] = queue.Queue()
        for n in range(3):
            threading.Thread(
                target=lambda n=n: found.put((n, client.ask("echo", n=n)["n"])), daemon=True
            ).start()
        for _ in range(3):
            asked, answered = found.get(timeout=SECONDS_MAX)
            assert asked == answered


def test_an_error_of_the_helper_is_raised_as_it_was_said() -> None:
    def answers(message: Message) -> bytes:
        error = {"message": "no memory", "next_step": "buy some", "console": "last line"}
        return encode(message_frame({"type": "error", "id": message["id"], **error}))

    def peer(connection: socket.socket, said: Message) -> None:
        welcome(connection, said)
        answer_all(connection, answers)

    with client_of(peer) as client, pytest.raises(TestbedError) as caught:
        client.ask("create")
    assert (caught.value.message, caught.value.next_step) == ("no memory", "buy some")
    assert caught.value.console == "last line"


def test_agents_frames_come_out_at_their_own_link_and_end_there() -> None:
    def answers(message: Message) -> bytes:
        answer = encode(message_frame({"type": "agent", "id": message["id"]}))
        line = Frame(message["tag"], Kind.LOG, f"agent {message['domid']}".encode())
        return answer + encode(line)

    def peer(connection: socket.socket, said: Message) -> None:
        welcome(connection, said)
        connection.sendall(encode(Frame(0, Kind.LOG, b"a note of the helper")))
        connection.sendall(encode(Frame(99, Kind.LOG, b"for nobody")))
        answer_all(connection, answers)

    with client_of(peer) as client:
        links = [client.agent(domid, 1.0) for domid in (7, 8)]
        for link in links:
            frame = link.events.get(timeout=SECONDS_MAX)
            assert frame == Frame(0, Kind.LOG, f"agent {link.domid}".encode())
            link.close()
            link.close()
            assert link.events.get(timeout=SECONDS_MAX) is None
            assert link.events.empty()
        assert client.notes == ["a note of the helper"]


def test_a_helper_that_does_not_answer_is_given_up() -> None:
    held = threading.Event()

    def peer(connection: socket.socket, said: Message) -> None:
        held.wait(SECONDS_MAX)

    with pytest.raises(TestbedError, match="did not answer 'hello' within 0 s"):
        client_of(peer, hello_seconds_max=0.2)
    held.set()


@pytest.mark.parametrize(
    ("tells", "said"), [(True, "_serve:1 > run:2"), (False, "does not say either")]
)
def test_where_a_helper_stands_that_does_not_answer_is_in_the_error(
    tells: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DOING_SECONDS_MAX", 0.2)

    def answers(message: Message) -> bytes:
        if message["type"] != "doing" or not tells:
            return b""
        answer = {"type": "doing", "id": message["id"], "tasks": ["_serve:1 > run:2"]}
        return encode(message_frame(answer))

    def peer(connection: socket.socket, said: Message) -> None:
        welcome(connection, said)
        answer_all(connection, answers)

    with client_of(peer) as asking:
        with pytest.raises(TestbedError, match="did not answer 'destroy'") as caught:
            asking.ask("destroy", within=0.2)
        assert said in caught.value.console


def test_a_host_with_a_problem_is_refused_with_what_to_do() -> None:
    problem = {"message": "There is no Xen.", "next_step": "Get one."}

    def peer(connection: socket.socket, said: Message) -> None:
        welcome(connection, said, problems=[problem])
        connection.recv(1)

    with pytest.raises(TestbedError, match=r"There is no Xen") as caught:
        client_of(peer)
    assert caught.value.next_step == "Get one."


def test_a_stream_that_breaks_ends_everything_that_waits() -> None:
    def peer(connection: socket.socket, said: Message) -> None:
        welcome(connection, said)
        connection.recv(1)
        connection.sendall(b"a printk on the same line, forty bytes long")
        connection.recv(1 << 16)

    with client_of(peer) as client, pytest.raises(HelperGone, match="its stream broke"):
        client.ask("counts")


def test_the_words_of_a_process_that_fails_are_in_the_error() -> None:
    with pytest.raises(HelperGone) as caught:
        HelperClient(ProcessCarrier(["sh", "-c", "echo no module named json >&2; exit 3"]))
    assert "no module named json" in caught.value.console


def test_what_boots_is_watched_after_the_hello_was_sent_and_before_it_is_answered() -> None:
    ours, theirs = socket.socketpair()
    order: list[str] = []

    def while_waiting() -> None:
        said = Decoder().feed(theirs.recv(1 << 16).partition(SYNC)[2])[0].message()
        order.append(said["type"])
        welcome(theirs, said, domains=[{"label": "server"}])

    with HelperClient(
        SocketCarrier(ours), keep_domains=True, while_waiting=while_waiting
    ) as client:
        assert order == ["hello"]
        assert client.hello["domains"] == [{"label": "server"}]
    theirs.close()
