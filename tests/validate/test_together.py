"""Many runs judged together get the verdicts that each gets by itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "matrix"))

from batch import Planned, make_run
from lasting import LastingLoopbackHost

from vchan_testbed.guests.experiment import Experiment, load_experiment
from vchan_testbed.guests.experiment_model import Fault
from vchan_testbed.progress import Quiet
from vchan_testbed.validate.judge import Options, judge_run
from vchan_testbed.validate.prepare import load_tables
from vchan_testbed.validate.tlc import together as in_tlc
from vchan_testbed.validate.tlc.runner import TlcOutput, run_tlc
from vchan_testbed.validate.together import judge_runs
from vchan_testbed.validate.verdict import Verdict

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FAULTS = {
    "without": (),
    "store dropped": (Fault("client", "w_put", 1, "drop"),),
    "event dropped": (Fault("client", "w_raise", 1, "drop"),),
    "killed": (Fault("client", "w_put", 2, "kill"),),
}
DUE = {
    "without": ("ACCEPTED", "PROGRESS"),
    "again without": ("ACCEPTED", "PROGRESS"),
    "store dropped": ("REJECTED", "INCONCLUSIVE"),
    "event dropped": ("ACCEPTED", "VIOLATION"),
    "killed": ("ACCEPTED", "INCONCLUSIVE"),
    "tail lost": ("KNOWN", "PROGRESS"),
}


def dropped_for_sure(experiment: Experiment, faults: tuple[Fault, ...]) -> Experiment:
    """The client writes when the server waits for it: an event is due, and one missing tells."""
    waits = Fault("client", "w_put", 1, "delay", until=("r_have_again", 2), seconds_max=5)
    timeouts = replace(experiment.timeouts, settle_seconds=0.3)
    return replace(experiment, faults=(waits, *faults), timeouts=timeouts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of each kind: most are answered in one run of TLC, the others need more."""
    folder = tmp_path_factory.mktemp("runs")
    ping_pong = load_experiment(EXPERIMENTS / "ping-pong.yaml")
    planned = [
        Planned(name, dropped_for_sure(ping_pong, faults), 1) for name, faults in FAULTS.items()
    ]
    planned.append(Planned("again without", dropped_for_sure(ping_pong, ()), 2))
    planned.append(Planned("tail lost", load_experiment(EXPERIMENTS / "hangs/close-race.yaml"), 1))
    with LastingLoopbackHost() as host:
        return [make_run(host, one, folder, Quiet()).path for one in planned]


def shown(verdict: Verdict) -> dict[str, Any]:
    """All but how long it took, and how many states: of many traces those are counted that TLC
    generates, of one those that it keeps.
    """
    parts = tuple(replace(part, states=0) for part in verdict.directions)
    return replace(verdict, directions=parts, seconds=0.0).to_json()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules of TLC's runs for many."""
    seen = []

    def counted(job: Any, *rest: Any) -> TlcOutput:
        seen.append(job.module)
        return run_tlc(job, *rest)

    monkeypatch.setattr(in_tlc, "run_tlc", counted)
    return seen


def test_verdicts_are_the_same_together_and_one_by_one(runs: list[Path], starts: list[str]) -> None:
    options = Options(tables=load_tables())
    together = judge_runs(runs, options=options)
    alone = [judge_run(run, options=options) for run in runs]
    assert [shown(one) for one in together] == [shown(one) for one in alone]
    said = {run.name: (v.conformance, v.progress) for run, v in zip(runs, together, strict=True)}
    assert said == DUE
    assert 0 < len(starts) < 3 * len(runs)


def test_runs_that_are_alike_take_one_run_of_tlc_a_spec(
    runs: list[Path], starts: list[str]
) -> None:
    alike = [run for run in runs if run.name.endswith("without")]
    verdicts = judge_runs(alike)
    assert {(v.conformance, v.progress) for v in verdicts} == {("ACCEPTED", "PROGRESS")}
    # The channel, and its two directions, which have rings of different sizes.
    assert sorted(starts) == ["TraceLibxenvchan", "TraceVchan", "TraceVchan"]


def test_none_is_no_question(starts: list[str]) -> None:
    assert judge_runs([]) == []
    assert starts == []


def test_what_tlc_cannot_do_for_all_is_done_one_by_one(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the bound nothing is answered; the verdict comes as always."""
    monkeypatch.setattr(in_tlc, "STATES_MAX", 20)
    (run,) = (run for run in runs if run.name == "without")
    assert shown(judge_runs([run])[0]) == shown(judge_run(run))
