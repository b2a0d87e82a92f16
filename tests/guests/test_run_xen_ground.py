"""The ground under a run gives way on real Xen: that is the test bed's failure, never a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vchan_testbed.cli import main
from vchan_testbed.commands import run as run_command
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.progress import Progress

pytestmark = pytest.mark.xen

TRIPLE_FAULT = Path(__file__).with_name("triple_fault.py")

Act = Callable[[QemuHost, dict[str, AgentLink]], None]
Perform = Callable[..., tuple[Result, dict[str, Any]]]
InDom0 = Callable[..., str]


class Shaken(QemuHost):
    """Xen in QEMU; `act` happens when the first pair is ready and has not begun."""

    def __init__(self, experiment: Experiment, progress: Progress, act: Act) -> None:
        super().__init__(experiment, progress)
        self._act: Act | None = act

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        links = super().endpoints(experiment)
        act, self._act = self._act, None
        if act is not None:
            act(self, links)
        return links


@pytest.fixture
def perform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perform:
    """Run the command with the default experiment; what it said, and run.json."""

    def run(act: Act, *options: str) -> tuple[Result, dict[str, Any]]:
        monkeypatch.setattr(
            run_command,
            "open_host",
            lambda name, experiment, progress: Shaken(experiment, progress, act),
        )
        command = ["run", "--out", str(tmp_path / "run"), *options]
        # What fails in `act` is told as what it is.
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert "Traceback" not in result.output
        return result, json.loads((tmp_path / "run/run.json").read_text())

    return run


def test_a_guest_that_the_emulator_loses_is_made_anew(
    perform: Perform, in_dom0: InDom0, tmp_path: Path
) -> None:
    lost = []

    def fault(host: QemuHost, links: dict[str, AgentLink]) -> None:
        lost.append(links["client"].domid)
        in_dom0(host.ssh(), f"python3 - {links['client'].domid}", TRIPLE_FAULT)

    result, facts = perform(fault, "--domain-type", "pvh")
    assert facts["messages"][-2:] == [
        f"The emulator lost the client's guest (domain {lost[0]}, triple fault, shut down).",
        "The pair is made anew (1 of 3).",
    ], result.output
    assert "The pair is made anew (1 of 3)." in result.output
    assert facts["endpoints"]["client"]["domid"] not in (0, lost[0])
    assert facts["counts"]["before"] == facts["counts"]["after"]
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
    assert result.exit_code == ExitStatus.EXPECTED


def test_registers_that_do_not_hold_in_dom0_are_no_verdict(
    perform: Perform, in_dom0: InDom0, tmp_path: Path
) -> None:
    """They were seen to change there first: dom0 is switched most often."""

    def fail(host: QemuHost, _: dict[str, AgentLink]) -> None:
        status = "/run/vchan-selftest.status"
        assert in_dom0(host.ssh(), f"tail -n 1 {status}").startswith("ok ")
        in_dom0(host.ssh(), f"echo failed registers: xmm3 did not hold >>{status}")

    result, facts = perform(fail)
    assert result.exit_code == ExitStatus.TESTBED_FAILED
    assert "The self-test of dom0 failed: failed registers: xmm3" in result.output
    assert facts["state"] == "incomplete"
    assert facts["selftest"]["host"]["ok"] is False
    assert facts["selftest"]["client"]["ok"] is True
    assert not (tmp_path / "run/verdict.json").exists()
