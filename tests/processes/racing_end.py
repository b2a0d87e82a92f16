"""One end of a race: ROLE TRACE COUNT ORDER. Bytes one by one, polled without ever waiting.

So one end asks for an event at nearly every read while the other one looks whether it was asked.
"""

from __future__ import annotations

import sys

from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.tracer.attach import Tracer

PATH = "data/race"
READ_BYTES = 64


def main() -> None:
    """Open, say that the server is up, race, close."""
    role, trace, count, order = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    own, peer = (1, 2) if role == "server" else (2, 1)
    moved = 0
    with Tracer(trace, role=role, domid=own, peer_domid=peer, order=order):
        if role == "server":
            with Server(peer, PATH, 4096, 4096, blocking=False) as server:
                print("up", flush=True)
                server.wait()
                while moved < count:
                    moved += len(server.read(READ_BYTES))
        else:
            with Client(peer, f"/local/domain/{peer}/{PATH}", blocking=False) as client:
                while moved < count:
                    moved += client.write(b"x")


main()
