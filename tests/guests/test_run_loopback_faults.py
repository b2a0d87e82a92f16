"""Each kind of fault in a whole run on the loopback host: what came of it, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import parse_experiment
from vchan_testbed.guests.hosts.loopback import LoopbackHost
from vchan_testbed.guests.runner import run_experiment
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import create_run
from vchan_testbed.tracer.layout import FaultKind, Kind
from vchan_testbed.tracer.reader import read_trace

TALK = """\
name: talk
server:
  - read: {bytes: 128, sizes: 64}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 64}
client:
  - write: {bytes: 128, sizes: 64}
  - read: {bytes: 8, sizes: 8}
  - close
faults:
  - {%s}
timeouts: {settle_seconds: 0.5, run_seconds_max: 60}
expect: {progress: INCONCLUSIVE}
"""
WAIT = """\
name: wait
server:
  - read: {bytes: 64, sizes: 64}
  - write: {bytes: 8, sizes: 8}
  - close
client:
  - read: {bytes: 8, sizes: 8}
  - write: {bytes: 64, sizes: 64}
  - close
faults:
  - {%s}
timeouts: {settle_seconds: 0.5, run_seconds_max: 60}
expect: {progress: STALLED}
"""
"""Named as what it is not, because what must hang is refused where progress is expected."""

LAST = """\
name: last
server:
  - read: {bytes: 64, sizes: 64}
  - write: {bytes: 8, sizes: 8}
client:
  - write: {bytes: 64, sizes: 64}
  - read: {bytes: 8, sizes: 8}
  - close
faults:
  - {%s}
expect: {progress: INCONCLUSIVE}
"""
"""Nobody looks at the server's index any more when it has read."""

CASES = [
    # the fault, what became of it, how the run ended, conformance, progress, words of the reason
    (
        "side: client, at: w_put, nth: 2, do: delay, until: {r_take: 1}",
        *("done", "finished", "ACCEPTED", "PROGRESS", ""),
    ),
    (
        "side: client, at: w_put, nth: 2, do: delay, until: {r_raise: 1}, seconds_max: 0.2",
        *("in vain", "finished", "ACCEPTED", "PROGRESS", ""),
    ),
    (
        "side: client, at: w_put, nth: 99, do: drop",
        *("not yet", "finished", "ACCEPTED", "PROGRESS", ""),
    ),
    (
        "side: client, at: w_put, nth: 2, do: drop",
        *("done", "stood still", "REJECTED", "INCONCLUSIVE", "contradicts program order"),
    ),
    (
        "side: client, at: w_put, nth: 1, do: repeat",
        *("done", "finished", "REJECTED", "INCONCLUSIVE", "not those which were written"),
    ),
    (
        "side: server, at: r_have_again, nth: 1, behind: {r_take: 1}, do: stale",
        *("done", "finished", "REJECTED", "INCONCLUSIVE", "less than it did before"),
    ),
    (
        "side: client, at: w_live, nth: 2, do: corrupt, value: 0",
        *("done", "finished", "REJECTED", "INCONCLUSIVE", "contradicts program order"),
    ),
    (
        "side: client, at: c_close, nth: 1, do: drop",
        *("done", "finished", "REJECTED", "INCONCLUSIVE", "the live byte was 1"),
    ),
    (
        "side: client, at: w_put, nth: 2, do: kill",
        *("done", "endpoint died", "ACCEPTED", "INCONCLUSIVE", ""),
    ),
]

Ran = tuple[dict[str, Any], dict[str, Any]]


def run(folder: Path, text: str, fault: str) -> Ran:
    """run.json and verdict.json."""
    (folder / "some.yaml").write_text(text % fault)
    arguments = ["run", str(folder / "some.yaml"), "--host", "loopback", "--seed", "1"]
    ran = CliRunner().invoke(main, [*arguments, "--out", str(folder / "run")])
    assert "Traceback" not in ran.output
    facts = json.loads((folder / "run/run.json").read_text())
    assert facts["counts"]["before"] == facts["counts"]["after"]
    return facts, json.loads((folder / "run/verdict.json").read_text())


