"""`vchan-testbed validate`: what it prints, writes and returns."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus

GOOD = "S.r64 C.w30 S.. C.w200 S.r200 S.r64 C.close S.. S.close"
OPEN = "C.send30 S.recv30 C.close S.close"
"""By the protocol alone it is left open: that has no packets."""
LOST = f"{GOOD}\nchange server read load left_prod 2: lose"


BY_PROTOCOL = ("--spec", "vchan")


def run_of(history: str, folder: Path, **more: Any) -> Path:
    """A run directory."""
    made, changed = played(History.of(history))
    made.write(folder / "traces", changed)
    (folder / "run.json").write_text(json.dumps({**made.facts(), **more}))
    return folder


def validate(*arguments: str | Path) -> Result:
    ran = CliRunner().invoke(main, ["validate", *map(str, arguments)], prog_name="vchan-testbed")
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran


def printed(ran: Result) -> list[str]:
    """What it printed, without the progress that it showed."""
    return ran.stdout.splitlines()


def test_a_good_run(tmp_path: Path) -> None:
    run = run_of(GOOD, tmp_path / "run", host={"kind": "loopback", "xen_version": None})
    ran = validate(run)
    assert ran.exit_code == ExitStatus.EXPECTED
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["expected"] is True
    lines = printed(ran)
    assert lines[0] == "ACCEPTED and PROGRESS, as expected"
    assert lines[1].startswith("No Xen was involved")
    assert lines[-1] == f"Report: {run / 'report.html'}"
    assert any(f"{verdict['records']} records, judged by TLC" in line for line in lines)
    for name in ("report.html", "junit.xml"):
        assert (run / name).stat().st_size > 0


def test_two_traces_without_a_run_directory(tmp_path: Path) -> None:
    traces = run_of(LOST, tmp_path / "run") / "traces"
    ran = validate(traces / "client.vtrace", traces / "server.vtrace")
    assert ran.exit_code == ExitStatus.UNEXPECTED
    assert printed(ran)[0].startswith("REJECTED and INCONCLUSIVE; expected was")
    assert printed(ran)[1].startswith("It is not known whether a Xen was involved")
    assert "Report: " not in ran.output
    assert not (tmp_path / "run" / "verdict.json").exists()


def test_of_several_runs_the_worst_status_counts(tmp_path: Path) -> None:
    open_ = run_of(OPEN, tmp_path / "open")
    bad = run_of(LOST, tmp_path / "bad")
    assert validate(*BY_PROTOCOL, open_).exit_code == ExitStatus.UNDECIDED
    assert validate(*BY_PROTOCOL, bad, open_).exit_code == ExitStatus.UNEXPECTED
    assert validate(*BY_PROTOCOL, open_, bad).exit_code == ExitStatus.UNEXPECTED
    assert (open_ / "report.html").exists()


def test_json_is_what_verdict_json_holds(tmp_path: Path) -> None:
    runs = [run_of(OPEN, tmp_path / "open"), run_of(LOST, tmp_path / "bad")]
    ran = validate("--json", *BY_PROTOCOL, *runs)
    assert json.loads(ran.stdout) == [
        json.loads((run / "verdict.json").read_text()) for run in runs
    ]
    one = json.loads(validate("--json", *BY_PROTOCOL, runs[0]).stdout)
    assert (one["conformance"], one["exit_status"]) == ("UNDECIDED", 3)
    assert one["advice"]


def test_a_dry_run_says_how_it_would_be_judged_and_writes_nothing(tmp_path: Path) -> None:
    run = run_of(GOOD, tmp_path / "run")
    before = sorted(run.rglob("*"))
    ran = validate("--dry-run", run)
    assert ran.exit_code == 0
    assert sorted(run.rglob("*")) == before
    assert "  server: 97 records, complete" in printed(ran)
    steps = r"\d+ steps of the server, \d+ of the client, in 1 piece$"
    assert re.search(rf"^  both, by Libxenvchan: {steps}", ran.output, re.MULTILINE)
    assert re.search(r"^  left, by Vchan: \d+ steps of the client", ran.output, re.MULTILINE)
    command = printed(ran)[-1].split()
    assert command[0].endswith("java")
    assert "tlc2.TLC" in command
    assert command[-1] == "TraceLibxenvchan"


@pytest.mark.parametrize("history", [OPEN, LOST])
def test_a_dry_run_says_when_tlc_would_not_be_asked(history: str, tmp_path: Path) -> None:
    ran = validate("--dry-run", *BY_PROTOCOL, run_of(history, tmp_path / "run"))
    assert "TLC would not be run: " in ran.output
    assert "tlc2.TLC" not in ran.output


def test_packets_are_judged_by_the_spec_of_the_library(tmp_path: Path) -> None:
    run = run_of(OPEN, tmp_path / "run")
    ran = validate(run)
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["conformance"] == "ACCEPTED", ran.output
    assert verdict["spec"]["name"] == "Libxenvchan"
    assert any("was not judged by Vchan as well: packet calls" in note for note in verdict["notes"])
    assert validate(*BY_PROTOCOL, run).exit_code == ExitStatus.UNDECIDED
    assert json.loads((run / "verdict.json").read_text())["spec"]["name"] == "Vchan"
