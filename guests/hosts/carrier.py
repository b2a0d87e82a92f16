"""What carries the byte stream between here and a helper."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Protocol

READ_BYTES = 1 << 16
END_SECONDS_MAX = 60.0
_LAST_BYTES = 4000


class Carrier(Protocol):
    """A byte stream in both directions."""

    def read(self) -> bytes:
        """The next bytes, as soon as there are some; b"" at the end."""

    def write(self, data: bytes) -> None:
        """Send all of it. Raises OSError when nobody is there any more."""

    def close(self) -> None:
        """Hang up. A helper that lives for this stream alone is waited for."""

    def last_words(self) -> str:
        """What the other side said apart from the stream, for an error message."""


class SocketCarrier:
    """A connected socket: a virtio-serial port of a machine in QEMU."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self) -> bytes:
        """The next bytes."""
        with contextlib.suppress(OSError):
            return self._socket.recv(READ_BYTES)
        return b""

    def write(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def close(self) -> None:
        """Hang up; the helper stays."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def last_words(self) -> str:
        """There is nothing beside the stream."""
        return ""


class ProcessCarrier:
    """A process with the stream on its standard input and output.

    `on_end` is called when it has ended after `close`.
    """

    def __init__(self, command: Sequence[str], on_end: Callable[[], None] = lambda: None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._on_end = on_end
        self._last_words = ""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            # Ctrl-C is for this process: the helper gives everything back when it hangs up.
            start_new_session=True,
        )

    def read(self) -> bytes:
        """The next bytes."""
        assert self._process.stdout is not None
        data = os.read(self._process.stdout.fileno(), READ_BYTES)
        if not data:
            self._process.stdout.close()
        return data

    def write(self, data: bytes) -> None:
        """Send all of it."""
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._process.stdin.fileno(), view) :]

    def close(self) -> None:
        """End the stream, and wait until the helper has given back what it took."""
        if self._errors.closed:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._last_words = self.last_words()
        self._errors.close()
        self._on_end()

    def last_words(self) -> str:
        """The end of standard error."""
        if self._errors.closed:
            return self._last_words
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_BYTES))
        return self._errors.read().decode(errors="replace")
