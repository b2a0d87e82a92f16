"""The guard: what it starts ends with its owner, and in time."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from vchan_testbed.guests.hosts import guard

SECONDS_MAX = 30.0
FOR_EVER = ["sleep", "1000"]


def started(seconds_max: float, *command: str) -> subprocess.Popen[bytes]:
    """A guard with a command."""
    arguments = [sys.executable, guard.__file__, str(seconds_max), *command]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE)


def child_of(pid: int) -> int:
    """The child that the guard has, once it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (text := children.read_text()):
        select.select([], [], [], 0.01)
    return int(text.split()[0])


def assert_ends(pidfd: int) -> None:
    """The process has ended, or does so soon."""
    assert select.select([pidfd], [], [], SECONDS_MAX)[0]


def test_the_command_ends_when_the_owner_lets_go() -> None:
    process = started(1000, *FOR_EVER)
    child = os.pidfd_open(child_of(process.pid))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(SECONDS_MAX) == 0
    assert_ends(child)


def test_the_command_ends_when_the_owner_is_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, guard.__file__], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    guard_pid = int(owner.stdout.readline())
    child = os.pidfd_open(child_of(guard_pid))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert_ends(child)


def test_the_command_ends_when_the_guard_is_killed() -> None:
    process = started(1000, *FOR_EVER)
    child = os.pidfd_open(child_of(process.pid))
    process.kill()
    process.wait()
    assert_ends(child)


def test_the_command_ends_when_its_time_is_over() -> None:
    process = started(0.3, *FOR_EVER)
    assert process.wait(SECONDS_MAX) == 124


def test_the_commands_status_comes_through() -> None:
    assert started(1000, "sh", "-c", "exit 7").wait(SECONDS_MAX) == 7
    killed = started(1000, "sh", "-c", "kill -SEGV $$").wait(SECONDS_MAX)
    assert killed == 128 + signal.SIGSEGV


OWNER = """
import subprocess, sys
guard = subprocess.Popen(
    [sys.executable, sys.argv[1], "1000", "sleep", "1000"], stdin=subprocess.PIPE
)
print(guard.pid, flush=True)
guard.wait()
"""
