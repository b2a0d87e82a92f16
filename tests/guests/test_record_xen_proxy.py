"""Xen's own vchan-socket-proxy, unchanged, recorded in two domains of real Xen, and judged."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "proxied"))

from archive import guest_with
from own_guests import hear, host_with, roomy

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.frames import Message
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu import QemuHost, SshAccess
from vchan_testbed.guests.images.builder import build, kept_root
from vchan_testbed.progress import Quiet
from vchan_testbed.tracer.reader import read_trace

pytestmark = pytest.mark.xen

HERE = Path(__file__).parent
PUT_BYTES = {"server": 30_000, "client": 50_000}
SEEDS = {"server": 1, "client": 2}
SECONDS_MAX = 600
MEMORY_MIB = 256
PROXY = "usr/bin/vchan-socket-proxy"
PATH = "data/proxy"
LEVELS = ("exact", "calls")


@pytest.fixture
def initramfs(tmp_path: Path) -> Path:
    """The guests' own, with the program, what it needs, and who starts it in the agent's place."""
    images = build(Quiet())
    root = kept_root()
    assert root is not None
    (program,) = root.glob("usr/lib/xen-4.*/bin/vchan-socket-proxy")
    module = HERE / "proxied" / "end.py"
    return guest_with(images.domu, root, program, PROXY, module, tmp_path / "initramfs")


class End:
    """The program in one of the domains."""

    def __init__(self, link: AgentLink, folder: Path, role: str) -> None:
        self._link = link
        self._trace = folder / f"{role}.vtrace"
        self.hear("hello")

    def hear(self, kind: str) -> Message:
        """The next message, which is of that kind; pieces of the trace are kept on the way."""
        return hear(self._link, kind, self._keep)

    def _keep(self, offset: int, data: bytes) -> None:
        with self._trace.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def start(self, role: str, peer: int, path: str, get_bytes: int, level: str) -> None:
        """Run it, recorded at that level."""
        self._link.send(
            {
                "type": "start",
                "command": [f"/{PROXY}", "-m", role, str(peer), path, "-"],
                "level": level,
                "seed": SEEDS[role],
                "put_bytes": PUT_BYTES[role],
                "get_bytes": get_bytes,
            }
        )

    def hang_up(self) -> None:
        """No more goes in."""
        self._link.send({"type": "hang_up"})

    @property
    def trace(self) -> Path:
        """What it recorded."""
        return self._trace


def sha256_of(role: str) -> str:
    """Of what an end puts in."""
    return hashlib.sha256(random.Random(SEEDS[role]).randbytes(PUT_BYTES[role])).hexdigest()


@pytest.fixture
def experiment() -> Experiment:
    """Guests with room for more than their image."""
    return roomy(MEMORY_MIB)


@pytest.fixture
def machine(experiment: Experiment) -> Iterator[QemuHost]:
    """Real Xen."""
    with QemuHost(experiment, Quiet()) as machine:
        yield machine


def test_bytes_go_both_ways_between_two_domains_and_all_of_it_is_a_behaviour(
    tmp_path: Path,
    initramfs: Path,
    experiment: Experiment,
    machine: QemuHost,
    ssh_address: Callable[[SshAccess], str],
    in_dom0: Callable[..., str],
) -> None:
    with host_with(initramfs, ssh_address(machine.ssh())) as host:
        traces = {}
        for level in LEVELS:
            (tmp_path / level).mkdir()
            links = host.endpoints(experiment)
            traces[level] = conversation(
                links, tmp_path / level, level, lambda key: wait_for(in_dom0, machine, key)
            )
            assert host.give_back() == host.baseline()
    for level, paths in traces.items():
        assert_behaviour(paths, level)


WATCH = """
fifo=$(mktemp -u) && mkfifo $fifo && {{ xenstore-watch {key} >$fifo & }}
while read -r _; do xenstore-exists {key} && break; done <$fifo
kill $! && rm $fifo
"""
"""The first event comes at once: a key that is there already is found."""


def wait_for(in_dom0: Callable[..., str], machine: QemuHost, key: str) -> None:
    """Until a key is there: the client waits for it by a hypercall that only dom0 may make."""
    in_dom0(machine.ssh(), WATCH.format(key=key))


def conversation(
    links: dict[str, AgentLink], folder: Path, level: str, wait: Callable[[str], None]
) -> dict[str, Path]:
    """All bytes both ways; each end's trace."""
    ends = {role: End(links[role], folder, role) for role in ENDPOINTS}
    domids = {role: links[role].domid for role in ENDPOINTS}
    ends["server"].start("server", domids["client"], PATH, PUT_BYTES["client"], level)
    path = f"/local/domain/{domids['server']}/{PATH}"
    wait(f"{path}/ring-ref")
    ends["client"].start("client", domids["server"], path, PUT_BYTES["server"], level)
    got = {role: end.hear("got") for role, end in ends.items()}
    came = {role: each["sha256"] for role, each in got.items()}
    assert came == {"server": sha256_of("client"), "client": sha256_of("server")}, got
    for role in ("client", "server"):
        ends[role].hang_up()
        ended = ends[role].hear("ended")
        assert ended["status"] == 0, ended
    for end in ends.values():
        end.hear("bye")
    return {role: end.trace for role, end in ends.items()}


def assert_behaviour(traces: dict[str, Path], level: str) -> None:
    for role, path in traces.items():
        header = read_trace(path).header
        assert (header.level, header.role) == (level, role)
        assert header.xen_version.startswith("4.17")
    judged = CliRunner().invoke(main, ["validate", *map(str, traces.values())])
    assert judged.exit_code == ExitStatus.EXPECTED, judged.output
    assert "ACCEPTED and PROGRESS" in judged.output
