"""Flight recorders at both ends of a loopback channel, and how their windows are judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.format import TraceHeader
from vchan_testbed.tracer.layout import HEADER_BYTES, MAGIC, FrozenBy, Look
from vchan_testbed.tracer.reader import Trace, read_trace

TALKER = Path(__file__).parents[1] / "tracer" / "talker.c"
RECORD = (str(Path(sys.executable).with_name("vchan-testbed")), "record", "--out")
SECONDS_MAX = 120
SMALL = ("--flight-recorder", "64K")
LARGE = ("--flight-recorder", "16M")


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    target = tmp_path_factory.mktemp("talker") / "talker"
    command = ["cc", "-std=gnu11", "-O2", str(TALKER), "-DLINKED", "-o", str(target)]
    subprocess.run([*command, "-lxenvchan", "-lxenevtchn", "-pthread", "-ldl"], check=True)
    return target


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LoopbackWorld]:
    """A loopback host; of a server that is killed the keys stay, as they do in xenstore."""
    with LoopbackWorld(tmp_path / "host") as world:
        before = world.counts()
        yield world
        left = world.counts()
        assert left.pop("keys") in (0, 2)
        assert left == {name: count for name, count in before.items() if name != "keys"}


@dataclass(frozen=True)
class End:
    """One end's `record`, and where its trace is."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def path(self) -> Path:
        """Of its trace."""
        (path,) = self.folder.glob("*.vtrace")
        return path

    def line(self) -> str:
        """The next line that the program says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def header(self) -> TraceHeader | None:
        """As it is now; None before there is one."""
        for path in self.folder.glob("*.vtrace"):
            with path.open("rb") as file:
                page = file.read(HEADER_BYTES)
            return TraceHeader.unpack(page, "trace") if page.startswith(MAGIC) else None
        return None

    def wait_until_frozen(self) -> None:
        """And, by the settle time, looked at."""
        while True:
            header = self.header()
            by = header.frozen if header else FrozenBy.NOTHING
            if by and (by != FrozenBy.SETTLE_TIME or (header and header.look & Look.TAKEN)):
                return
            assert self.process.poll() is None
            os.sched_yield()

    def kill(self) -> None:
        """The program, whose trace is named after it."""
        os.kill(int(self.path.stem.split("-")[1]), signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """It has ended by itself, or soon will have."""
        self.process.communicate(timeout=SECONDS_MAX)


@dataclass
class Talk:
    """Starts talks, and sees to it that nothing of them is left."""

    world: LoopbackWorld
    folder: Path
    talker: Path
    stack: ExitStack
    count: int = 0

    def start(
        self, mode: str, of_server: Sequence[str], of_client: Sequence[str]
    ) -> tuple[End, End]:
        """Server and client."""
        self.count += 1
        found = []
        for domid, (role, options) in enumerate(
            (("server", of_server), ("client", of_client)), start=1
        ):
            folder = self.folder / f"{self.count}-{role}"
            process = subprocess.Popen(
                [*RECORD, str(folder), *options, "--", str(self.talker), mode, role],
                env={**os.environ, **self.world.environment(domid)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.stack.callback(_stop, process)
            found.append(End(process, folder))
            if role == "server":
                assert found[0].line() == "up\n"
        return found[0], found[1]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=SECONDS_MAX)


@pytest.fixture
def talk(world: LoopbackWorld, tmp_path: Path, talker: Path) -> Iterator[Talk]:
    with ExitStack() as stack:
        yield Talk(world, tmp_path, talker, stack)


def validated(*ends: End) -> Result:
    return CliRunner().invoke(main, ["validate", *(str(end.path) for end in ends)])


def windows_of(*ends: End) -> list[Trace]:
    traces = [read_trace(end.path) for end in ends]
    for trace in traces:
        assert trace.begins_later
    return traces


def test_windows_far_shorter_than_the_run_are_accepted(talk: Talk) -> None:
    server, client = talk.start("rounds", SMALL, SMALL)
    for end in (server, client):
        end.end()
    for trace in windows_of(server, client):
        assert trace.window is not None
        assert trace.window.lost_records > 50 * len(trace.records)
    ran = validated(server, client)
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    assert "ACCEPTED and PROGRESS" in ran.output
    assert "A window was judged, from record" in ran.output


@pytest.mark.parametrize("window", ["server", "client"])
def test_one_side_a_window_and_the_other_whole(talk: Talk, window: str) -> None:
    options = {"server": (), "client": (), window: SMALL}
    server, client = talk.start("rounds", options["server"], options["client"])
    for end in (server, client):
        end.end()
    ran = validated(server, client)
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    assert "ACCEPTED and PROGRESS" in ran.output
    assert "it is not known how many" not in ran.output
    assert "bytes came before it" in ran.output


def test_a_hang_has_the_verdict_that_whole_traces_have(talk: Talk) -> None:
    """The server stops to read, and both recorders freeze by the settle time."""
    said = []
    for size in (SMALL, LARGE):
        options = (*size, "--settle", "1")
        server, client = talk.start("stuck", options, options)
        assert server.line() == "stuck\n"
        for end in (server, client):
            end.wait_until_frozen()
        client.kill()
        server.kill()
        assert read_trace(server.path).begins_later == (size is SMALL)
        ran = validated(server, client)
        assert ran.exit_code == ExitStatus.UNEXPECTED, ran.output
        # Of the whole traces each direction is judged by the protocol's spec too.
        lines = [line for line in ran.stdout.splitlines() if ", direction " not in line]
        said.append([line for line in lines if line.startswith(("ACCEPTED", "What", "Due"))])
    assert said[0] == said[1]
    assert said[0][0].startswith("ACCEPTED and VIOLATION")
    assert "call_read server was due" in said[0][1]


def test_a_window_of_a_program_that_was_killed_is_judged(talk: Talk) -> None:
    server, client = talk.start("killed", SMALL, SMALL)
    for end in (server, client):
        end.end()
    ran = validated(server, client)
    assert "ACCEPTED and INCONCLUSIVE" in ran.output, ran.output
