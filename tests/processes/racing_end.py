"""One end of a race: ROLE TRACE COUNT ORDER. Bytes one by one, polled without ever waiting.

So one end asks for an event at nearly every read while the other one looks whether it was asked.
Each has a processor for itself, where there are two. The server says that it is through, because a
client that closed at once could cut it short (L1).
"""

from __future__ import annotations

import os
import sys

from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.tracer.attach import Tracer

PATH = "data/race"
READ_BYTES = 64


def main() -> None:
    """Open, say that the server is up, race, close."""
    role, trace, count, order = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    own, peer = (1, 2) if role == "server" else (2, 1)
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[own % len(processors)]})
    moved = 0
    with Tracer(trace, role=role, domid=own, peer_domid=peer, order=order):
        if role == "server":
            with Server(peer, PATH, 4096, 4096, blocking=False) as server:
                print("up", flush=True)
                server.wait()
                while moved < count:
                    moved += len(server.read(READ_BYTES))
                while not server.write(b"x"):
                    pass
                while server.is_open():
                    server.wait()
        else:
            with Client(peer, f"/local/domain/{peer}/{PATH}", blocking=False) as client:
                while moved < count:
                    moved += client.write(b"x")
                while not client.read(1):
                    pass


main()
