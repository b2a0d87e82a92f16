"""Fixtures for tests on the loopback host: a host, processes in its domains, traced ends.

Tests take the types from here for checking only: `if TYPE_CHECKING: from conftest import Remote`.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).parent / "library"))

from dom0 import ssh_config

from vchan_testbed.guests.hosts import ssh
from vchan_testbed.guests.hosts.qemu import QemuHost, SshAccess
from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.reader import Trace, read_trace

PROCESSES = Path(__file__).parent / "processes"
SECONDS_MAX = 30.0
DOM0_SECONDS_MAX = 300.0
SSH_FAILED, NOT_YET = 255, "kex_exchange_identification"
"""ssh's own status, and what it says of a connection that ends before sshd has spoken."""


BOOT_XEN = re.compile(r"(run_xen|helper_xen|qemu_boot|interrupted|xen_proxy)\w*\.py")
"""Files with tests that boot Xen."""


class XenApart(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests go to one worker, and all that boot Xen to the same: two emulated machines at
    once would take each other's processors.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "Xen" if BOOT_XEN.search(file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Whatever --dist says: it is only asked for with several workers."""
    return XenApart(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What boots Xen comes first, for it takes longest; and it is where the workers look for it."""
    items.sort(key=lambda item: not BOOT_XEN.search(item.path.name))
    for item in items:
        assert BOOT_XEN.search(item.path.name) or not item.get_closest_marker("xen"), item.path


class RemoteError(Exception):
    """A call in another process raised: the exception's type, text, C call and errno."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['type']}: {error['message']}")
        self.type: str = error["type"]
        self.message: str = error["message"]
        self.call: str | None = error["call"]
        self.errno: int | None = error["errno"]

    @property
    def errno_name(self) -> str:
        """As in "ENOENT"; empty without one."""
        return errno.errorcode[self.errno] if self.errno else ""


class Remote:
    """A process that makes calls for the test (tests/processes/)."""

    def __init__(self, script: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, PROCESSES / script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._answers = self._process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Is it running?"""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def __call__(self, call: str, *arguments: Any) -> Any:
        """Make the call there and wait for its result. Raises RemoteError for what it raised."""
        self.start(call, *arguments)
        return self.finish()

    def fails(self, call: str, *arguments: Any) -> RemoteError:
        """Make the call there, which must raise; what it raised."""
        with pytest.raises(RemoteError) as raised:
            self(call, *arguments)
        return raised.value

    def start(self, call: str, *arguments: Any) -> None:
        """Make the call there; `finish` gives the result."""
        request = {"call": call, "arguments": [_encode(argument) for argument in arguments]}
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()

    def finish(self) -> Any:
        """The result of the call that was started."""
        assert select.select([self._answers], [], [], SECONDS_MAX)[0], "the call does not return"
        line = self._answers.readline()
        assert line, f"the process ended with status {self._process.wait(SECONDS_MAX)}"
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return _decode(answer["value"])

    def finish_fails(self) -> RemoteError:
        """What the call that was started raised."""
        with pytest.raises(RemoteError) as raised:
            self.finish()
        return raised.value

    def wait_until_blocked_in_read(self, fd: int) -> None:
        """Return once the process stands in read() of its descriptor `fd`."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            call = Path(f"/proc/{self.pid}/syscall").read_text().split()
            if call[0] == "0" and int(call[1], 16) == fd:
                return
            # Bounded, and over at once if the call returns instead of blocking.
            assert not select.select([self._answers], [], [], 0.002)[0], "the call did not block"
        raise AssertionError(f"process {self.pid} does not block in read({fd})")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        """Close its input and wait until it has ended; one that hangs in a call is killed."""
        self._requests.close()
        try:
            self._process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._answers.close()


class Domains:
    """Processes in the domains of one loopback host, started when they are asked for."""

    def __init__(self, world: LoopbackWorld) -> None:
        self.world = world
        self._remotes: dict[tuple[str, int, tuple[tuple[str, str], ...]], list[Remote]] = {}
        self._taken: list[Remote] = []

    def process(self, script: str, domid: int, **environment: str) -> Remote:
        """A process in domain `domid`, not used by this test yet."""
        key = (script, domid, tuple(sorted(environment.items())))
        known = self._remotes.setdefault(key, [])
        for remote in known:
            if remote not in self._taken and remote.alive:
                break
        else:
            remote = Remote(script, {**self.world.environment(domid), **environment})
            known.append(remote)
        self._taken.append(remote)
        return remote

    def give_back(self) -> None:
        """The test is over: its processes may be used by the next one."""
        self._taken.clear()

    def end(self) -> None:
        """End all processes."""
        for remote in itertools.chain.from_iterable(self._remotes.values()):
            if remote.alive:
                remote.end()
        self._remotes.clear()
        self._taken.clear()


@pytest.fixture(scope="module")
def loopback_domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    """A loopback host for a module's tests."""
    with LoopbackWorld(tmp_path_factory.mktemp("loopback")) as world:
        domains = Domains(world)
        yield domains
        domains.end()


@pytest.fixture
def domains(loopback_domains: Domains) -> Iterator[Domains]:
    """The host's domains; after the test nothing of it may be left."""
    before = loopback_domains.world.counts()
    yield loopback_domains
    try:
        assert_no_leaks(loopback_domains.world, before)
    except AssertionError:
        # The next test starts with new processes, so that it does not fail for this one's leak.
        loopback_domains.end()
        raise
    loopback_domains.give_back()


@dataclass
class TracedPair:
    """A server's process in domain 1 and a client's in 2, and where their traces go."""

    server: Remote
    client: Remote
    folder: Path
    manner: dict[str, str]
    may_miss: bool = False
    """Calls come to code of the library that has no copy in use."""

    def trace(self, **options: Any) -> None:
        """Begin both traces. Options are the Tracer's; "server" and "client" hold those for one."""
        for role, remote in (("server", self.server), ("client", self.client)):
            own = self.manner | {k: v for k, v in options.items() if k not in ("server", "client")}
            own |= options.get(role, {})
            remote("trace", str(self.path(role)), role, json.dumps(own))

    def connect(
        self, left_bytes: int = 4096, right_bytes: int = 4096, blocking: bool = True
    ) -> None:
        """Make the channel, the server first."""
        self.server("server", 2, "data/vchan", left_bytes, right_bytes, blocking)
        self.client("client", 1, "/local/domain/1/data/vchan", blocking)

    def path(self, role: str) -> Path:
        """The trace file of a role."""
        return self.folder / f"{role}.vtrace"

    def read(self) -> tuple[Trace, Trace]:
        """The server's trace and the client's as they are now; the translation missed nothing."""
        server, client = read_trace(self.path("server")), read_trace(self.path("client"))
        assert self.may_miss or (server.missed, client.missed) == (0, 0)
        return server, client

    def end(self) -> tuple[Trace, Trace]:
        """Close the channel, the client first, end the traces and read them."""
        for call in ("close", "end_trace"):
            self.client(call)
            self.server(call)
        return self.read()


MANNERS = {
    "translation-kept": {"variant": "translation", "order": "kept"},
    "translation-full": {"variant": "translation", "order": "full"},
    "emulation": {"variant": "emulation"},
}
"""The ways in which accesses are caught and written down; all must tell the same."""


TracedBy = Callable[[Path | None, str], TracedPair]


@pytest.fixture
def traced_by(domains: Domains, tmp_path: Path) -> TracedBy:
    """Two such processes in a manner, with the library of a folder or, None, the system's."""

    def pair(library: Path | None, manner: str) -> TracedPair:
        ends = []
        for domid in (1, 2):
            path = domains.world.environment(domid)["LD_LIBRARY_PATH"]
            path = f"{library}:{path}" if library else path
            ends.append(domains.process("traced_end.py", domid, LD_LIBRARY_PATH=path, PART=manner))
        folder = tmp_path / manner
        folder.mkdir()
        return TracedPair(ends[0], ends[1], folder, MANNERS[manner])

    return pair


@pytest.fixture(params=MANNERS)
def traced(request: pytest.FixtureRequest, domains: Domains, tmp_path: Path) -> TracedPair:
    """Two processes that can trace themselves, not connected yet; in each manner."""
    server, client = (domains.process("traced_end.py", domid) for domid in (1, 2))
    return TracedPair(server, client, tmp_path, MANNERS[request.param])


@pytest.fixture(scope="module")
def recorded(
    loopback_domains: Domains, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trace, Trace]:
    """Traces of a run with full and empty rings, waits on both sides, data both ways, a close.

    With all that can be recorded: whoever changes a field then finds that it matters.
    """
    server, client = (loopback_domains.process("traced_end.py", domid) for domid in (1, 2))
    pair = TracedPair(
        server, client, tmp_path_factory.mktemp("recorded"), MANNERS["translation-full"]
    )
    pair.trace()
    pair.connect(4096, 2048)
    client.start("write_all", bytes(60000), [900, 5000])
    server("read_all", 60000, 1100)
    client.finish()
    server.start("write_all", bytes(30000), [3000, 10])
    client("read_all", 30000, 700)
    server.finish()
    traces = pair.end()
    loopback_domains.give_back()
    return traces


@pytest.fixture(autouse=True)
def nothing_is_left_on_xen(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Every machine that a test on Xen opens is counted before it is ended, if it still runs."""
    counts: list[tuple[dict[str, int], dict[str, int]]] = []
    leave = QemuHost.__exit__

    def count_and_leave(host: QemuHost, *error: Any) -> None:
        if error[0] is None and host.running.qemu.running:
            counts.append((host.baseline(), host.give_back()))
        leave(host, *error)

    if request.node.get_closest_marker("xen") is not None:
        monkeypatch.setattr(QemuHost, "__exit__", count_and_leave)
    yield
    assert [after for _, after in counts] == [before for before, _ in counts]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LoopbackWorld]:
    """A loopback host of its own; nothing may be left on it."""
    yield from _world(tmp_path / "host", keys=0)


@pytest.fixture
def world_with_keys(tmp_path: Path) -> Iterator[LoopbackWorld]:
    """One on which a server is killed: its keys stay, as they do in xenstore."""
    yield from _world(tmp_path / "host", keys=2)


def _world(folder: Path, keys: int) -> Iterator[LoopbackWorld]:
    with LoopbackWorld(folder) as world:
        before = world.counts()
        yield world
        assert world.counts() == {**before, "keys": before["keys"] + keys}


@pytest.fixture(scope="session")
def talkers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program that talks (tests/tracer/talker.c), linked with libxenvchan and without it."""
    folder = tmp_path_factory.mktemp("talkers")
    source = Path(__file__).parent / "tracer" / "talker.c"
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", str(source)]
    libraries = ["-lxenevtchn", "-pthread", "-ldl"]
    made = {"linked": ["-DLINKED", "-lxenvchan"], "dlopen": []}
    for name, more in made.items():
        target = ["-o", str(folder / name)]
        subprocess.run([*command, *target, *more, *libraries], check=True)
    return {name: folder / name for name in made}


@pytest.fixture
def talker(talkers: dict[str, Path]) -> Path:
    """The one that is linked with it."""
    return talkers["linked"]


@pytest.fixture
def ssh_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[SshAccess], str]:
    """What --host is given for the dom0 of a machine in QEMU, on the port that QEMU forwards."""

    def address_of(access: SshAccess) -> str:
        config = tmp_path / "ssh_config"
        config.write_text(ssh_config(access, tmp_path))
        monkeypatch.setenv(ssh.CONFIG, str(config))
        return f"ssh://root@127.0.0.1:{access.port}"

    return address_of


@pytest.fixture
def in_dom0() -> Callable[..., str]:
    """Run a command in the dom0 of a machine in QEMU by ssh; what it prints.

    Its arguments are the SshAccess, the command, and perhaps a file for its standard input.
    """

    def run(access: SshAccess, command: str, script: Path | None = None) -> str:
        options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        call = ["ssh", "-p", str(access.port), "-i", str(access.key), "-o", "IdentitiesOnly=yes"]
        until = time.monotonic() + DOM0_SECONDS_MAX
        while True:
            ran = subprocess.run(
                [*call, *words, "root@127.0.0.1", command],
                input=script.read_text() if script else "",
                capture_output=True,
                text=True,
                timeout=DOM0_SECONDS_MAX,
                check=False,
            )
            # No run waits for sshd, so it may still be starting; QEMU takes the connection anyway.
            early = ran.returncode == SSH_FAILED and NOT_YET in ran.stderr
            if not early or time.monotonic() > until:
                assert ran.returncode == 0, ran.stderr
                return ran.stdout
            # Nothing tells of it but another try.
            time.sleep(1)

    return run


def assert_no_leaks(world: LoopbackWorld, before: dict[str, int]) -> None:
    """No handle, port, grant or xenstore key is on the host that was not there before."""
    assert world.counts() == before


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
