"""The loopback host's links to its agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from vchan_testbed.guests.hosts import loopback
from vchan_testbed.guests.hosts.loopback import ProcessLink

SECONDS_MAX = 120.0


def test_an_agent_that_is_killed_in_the_middle_of_a_frame_is_gone_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback, "AGENT", "tests.processes.half_a_frame")
    link = ProcessLink(1, {"PYTHONPATH": str(Path(__file__).parents[2])}, tmp_path / "console")
    try:
        hello = link.events.get(timeout=SECONDS_MAX)
        assert hello is not None
        assert hello.message() == {"type": "hello", "pid": link.pid}
        assert link.events.get(timeout=SECONDS_MAX) is None
    finally:
        link.close()
    assert not link.running
