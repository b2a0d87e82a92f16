"""Run a command that ends when its owner ends, and after so many seconds in any case.

    python3 guard.py SECONDS_MAX COMMAND...

The owner holds the other end of this program's standard input and never writes to it: end of file
there means that the owner is gone or wants an end, and the command is killed. It is a process of
its own because a parent-death signal follows the thread that started the child, and a killed
owner runs no cleanup at all. Exit status: the command's; 124 after SECONDS_MAX.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Start the command and wait for the first of: its end, the owner's end, the time."""
    deadline = time.monotonic() + float(sys.argv[1])
    # The owner ends the command through the pipe; a Ctrl-C at the terminal is the owner's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    own_pid = os.getpid()
    libc = ctypes.CDLL(None)

    def end_with_guard() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != own_pid:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    child = subprocess.Popen(
        sys.argv[2:],
        stdin=subprocess.DEVNULL,
        preexec_fn=end_with_guard,
        start_new_session=True,
    )
    status = wait_for_an_end(child, deadline)
    child.kill()
    child.wait()
    return status


def wait_for_an_end(child: subprocess.Popen[bytes], deadline: float) -> int:
    """Return the exit status for the end that came."""
    exited = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(exited, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return 124
        ready = dict(poll.poll(left * 1000))
        if exited in ready:
            status = child.wait()
            return status if status >= 0 else 128 - status
        if ready and not os.read(0, 1):
            return 0


if __name__ == "__main__":
    sys.exit(main())
