"""Channels between two processes over the unmodified libxenvchan: every call, both ways."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Domains, Remote

PATH = "data/channel"
SERVER_PATH = "/local/domain/1/data/channel"
KIB = 1024


@dataclass
class Pair:
    """A server in domain 1 and a client in domain 2, connected."""

    server: Remote
    client: Remote

    def ends(self, writer: str) -> tuple[Remote, Remote]:
        """(writer, reader)."""
        return (self.server, self.client) if writer == "server" else (self.client, self.server)


class Connector:
    """Makes pairs."""

    def __init__(self, domains: Domains) -> None:
        self._server = domains.process("channel_end.py", 1)
        self._client = domains.process("channel_end.py", 2)

    def __call__(self, read: int, write: int, *, blocking: bool = True) -> Pair:
        self._server("server", 2, PATH, read, write, blocking)
        self._client("client", 1, SERVER_PATH, blocking)
        return Pair(self._server, self._client)

    def close(self) -> None:
        for remote in (self._client, self._server):
            if remote.alive:
                remote("close")


@pytest.fixture
def connect(domains: Domains) -> Iterator[Connector]:
    """Connect a pair; closed at the end of the test."""
    connector = Connector(domains)
    yield connector
    connector.close()


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((1, 1), (1 * KIB, 2 * KIB)),
        ((1 * KIB, 2 * KIB), (1 * KIB, 2 * KIB)),
        ((2 * KIB, 1 * KIB), (2 * KIB, 1 * KIB)),
        ((2 * KIB, 2 * KIB), (2 * KIB, 4 * KIB)),
        ((4 * KIB, 1 * KIB), (4 * KIB, 2 * KIB)),
        ((1 * KIB, 64 * KIB), (2 * KIB, 64 * KIB)),
        ((4 * KIB, 4 * KIB), (4 * KIB, 4 * KIB)),
        ((5000, 4097), (8 * KIB, 8 * KIB)),
        ((64 * KIB, 16 * KIB), (64 * KIB, 16 * KIB)),
        ((1024 * KIB, 1024 * KIB), (1024 * KIB, 1024 * KIB)),
    ],
)
def test_rings_of_every_size_carry_their_size_and_more(
    domains: Domains, asked: tuple[int, int], made: tuple[int, int]
) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    assert server("server", 2, PATH, *asked, True) == list(made)
    pages = 1 + sum(size // 4096 for size in made)
    assert domains.world.counts() == {"grants": pages, "ports": 1, "keys": 2, "handles": 2}
    assert client("client", 1, SERVER_PATH, True) == list(reversed(made))
    assert domains.world.counts() == {"grants": pages, "ports": 2, "keys": 2, "handles": 4}
    pair = Pair(server, client)
    for writer, ring in (("client", made[0]), ("server", made[1])):
        out, into = pair.ends(writer)
        data = bytes(i * 7 % 251 for i in range(2 * ring + 100))
        assert out("call", "buffer_space") == ring
        assert out("call", "write", data[:ring]) == ring
        assert out("call", "buffer_space") == 0
        assert into("call", "data_ready") == ring
        out.start("call", "write", data[ring:])
        assert into("read_all", len(data), 3000) == data
        assert out.finish() == len(data) - ring
    client("close")
    server("close")


@pytest.mark.parametrize("writer", ["server", "client"])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_stream_arrives_whole(connect: Connector, writer: str, blocking: bool) -> None:
    out, into = connect(4 * KIB, 4 * KIB, blocking=blocking).ends(writer)
    data = bytes(range(256)) * 300
    out.start("write_all", data, [1, 5000, 333])
    assert into("read_all", len(data), 777) == data
    out.finish()


@pytest.mark.parametrize("writer", ["server", "client"])
@pytest.mark.parametrize("blocking", [True, False])
def test_packets_arrive_whole(connect: Connector, writer: str, blocking: bool) -> None:
    out, into = connect(4 * KIB, 4 * KIB, blocking=blocking).ends(writer)
    packets = [bytes([i]) * size for i, size in enumerate([1, 4096, 2500, 2500, 17, 4000])]
    out.start("send_all", packets)
    assert into("recv_all", [len(packet) for packet in packets]) == packets
    assert out.finish() == [len(packet) for packet in packets]


def test_both_directions_at_once(connect: Connector) -> None:
    pair = connect(16 * KIB, 16 * KIB)
    left, right = b"l" * 16 * KIB, b"r" * 16 * KIB
    assert pair.client("call", "write", left) == len(left)
    assert pair.server("call", "write", right) == len(right)
    assert pair.server("read_all", len(left), len(left)) == left
    assert pair.client("read_all", len(right), len(right)) == right


def test_the_server_may_write_before_the_client_comes(domains: Domains) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    server("server", 2, PATH, 4096, 4096, True)
    assert server("call", "is_open") == 2
    assert server("call", "write", b"early") == 5
    client("client", 1, SERVER_PATH, True)
    assert server("call", "is_open") == 1
    assert client("call", "read", 10) == b"early"
    client("close")
    server("close")


def test_what_would_block_moves_nothing_when_not_blocking(connect: Connector) -> None:
    pair = connect(4 * KIB, 4 * KIB, blocking=False)
    assert pair.server("call", "read", 1) == b""
    assert pair.server("call", "recv", 1) == b""
    assert pair.client("call", "write", bytes(5000)) == 4096
    assert pair.client("call", "write", b"x") == 0
    assert pair.client("call", "send", b"x") == 0
    assert pair.server("call", "recv", 4096) == bytes(4096)
    assert pair.client("call", "send", b"x") == 1
    assert pair.server("call", "recv", 2) == b""
    assert pair.server("call", "read", 2) == b"x"


def test_an_empty_write_moves_nothing(connect: Connector) -> None:
    pair = connect(4 * KIB, 4 * KIB)
    assert pair.client("call", "write", b"") == 0
    assert pair.server("call", "data_ready") == 0


def test_the_descriptor_tells_of_an_event(connect: Connector) -> None:
    pair = connect(4 * KIB, 4 * KIB, blocking=False)
    for remote in (pair.server, pair.client):
        assert remote("ready")  # the connection; the bind
        remote("call", "wait")
    assert not pair.server("ready")
    assert pair.server("call", "read", 5) == b""
    pair.client("call", "write", b"hello")
    assert pair.server("ready")
    pair.server("call", "wait")
    assert pair.server("call", "read", 5) == b"hello"


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("size", [0, -1, 1 << 31])
def test_reads_of_an_impossible_size_are_refused(
    connect: Connector, blocking: bool, size: int
) -> None:
    pair = connect(4 * KIB, 4 * KIB, blocking=blocking)
    assert pair.server.fails("call", "read", size).type == "InputError"


@pytest.mark.parametrize("blocking", [True, False])
def test_packets_that_never_fit_are_refused(connect: Connector, blocking: bool) -> None:
    pair = connect(4 * KIB, 1 * KIB, blocking=blocking)
    error = pair.client.fails("call", "send", bytes(4097))
    assert (error.type, "1 to 4096 bytes" in error.message) == ("InputError", True)
    error = pair.client.fails("call", "recv", 2049)
    assert (error.type, "1 to 2048 bytes" in error.message) == ("InputError", True)
    assert pair.client.fails("call", "send", b"").type == "InputError"


@pytest.mark.parametrize("closer", ["server", "client"])
def test_what_was_written_before_close_can_be_read_after_it(
    connect: Connector, closer: str
) -> None:
    out, into = connect(4 * KIB, 4 * KIB).ends(closer)
    out("call", "write", b"tail")
    out("close")
    assert into("call", "is_open") == 0
    assert into("call", "data_ready") == 4
    assert into("read_to_end", 3) == b"tail"
    assert into.fails("call", "read", 1).type == "PeerGone"
    assert into.fails("call", "recv", 1).type == "PeerGone"
    assert into.fails("call", "write", b"x").type == "PeerGone"
    assert into.fails("call", "send", b"x").type == "PeerGone"


@pytest.mark.parametrize("closer", ["server", "client"])
@pytest.mark.parametrize(
    "call", [("read", 1), ("recv", 1), ("write", bytes(5000)), ("send", bytes(4096))]
)
def test_close_wakes_whoever_blocks(
    connect: Connector, closer: str, call: tuple[str, object]
) -> None:
    closing, waiting = connect(4 * KIB, 4 * KIB).ends(closer)
    if call[0] == "send":
        waiting("call", "send", b"x")
    fd = waiting("call", "fileno")
    waiting.start("call", *call)
    waiting.wait_until_blocked_in_read(fd)
    closing("close")
    error = waiting.finish_fails()
    assert (error.type, error.call) == ("PeerGone", f"libxenvchan_{call[0]}")


@pytest.mark.parametrize("dies", ["server", "client"])
def test_death_of_the_peers_process_wakes_whoever_blocks(
    connect: Connector, domains: Domains, dies: str
) -> None:
    dying, waiting = connect(4 * KIB, 64 * KIB).ends(dies)
    fd = waiting("call", "fileno")
    dying("call", "write", b"left over")
    waiting("call", "read", 4)
    waiting.start("read_to_end", 100)
    waiting.wait_until_blocked_in_read(fd)
    dying.kill()
    assert waiting.finish() == b" over"
    waiting("close")
    if dies == "server":  # nobody removes a dead process's keys, on Xen too
        assert domains.world.counts()["keys"] == 2
        heir = domains.process("channel_end.py", 1)
        heir("server", 2, PATH, 4096, 4096, True)
        heir("close")


def test_a_second_client_may_follow_the_first(domains: Domains) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    server("server", 2, PATH, 4096, 4096, False)
    for greeting in (b"first", b"second"):
        client("client", 1, SERVER_PATH, False)
        client("call", "write", greeting)
        assert server("call", "read", 10) == greeting
        client("close")
    server("close")


def test_a_closed_end_says_so(connect: Connector) -> None:
    pair = connect(4 * KIB, 4 * KIB)
    pair.client("call", "close")
    pair.client("call", "close")
    calls = (("read", 1), ("write", b"x"), ("wait",), ("fileno",), ("is_open",), ("data_ready",))
    for call in calls:
        error = pair.client.fails("call", *call)
        assert (error.type, "closed before" in error.message) == ("ChannelClosed", True)


def test_a_signal_ends_a_wait(connect: Connector) -> None:
    pair = connect(4 * KIB, 4 * KIB)
    pair.server("raise_on_signal")
    fd = pair.server("call", "fileno")
    for call in (("wait",), ("read", 1), ("write", bytes(5000))):
        while pair.server("ready"):
            pair.server("call", "wait")
        pair.server.start("call", *call)
        pair.server.wait_until_blocked_in_read(fd)
        pair.server.signal(signal.SIGUSR1)
        error = pair.server.finish_fails()
        assert (error.type, error.call) == ("Interrupted", f"libxenvchan_{call[0]}")
        assert error.errno_name == "EINTR"
    assert pair.client("read_all", 4096, 4096) == bytes(4096)


@pytest.mark.parametrize("blocking", [True, False])
def test_indices_that_wrap_are_nothing_special(domains: Domains, blocking: bool) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    server("server", 2, PATH, 4 * KIB, 1 * KIB, blocking)
    server("call", "start_indices_at", 2**32 - 296, 2**32 - 1000)
    client("client", 1, SERVER_PATH, blocking)
    pair = Pair(server, client)
    for writer, ring in (("client", 4 * KIB), ("server", 2 * KIB)):
        out, into = pair.ends(writer)
        assert into("call", "data_ready") == 0
        assert out("call", "buffer_space") == ring
        assert out("call", "write", b"x" * 2000) == 2000
        assert (out("call", "buffer_space"), into("call", "data_ready")) == (ring - 2000, 2000)
        data = bytes(i * 7 % 251 for i in range(5 * ring))
        out.start("write_all", data, [1, 3000, 700])
        assert into("read_all", len(data) + 2000, 999) == b"x" * 2000 + data
        out.finish()
    client("close")
    server("close")


@pytest.mark.parametrize(("read", "write"), [(-1, 0), (0, 2**32)])
def test_an_index_to_begin_with_has_32_bits(domains: Domains, read: int, write: int) -> None:
    server = domains.process("channel_end.py", 1)
    server("server", 2, PATH, 4 * KIB, 4 * KIB, True)
    error = server.fails("call", "start_indices_at", read, write)
    assert error.type == "InputError"
    assert "is no index of a ring" in str(error)
    server("close")
