"""Answer each TCP connection with a new process that has it as standard input and output.

    python3 listen.py PORT COMMAND...

Runs inside a guest. The command's error output stays where it is: on the console.
"""

from __future__ import annotations

import os
import signal
import socket
import sys


def main() -> None:
    """Listen for as long as the guest lives."""
    port, command = int(sys.argv[1]), sys.argv[2:]
    # Children are not waited for: the kernel takes them away by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=16)
    print(f"vchan-testbed: listening on port {port}", flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if os.fork() == 0:
            become(connection, command)
        connection.close()


def become(connection: socket.socket, command: list[str]) -> None:
    """Turn this process into the command, with the connection as its input and output."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    try:
        os.execvp(command[0], command)
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
