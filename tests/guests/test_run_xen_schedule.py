"""Two real domains, led through behaviours that TLC has found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reproducing import PRINTED, config_of, pinned_steps, reproduced

from vchan_testbed.errors import ExitStatus

pytestmark = pytest.mark.xen


def test_the_lost_tail_happens_between_domains(tmp_path: Path) -> None:
    status, facts, verdict = reproduced(tmp_path, "l1", host="auto")
    assert facts["schedule"] == {"steps": 14, "taken": 14, "unfollowed": None}
    assert (verdict["conformance"], verdict["known"]) == ("KNOWN", ["L1"])
    assert verdict["host"]["xen_version"]
    assert facts["endpoints"]["server"]["result"]["read_bytes"] == 0
    assert status == ExitStatus.EXPECTED


def test_the_deadlock_of_packets_happens_between_domains(tmp_path: Path) -> None:
    config = config_of("packets_stand_off", tmp_path)
    status, facts, verdict = reproduced(tmp_path, str(PRINTED), "--config", config, host="auto")
    steps = len(pinned_steps("packets_stand_off"))
    assert facts["schedule"] == {"steps": steps, "taken": steps, "unfollowed": None}
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "STALLED")
    assert verdict["host"]["xen_version"]
    assert status == ExitStatus.EXPECTED
