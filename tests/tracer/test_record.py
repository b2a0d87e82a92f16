"""`vchan-testbed record`: programs that know nothing of it, at both ends of a loopback channel."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from talking import RECORD

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.channels import pairs, split
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.layout import Flag, Kind, Order, Variant
from vchan_testbed.tracer.reader import Trace, read_trace

HERE = Path(__file__).parent
SECONDS_MAX = 120
REFUSED = 4


@dataclass(frozen=True)
class Ran:
    """One end's command: what it said, its status, the traces."""

    status: int
    said: str
    errors: str
    traces: list[Trace]


def run(
    world: LoopbackWorld, folder: Path, program: Path, mode: str, *options: str
) -> dict[str, Ran]:
    """Record both ends of a talk, the server first."""
    processes = {}
    for domid, role in enumerate(("server", "client"), start=1):
        command = [*RECORD, str(folder / role)]
        processes[role] = subprocess.Popen(
            [*command, *options, "--", str(program), mode, role],
            env={**os.environ, **world.environment(domid)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if role == "server":
            out = processes[role].stdout
            assert out is not None
            for _ in range(2 if mode == "threads" else 1):
                assert out.readline() == "up\n"
    ran = {}
    for role, process in processes.items():
        said, errors = process.communicate(timeout=SECONDS_MAX)
        traces = [read_trace(path) for path in sorted((folder / role).glob("*.vtrace"))]
        ran[role] = Ran(process.returncode, said, errors, traces)
    return ran


def validate(folder: Path) -> Result:
    """Judge all traces below the folder."""
    return CliRunner().invoke(main, ["validate", *map(str, sorted(folder.glob("*/*.vtrace")))])


def one_channel(ran: dict[str, Ran]) -> tuple[Trace, Trace]:
    """Both ends, of which each has one trace with one channel, closed."""
    for one in ran.values():
        assert one.status == 0, one.errors
        assert len(one.traces) == 1
        assert one.traces[0].ending == "complete"
    server, client = (one.traces[0] for one in ran.values())
    assert (server.header.role, client.header.role) == ("server", "client")
    assert (server.header.domid, server.header.peer_domid) == (1, 2)
    assert (client.header.domid, client.header.peer_domid) == (2, 1)
    return server, client


@pytest.mark.parametrize("library", ["linked", "dlopen"])
@pytest.mark.parametrize("mode", ["plain", "exit", "handler", "fork"])
def test_a_program_is_traced_as_it_is(
    world: LoopbackWorld, tmp_path: Path, talkers: dict[str, Path], mode: str, library: str
) -> None:
    server, client = one_channel(run(world, tmp_path, talkers[library], mode))
    assert check_pair(server, client) == []
    for trace in (server, client):
        assert trace.header.program == talkers[library].name
        assert trace.header.library.startswith("libxenvchan.so.4")
        assert Variant(trace.header.variant) is Variant.TRANSLATION
        assert Order(trace.header.order) is Order.KEPT
    moved = client.records[client.records["kind"] == Kind.COPY]["new"]
    assert int(moved.sum()) == 30002


@pytest.mark.parametrize("options", [("--variant", "emulation"), ("--order", "full")])
def test_it_is_recorded_as_it_is_asked_for(
    world: LoopbackWorld, tmp_path: Path, talkers: dict[str, Path], options: tuple[str, ...]
) -> None:
    server, client = one_channel(run(world, tmp_path, talkers["linked"], "plain", *options))
    assert check_pair(server, client) == []
    for trace in (server, client):
        assert Order(trace.header.order) is Order.FULL
        expected = Variant.EMULATION if "emulation" in options else Variant.TRANSLATION
        assert Variant(trace.header.variant) is expected


def test_two_channels_of_two_threads(
    world: LoopbackWorld, tmp_path: Path, talkers: dict[str, Path]
) -> None:
    ran = run(world, tmp_path, talkers["linked"], "threads")
    ends = []
    for role, one in ran.items():
        assert one.status == 0, one.errors
        (trace,) = one.traces
        assert trace.header.channels == 2
        ends += split(trace, role)
    found, alone = pairs(ends)
    assert len(found) == 2
    assert alone == []
    for server, client in found:
        assert check_pair(server.trace, client.trace) == []
    judged = validate(tmp_path)
    assert judged.exit_code == ExitStatus.EXPECTED, judged.output
    assert judged.output.count("ACCEPTED and PROGRESS") == 2


def test_a_child_that_goes_on_with_its_parents_channel_is_refused(
    world: LoopbackWorld, tmp_path: Path, talkers: dict[str, Path]
) -> None:
    """Before its first step, so that its parent's trace lacks nothing."""
    ran = run(world, tmp_path, talkers["linked"], "inherited")
    for one in ran.values():
        assert "it uses a channel that its parent opened, and that is in no trace" in one.errors
        assert "Open the channel in the process that uses it" in one.errors
        assert one.said == f"{REFUSED}\n"
    assert check_pair(*one_channel(ran)) == []


def test_what_a_wrapper_does_by_itself_is_recorded_as_its_own(
    world: LoopbackWorld, tmp_path: Path, talkers: dict[str, Path]
) -> None:
    _, client = one_channel(run(world, tmp_path, talkers["linked"], "wrapper"))
    own = client.records[client.records["flags"] & Flag.BY_APPLICATION != 0]
    assert [Kind(kind).name for kind in own["kind"]] == ["LOAD", "STORE", "NOTIFY"]
    assert own["new"][1] == 100
    judged = validate(tmp_path)
    assert judged.exit_code == ExitStatus.UNDECIDED, judged.output
    assert "UNDECIDED" in judged.output


def test_no_channel_is_an_error(tmp_path: Path) -> None:
    command = [*RECORD, str(tmp_path)]
    ran = subprocess.run([*command, "--", "true"], capture_output=True, text=True, check=False)
    assert ran.returncode == REFUSED
    assert "No trace came of true, which ended with status 0." in ran.stderr
    assert "It opened no channel of libxenvchan" in ran.stderr


def test_no_program_is_bad_input(tmp_path: Path) -> None:
    command = [*RECORD, str(tmp_path)]
    ran = subprocess.run(
        [*command, "--", "/nowhere/program"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "/nowhere/program cannot be started: No such file or directory" in ran.stderr


def test_a_folder_that_cannot_be_written_to_stops_the_program(
    world: LoopbackWorld, talkers: dict[str, Path]
) -> None:
    command = [*RECORD, "/proc/self"]
    ran = subprocess.run(
        [*command, "--", str(talkers["linked"]), "plain", "server"],
        env={**os.environ, **world.environment(1)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    assert ran.returncode == REFUSED
    assert "linked is not run, because it cannot be traced:" in ran.stderr
