"""What a run took is counted before and after it, and a difference is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.accounts import difference
from vchan_testbed.guests.experiment import default_path, load_experiment
from vchan_testbed.guests.hosts.loopback import LoopbackHost
from vchan_testbed.guests.runner import run_experiment
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import RunDirectory, create_run

PING_PONG = default_path().with_name("ping-pong.yaml")


class Notes(Quiet):
    """Remembers what was noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Remember it."""
        self.texts.append(text)


class Leaking(LoopbackHost):
    """A host that finds a port in use after the run that was not in use before."""

    def give_back(self) -> dict[str, int]:
        counts = super().give_back()
        return {**counts, "ports": counts["ports"] + 1}


class Gone(LoopbackHost):
    """A host that is not there any more when the run is over."""

    def give_back(self) -> dict[str, int]:
        super().give_back()
        raise TestbedError("The helper is gone: its stream ended.")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(tmp_path / "run", "test", run_id="ab" * 16, messages=[])


def perform(host: LoopbackHost, run: RunDirectory) -> list[str]:
    notes = Notes()
    with host:
        run_experiment(host, load_experiment(PING_PONG), run, 1, notes)
    return notes.texts


def test_what_was_taken_is_given_back(run: RunDirectory) -> None:
    perform(LoopbackHost(), run)
    counts = run.facts()["counts"]
    assert counts["before"] == counts["after"]
    assert set(counts["after"].values()) == {0}
    assert run.facts()["messages"] == []


def test_what_was_left_behind_is_told(run: RunDirectory) -> None:
    told = perform(Leaking(), run)
    said = "Not the same in use before and after the run: ports 0 -> 1."
    assert said in told
    assert run.facts()["messages"] == [said]
    assert run.facts()["counts"]["after"]["ports"] == 1


def test_of_a_host_that_is_gone_there_is_no_count(run: RunDirectory) -> None:
    perform(Gone(), run)
    assert run.facts()["counts"]["after"] is None
    (said,) = run.facts()["messages"]
    assert "The helper is gone" in said


def test_a_difference_names_what_differs_only() -> None:
    assert difference({"ports": 3, "vifs": 0}, {"ports": 3, "vifs": 0}) == ""
    said = difference({"ports": 3, "vifs": 0}, {"ports": 2, "vifs": 1, "keys": 2})
    assert said.endswith("run: ports 3 -> 2, vifs 0 -> 1, keys 0 -> 2.")
