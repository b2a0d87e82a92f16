"""Whole runs on real Xen in QEMU: the command, two domains, the verdict, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vchan_testbed
from vchan_testbed.guests.experiment import load_experiment
from vchan_testbed.guests.hosts.qemu import QemuHost, SshAccess
from vchan_testbed.progress import Quiet

pytestmark = pytest.mark.xen

EXPERIMENTS = Path(vchan_testbed.__file__).parents[2] / "experiments"
RUN_SECONDS_MAX = 1400.0


def run(
    experiment: str, out: Path, *options: str, host: str = "qemu"
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Exit status, verdict.json and run.json of `vchan-testbed run`."""
    command = [
        *(sys.executable, "-c", "from vchan_testbed.cli import main; main()"),
        *("run", str(EXPERIMENTS / experiment), "--host", host, "--out", str(out), *options),
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
    assert facts["state"] == "complete"
    assert verdict["host"]["xen_version"].startswith("4.17")
    assert facts["counts"]["before"] == facts["counts"]["after"]
    return ended.returncode, verdict, facts


@pytest.mark.parametrize(
    ("experiment", "options", "domain_type"),
    [
        ("default.yaml", (), "pv"),
        ("default.yaml", ("--domain-type", "pvh"), "pvh"),
        ("dom0-client.yaml", (), "dom0+pv"),
        ("dom0-server.yaml", (), "dom0+pv"),
    ],
)
def test_a_run_is_accepted_on_real_xen(
    experiment: str, options: tuple[str, ...], domain_type: str, tmp_path: Path
) -> None:
    status, verdict, facts = run(experiment, tmp_path / "run", *options)
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
    assert status == 0
    assert verdict["expected"] is True
    assert verdict["domain_type"] == domain_type
    assert verdict["records"] > 4000
    assert facts["counts"]["after"]["domains"] == 0
    assert {end["ended"] for end in facts["endpoints"].values()} == {"finished"}
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_dropped_event_is_a_violation_on_real_xen(tmp_path: Path) -> None:
    status, verdict, facts = run("hangs/dropped-event.yaml", tmp_path / "run", "--xen-dump")
    assert verdict["progress"] == "VIOLATION"
    assert verdict["fault_of"] == "event channel"
    assert verdict["due_action"] == "wait server"
    assert verdict["faults_injected"] == 1
    assert facts["quiescence"]["quiescent"] is True
    assert status == 0
    # The kernel has counted each event that the process has read, and Xen has none for it.
    for seen in facts["quiescence"]["looks"][-1]["endpoints"].values():
        counted = seen["interrupts"]
        # A channel that is bound is pending, and the other end may have raised one more by then.
        assert 0 <= counted["ready"]["count"] <= counted["now"]["count"]
        assert counted["now"]["count"] == seen["events_read"] > 0
        assert seen["domain"]["state"] in ("running", "blocked", "ready to run")
        port = seen["event_channel"]
        assert (port["pending"], port["masked"], port["port"]) == (False, False, seen["port"])
    assert "in Xen the port was not pending and not masked" in verdict["progress_reason"]


def test_a_host_behind_ssh_is_a_host_like_another(
    tmp_path: Path, ssh_address: Callable[[SshAccess], str]
) -> None:
    with QemuHost(load_experiment(None), Quiet()) as machine:
        before = machine.counts()
        address = ssh_address(machine.ssh())
        status, verdict, facts = run("ping-pong.yaml", tmp_path / "run", host=address)
        assert machine.counts() == before
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
    assert status == 0
    assert (facts["host"]["kind"], facts["host"]["emulated"]) == ("ssh", True)
    # Nobody told it so: the host's processors did.
    assert verdict["domain_type"] == "pv"
    # Those of this machine's own run stay idle beside it, and are nobody's concern.
    assert facts["counts"]["after"]["domains"] == 2


def test_a_tail_that_is_lost_at_a_close_is_known_on_real_xen(tmp_path: Path) -> None:
    status, verdict, facts = run("hangs/close-race.yaml", tmp_path / "run")
    assert (verdict["conformance"], verdict["known"]) == ("KNOWN", ["L1"])
    assert status == 0
    server = facts["endpoints"]["server"]["result"]
    client = facts["endpoints"]["client"]["result"]
    assert server["read_bytes"] < client["written_bytes"]
    (place,) = verdict["known_uses"][0]["places"]
    assert place["endpoint"] == "server"
