"""What the kernel tells of a process and its machine: states, system calls, versions."""

from __future__ import annotations

import ctypes
import os
import select
from pathlib import Path
from typing import Any

SYS_PIDFD_GETFD = 438
"""The same on every architecture (Linux 5.6 and newer)."""
libc = ctypes.CDLL(None)


def thread_state(pid: int, tid: int) -> dict[str, Any] | None:
    """State of one thread from /proc; None when it is gone.

    `blocked_in_kernel`: asleep inside a system call. `syscall` is its number, None when the thread
    runs or may not be looked at.
    """
    task = Path(f"/proc/{pid}/task/{tid}")
    try:
        state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
    number = _syscall(task)
    return {
        "tid": tid,
        "state": state,
        "syscall": number,
        "wait_channel": _read(task / "wchan"),
        "blocked_in_kernel": state in "SD" and number is not None,
    }


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal: nothing in it runs until it is told to go on."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] == ["T"]


def is_readable(pidfd: int, descriptor: int) -> bool | None:
    """Whether a descriptor of another process has something to be read; None: it cannot be had."""
    copy = libc.syscall(SYS_PIDFD_GETFD, pidfd, descriptor, 0)
    if copy < 0:
        return None
    try:
        return bool(select.select([copy], [], [], 0)[0])
    finally:
        os.close(copy)


def _syscall(task: Path) -> int | None:
    first = _read(task / "syscall").split(" ")[0]
    return int(first) if first.isdigit() else None


def versions() -> dict[str, str | None]:
    """Kernel and Xen as this domain sees them; Xen is None where there is none."""
    hypervisor = Path("/sys/hypervisor/version")
    parts = [_read(hypervisor / part) for part in ("major", "minor", "extra")]
    system = os.uname()
    return {
        "kernel": f"{system.sysname} {system.release} {system.version}",
        "xen": f"{parts[0]}.{parts[1]}{parts[2]}" if parts[0] else None,
    }


def guest_type() -> str | None:
    """How Xen runs this domain: pv, pvh or hvm; None without Xen."""
    return _read(Path("/sys/hypervisor/guest_type")).lower() or None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
