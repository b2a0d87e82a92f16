"""A guest for bodies.py, in a namespace of its own: takes its interface, then listens late.

    python answer.py PORT

Prints its readiness, reads the name of the interface that it was given, and answers one
connection. Prints "hung up" when the other side does.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from vchan_testbed.guests.frames import Frame, Kind, encode

LATE_SECONDS = 0.4


def main() -> None:
    """Serve one connection."""
    print("ready", flush=True)
    name = sys.stdin.readline().strip()
    (Path("/proc/sys/net/ipv6/conf") / name / "accept_dad").write_text("0")
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=name)
        route.link("set", index=index, state="up")
    # The kernel answers before anybody listens: refused, and tried again.
    threading.Event().wait(LATE_SECONDS)
    with socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6) as listener:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(encode(Frame(0, Kind.LOG, b"from the agent")))
            while connection.recv(1000):
                pass
            print("hung up", flush=True)


if __name__ == "__main__":
    main()
