"""Whole runs on real Xen in QEMU: the command, two domains, the verdict, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vchan_testbed

pytestmark = pytest.mark.xen

EXPERIMENTS = Path(vchan_testbed.__file__).parents[2] / "experiments"
RUN_SECONDS_MAX = 1400.0


def run(experiment: str, out: Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Exit status, verdict.json and run.json of `vchan-testbed run --host qemu`."""
    command = [
        *(sys.executable, "-c", "from vchan_testbed.cli import main; main()"),
        *("run", str(EXPERIMENTS / experiment), "--host", "qemu", "--out", str(out)),
    ]
    ended = subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    assert (out / "verdict.json").exists(), ended.stderr[-4000:]
    verdict = json.loads((out / "verdict.json").read_text())
    return ended.returncode, verdict, json.loads((out / "run.json").read_text())


def test_the_default_experiment_is_accepted_on_real_xen(tmp_path: Path) -> None:
    status, verdict, facts = run("default.yaml", tmp_path / "run")
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
    assert status == 0
    assert verdict["expected"] is True
    assert verdict["host"]["xen_version"].startswith("4.17")
    assert verdict["records"] > 4000
    assert facts["state"] == "complete"
    assert {end["ended"] for end in facts["endpoints"].values()} == {"finished"}
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_dropped_event_is_a_violation_on_real_xen(tmp_path: Path) -> None:
    status, verdict, facts = run("dropped-event.yaml", tmp_path / "run")
    assert verdict["progress"] == "VIOLATION"
    assert verdict["fault_of"] == "event channel"
    assert verdict["due_action"] == "r_wait"
    assert verdict["faults_injected"] == 1
    assert facts["quiescence"]["quiescent"] is True
    assert status == 0
