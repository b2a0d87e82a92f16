"""The whole command on the loopback host: run, judge, report, exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import default_path, load_experiment
from vchan_testbed.tracer.layout import ACCESS_KINDS, Cell, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import read_trace

DROPPED = default_path().parent / "hangs/dropped-event.yaml"
MUTUAL = default_path().parent / "hangs/mutual-writes.yaml"
CLOSE_RACE = default_path().parent / "hangs/close-race.yaml"


def run(out: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status, what was said, and the verdict."""
    command = ["run", *arguments, "--host", "loopback", "--out", str(out), "--seed", "1"]
    ran = CliRunner().invoke(main, command)
    assert "Traceback" not in ran.output
    assert (out / "verdict.json").exists(), ran.output
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    assert verdict["exit_status"] == ran.exit_code
    assert "No Xen was involved" in ran.output
    assert verdict["host"]["xen_version"] is None
    assert verdict["domain_type"] == "none"
    for name in ("report.html", "junit.xml"):
        assert (out / name).stat().st_size > 0
    facts = json.loads((out / "run.json").read_text())
    assert facts["state"] == "complete"
    # It can be run again from there.
    again = load_experiment(out / "experiment.yaml").to_dict()
    assert json.loads(json.dumps(again)) == facts["experiment"]
    return ran.exit_code, ran.output, verdict


def without_expectation(path: Path, folder: Path, changed: str = "") -> str:
    """A copy of an experiment whose last line, `expect:`, is another one."""
    text, before, _ = path.read_text().rpartition("expect:")
    assert before
    (folder / "changed.yaml").write_text(text + changed)
    return str(folder / "changed.yaml")


def test_the_default_experiment_is_accepted_and_makes_progress(tmp_path: Path) -> None:
    status, said, verdict = run(tmp_path / "run")
    assert status == ExitStatus.EXPECTED, said
    assert "ACCEPTED and PROGRESS, as expected" in said
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
    assert verdict["expected"] is True
    assert verdict["first_unexplained"] is None
    assert verdict["records"] > 1000
    assert verdict["coverage"]


def test_a_dropped_event_is_a_violation_by_the_event_channel(tmp_path: Path) -> None:
    expect = "expect: {progress: STALLED}\n"
    status, said, verdict = run(
        tmp_path / "run", without_expectation(DROPPED, tmp_path, changed=expect)
    )
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "VIOLATION")
    assert verdict["fault_of"] == "event channel"
    assert verdict["due_action"] == "wait server"
    assert verdict["expected"] is False
    assert status == ExitStatus.UNEXPECTED
    assert "expected was ACCEPTED and STALLED" in said
    assert "the fault of the event channel" in said


def test_a_close_that_comes_between_two_looks_is_known_to_lose_the_tail(tmp_path: Path) -> None:
    status, said, verdict = run(tmp_path / "run", str(CLOSE_RACE))
    assert status == ExitStatus.EXPECTED, said
    assert "KNOWN and PROGRESS, as expected" in said
    assert verdict["known"] == ["L1"]
    ((place,),) = (use["places"] for use in verdict["known_uses"])
    assert (place["endpoint"], place["what"]) == ("server", "read: call exit, -1")
    assert "bytes in the ring 64" in place["reason"]
    records = read_trace(tmp_path / "run" / "traces" / "server.vtrace").records
    told = records[place["row"]]
    assert (told["seq"], told["kind"]) == (place["record"], Kind.CALL_EXIT)
    fault, held = records[place["row"] - 2], records[place["row"] - 1]
    assert (fault["kind"], fault["new"]) == (Kind.FAULT, FaultKind.DELAY)
    assert held[["kind", "offset", "new", "flags"]].tolist() == (
        Kind.LOAD,
        Cell.CLI_LIVE,
        0,
        Flag.HELD,
    )


THE_OTHER_WAY_ROUND = """\
faults:
  - {side: client, at: c_close, nth: 1, do: delay, until: {left_cons: 1088}}
"""


