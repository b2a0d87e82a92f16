"""What the kernel tells of a process and its machine: states, system calls, versions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


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
