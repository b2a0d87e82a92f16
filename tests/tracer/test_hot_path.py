"""What a record costs besides time: no system call, no allocation, no page that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from talking import RECORD

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.reader import read_trace

HERE = Path(__file__).parent
ROUNDS = 100
CALLS_OF_A_ROUND = 500
SECONDS_MAX = 120
CLEAN_SHARE_MIN = 0.5
"""Of rounds; if whoever records made the pages, each round would have to, of a block or more."""


@dataclass(frozen=True)
class Round:
    """What the program's thread did in one."""

    system_calls: int
    allocations: int
    faults: int


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that watches itself."""
    path = tmp_path_factory.mktemp("steady") / "steady"
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *options, str(HERE / "steady.c"), "-o", str(path), "-lxenvchan"]
    subprocess.run(command, check=True)
    return path


def rounds(world: LoopbackWorld, command: list[str]) -> list[Round]:
    """What the program says of them; in the first one the library may still look for its things."""
    ran = subprocess.run(
        [*command, str(ROUNDS)],
        env={**os.environ, **world.environment(1)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines() if line[0].isdigit()]
    found = [Round(*map(int, words)) for words in lines]
    assert len(found) == ROUNDS
    return found[1:]


def test_the_library_by_itself_makes_none(world: LoopbackWorld, steady: Path) -> None:
    assert {(one.system_calls, one.allocations) for one in rounds(world, [str(steady)])} == {(0, 0)}


def test_a_signal_at_each_access_is_seen(
    world: LoopbackWorld, tmp_path: Path, steady: Path
) -> None:
    """What watches would see it: a signal's handler returns by a system call."""
    emulated = [*RECORD, str(tmp_path / "out"), "--variant", "emulation", "--", str(steady)]
    assert {one.system_calls for one in rounds(world, emulated)} == {1}


@pytest.mark.parametrize("kept", ["all", "the last"])
@pytest.mark.parametrize("options", [("--level", "calls"), (), ("--order", "full")])
def test_recording_adds_none(
    world: LoopbackWorld, tmp_path: Path, steady: Path, options: tuple[str, ...], kept: str
) -> None:
    # The channel's ring has pages that are touched for the first time, too.
    untraced = rounds(world, [str(steady)])
    ring = ["--flight-recorder", "1M"] if kept == "the last" else []
    found = rounds(world, [*RECORD, str(tmp_path / "out"), *options, *ring, "--", str(steady)])
    (path,) = (tmp_path / "out").glob("*.vtrace")
    trace = read_trace(path)
    lost = trace.window.lost_records if trace.window else 0
    assert len(trace.records) + lost > 2 * ROUNDS * CALLS_OF_A_ROUND
    assert {one.allocations for one in found} == {0}
    if ring:
        assert {one.system_calls for one in found} == {0}
    # A thread of the tracer has the log's pages ready. Where it does not come to its turn, on a
    # busy machine, whoever records makes them: some blocks' worth, not one block after the other.
    clean = sum(one == other for one, other in zip(found, untraced, strict=True))
    assert clean > len(found) * CLEAN_SHARE_MIN, found
