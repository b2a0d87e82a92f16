"""Schedules: who goes next, what is refused, and runs on the loopback host that keep to one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from building import build_library

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus, InputError
from vchan_testbed.guests.experiment import load_experiment, parse_experiment
from vchan_testbed.guests.fault_steps import load_steps
from vchan_testbed.guests.schedule import Conductor
from vchan_testbed.rundir import RunDirectory
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Kind
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.judge import Options, prepared

L1 = Path(__file__).parents[2] / "experiments" / "schedule.yaml"
RUNS = 20


def run(folder: Path, experiment: Path, *more: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status, output and run.json of a run on the loopback host."""
    arguments = ["run", str(experiment), "--host", "loopback", "--out", str(folder), *more]
    ran = CliRunner().invoke(main, arguments)
    assert "Traceback" not in ran.output
    facts = json.loads((folder / "run.json").read_text())
    assert facts["counts"]["before"] == facts["counts"]["after"]
    return ran.exit_code, ran.output, facts


def changed(folder: Path, **entries: Any) -> Path:
    """The experiment with other entries."""
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(L1.read_text()), **entries}))
    return path


SIDES: tuple[tuple[Literal["s", "r"], Role], ...] = (("s", "server"), ("r", "client"))


def interleaving(folder: Path) -> list[tuple[str, str]]:
    """Side and action of each step of both ends, by their time stamps: one clock for both."""
    traces = RunDirectory(folder).trace("server"), RunDirectory(folder).trace("client")
    case = prepared(*traces, None, Options())
    assert case.channel is not None
    lanes = case.channel.lanes
    found: list[tuple[int, str, str]] = []
    for side, name in SIDES:
        lane, records = lanes.lane(side), case.traces[name].records
        found += [
            (int(records["t0"][row]), name, lane.names[code])
            for row, code in zip(lane.rows, lane.codes, strict=True)
            # Further looks decide nothing, and are no steps.
            if lane.names[code] in load_steps().numbers
        ]
    return [(name, action) for _, name, action in sorted(found)]


# ---- who goes next ----


def test_a_stretch_is_granted_at_once_and_the_next_one_when_it_is_over() -> None:
    conductor = Conductor([("client", "call_write"), ("client", "w_live"), ("server", "call_read")])
    assert conductor.granted() == ("client", 2)
    assert conductor.granted() is None
    conductor.took(1)
    assert conductor.granted() is None
    assert conductor.is_due == "client"
    conductor.took(2)
    assert conductor.granted() == ("server", 3)
    conductor.took(3)
    assert conductor.is_over
    assert conductor.granted() is None


def test_another_action_than_the_next_one_of_its_side_ends_it() -> None:
    conductor = Conductor([("client", "call_write"), ("server", "call_read"), ("client", "w_live")])
    conductor.granted()
    conductor.took(1)
    conductor.came_to("client", load_steps().numbers["call_close"])
    assert conductor.unfollowed is not None
    assert (conductor.unfollowed.step, conductor.unfollowed.expected) == (3, "w_live")
    assert conductor.unfollowed.instead == "it came to call_close"
    assert conductor.granted() is None


def test_an_end_of_whoever_is_not_due_is_none_of_the_schedule() -> None:
    conductor = Conductor([("client", "call_write")])
    conductor.ended("server", "it has ended")
    assert conductor.unfollowed is None
    conductor.ended("client", "it has ended")
    assert conductor.unfollowed is not None
    assert conductor.unfollowed.is_certain


# ---- what is refused ----


