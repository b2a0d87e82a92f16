"""Flight recorders at both ends of a loopback channel, and how their windows are judged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from talking import End, started

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.layout import FrozenBy
from vchan_testbed.tracer.reader import Trace, read_trace

SMALL = ("--flight-recorder", "64K")
LARGE = ("--flight-recorder", "16M")


Options = Sequence[str]
Talk = Callable[[str, Options, Options], tuple[End, End]]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What it holds is stopped at the test's end, before its world."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def talk(world: LoopbackWorld, tmp_path: Path, talker: Path, stack: ExitStack) -> Talk:
    """Starts a server and a client, by the mode of their talk and the options of each."""
    return talks_in(world, tmp_path, talker, stack)


def talks_in(world: LoopbackWorld, folder: Path, talker: Path, stack: ExitStack) -> Talk:
    def talk(mode: str, of_server: Options, of_client: Options) -> tuple[End, End]:
        options = {"server": of_server, "client": of_client}
        ends = started(stack, world, folder, [str(talker), mode], options)
        return ends["server"], ends["client"]

    return talk


def validated(*ends: End) -> Result:
    return CliRunner().invoke(main, ["validate", *(str(end.path) for end in ends)])


def windows_of(*ends: End) -> list[Trace]:
    traces = [read_trace(end.path) for end in ends]
    for trace in traces:
        assert trace.begins_later
    return traces


def test_windows_far_shorter_than_the_run_are_accepted(talk: Talk) -> None:
    server, client = talk("rounds", SMALL, SMALL)
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
    options: dict[str, Options] = {"server": (), "client": (), window: SMALL}
    server, client = talk("rounds", options["server"], options["client"])
    for end in (server, client):
        end.end()
    ran = validated(server, client)
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    assert "ACCEPTED and PROGRESS" in ran.output
    assert "it is not known how many" not in ran.output
    assert "bytes came before it" in ran.output


def test_a_hang_has_the_verdict_that_whole_traces_have(
    world_with_keys: LoopbackWorld, tmp_path: Path, talker: Path, stack: ExitStack
) -> None:
    """The server stops to read, and both recorders freeze by the settle time."""
    said = []
    for size in (SMALL, LARGE):
        options = (*size, "--settle", "1")
        talk = talks_in(world_with_keys, tmp_path / size[1], talker, stack)
        server, client = talk("stuck", options, options)
        assert server.line() == "stuck\n"
        for end in (server, client):
            assert end.frozen_by() is FrozenBy.SETTLE_TIME
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
    server, client = talk("killed", SMALL, SMALL)
    for end in (server, client):
        end.end()
    ran = validated(server, client)
    assert "ACCEPTED and INCONCLUSIVE" in ran.output, ran.output
