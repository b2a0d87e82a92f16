"""Windows: cut out of whole traces they are judged as these are; what is wrong in one is seen."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from judging import LIBRARY, TABLES
from library_model import Operation, Run, Scenario, simulate
from windows import keep_from, written

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role, TraceHeader
from vchan_testbed.tracer.layout import (
    BLOCK_HEADER_BYTES,
    HEADER_BYTES,
    RECORD_BYTES,
    Call,
    Cell,
    FrozenBy,
    Kind,
)
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.prepare import prepare
from vchan_testbed.validate.verdict import Verdict
from vchan_testbed.validate.window import Cut

ROUNDS = 12


ROLES: tuple[Role, Role] = ("server", "client")


def judged(paths: dict[Role, Path], facts: dict[str, Any] | None, **options: Any) -> Verdict:
    made = Options(**{"tables": LIBRARY, **options})
    return judge_traces(paths["server"], paths["client"], facts, options=made)


def rounds(*, close: bool = True, seed: int = 1, **more: Any) -> Scenario:
    """Requests and answers."""
    client: list[Operation] = [("write", 100), ("read", 40)] * ROUNDS
    server: list[Operation] = [("read", 100), ("write", 40)] * ROUNDS
    if close:
        client.append(("close",))
        server += [("read_to_end", 10), ("close",)]
    return Scenario(server=tuple(server), client=tuple(client), seed=seed, **more)


def streams(chance: random.Random, seed: int) -> Scenario:
    """Several writes a read, or several reads a write, both ways."""
    client: list[Operation] = []
    server: list[Operation] = []
    for _ in range(ROUNDS):
        there, back = chance.randrange(1, 2000), chance.randrange(1, 900)
        client += [("write", there), ("buffer_space",), ("read", back)]
        server += [("data_ready",), ("read", there // 2 + 1), ("write", back)]
        if there > 1:
            server.insert(-1, ("read", there - there // 2 - 1 or 1))
        if there - there // 2 - 1 == 0:
            client.insert(-2, ("write", 1))
    return Scenario(server=tuple(server), client=tuple(client), seed=seed)


def packets(chance: random.Random, seed: int) -> Scenario:
    """Whole or not at all, one way."""
    sizes = [chance.randrange(1, 600) for _ in range(ROUNDS)]
    client: list[Operation] = [("send", size) for size in sizes]
    server: list[Operation] = [("recv", size) for size in sizes]
    return Scenario(
        server=(*server, ("close",)), client=(*client, ("is_open",), ("close",)), seed=seed
    )


def scenario_of(chance: random.Random, seed: int) -> Scenario:
    return (rounds(seed=seed), streams(chance, seed), packets(chance, seed))[seed % 3]


@pytest.mark.parametrize("seed", range(9))
def test_windows_are_judged_as_the_whole_traces_are(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    run = simulate(scenario_of(chance, seed))
    whole = judged(run.write(tmp_path / "whole"), run.facts())
    part = chance.uniform(0.25, 0.7)
    begins: dict[Role, int] = {
        role: max(int(len(run.records(role)) * part) + chance.randrange(-15, 15), 0)
        for role in ROLES
    }
    if seed >= 6:
        begins[chance.choice(ROLES)] = 0
    windows = judged(written(run, tmp_path / "windows", begins), run.facts())
    assert (windows.conformance, windows.progress) == (whole.conformance, whole.progress)
    assert windows.conformance == "ACCEPTED"
    assert any(note.startswith("A window was judged, from record") for note in windows.notes)


def halves(run: Run) -> dict[Role, int]:
    """Windows that begin in the middle."""
    return {role: len(run.records(role)) // 2 for role in ROLES}


def cut_of(run: Run, folder: Path, begins: dict[Role, int]) -> Cut:
    """Where such windows are taken up."""
    paths = written(run, folder, begins)
    case = prepare(paths["server"], paths["client"], run.facts())
    assert case.channel
    assert case.channel.window
    return case.channel.window


def test_how_many_bytes_came_before_is_told_where_it_is_known(tmp_path: Path) -> None:
    run = simulate(rounds())
    assert cut_of(run, tmp_path / "both", halves(run)).before == {"left": None, "right": None}
    before = cut_of(run, tmp_path / "one", {"server": halves(run)["server"]}).before
    for way, step in (("left", 100), ("right", 40)):
        count = before[way]
        assert count is not None
        assert 0 < count < ROUNDS * step


@pytest.mark.parametrize("role", ["server", "client"])
def test_an_index_that_is_stored_wrong_in_a_window_is_rejected(tmp_path: Path, role: Role) -> None:
    run = simulate(rounds())
    records = run.records(role)
    cell = Cell.RIGHT_PROD if role == "server" else Cell.LEFT_PROD
    stores = np.flatnonzero((records["offset"] == cell) & (records["old"] != records["new"]))
    records["new"][stores[-3]] += 4
    verdict = judged(written(run, tmp_path, halves(run), {role: records}), run.facts())
    assert verdict.conformance == "REJECTED"


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_look_that_shows_what_was_not_there_is_rejected(tmp_path: Path, role: Role) -> None:
    """No check of a lane by itself finds it: the spec has to."""
    run = simulate(rounds())
    records = run.records(role)
    cell = Cell.LEFT_PROD if role == "server" else Cell.RIGHT_PROD
    loads = np.flatnonzero(
        (records["offset"] == cell)
        & (records["kind"] == Kind.LOAD)
        & (records["call"] == Call.READ)
    )
    loads = loads[loads > len(records) * 3 // 4]
    records["old"][loads[0]] += 1
    records["new"][loads[0]] += 1
    verdict = judged(written(run, tmp_path, halves(run), {role: records}), run.facts())
    assert verdict.conformance == "REJECTED"
    assert verdict.first_unexplained is not None


def test_a_gap_inside_of_a_window_is_rejected(tmp_path: Path) -> None:
    run = simulate(rounds())
    paths = written(run, tmp_path, halves(run))
    data = bytearray(paths["client"].read_bytes())
    kept = len(run.records("client")) - halves(run)["client"]
    data[HEADER_BYTES + BLOCK_HEADER_BYTES + kept // 2 * RECORD_BYTES] ^= 1
    paths["client"].write_bytes(data)
    verdict = judged(paths, run.facts())
    assert (verdict.conformance, verdict.kind) == ("REJECTED", "log")
    assert "records are missing or doubled" in verdict.reason


def test_a_lost_event_is_the_same_violation_as_in_whole_traces(tmp_path: Path) -> None:
    run = simulate(rounds(drop=(("client", ROUNDS - 2, 1),)))
    assert run.outcome == "stood still"
    whole = judged(run.write(tmp_path / "whole"), run.facts())
    windows = judged(written(run, tmp_path / "windows", halves(run)), run.facts())
    assert whole.progress == windows.progress == "VIOLATION"
    assert (whole.due_action, whole.fault_of) == (windows.due_action, windows.fault_of)


@pytest.mark.parametrize("short", ROLES)
def test_frozen_in_the_middle_they_are_judged_as_far_as_they_go(
    tmp_path: Path, short: Role
) -> None:
    """The one end was frozen some calls before the other, and both went on."""
    run = simulate(rounds())
    kept = {role: int(len(run.records(role)) * (0.8 if role == short else 0.9)) for role in ROLES}
    cut: dict[Role, Records] = {role: run.records(role)[: kept[role]] for role in ROLES}
    paths = written(run, tmp_path, halves(run), cut)
    for path in paths.values():
        page = bytearray(path.read_bytes())
        header = TraceHeader.unpack(bytes(page[:HEADER_BYTES]), str(path))
        page[:HEADER_BYTES] = replace(header, frozen=FrozenBy.SIGNAL, left_out=50).pack()
        path.write_bytes(page)
    verdict = judged(paths, None)
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "INCONCLUSIVE")
    assert any("frozen by a signal" in note for note in verdict.notes)
    assert any("The last records of the" in note for note in verdict.notes)


def test_windows_of_different_times_are_left_open(tmp_path: Path) -> None:
    run = simulate(rounds())
    early: dict[Role, Records] = {"client": run.records("client")[: halves(run)["client"] // 2]}
    begins: dict[Role, int] = {"server": len(run.records("server")) * 3 // 4, "client": 40}
    verdict = judged(written(run, tmp_path, begins, early), None)
    assert verdict.conformance == "UNDECIDED"
    assert "freeze both ends together" in verdict.advice


def test_windows_of_calls_are_left_open(tmp_path: Path) -> None:
    run = simulate(rounds())
    verdict = judged(written(run, tmp_path, halves(run)), run.facts(), level="calls")
    assert verdict.conformance == "UNDECIDED"
    assert verdict.reason.startswith("a window of calls alone")
    assert "exact" in verdict.advice


def test_the_protocols_spec_leaves_windows_open(tmp_path: Path) -> None:
    run = simulate(rounds())
    verdict = judged(written(run, tmp_path, halves(run)), run.facts(), tables=TABLES)
    assert verdict.conformance == "UNDECIDED"
    assert "--spec libxenvchan" in verdict.advice


def test_the_command_says_that_it_was_a_window(tmp_path: Path) -> None:
    run = simulate(rounds())
    paths = written(run, tmp_path, halves(run))
    ran = CliRunner().invoke(main, ["validate", *map(str, paths.values())])
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    assert "ACCEPTED and PROGRESS" in ran.output
    assert "server: a window, kept when its process ended; thread 0:" in ran.output
    assert "A window was judged, from record" in ran.output
    assert "left: it is not known how many bytes came before it" in ran.output


def test_an_index_that_wraps_in_a_window_is_nothing_special(tmp_path: Path) -> None:
    """Rings of 16 MiB, so that the wrap comes after some thousand records."""
    chunk = (3 << 24) // 2 - 5
    calls = (1 << 32) // chunk + 3
    run = simulate(
        Scenario(
            server=(("read_to_end", chunk), ("close",)),
            client=(*[("write", chunk)] * calls, ("close",)),
            left_order=24,
        )
    )
    begins: dict[Role, int] = {role: len(run.records(role)) - 220 for role in ROLES}
    client = run.records("client")[begins["client"] :]
    prod = client[(client["kind"] == Kind.RMW_PLAIN) & (client["offset"] == Cell.LEFT_PROD)]
    assert prod["new"][0] > prod["new"][-1]
    verdict = judged(written(run, tmp_path, begins), run.facts())
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS")


def test_windows_of_several_channels_are_refused(tmp_path: Path) -> None:
    run = simulate(rounds())
    paths = run.write(tmp_path)
    for role, path in paths.items():
        keep_from(path, halves(run)[role], channels=2)
    ran = CliRunner().invoke(main, ["validate", *map(str, paths.values())])
    assert ran.exit_code == ExitStatus.USAGE
    assert "is a window, and its channels were opened before it" in ran.output


def test_a_window_that_lost_nothing_is_a_whole_trace(tmp_path: Path) -> None:
    run = simulate(rounds())
    paths = run.write(tmp_path)
    for path in paths.values():
        keep_from(path, 0)
    case = prepare(paths["server"], paths["client"], run.facts())
    assert case.channel
    assert case.channel.window is None
    assert judged(paths, run.facts()).conformance == "ACCEPTED"
