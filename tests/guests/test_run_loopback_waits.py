"""Bounded progress of runs on the loopback host: an application that sleeps, an event held back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import default_path

IDLE = default_path().parent / "hangs" / "idle-application.yaml"
PAUSE_NS = 5 * 10**9
HELD_NS = 3 * 10**9
FAST_NS = 2 * 10**9
"""All else takes less, even on a machine that has other things to do."""
HELD = """
name: late-wake-up
server:
  - read: {bytes: 128, sizes: 64}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 64}
  - close
client:
  - write: {bytes: 64, sizes: 64}
  - write: {bytes: 64, sizes: 64}
  - read: {bytes: 8, sizes: 8}
  - close
tracing: {order: full}
faults:
  - {side: server, at: wait, nth: 1, do: delay, seconds: 3}
"""


def run(experiment: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """What was said, and what was measured."""
    command = ["run", str(experiment), "--host", "loopback", "--out", str(folder)]
    ran = CliRunner().invoke(main, command)
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    return ran.output, json.loads((folder / "verdict.json").read_text())["bounded"]


def longest(bounded: dict[str, Any], owner: str) -> int:
    """What this owner's actions waited for sure, in ns."""
    owned = [one for one in bounded["actions"] if one["owner"] == owner]
    return max(int(one["longest"]["at_least_ns"]) for one in owned)


@pytest.mark.parametrize("order", ["kept", "full"])
def test_an_application_that_sleeps_is_no_slow_channel(order: str, tmp_path: Path) -> None:
    experiment = tmp_path / "idle.yaml"
    experiment.write_text(f"{IDLE.read_text()}\ntracing: {{order: {order}}}\n")
    said, bounded = run(experiment, tmp_path / "run")
    slowest = bounded["actions"][0]
    assert (slowest["action"], slowest["owner"]) == ("next call of the client", "application")
    assert slowest["longest"]["at_least_ns"] >= PAUSE_NS
    assert slowest["longest"]["place"]["what"] == "write: call enter, size 64"
    for owner in ("library", "event channel"):
        assert longest(bounded, owner) < FAST_NS
    if order == "full":
        # With a time stamp at each access it is known for sure.
        due = [one for one in bounded["actions"] if one["owner"] != "application"]
        assert max(one["at_most_ns"] for one in due) < FAST_NS
    assert "Waited for longest: application 5" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "How long what was due waited" in page


def test_an_event_that_is_held_back_is_the_event_channels(tmp_path: Path) -> None:
    experiment = tmp_path / "held.yaml"
    experiment.write_text(HELD)
    _, bounded = run(experiment, tmp_path / "run")
    slowest = bounded["actions"][0]
    assert (slowest["action"], slowest["owner"]) == ("wait server", "event channel")
    # It came some time after the hold began.
    assert slowest["longest"]["at_least_ns"] > HELD_NS * 0.5
    assert slowest["longest"]["at_most_ns"] < HELD_NS + FAST_NS
    assert slowest["longest"]["place"]["endpoint"] == "server"
    assert longest(bounded, "library") < FAST_NS
    assert longest(bounded, "application") < FAST_NS
    (left,) = (one for one in bounded["bytes"] if one["direction"] == "left")
    assert left["median_ns"] > HELD_NS * 0.5
