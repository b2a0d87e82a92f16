"""What the kernel tells of another process: that it is stopped, what waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vchan_testbed.guests.agent.inspect import is_readable, is_stopped


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that reads a line, and ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_is_stopped_from_the_signal_on_until_it_goes_on(
    child: subprocess.Popen[bytes],
) -> None:
    assert not is_stopped(child.pid)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert is_stopped(child.pid)
    child.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, child.pid, os.WCONTINUED | os.WNOWAIT)
    assert not is_stopped(child.pid)


def test_what_waits_for_a_stopped_process_is_seen_from_outside(
    child: subprocess.Popen[bytes],
) -> None:
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    pidfd = os.pidfd_open(child.pid)
    try:
        assert is_readable(pidfd, 0) is False
        assert child.stdin is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        assert is_readable(pidfd, 0) is True
        assert is_readable(pidfd, 999) is None
    finally:
        os.close(pidfd)
