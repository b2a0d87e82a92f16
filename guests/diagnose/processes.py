"""Processes of this domain that hold a channel: found by what they map, looked at through /proc.

Nothing is attached to and nothing stopped: memory is read through /proc/PID/mem, descriptors are
copied (pidfd_getfd) and polled.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.guests.diagnose.page import PAGE_BYTES, plausible
from vchan_testbed.guests.diagnose.sight import Process

PROC = Path("/proc")
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+\s*(.*)")
PIDFD_GETFD = 438
READ = 0
POLL = {7, 271}
SELECT = {23, 270}
EPOLL = {232, 281, 441}
"""Numbers of system calls (x86-64): read; poll, ppoll; select, pselect6; epoll_wait and its kin."""
POLLFD = struct.Struct("<ihh")
EPOLL_TARGET = re.compile(r"^tfd:\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Devices:
    """Names of what an end maps and reads: of files in /proc/PID/maps and /proc/PID/fd."""

    server_pages: re.Pattern[str]
    client_pages: re.Pattern[str]
    events: re.Pattern[str]


XEN = Devices(
    re.compile(r"/dev/xen/gntalloc$"),
    re.compile(r"/dev/xen/gntdev$"),
    re.compile(r"/dev/xen/evtchn$"),
)
LOOPBACK = Devices(
    re.compile(r"/host/pages$"), re.compile(r"/host/pages$"), re.compile(r"/host/events/\d+$")
)
"""The stand-ins of the loopback host: both ends map one file."""


@dataclass(frozen=True, slots=True)
class Found:
    """A channel's page in a process: its address there; `place` tells pages of one file apart."""

    pid: int
    address: int
    role: str | None
    place: tuple[str, int]


def find(devices: Devices, pids: list[int] | None = None) -> list[Found]:
    """Every mapping, of these processes or of all, that holds a vchan's control page."""
    chosen = pids if pids is not None else _all_pids()
    return [found for pid in chosen for found in _pages_of(pid, devices)]


def _all_pids() -> list[int]:
    return sorted(int(path.name) for path in PROC.iterdir() if path.name.isdigit())


def _pages_of(pid: int, devices: Devices) -> Iterator[Found]:
    try:
        lines = (PROC / str(pid) / "maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        match = MAPPING.match(line)
        if match is None or not match[3].startswith("rw"):
            continue
        server, client = (
            devices.server_pages.search(match[5]),
            devices.client_pages.search(match[5]),
        )
        if not server and not client:
            continue
        start, end = int(match[1], 16), int(match[2], 16)
        # Mappings of neighbours are one line: each of their pages may be a channel's.
        for address in range(start, end, PAGE_BYTES):
            data = read_memory(pid, address)
            if data is not None and plausible(data):
                role = None if server and client else "server" if server else "client"
                place = (match[5], int(match[4], 16) + address - start)
                yield Found(pid, address, role, place)


def read_memory(pid: int, address: int) -> bytes | None:
    """A page of a process's memory; None where it cannot be read."""
    return _read_bytes(pid, address, PAGE_BYTES) or None


def _read_bytes(pid: int, address: int, count: int) -> bytes:
    try:
        with (PROC / str(pid) / "mem").open("rb", buffering=0) as file:
            file.seek(address)
            data = file.read(count)
    except (OSError, ValueError, OverflowError):
        return b""
    return data if len(data) == count else b""


def look(pid: int, devices: Devices) -> Process | None:
    """What a process does right now; None if it is gone."""
    folder = PROC / str(pid)
    try:
        name = (folder / "comm").read_text().strip()
        state = _state(folder / "stat")
        tasks = list((folder / "task").iterdir())
    except OSError:
        return None
    events = _event_files(folder, devices)
    calls = [call for task in tasks if (call := _call(task))]
    return Process(
        pid=pid,
        name=name,
        state=state,
        asleep=any(call[0] == READ and call[1] in events for call in calls),
        polls=any(_polled(pid, call) & events for call in calls),
        runs=any(_state_or_gone(task / "stat") == "R" for task in tasks),
        readable=_readable(pid, events),
        interrupts=_interrupts(name),
    )


def _state(path: Path) -> str:
    # The name before it may hold blanks and brackets.
    return path.read_text().rpartition(")")[2].split()[0]


def began(pid: int) -> int:
    """When a process began, in ticks since boot; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    return 0


def _state_or_gone(path: Path) -> str:
    with contextlib.suppress(OSError):
        return _state(path)
    return ""


def _call(task: Path) -> tuple[int, ...] | None:
    """The system call that a thread is in, and its arguments; None if it is in none."""
    try:
        words = (task / "syscall").read_text().split()
    except OSError:
        return None
    if len(words) < 7 or words[0] == "-1":
        return None
    return (int(words[0]), *(int(word, 16) for word in words[1:7]))


def _polled(pid: int, call: tuple[int, ...]) -> set[int]:
    """The descriptors that a system call waits for: its arguments are in the process's memory."""
    number, first, second = call[:3]
    if number in POLL:
        data = _read_bytes(pid, first, POLLFD.size * min(second, 1024))
        return {fd for fd, what, _ in POLLFD.iter_unpack(data) if what & select.POLLIN}
    if number in SELECT:
        data = _read_bytes(pid, second, (min(first, 1024) + 63) // 64 * 8)
        bits = int.from_bytes(data, "little")
        return {fd for fd in range(first) if bits >> fd & 1}
    if number in EPOLL:
        with contextlib.suppress(OSError):
            said = (PROC / str(pid) / "fdinfo" / str(first)).read_text()
            return {int(fd) for fd in EPOLL_TARGET.findall(said)}
    return set()


def _interrupts(name: str) -> int | None:
    """How many events the kernel has had for a program of that name; None where it counts none.

    The driver of /dev/xen/evtchn names its interrupts after the program that bound the port.
    """
    with contextlib.suppress(OSError):
        lines = [line.split() for line in (PROC / "interrupts").read_text().splitlines()]
        mine = [words for words in lines if words and words[-1] == f"evtchn:{name}"]
        if mine:
            return sum(int(word) for words in mine for word in words[1:] if word.isdigit())
    return None


def _event_files(folder: Path, devices: Devices) -> set[int]:
    found = set()
    with contextlib.suppress(OSError):
        for path in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                if devices.events.search(os.readlink(path)):
                    found.add(int(path.name))
    return found


def _readable(pid: int, events: set[int]) -> bool | None:
    """Whether one of the event descriptors can be read; None if they cannot be copied."""
    if not events:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        return any(_poll(handle, number) for number in events)
    except OSError:
        return None
    finally:
        os.close(handle)


def _poll(handle: int, number: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(PIDFD_GETFD, handle, number, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        poller = select.poll()
        poller.register(copy, select.POLLIN)
        return any(what & select.POLLIN for _, what in poller.poll(0))
    finally:
        os.close(copy)
