"""`record --flight-recorder`: the last records of each thread, frozen in each way; reading them."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from talking import End, started

from vchan_testbed.cli import main
from vchan_testbed.errors import InputError
from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.checks_lane import lane_problems
from vchan_testbed.tracer.format import RECORD_DTYPE, Records, write_trace
from vchan_testbed.tracer.header import TraceHeader
from vchan_testbed.tracer.layout import HEADER_BYTES, FrozenBy, Kind, Look
from vchan_testbed.tracer.reader import Trace, from_first_calls, read_trace
from vchan_testbed.tracer.record import freeze

BLOCK_RECORDS = 1023
ROUNDS = 4000
"""Of the talk, as talker.c has them."""
RECORDS_OF_A_ROUND_MIN = 20
"""A write, a read, and what they touch; without their waits."""


HEADER = TraceHeader("client", 3, 7, 12, 10, 2_000_000_000)
RING = replace(HEADER, ring_blocks=2, frozen=FrozenBy.REQUEST)


def records_of(count: int) -> Records:
    """Records of one thread."""
    records = np.zeros(count, RECORD_DTYPE)
    records["seq"] = np.arange(1, count + 1)
    records["kind"] = Kind.LOAD
    return records


def talk(
    stack: ExitStack, world: LoopbackWorld, folder: Path, command: list[str], *options: str
) -> dict[str, End]:
    """Both ends, with the same options."""
    return started(stack, world, folder, command, {"server": options, "client": options})


def traces_of(ends: dict[str, End]) -> tuple[Trace, Trace]:
    """The server's and the client's."""
    server, client = (read_trace(ends[role].path) for role in ("server", "client"))
    return server, client


@pytest.mark.parametrize("level", ["exact", "calls"])
def test_the_last_records_of_a_long_run_are_kept(
    world: LoopbackWorld, tmp_path: Path, talker: Path, level: str
) -> None:
    options = ("--flight-recorder", "64K", "--level", level)
    with ExitStack() as stack:
        ends = talk(stack, world, tmp_path, [str(talker), "rounds"], *options)
        for end in ends.values():
            status, errors = end.end()
            assert status == 0, errors
            assert "a window, kept when its process ended" in errors
    for trace in traces_of(ends):
        assert trace.window is not None
        assert trace.window.frozen_by is FrozenBy.NOTHING
        assert trace.window.begins_later
        assert trace.ending == "complete"
        assert len(trace.records) == BLOCK_RECORDS
        assert Kind(trace.records["kind"][-1]) is Kind.CALL_EXIT
    assert check_pair(*map(from_first_calls, traces_of(ends))) == []


def test_it_is_frozen_by_its_signal_and_the_programs_handler_runs(
    world: LoopbackWorld, tmp_path: Path, talker: Path
) -> None:
    with ExitStack() as stack:
        ends = talk(stack, world, tmp_path, [str(talker), "asked"], "--flight-recorder", "100K")
        for end in ends.values():
            status, errors = end.end()
            assert status == 0, errors
    server, client = traces_of(ends)
    assert server.window
    assert server.window.left_out == 0
    assert client.window
    assert client.window.frozen_by is FrozenBy.SIGNAL
    assert client.window.left_out > 0
    assert client.ending == "cut"
    assert len(client.records) == 2 * BLOCK_RECORDS
    assert list(lane_problems("client", from_first_calls(client))) == []
    before, kept = client.window.lost[0], len(client.records)
    # None is forgotten: what was lost, what is kept and what came later are the whole talk.
    assert before + kept + client.window.left_out > RECORDS_OF_A_ROUND_MIN * ROUNDS


def test_it_is_frozen_on_request_from_outside_or_by_another_signal(
    world_with_keys: LoopbackWorld, tmp_path: Path, talker: Path
) -> None:
    options = ("--flight-recorder", "64K", "--freeze-signal", "WINCH")
    with ExitStack() as stack:
        ends = talk(stack, world_with_keys, tmp_path, [str(talker), "stuck"], *options)
        assert ends["server"].line() == "stuck\n"
        freeze(ends["server"].path)
        assert ends["server"].frozen_by() is FrozenBy.REQUEST
        os.kill(ends["client"].pid, signal.SIGWINCH)
        assert ends["client"].frozen_by() is FrozenBy.SIGNAL
        for role in ("client", "server"):
            ends[role].kill()


def test_a_hang_is_frozen_by_the_settle_time_and_looked_at(
    world_with_keys: LoopbackWorld, tmp_path: Path, talker: Path
) -> None:
    options = ("--flight-recorder", "64K", "--settle", "1")
    with ExitStack() as stack:
        ends = talk(stack, world_with_keys, tmp_path, [str(talker), "stuck"], *options)
        assert ends["server"].line() == "stuck\n"
        for end in ends.values():
            assert end.frozen_by() is FrozenBy.SETTLE_TIME
        for role in ("client", "server"):
            ends[role].kill()
    pages = set()
    for trace in traces_of(ends):
        assert trace.window
        assert trace.window.left_out == 0
        assert Look(trace.header.look) == Look.TAKEN | Look.ASLEEP | Look.SAME_PAGE | Look.ALONE
        pages.add(trace.header.page)
    assert len(pages) == 1


def test_a_program_that_is_killed_leaves_a_window(
    world: LoopbackWorld, tmp_path: Path, talker: Path
) -> None:
    with ExitStack() as stack:
        ends = talk(stack, world, tmp_path, [str(talker), "killed"], "--flight-recorder", "64K")
        status, _ = ends["client"].end()
        assert status == 128 + signal.SIGKILL
        ends["server"].end()
    server, client = traces_of(ends)
    assert client.ending == "cut"
    assert "The process did not end its trace." in client.notes
    assert client.window
    assert client.window.begins_later
    assert len(client.records) >= BLOCK_RECORDS - 1
    assert check_pair(from_first_calls(server), from_first_calls(client)) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--flight-recorder", "4X"), "'4X' is no size."),
        (("--flight-recorder", "0"), "'0' is no size."),
        (("--flight-recorder", "-4M"), "'-4M' is no size."),
        (("--flight-recorder", "4K"), "is too small"),
        (("--flight-recorder", "8G"), "does not fit into a file of at most"),
        (("--settle", "3"), "There is nothing to be frozen"),
        (("--freeze-signal", "USR1"), "There is nothing to be frozen"),
        (("--flight-recorder", "1M", "--freeze-signal", "KILL"), "SIGKILL cannot freeze anything"),
        (("--flight-recorder", "1M", "--freeze-signal", "SOME"), "'SOME' is no signal."),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    ran = CliRunner().invoke(main, ["record", "--out", str(tmp_path), *options, "--", "true"])
    assert ran.exit_code == 2
    assert said in ran.output
    assert list(tmp_path.iterdir()) == []


def test_what_keeps_all_cannot_be_frozen(tmp_path: Path) -> None:
    path = tmp_path / "server.vtrace"
    write_trace(path, HEADER, records_of(1))
    with pytest.raises(InputError, match="there is nothing to freeze"):
        freeze(path)
    with pytest.raises(InputError, match="cannot be written to"):
        freeze(tmp_path / "nowhere.vtrace")


def window_file(path: Path, lost: int, count: int) -> None:
    """A window of one thread."""
    records = records_of(count)
    numbers = np.arange(lost + 1, lost + count + 1, dtype=np.uint64)
    records["seq"] = (numbers & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    write_trace(path, RING, records, lost={0: lost})


@pytest.mark.parametrize("lost", [0, 1, 5000, 2**32 - 700, 2**32 - 1, 2**40 + 3])
def test_a_window_is_read_wherever_it_begins(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "client.vtrace"
    window_file(path, lost, 1500)
    trace = read_trace(path)
    assert trace.window is not None
    assert trace.window.lost == {0: lost}
    assert trace.begins_later == (lost > 0)
    assert len(trace.records) == 1500
    first = [problem for problem in lane_problems("client", trace) if problem.is_hole]
    assert first == []


def test_a_gap_inside_of_a_window_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "client.vtrace"
    window_file(path, 5000, 1500)
    data = bytearray(path.read_bytes())
    place = HEADER_BYTES + 64 + 700 * 64
    data[place + 24] ^= 1
    path.write_bytes(data)
    trace = read_trace(path)
    assert len(trace.records) == 1499
    (problem,) = [problem for problem in lane_problems("client", trace) if problem.is_hole]
    assert "record 5702 stands where 5701 is due" in problem.text


def test_records_of_the_round_before_count_until_they_are_written_over(tmp_path: Path) -> None:
    """As the writer leaves them: the newer half of block 0, the older one behind it, block 1."""
    path, other = tmp_path / "client.vtrace", tmp_path / "newer.vtrace"
    window_file(path, 0, 2 * BLOCK_RECORDS)
    window_file(other, 2 * BLOCK_RECORDS, 500)
    data, newer = bytearray(path.read_bytes()), other.read_bytes()
    end = HEADER_BYTES + 64 + 500 * 64
    data[HEADER_BYTES:end] = newer[HEADER_BYTES:end]
    path.write_bytes(data)
    trace = read_trace(path)
    assert trace.window is not None
    assert trace.window.lost == {0: 500}
    assert trace.records["seq"].tolist() == list(range(501, 2 * BLOCK_RECORDS + 501))
    # Torn as by a kill: the newest record is gone, and the oldest one was gone before.
    data[end - 1] ^= 1
    path.write_bytes(data)
    trace = read_trace(path)
    assert trace.records["seq"].tolist() == list(range(501, 2 * BLOCK_RECORDS + 500))
