"""The same experiments on real Xen in QEMU: each in two domains, judged, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from library_cases import CASES, Case

from vchan_testbed.guests.experiment import ENDPOINTS, default_path
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.reader import read_trace

pytestmark = pytest.mark.xen

RUN_SECONDS_MAX = 1400.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_experiment_is_judged_as_it_is_meant_on_real_xen(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "run"
    path = default_path().parent / f"{case.name}.yaml"
    command = [
        *(sys.executable, "-c", "from vchan_testbed.cli import main; main()"),
        *("run", str(path), "--host", "qemu", "--out", str(out)),
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
    facts = json.loads((out / "run.json").read_text())
    assert (verdict["conformance"], verdict["progress"]) == (case.conformance, case.progress)
    assert verdict["known"] == list(case.known)
    assert (ended.returncode, verdict["expected"]) == (0, True)
    assert verdict["host"]["xen_version"].startswith("4.17")
    assert facts["state"] == "complete"
    assert facts["counts"]["before"] == facts["counts"]["after"]
    server, client = (read_trace(out / "traces" / f"{end}.vtrace") for end in ENDPOINTS)
    assert check_pair(server, client) == []
    for end in ENDPOINTS:
        assert facts["endpoints"][end]["ended"] == ("finished" if case.ends else "killed")
        if case.ends:
            result = facts["endpoints"][end]["result"]
            assert result["mismatches"] == []
            assert bool(result["ended_early"]) == (end in case.early)