@pytest.mark.parametrize(
    ("old", "new", "line", "words", "next_step"),
    [
        ("w_live, w_space]", "w_life, w_space]", 12, "there is no action 'w_life'", "w_live"),
        ("server: r_live", "server: deliver", 15, "no record shows deliver", "Leave it out"),
        ("server: r_live", "server: k_live", 15, "the server never takes k_live", "r_live"),
        ("server: r_live", "server: w_put", 15, "the server does not come to w_put", "r_live"),
        ("server: r_live", "dom0: r_live", 15, "has no entry 'dom0'", "client, server"),
        ("- server: r_live", "- server: []", 15, "is []", "an action of the spec"),
        ("schedule:\n", "tracing: {level: calls}\nschedule:\n", 13, "w_live is an access", "exact"),
        (
            "channel: {",
            "channel: {threads: duplex, ",
            11,
            "a thread for each direction",
            "threads: one",
        ),
        ("sizes: 1024}\n  - close", "sizes: 64, once: true}\n  - close", 9, "at once", "one size"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(
    old: str, new: str, line: int, words: str, next_step: str
) -> None:
    text = L1.read_text()
    assert text.count(old) == 1
    with pytest.raises(InputError) as refused:
        parse_experiment(text.replace(old, new), "some.yaml")
    assert f"some.yaml:{line}: " in refused.value.message
    assert words in refused.value.message
    assert next_step in refused.value.next_step


def test_the_way_through_json_keeps_the_schedule() -> None:
    experiment = load_experiment(L1)
    again = json.loads(json.dumps(experiment.to_dict()))
    assert type(experiment).from_dict(again) == experiment
    assert experiment.schedule[0] == ("client", "call_write")
    assert experiment.schedule[-1] == ("server", "r_live")


# ---- whole runs ----


def test_a_schedule_loses_the_tail_each_time(tmp_path: Path) -> None:
    """L1 needs the reader between two of its steps while the peer writes and closes."""
    for number in range(RUNS):
        folder = tmp_path / str(number)
        status, _, facts = run(folder, L1, "--no-validate")
        assert status == ExitStatus.EXPECTED
        assert facts["schedule"] == {"steps": 14, "taken": 14, "unfollowed": None}
        records = read_trace(RunDirectory(folder).trace("server")).records
        reads = records[(records["call"] == Call.READ) & (records["kind"] == Kind.CALL_EXIT)]
        assert [value.astype("int64") for value in reads["new"]] == [-1]
        assert facts["endpoints"]["client"]["result"]["written_bytes"] == 1024
        assert facts["endpoints"]["server"]["result"]["read_bytes"] == 0
    judged = CliRunner().invoke(main, ["validate", str(tmp_path / "0")])
    assert judged.exit_code == ExitStatus.EXPECTED, judged.output
    assert "KNOWN and PROGRESS, as expected" in judged.output
    assert "Schedule: all 14 steps were taken, in their order." in judged.output


@pytest.mark.parametrize("variant", ["translation", "emulation"])
def test_two_runs_interleave_as_the_schedule_says(tmp_path: Path, variant: str) -> None:
    experiment = changed(tmp_path, tracing={"variant": variant, "order": "full"})
    schedule = list(load_experiment(experiment).schedule)
    seen = []
    for name in ("one", "two"):
        run(tmp_path / name, experiment, "--no-validate")
        steps = interleaving(tmp_path / name)
        begin = steps.index(schedule[0])
        seen.append(steps[begin : begin + len(schedule)])
    assert seen[0] == schedule
    assert seen[1] == schedule


@pytest.mark.parametrize(
    ("compiler", "options"), [("gcc", "-O0"), ("gcc", "-Os"), ("clang", "-O3")]
)
def test_other_builds_of_the_library_keep_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, options: str
) -> None:
    """Which loads come first, and how often, is the compiler's choice."""
    folder = build_library(tmp_path, compiler, options)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    status, _, facts = run(tmp_path / "run", L1, "--no-validate")
    assert status == ExitStatus.EXPECTED
    assert facts["schedule"] == {"steps": 14, "taken": 14, "unfollowed": None}
    assert facts["endpoints"]["server"]["result"]["read_bytes"] == 0


def test_without_the_schedule_the_same_workload_is_read(tmp_path: Path) -> None:
    """Else the schedule would force nothing."""
    experiment = changed(tmp_path, schedule=[], timeouts={"settle_seconds": 0.5})
    read = [
        run(tmp_path / str(number), experiment, "--no-validate")[2]["endpoints"]["server"]["result"]
        for number in range(5)
    ]
    assert any(result["read_bytes"] == 1024 for result in read)


EMPTY = ["r_have", "r_arm", "r_have_again", "r_live"]
WRITES = ["call_write", "w_live", "w_space", "w_put", "w_test", "w_raise", "return"]
CLOSES = ["call_close", "c_close", "c_give_back", "c_raise", "return"]


@pytest.mark.parametrize(
    ("schedule", "step", "side", "expected", "instead"),
    [
        (
            [{"client": WRITES[:3]}, {"server": ["call_read", *EMPTY[:3], "r_take"]}],
            *(8, "server", "r_take", "it came to r_live"),
        ),
        (
            # The client's connecting has raised an event, so that the first wait is soon over.
            [{"server": ["call_read", *EMPTY, "wait", "unmask", *EMPTY, "wait"]}],
            *(12, "server", "wait", "it sleeps in read, and no event is there to wake it"),
        ),
        (
            [{"client": [*WRITES, *CLOSES, "call_close"]}],
            *(13, "client", "call_close", "it has ended"),
        ),
    ],
    ids=["another step", "no step", "its end"],
)
def test_what_cannot_be_followed_says_where_and_why(
    tmp_path: Path,
    schedule: list[dict[str, list[str]]],
    step: int,
    side: str,
    expected: str,
    instead: str,
) -> None:
    experiment = changed(tmp_path, schedule=schedule, timeouts={"settle_seconds": 0.5})
    status, output, facts = run(tmp_path / "run", experiment)
    assert facts["outcome"] == "off schedule"
    assert facts["schedule"]["unfollowed"] == {
        "step": step,
        "side": side,
        "expected": expected,
        "instead": instead,
        "is_certain": True,
    }
    assert status == ExitStatus.UNEXPECTED
    assert f"was to be {expected} of the {side}: {instead}." in output
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    assert verdict["expected"] is False
