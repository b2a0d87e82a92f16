"""Faults on real Xen: what the host does to a domain at a step, and what two domains do at one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.tracer.layout import FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace, read_trace

HANGS = Path(__file__).parents[2] / "experiments" / "hangs"
GONE = "STALLED, conformance: KNOWN, known: [L9], fault_of: peer domain gone"
pytestmark = pytest.mark.xen

TALK = """\
name: talk
server:
  - read: {bytes: 64, sizes: 64}
%s  - read: {bytes: 128, sizes: 64}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 64}
client:
  - write: {bytes: 192, sizes: 64}
  - read: {bytes: 8, sizes: 8}
  - close
faults:
  - {%s}
timeouts: {settle_seconds: 5, run_seconds_max: 60}
expect: {progress: %s}
"""

Ran = tuple[dict[str, Any], dict[str, Any], dict[str, Trace]]


def run(folder: Path, fault: str, progress: str, then: str = "") -> Ran:
    """The same with `then` as what the server does when it has read the first of three writes."""
    (folder / "talk.yaml").write_text(TALK % (then, fault, progress))
    return ran_as_expected(folder / "talk.yaml", folder)


def ran_as_expected(experiment: Path, folder: Path) -> Ran:
    """run.json, verdict.json and the traces of a run that went as expected."""
    arguments = ["run", str(experiment), "--out", str(folder / "run")]
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    facts = json.loads((folder / "run/run.json").read_text())
    assert facts["counts"]["before"] == facts["counts"]["after"]
    verdict = json.loads((folder / "run/verdict.json").read_text())
    traces = {
        side: read_trace(folder / f"run/traces/{side}.vtrace") for side in ("server", "client")
    }
    return facts, verdict, traces


def last_fault(trace: Trace, kind: FaultKind) -> int:
    """Where the last fault stands, which is one of that kind."""
    at = int((trace.records["kind"] == Kind.FAULT).nonzero()[0][-1])
    assert trace.records["new"][at] == kind
    return at


@pytest.mark.parametrize("do", ["destroy", "panic"])
def test_a_domain_dies_at_a_step(tmp_path: Path, do: str) -> None:
    fault = f"side: client, at: w_put, nth: 3, do: {do}"
    facts, verdict, traces = run(tmp_path, fault, GONE)
    assert facts["outcome"] == "domain died"
    assert facts["endpoints"]["client"]["ended"] == "lost"
    (act,) = facts["acts"]
    assert (act["do"], act["domain"]) == (do, "client")
    assert [each["became"] for each in facts["faults"]] == ["held"]
    # The trace has come up to the mark, and is cut there: nothing is behind it.
    client = traces["client"]
    assert client.ending == "cut"
    at = last_fault(client, FaultKind[do.upper()])
    assert act["records"] == at + 1 == len(client.records)
    assert "domain is gone" in verdict["progress_reason"]


@pytest.mark.parametrize("name", ["domain-destroyed", "domain-saved", "guest-panic"])
def test_a_reader_whose_peer_is_gone_waits_for_ever(tmp_path: Path, name: str) -> None:
    """The hang that is reported: the experiment says what has to be said of it."""
    _, verdict, _ = ran_as_expected(HANGS / f"{name}.yaml", tmp_path)
    assert verdict["known"] == ["L9"]
    assert verdict["fault_of"] == "peer domain gone"


def test_a_reader_whose_domain_is_paused_is_told_from_one_that_hangs(tmp_path: Path) -> None:
    facts, verdict, _ = ran_as_expected(HANGS / "domain-paused.yaml", tmp_path)
    assert verdict["fault_of"] == "peer domain paused"
    looks = [look["endpoints"]["server"] for look in facts["quiescence"]["looks"]]
    assert [look["domain"]["state"] for look in looks] == ["paused", "paused"]
    assert {look["interrupts"]["now"]["count"] for look in looks} == {None}


def test_a_channel_to_the_own_domain_is_refused(tmp_path: Path) -> None:
    arguments = ["run", str(HANGS / "own-domid.yaml"), "--out", str(tmp_path / "run")]
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    assert "No channel, as expected" in ran.output
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["counts"]["before"] == facts["counts"]["after"]


def test_a_domain_is_paused_at_a_step_and_unpaused_at_one_of_its_peer(tmp_path: Path) -> None:
    """The server knows that its client is paused, and lets it run when it wants its bytes."""
    pause = "side: client, at: w_put, nth: 2, do: pause"
    unpause = "side: server, at: call_read, nth: 2, do: unpause"
    both = f"{pause}}}\n  - {{{unpause}"
    facts, verdict, traces = run(tmp_path, both, "PROGRESS", "  - await_hold: {}\n")
    assert facts["outcome"] == "finished"
    assert [(act["do"], act["domain"]) for act in facts["acts"]] == [
        ("pause", "client"),
        ("unpause", "client"),
    ]
    assert [each["became"] for each in facts["faults"]] == ["done", "done"]
    at = last_fault(traces["client"], FaultKind.PAUSE)
    assert traces["client"].records["flags"][at + 1] & Flag.HELD
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")


def test_a_process_is_killed_at_a_step(tmp_path: Path) -> None:
    fault = "side: client, at: w_put, nth: 3, do: kill"
    facts, verdict, traces = run(tmp_path, fault, "INCONCLUSIVE")
    assert facts["outcome"] == "endpoint died"
    assert [each["became"] for each in facts["faults"]] == ["done"]
    assert last_fault(traces["client"], FaultKind.KILL) == len(traces["client"].records) - 1
    assert verdict["conformance"] in ("ACCEPTED", "KNOWN")


def test_a_step_waits_for_one_of_the_peer(tmp_path: Path) -> None:
    fault = "side: client, at: w_put, nth: 2, do: delay, until: {r_take: 1}"
    facts, verdict, _ = run(tmp_path, fault, "PROGRESS")
    assert [each["became"] for each in facts["faults"]] == ["done"]
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
