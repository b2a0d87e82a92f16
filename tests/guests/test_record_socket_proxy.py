"""Xen's own vchan-socket-proxy, unchanged, recorded at both ends of a loopback channel, and judged.

The program is the distribution's: it comes out of the root that the images are cut from.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.images.builder import build, kept_root
from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.progress import Quiet
from vchan_testbed.tracer.reader import read_trace

COMMAND = str(Path(sys.executable).with_name("vchan-testbed"))
SERVER_BYTES, CLIENT_BYTES = 200_000, 300_000
SECONDS_MAX = 120
PATH = "data/proxy"


@pytest.fixture(scope="module")
def proxy() -> Path:
    """The program."""
    build(Quiet())
    root = kept_root()
    assert root is not None
    (found,) = root.glob("usr/lib/xen-4.*/bin/vchan-socket-proxy")
    return found


class Proxy:
    """One end under `record`: what goes into it comes out of the other one."""

    def __init__(self, world: LoopbackWorld, domid: int, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **world.environment(domid)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.got = b""

    def put(self, data: bytes) -> None:
        """All of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def get(self, count: int) -> None:
        """So many bytes, into `got`."""
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        while len(self.got) < count and (more := os.read(out, 1 << 16)):
            self.got += more

    def hang_up(self) -> None:
        """No more goes in."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> tuple[int, str]:
        """Status and what it said on standard error."""
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        return self.process.wait(SECONDS_MAX), said

    def stop(self) -> None:
        """Whatever it does."""
        self.process.terminate()
        self.process.wait(SECONDS_MAX)


@pytest.mark.parametrize("level", ["exact", "calls"])
def test_bytes_go_both_ways_and_both_traces_are_a_behaviour(
    world: LoopbackWorld, tmp_path: Path, proxy: Path, level: str
) -> None:
    ends, threads = {}, []
    chance = random.Random(1)
    payload = {"server": chance.randbytes(SERVER_BYTES), "client": chance.randbytes(CLIENT_BYTES)}
    with ExitStack() as stack:
        for domid, role in enumerate(("server", "client"), start=1):
            peer = 3 - domid
            path = PATH if role == "server" else f"/local/domain/{peer}/{PATH}"
            record = [COMMAND, "record", "--level", level, "--out", str(tmp_path / role), "--"]
            end = Proxy(world, domid, [*record, str(proxy), "-m", role, str(peer), path, "-"])
            stack.callback(end.stop)
            ends[role] = end
        for role, other in (("server", "client"), ("client", "server")):
            threads.append(threading.Thread(target=ends[role].put, args=(payload[role],)))
            threads.append(threading.Thread(target=ends[role].get, args=(len(payload[other]),)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS_MAX)
        assert ends["client"].got == payload["server"]
        assert ends["server"].got == payload["client"]
        ends["client"].hang_up()
        for end in ends.values():
            status, said = end.end()
            assert status == 0, said
    traces = sorted(map(str, tmp_path.glob("*/*.vtrace")))
    assert len(traces) == len(ends)
    for trace in map(Path, traces):
        assert read_trace(trace).header.level == level
    judged = CliRunner().invoke(main, ["validate", *traces])
    assert judged.exit_code == ExitStatus.EXPECTED, judged.output
    assert "ACCEPTED and PROGRESS" in judged.output
