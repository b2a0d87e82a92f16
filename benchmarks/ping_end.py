"""One end of a ping-pong for tracer_cost.py: ROLE ROUNDS TRACE_PATH|- [VARIANT ORDER]

Prints the seconds that its rounds took, by the clock and of processor time.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.tracer.attach import Tracer

PATH = "data/ping"
PING = bytes(64)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Print how long the block took."""
    began, used = time.perf_counter(), time.process_time()
    yield
    print(time.perf_counter() - began, time.process_time() - used, flush=True)


def main() -> None:
    """Open the channel, with or without the tracer, and play."""
    role, rounds, trace = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    manner: dict[str, Any] = dict(zip(("variant", "order"), sys.argv[4:], strict=False))
    domid, peer = (1, 2) if role == "server" else (2, 1)
    traced = (
        contextlib.nullcontext()
        if trace == "-"
        else Tracer(trace, role=role, domid=domid, peer_domid=peer, **manner)
    )
    with traced:
        if role == "server":
            with Server(peer, PATH, 65536, 65536) as server:
                print("listening", flush=True)
                with told():
                    for _ in range(rounds):
                        server.read(len(PING))
                        server.write(PING)
        else:
            with Client(peer, f"/local/domain/{peer}/{PATH}") as client, told():
                for _ in range(rounds):
                    client.write(PING)
                    client.read(len(PING))


if __name__ == "__main__":
    main()
