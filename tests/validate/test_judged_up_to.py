"""How far a verdict reaches: what is left open, why, and what is said of it."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played
from judging import TABLES, judged
from library_model import Run

from vchan_testbed.errors import ExitStatus
from vchan_testbed.tracer.format import write_trace
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.explain import explain
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.lanes import FollowResult
from vchan_testbed.validate.verdict import Verdict

GOOD = "S.r64 C.w30 S.. C.close S.r64 S.close"
ASLEEP = "S.r64 C.w30! C.r9"
ROLES: tuple[Role, Role] = ("server", "client")


def run_of(history: str) -> Run:
    run, _ = played(History.of(history))
    return run


def left_open(verdict: Verdict, reason: str) -> None:
    """It is undecided, says why and what to do, and the exit status is that of an open question."""
    assert (verdict.conformance, verdict.progress) == ("UNDECIDED", "INCONCLUSIVE")
    assert verdict.exit_status == ExitStatus.UNDECIDED
    assert reason in verdict.reason
    assert explain(verdict)[-1] == f"Next: {verdict.advice}."
    assert verdict.advice


@pytest.mark.parametrize("role", ROLES)
def test_a_trace_that_overflowed(role: Role, tmp_path: Path) -> None:
    paths = run_of(GOOD).write(tmp_path)
    trace = read_trace(paths[role])
    write_trace(paths[role], replace(trace.header, dropped=3), trace.records)
    verdict = judge_traces(paths["server"], paths["client"], options=Options(tables=TABLES))
    left_open(verdict, f"records were lost by overflow (3 of the {role})")


@pytest.mark.parametrize("role", ROLES)
def test_a_trace_with_fewer_records_than_were_seen(role: Role, tmp_path: Path) -> None:
    run = run_of(ASLEEP)
    records = run.records(role)
    verdict = judged(run, tmp_path, {role: records[:-1]})
    left_open(verdict, f"the last look counted {len(records)} of the {role}")


def test_calls_that_do_not_block(tmp_path: Path) -> None:
    run = run_of(GOOD)
    facts = run.facts()
    facts["experiment"]["channel"]["blocking"] = False
    assert judged(run, tmp_path, facts=facts, tlc=True).conformance == "ACCEPTED"


def test_a_bound_of_the_search(tmp_path: Path) -> None:
    def at_its_bound(*_: Any, **__: Any) -> FollowResult:
        return FollowResult(accepted=False, undecided="states, 100", ends=())

    paths = run_of(GOOD).write(tmp_path)
    options = Options(judge=at_its_bound, tables=TABLES)
    verdict = judge_traces(paths["server"], paths["client"], options=options)
    left_open(verdict, "the search stopped at its bound: states, 100")


def test_what_came_after_the_last_look_is_not_judged(tmp_path: Path) -> None:
    """The test bed ends a run that stands still: what a thread does then is its doing."""
    run = run_of(ASLEEP)
    facts = run.facts()
    before = judged(run, tmp_path, facts=facts)
    records = run.records("server")
    woken = np.append(records, records[-1:])
    woken[-1]["kind"] = Kind.PENDING_EXIT
    woken[-1]["seq"] += 1
    woken[-1]["new"] = (1 << 64) - 4
    woken[-1]["t0"] = woken[-1]["t1"] = int(records["t1"].max()) + 100
    after = judged(run, tmp_path, {"server": woken}, facts=facts)
    assert (after.conformance, after.progress) == (before.conformance, before.progress)
    assert (after.conformance, after.progress) == ("ACCEPTED", "VIOLATION")
    (note,) = (note for note in after.notes if "after the last look" in note)
    assert note.startswith("1 record of the server came after the last look")


def test_a_run_that_was_not_completed(tmp_path: Path) -> None:
    run = run_of(GOOD)
    verdict = judged(run, tmp_path, facts={**run.facts(), "state": "incomplete"})
    assert verdict.notes[0] == "The run was not completed: its run.json says so."
    assert verdict.conformance == "ACCEPTED"


def test_of_what_stood_still_nobody_expects_an_end_of_its_trace(tmp_path: Path) -> None:
    """Nor that more is said of it than of a run that ended."""
    notes = judged(run_of(ASLEEP), tmp_path).notes
    assert notes == ("The two sides never overlapped: no call saw the other side move.",)


def test_traces_of_two_runs_are_no_pair(tmp_path: Path) -> None:
    paths = run_of(GOOD).write(tmp_path)
    trace = read_trace(paths["client"])
    other = replace(trace.header, run_id=b"another run ....")
    write_trace(paths["client"], other, trace.records)
    with pytest.raises(Exception, match="different runs"):
        judge_traces(paths["server"], paths["client"], options=Options(tables=TABLES))


@pytest.mark.parametrize("missing", ["endpoints", "quiescence", "experiment", "outcome", "host"])
def test_a_run_json_that_lacks_something_is_no_error(missing: str, tmp_path: Path) -> None:
    run = run_of(ASLEEP)
    facts = deepcopy(run.facts())
    del facts[missing]
    verdict = judged(run, tmp_path, facts=facts)
    assert verdict.conformance == "ACCEPTED"
