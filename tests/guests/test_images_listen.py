"""The listener that makes an agent of each connection."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vchan_testbed

LISTEN = Path(vchan_testbed.__file__).parent / "guests/images/domu/listen.py"
PROCESSES = Path(__file__).parents[1] / "processes"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a listener that sends back what it gets."""
    number = free_port()
    listener = subprocess.Popen(
        [sys.executable, LISTEN, str(number), "echoing"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROCESSES)},
        start_new_session=True,
    )
    assert listener.stdout is not None
    assert f"port {number}" in listener.stdout.readline()
    yield number
    # The process that waits for the next connection too.
    os.killpg(listener.pid, signal.SIGKILL)
    listener.wait()
    listener.stdout.close()


def connect(port: int) -> socket.socket:
    """A connection to the listener."""
    return socket.create_connection(("::1", port), timeout=20)


def test_connections_have_a_process_each(port: int) -> None:
    with connect(port) as one, connect(port) as other:
        one.sendall(b"one")
        other.sendall(b"other")
        assert other.recv(16) == b"other"
        assert one.recv(16) == b"one"


def test_the_process_ends_with_its_connection(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answers:
            assert answers.read() == b"last words"


def test_a_third_connection_finds_a_process_too(port: int) -> None:
    for text in (b"one", b"two", b"three"):
        with connect(port) as connection:
            connection.sendall(text)
            assert connection.recv(16) == text
