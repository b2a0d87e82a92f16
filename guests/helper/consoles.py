"""The consoles' last words: pseudo-terminals, the kernel's log, the output of processes.

Debian's xenconsoled keeps no log of a guest, so whoever wants one has a console open from before
the guest's first line.
"""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable
from pathlib import Path

KEPT_BYTES_MAX = 1 << 18
READ_BYTES = 1 << 16
KERNEL_LOG = Path("/dev/kmsg")


class Console:
    """The end of what a descriptor said; `on_text` is called when it says more.

    The descriptor is this object's from now on: it is closed at its end or by `close`.
    """

    def __init__(self, fd: int, on_text: Callable[[], None] = lambda: None) -> None:
        self._fd = fd
        self._on_text = on_text
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    @property
    def text(self) -> str:
        """What is kept, at most KEPT_BYTES_MAX bytes."""
        return self._kept.decode(errors="replace").replace("\r\n", "\n")

    def close(self) -> None:
        """Stop listening, after what is there already; the text stays."""
        self._read()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The kernel's log moved on before it was read (EPIPE): go on with what is there.
                continue
            except OSError:
                # A pseudo-terminal whose other side is gone says EIO.
                data = b""
            if not data:
                fd, self._fd = self._fd, -1
                self._loop.remove_reader(fd)
                os.close(fd)
                return
            self._kept += data
            del self._kept[:-KEPT_BYTES_MAX]
            self._on_text()


def open_terminal(path: str) -> int:
    """A descriptor for a guest's console. It echoes nothing back into the guest."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    tty.setraw(fd)
    return fd


def open_kernel_log() -> int | None:
    """A descriptor for what dom0's kernel says from now on; None where that may not be read."""
    try:
        fd = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    os.lseek(fd, 0, os.SEEK_END)
    return fd