def test_a_store_that_nobody_reads_is_missed_in_the_page(tmp_path: Path) -> None:
    facts, verdict = run(tmp_path, LAST, "side: server, at: r_take, nth: 1, do: drop")
    assert facts["outcome"] == "finished"
    assert verdict["conformance"] == "REJECTED"
    assert "left_cons is 0 in the page that the server gives back" in verdict["reason"]


@pytest.mark.parametrize(("fault", "became", "outcome", "conformance", "progress", "reason"), CASES)
def test_a_fault_and_its_verdict(
    tmp_path: Path,
    fault: str,
    became: str,
    outcome: str,
    conformance: str,
    progress: str,
    reason: str,
) -> None:
    facts, verdict = run(tmp_path, TALK, fault)
    (state,) = facts["faults"]
    assert (state["became"], facts["outcome"]) == (became, outcome)
    assert (verdict["conformance"], verdict["progress"]) == (conformance, progress), verdict
    assert reason in verdict["reason"]
    side = str(state["side"])
    records = read_trace(tmp_path / f"run/traces/{side}.vtrace").records
    kinds = set(records["new"][records["kind"] == Kind.FAULT].tolist())
    assert kinds == (set() if became == "not yet" else {FaultKind[state["do"].upper()]})
    never = [text for text in facts["messages"] if "never came to the fault 1" in text]
    assert bool(never) == (became == "not yet")


def test_a_page_that_the_records_do_not_lead_to_is_seen(tmp_path: Path) -> None:
    """Both wait, and nobody owes anything; a bit that nobody tests stands in the page beside."""
    facts, verdict = run(tmp_path, WAIT, "side: server, at: r_arm, nth: 1, do: corrupt, xor: 4")
    assert facts["outcome"] == "stood still"
    # It was killed then: what became of its fault is read from its trace.
    assert facts["faults"][0]["became"] == "done"
    assert (verdict["conformance"], verdict["kind"]) == ("REJECTED", "record")
    assert "cli_notify is 5 in the page" in verdict["reason"]
    assert "the records lead to 1" in verdict["reason"]


def test_the_same_wait_without_a_fault_is_accepted(tmp_path: Path) -> None:
    _, verdict = run(tmp_path, WAIT, "side: server, at: r_arm, nth: 99, do: corrupt, xor: 4")
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")


def test_the_verdict_is_the_same_without_a_look_at_what_was_injected(tmp_path: Path) -> None:
    facts, verdict = run(tmp_path, WAIT, "side: server, at: r_arm, nth: 1, do: corrupt, xor: 4")
    judged = CliRunner().invoke(
        main, ["validate", str(tmp_path / "run"), "--ignore-injected", "--json"]
    )
    without = json.loads(judged.output)
    for key in ("conformance", "progress", "kind", "reason"):
        assert without[key] == verdict[key]
    assert (verdict["faults_injected"], without["faults_injected"]) == (1, 0)
    assert facts["faults"][0]["became"] == "done"


def test_nothing_stays_behind_when_the_peer_of_a_holder_dies(tmp_path: Path) -> None:
    """The server would wait for an hour; the client dies, and so it goes on in vain."""
    text = TALK % "side: client, at: w_put, nth: 2, do: kill"
    delay = "  - {side: server, at: r_take, nth: 1, do: delay, until: {c_close: 1}"
    experiment = parse_experiment(
        text.replace("timeouts", f"{delay}, seconds_max: 3600}}\ntimeouts"), "x.yaml"
    )
    run = create_run(tmp_path / "run", "test", run_id="ab" * 16, messages=[])
    with LoopbackHost() as host:
        run_experiment(host, experiment, run, 1, Quiet())
        assert host.counts() == host.baseline()
    facts = run.facts()
    assert facts["outcome"] == "endpoint died"
    assert [each["became"] for each in facts["faults"]] == ["done", "in vain"]
    assert facts["endpoints"]["server"]["ended"] == "finished"


def test_domains_are_asked_for_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(TALK % "side: client, at: w_put, nth: 1, do: destroy")
    arguments = ["run", str(tmp_path / "some.yaml"), "--host", "loopback"]
    ran = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "run")])
    assert ran.exit_code == ExitStatus.USAGE
    assert "which is done to a domain, and the loopback host has none" in ran.output
    assert "--host qemu" in ran.output
