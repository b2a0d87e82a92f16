"""What the kernel has counted of a process's event channels, in /proc/interrupts.

The driver of /dev/xen/evtchn names the interrupt of a port after the process that opened the
device, `evtchn:COMM` (drivers/xen/evtchn.c, Linux 6.1). So a worker has a name of its own, and its
port a line that nothing else has.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PROC_INTERRUPTS = Path("/proc/interrupts")
OWN_COMM = Path("/proc/self/comm")
OF_EVTCHN = "evtchn:"
LOOPBACK = "VCHAN_LOOPBACK_DIR"
"""Where it is set, the stand-ins of the loopback host are in the place of Xen."""

Counted = dict[str, Any]
"""`count`, None where it is not known, and then `why`."""


def name_of(pid: int) -> str:
    """What a worker calls itself: at most 15 characters, as the kernel keeps them."""
    return f"vchan-{pid}"


def take_own_name() -> None:
    """Let this process, and the device that it opens, be told from all others."""
    OWN_COMM.write_text(name_of(os.getpid()))


def counted(comm: str) -> Counted:
    """How often the kernel took an event for a process of this name, on all its CPUs."""
    if os.environ.get(LOOPBACK):
        return _unknown("the stand-ins of the loopback host count no interrupts")
    try:
        text = PROC_INTERRUPTS.read_text()
    except OSError as error:
        return _unknown(f"/proc/interrupts cannot be read: {error.strerror}")
    return count_in(text, comm)


def count_in(text: str, comm: str) -> Counted:
    """The same from the text of /proc/interrupts."""
    cpus = len(text.partition("\n")[0].split())
    lines = [line.split() for line in text.splitlines()[1:]]
    own = [parts for parts in lines if parts[-1:] == [f"{OF_EVTCHN}{comm}"]]
    if len(own) != 1:
        lines_found = "no line" if not own else f"{len(own)} lines"
        return _unknown(f"/proc/interrupts has {lines_found} of {OF_EVTCHN}{comm}")
    counts = own[0][1 : 1 + cpus]
    if not cpus or not all(part.isdigit() for part in counts):
        return _unknown(f"/proc/interrupts has a line of another form: {' '.join(own[0])!r}")
    return {"count": sum(int(part) for part in counts)}


def _unknown(why: str) -> Counted:
    return {"count": None, "why": why}