def test_the_same_close_after_the_read_is_accepted(tmp_path: Path) -> None:
    """The same race without that fault; who closes is held until all was read."""
    text, _, _ = CLOSE_RACE.read_text().partition("faults:")
    text = text.replace("  - await_hold: {}\n", "") + THE_OTHER_WAY_ROUND
    expect = "expect: {conformance: KNOWN, known: [L1]}\n"
    (tmp_path / "changed.yaml").write_text(text + expect)
    status, said, verdict = run(tmp_path / "run", str(tmp_path / "changed.yaml"))
    assert status == ExitStatus.UNEXPECTED
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS"), said
    assert (verdict["known"], verdict["known_uses"]) == ([], [])


def test_writing_past_each_other_is_stalled(tmp_path: Path) -> None:
    status, said, verdict = run(tmp_path / "run", str(MUTUAL))
    assert status == ExitStatus.EXPECTED, said
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "STALLED")


TWO_THREADS = """\
name: two-threads
channel: {threads: duplex}
server:
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
client:
  - read: {bytes: 8, sizes: 8}
  - write: {bytes: 8, sizes: 8}
expect: {%s}
"""


def test_what_the_spec_cannot_express_is_undecided(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO_THREADS % "conformance: KNOWN, known: [L1]")
    status, said, verdict = run(tmp_path / "run", str(tmp_path / "two.yaml"))
    assert status == ExitStatus.UNDECIDED
    assert "the spec of the library has no steps for this: several threads" in said
    assert (verdict["conformance"], verdict["progress"]) == ("UNDECIDED", "INCONCLUSIVE")
    assert verdict["expected"] is False


def test_undecided_is_fine_where_it_is_expected(tmp_path: Path) -> None:
    expect = "conformance: UNDECIDED, progress: INCONCLUSIVE"
    (tmp_path / "two.yaml").write_text(TWO_THREADS % expect)
    status, said, _ = run(tmp_path / "run", str(tmp_path / "two.yaml"))
    assert status == ExitStatus.EXPECTED, said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("default", ["ACCEPTED", "PROGRESS"]),
        ("packets", ["ACCEPTED", "PROGRESS"]),
        ("hangs/dropped-event", ["ACCEPTED", "VIOLATION"]),
        ("hangs/mutual-writes", ["ACCEPTED", "STALLED"]),
    ],
)
def test_calls_and_events_alone_give_the_same_verdict(
    name: str, words: list[str], tmp_path: Path
) -> None:
    experiment = tmp_path / "calls.yaml"
    text = (default_path().parent / f"{name}.yaml").read_text()
    experiment.write_text(f"{text}tracing: {{level: calls}}\n")
    status, said, verdict = run(tmp_path / "run", str(experiment))
    assert status == ExitStatus.EXPECTED, said
    assert [verdict["conformance"], verdict["progress"]] == words
    assert verdict["level"] == "calls"
    assert "Calls and events alone were judged" in said
    for end in ("server", "client"):
        trace = read_trace(tmp_path / "run" / "traces" / f"{end}.vtrace")
        assert trace.header.level == "calls"
        assert not set(trace.records["kind"].tolist()) & {*ACCESS_KINDS, Kind.COPY}


def test_a_run_is_judged_again_as_if_calls_alone_had_been_recorded(tmp_path: Path) -> None:
    status, _, exact = run(tmp_path / "run", str(DROPPED))
    assert status == ExitStatus.EXPECTED
    again = CliRunner().invoke(main, ["validate", "--level", "calls", str(tmp_path / "run")])
    assert again.exit_code == ExitStatus.EXPECTED, again.output
    calls = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert (exact["level"], calls["level"]) == ("exact", "calls")
    for word in ("conformance", "progress", "fault_of", "due_action"):
        assert calls[word] == exact[word]


def test_a_fault_at_an_access_is_refused_where_none_is_caught(tmp_path: Path) -> None:
    experiment = tmp_path / "calls.yaml"
    experiment.write_text(f"{CLOSE_RACE.read_text()}tracing: {{level: calls}}\n")
    command = ["run", str(experiment), "--host", "loopback", "--out", str(tmp_path / "run")]
    ran = CliRunner().invoke(main, command)
    assert ran.exit_code == ExitStatus.USAGE
    assert "r_live is an access, and accesses are not caught at the level calls" in ran.output
    assert "Next: Trace at the level exact." in ran.output
    assert not (tmp_path / "run").exists()
