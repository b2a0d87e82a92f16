"""Agents that serve one experiment after the other, and the batches of runs made with them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from batch import Planned, make_run
from lasting import LastingLoopbackHost

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import Experiment, load_experiment
from vchan_testbed.guests.experiment_model import Fault
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import RunDirectory
from vchan_testbed.tracer.reader import read_trace

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


class Watched(LastingLoopbackHost):
    """Remembers the agents' processes."""

    def __init__(self) -> None:
        super().__init__()
        self.pids: list[tuple[int, ...]] = []

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        """As it is."""
        found = super().endpoints(experiment)
        self.pids.append(tuple(link.pid for link in self._links.values()))
        return found


@pytest.fixture
def host() -> Iterator[Watched]:
    with Watched() as opened:
        yield opened
        assert opened.counts() == opened.baseline()


@pytest.fixture
def ping_pong() -> Experiment:
    return load_experiment(EXPERIMENTS / "ping-pong.yaml")


def made(host: Watched, experiment: Experiment, folder: Path, number: int) -> RunDirectory:
    run = make_run(host, Planned(f"run-{number}", experiment, number), folder, Quiet())
    counts = run.facts()["counts"]
    assert counts["before"] == counts["after"] == host.baseline()
    return run


def test_the_same_agents_serve_one_run_after_the_other(
    tmp_path: Path, host: Watched, ping_pong: Experiment
) -> None:
    runs = [made(host, ping_pong, tmp_path, number) for number in range(3)]
    assert len(set(host.pids)) == 1
    traces = [read_trace(run.trace(end)) for run in runs for end in ("server", "client")]
    # Nothing of a run is in the next one: each has a worker, a trace and a number of its own.
    assert len({trace.header.run_id for trace in traces}) == 3
    assert {trace.ending for trace in traces} == {"complete"}
    assert [run.facts()["outcome"] for run in runs] == ["finished"] * 3
    assert [run.facts()["state"] for run in runs] == ["complete"] * 3


def test_a_worker_that_dies_or_stands_still_does_not_take_its_agent_along(
    tmp_path: Path, host: Watched, ping_pong: Experiment
) -> None:
    killed = replace(ping_pong, faults=(Fault("client", "w_put", 1, "kill"),))
    dropped = replace(ping_pong, faults=(Fault("client", "w_put", 1, "drop"),))
    dropped = replace(dropped, timeouts=replace(dropped.timeouts, settle_seconds=0.3))
    experiments = (killed, dropped, ping_pong)
    runs = [made(host, each, tmp_path, number) for number, each in enumerate(experiments)]
    outcomes = ["endpoint died", "stood still", "finished"]
    assert [run.facts()["outcome"] for run in runs] == outcomes
    assert len(set(host.pids)) == 1


def test_an_agent_that_is_gone_is_replaced(
    tmp_path: Path, host: Watched, ping_pong: Experiment
) -> None:
    made(host, ping_pong, tmp_path, 0)
    os.kill(host.pids[0][0], signal.SIGKILL)
    os.waitid(os.P_PID, host.pids[0][0], os.WEXITED | os.WNOWAIT)
    assert made(host, ping_pong, tmp_path, 1).facts()["outcome"] == "finished"
    (server, client), (new_server, same_client) = host.pids
    assert (server != new_server, client == same_client) == (True, True)


def test_a_run_that_cannot_be_made_says_so_and_the_next_one_is_made(
    tmp_path: Path, host: Watched, ping_pong: Experiment
) -> None:
    killed = replace(ping_pong, faults=(Fault("server", "i_share", 1, "kill"),))
    with pytest.raises(TestbedError, match="ended before it was ready"):
        make_run(host, Planned("first", killed, 0), tmp_path, Quiet())
    assert "ended before it was ready" in RunDirectory(tmp_path / "first").facts()["error"]
    assert made(host, ping_pong, tmp_path, 1).facts()["outcome"] == "finished"


def test_a_client_that_is_killed_while_it_connects_is_a_run(
    tmp_path: Path, host: Watched, ping_pong: Experiment
) -> None:
    killed = replace(ping_pong, faults=(Fault("client", "k_live", 1, "kill"),))
    killed = replace(killed, timeouts=replace(killed.timeouts, settle_seconds=0.3))
    run = made(host, killed, tmp_path, 0)
    ends = run.facts()["endpoints"]
    assert (ends["client"]["ended"], ends["client"]["signal"]) == ("died", signal.SIGKILL)
    assert [fault["became"] for fault in run.facts()["faults"]] == ["done"]


def test_the_agents_end_with_the_host(tmp_path: Path, ping_pong: Experiment) -> None:
    with Watched() as host:
        made(host, ping_pong, tmp_path, 0)
        pids = host.pids[0]
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
