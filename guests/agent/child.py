"""The worker as a child process: forked, because an emulated CPU starts a new Python for seconds.

The supervisor has one thread and has opened no channel, so a fork is safe; the worker's modules are
imported before.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable

Serve = Callable[[socket.socket], int]
"""What the worker does with its socket to the supervisor; the result is its exit status."""


class Child:
    """A forked worker and the supervisor's end of the socket to it.

    `not_inherited` are descriptors that the worker must not keep open.
    """

    def __init__(self, serve: Serve, not_inherited: Iterable[int]) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _become(serve, theirs, not_inherited)
        theirs.close()
        self.socket = ours
        self.pidfd = os.pidfd_open(self.pid)
        self._status: int | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is None

    def wait(self) -> int:
        """Wait for its end: the exit status, or minus the signal's number."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Close what belongs to it here; it has ended."""
        os.close(self.pidfd)
        self.socket.close()


def _become(serve: Serve, connection: socket.socket, not_inherited: Iterable[int]) -> None:
    """In the child: never returns."""
    status = 4
    try:
        for descriptor in not_inherited:
            os.close(descriptor)
        status = serve(connection)
    finally:
        # Not the parent's clean-up: its temporary folder has to stay.
        os._exit(status)
