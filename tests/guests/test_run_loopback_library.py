"""Both directions, packets, polling, each way to connect and to close: whole runs, judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from library_cases import CASES, Case

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import ENDPOINTS, default_path, load_experiment
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.layout import Call, Cell, Kind
from vchan_testbed.tracer.reader import Trace, read_trace

Done = tuple[dict[str, Any], dict[str, Any], tuple[Trace, Trace]]
Runs = Callable[[str], Done]
INDICES = (Cell.LEFT_PROD, Cell.LEFT_CONS, Cell.RIGHT_PROD, Cell.RIGHT_CONS)
POLLING = ("duplex", "packets-polling", "polling")
SEEDS = range(5, 15)
TRANSFERS = (Call.READ, Call.WRITE, Call.RECV, Call.SEND)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Each experiment is run once for all tests that look at it."""
    folder = tmp_path_factory.mktemp("runs")
    return cache(lambda name: run_of(name, folder))


def run_of(name: str, folder: Path) -> Done:
    """A run of it; of those that poll one in which each end has waited: else it is another one."""
    for seed in SEEDS:
        done = perform(name, folder / f"{name}-{seed}", seed)
        if name not in POLLING or all(has_waited(trace) for trace in done[2]):
            return done
    raise AssertionError(f"in none of {len(SEEDS)} runs did both ends wait")


def has_waited(trace: Trace) -> bool:
    return bool((trace.records["call"] == Call.WAIT).any())


def perform(name: str, out: Path, seed: int) -> Done:
    """verdict.json, run.json and the traces, the server's first."""
    path = default_path().parent / f"{name}.yaml"
    command = ["run", str(path), "--host", "loopback", "--out", str(out), "--seed", str(seed)]
    ran = CliRunner().invoke(main, command)
    assert (out / "verdict.json").exists(), ran.output
    verdict = json.loads((out / "verdict.json").read_text())
    assert ran.exit_code == verdict["exit_status"] == ExitStatus.EXPECTED, ran.output
    facts = json.loads((out / "run.json").read_text())
    server, client = (read_trace(out / "traces" / f"{end}.vtrace") for end in ENDPOINTS)
    return verdict, facts, (server, client)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_experiment_is_judged_as_it_is_meant(case: Case, run: Runs) -> None:
    verdict, facts, traces = run(case.name)
    assert (verdict["conformance"], verdict["progress"]) == (case.conformance, case.progress)
    assert verdict["known"] == list(case.known)
    assert facts["counts"]["before"] == facts["counts"]["after"]
    assert check_pair(*traces) == []
    experiment = load_experiment(default_path().parent / f"{case.name}.yaml")
    for end, trace in zip(ENDPOINTS, traces, strict=True):
        assert trace.dropped == 0
        if not case.ends:
            assert (facts["endpoints"][end]["ended"], trace.ending) == ("killed", "cut")
            continue
        assert (facts["endpoints"][end]["ended"], trace.ending) == ("finished", "complete")
        result = facts["endpoints"][end]["result"]
        assert result["mismatches"] == []
        assert bool(result["ended_early"]) == (end in case.early)
        meant = sum(o.bytes for o in experiment.operations(end) if o.do in ("write", "send"))
        assert result["written_bytes"] <= meant
        if end not in case.early:
            assert result["written_bytes"] == meant


@pytest.mark.parametrize("name", ["duplex", "packets-polling"])
def test_one_loop_a_side_moves_both_directions_at_once(name: str, run: Runs) -> None:
    _, _, traces = run(name)
    for trace, out, into in zip(traces, INDICES[2::-2], INDICES[1::2], strict=True):
        records = trace.records
        calls = records["kind"] == Kind.CALL_ENTER
        assert len(np.unique(records["thread"][calls])) == 1
        moved = np.isin(records["kind"], (Kind.RMW_PLAIN, Kind.RMW_LOCKED, Kind.STORE))
        # But for the acknowledgement, which is the last move of each.
        puts = np.flatnonzero(moved & (records["offset"] == out) & (records["call"] != 1))
        takes = np.flatnonzero(moved & (records["offset"] == into) & (records["call"] != 1))
        assert puts[0] < takes[-2]
        assert takes[0] < puts[-2]


@pytest.mark.parametrize("name", POLLING)
def test_a_loop_that_polls_takes_no_event_that_is_not_there(name: str, run: Runs) -> None:
    """What is called after an event had moved nothing before it; no other call waits for one."""
    _, _, traces = run(name)
    for trace in traces:
        records = trace.records
        wanted = np.isin(records["call"], (*TRANSFERS, Call.WAIT))
        exits = records[wanted & (records["kind"] == Kind.CALL_EXIT)]
        waits = np.flatnonzero(exits["call"] == Call.WAIT)
        for first, wait in zip([0, *waits[:-1] + 1], waits, strict=True):
            results = dict(exits[first:wait][["call", "new"]].tolist())
            # One that has moved its last bytes is not called again.
            assert results[int(exits["call"][wait + 1])] == 0
        pending = records["call"][records["kind"] == Kind.PENDING_ENTER]
        assert set(pending.tolist()) == {Call.WAIT}


def test_the_indices_wrap_in_the_middle_of_the_traffic(run: Runs) -> None:
    _, _, traces = run("index-wrap")
    for cell in INDICES:
        owner = traces[0] if cell in (Cell.LEFT_CONS, Cell.RIGHT_PROD) else traces[1]
        own = owner.records[(owner.records["offset"] == cell) & (owner.records["call"] > 2)]
        moves = own[own["new"] != own["old"]]
        assert (moves["new"] < moves["old"]).sum() == 1
        assert moves["new"][-1] > 2 * 4096


def test_the_first_bytes_are_in_the_ring_before_there_is_a_client(run: Runs) -> None:
    _, _, (server, client) = run("first-write")
    looks = client.records[client.records["offset"] == Cell.RIGHT_PROD]
    assert looks["old"][0] == 512
    writes = np.flatnonzero(server.records["call"] == Call.WRITE)
    assert not (server.records["kind"][writes] == Kind.NOTIFY).any()
    live = server.records[writes][server.records["offset"][writes] == Cell.CLI_LIVE]
    assert set(live["old"].tolist()) == {2}


def test_nothing_is_written_before_there_is_a_client(run: Runs) -> None:
    _, _, (server, _) = run("connect-first")
    live = server.records[server.records["offset"] == Cell.CLI_LIVE]
    after = live[live["call"] == Call.WRITE]
    assert (after["old"][0], after["old"][-1]) == (2, 1)
    first = np.flatnonzero(
        (server.records["offset"] == Cell.RIGHT_PROD) & (server.records["new"] == 64)
    )[0]
    assert server.records["call"][first] == Call.WRITE


def test_a_write_that_hears_of_the_close_fails_in_its_middle(run: Runs) -> None:
    _, facts, (_, client) = run("close-during-write")
    exits = client.records[client.records["kind"] == Kind.CALL_EXIT]
    (write,) = exits[exits["call"] == Call.WRITE]
    assert write["new"] == np.uint64(2**64 - 1)
    puts = client.records[client.records["offset"] == Cell.LEFT_PROD]
    assert puts["new"][-1] == 1000 + 4096
    assert "closed the channel" in facts["endpoints"]["client"]["result"]["ended_early"][0]
