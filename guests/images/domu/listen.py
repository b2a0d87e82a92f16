"""Answer each TCP connection with a process that has it as standard input and output.

    python3 listen.py PORT MODULE

The process runs MODULE's `main()`. It is forked before its connection comes, with MODULE already
imported: an emulated CPU imports for seconds. Error output stays where it is, on the console.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable


def main() -> None:
    """Listen for as long as the guest lives, with one process waiting at any time."""
    port, module = int(sys.argv[1]), sys.argv[2]
    serve: Callable[[], int] = importlib.import_module(module).main
    # Children are not waited for: the kernel takes them away by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=16)
    print(f"vchan-testbed: listening on port {port}", flush=True)
    while True:
        taken, keep = os.pipe()
        if os.fork() == 0:
            os.close(taken)
            answer(listener, keep, serve)
        os.close(keep)
        # The end of file comes when the child has its connection, or has died.
        os.read(taken, 1)
        os.close(taken)


def answer(listener: socket.socket, keep: int, serve: Callable[[], int]) -> None:
    """Wait for a connection, let the next process wait, and serve this one to its end."""
    connection, _ = listener.accept()
    listener.close()
    os.close(keep)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    connection.close()
    sys.exit(serve())


if __name__ == "__main__":
    main()
