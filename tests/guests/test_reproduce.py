"""Behaviours that TLC found, made into experiments, and both ends led through them on loopback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reproducing import PRINTED, config_of, invoke, pinned_steps, reproduced

from vchan_testbed.errors import ExitStatus, InputError
from vchan_testbed.guests.experiment import Experiment, parse_experiment
from vchan_testbed.guests.fault_steps import load_steps
from vchan_testbed.guests.reproduction import (
    BY_THEMSELVES,
    ModelSetting,
    ModelStep,
    reproduction_of,
)
from vchan_testbed.validate.models import Violates, load_models
from vchan_testbed.validate.tlc.behaviour import read_constants, read_states, steps_of

SETTING = ModelSetting(left_bytes=1, right_bytes=1, index_span=2, first_left=1)


def written(path: Path) -> Experiment:
    """The experiment that a reproduction wrote."""
    return parse_experiment(path.read_text(), str(path))


# ---- what TLC prints ----


def test_the_states_and_who_took_each_step_are_read() -> None:
    states = list(read_states(PRINTED.read_text().splitlines()))
    assert [state.number for state in states] == list(range(1, 33))
    due = load_models()["packets_stand_off"].due
    assert isinstance(due, Violates)
    assert tuple(f"{action} {who}" for _, action, who in steps_of(states)) == due.steps
    # A value that TLC breaks into two lines.
    assert states[0].of("port", "server") == frozenset(
        {("pending", True), ("masked", False), ("queued", 0)}
    )


def test_the_way_back_of_a_behaviour_that_goes_on_is_no_state() -> None:
    lines = [
        "State 1: <Initial predicate>",
        "/\\ at = 1",
        "",
        "State 2: <some line 1>",
        "/\\ at = 2",
    ]
    for end in ("State 3: Stuttering", "Back to state 1: <other line 2>"):
        assert [s.action for s in read_states([*lines, "", end])] == ["", "some"]


def test_constants_are_read_as_the_manifest_has_them(tmp_path: Path) -> None:
    model = load_models()["packets_stand_off"]
    assert read_constants(Path(config_of(model.name, tmp_path)).read_text()) == model.constants


# ---- what becomes of it ----


def test_a_byte_of_the_model_becomes_as_many_as_its_ring_has_more() -> None:
    steps = [
        ModelStep(2, "call_send", "client", 1, True),
        ModelStep(3, "deliver", "client"),
        ModelStep(4, "call_recv", "server", 2, True),
        ModelStep(5, "call_is_open", "server"),
        ModelStep(6, "call_write", "server", 1, True),
    ]
    setting = ModelSetting(left_bytes=2, right_bytes=1, index_span=4, first_left=1)
    made = reproduction_of("some", steps, setting, {"progress": "STALLED"})
    experiment = parse_experiment(made.text, "some")
    assert experiment.channel.left_first_index == 2**32 - 3 * 512
    assert experiment.channel.right_first_index == 0
    assert [(o.do, o.bytes, o.once) for o in experiment.client] == [("send", 512, True)]
    assert [(o.do, o.bytes, o.once) for o in experiment.server] == [
        ("recv", 1024, True),
        ("is_open", 0, False),
        ("write", 2048, True),
    ]
    assert made.states == (2, 4, 5, 6)
    assert [step.action for step in made.left_out] == ["deliver"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [ModelStep(7, "dies", "client")],
            "State 7 of the behaviour: dies of client cannot be made",
        ),
        ([ModelStep(7, "w_put", "client 2")], "w_put of client 2 cannot be made"),
        ([ModelStep(7, "spurious", "client")], "spurious of client cannot be made"),
        ([ModelStep(7, "call_wait", "client")], "has no operation that calls wait"),
        ([ModelStep(7, "call_read", "client", 0, True)], "a read of 0 bytes"),
        (
            [
                ModelStep(7, "call_read", "client", 1, False),
                ModelStep(8, "call_read", "client", 1, True),
            ],
            "State 7 of the behaviour: some calls block",
        ),
    ],
)
def test_what_no_two_ends_can_do_is_refused(steps: list[ModelStep], words: str) -> None:
    with pytest.raises(InputError) as refused:
        reproduction_of("some", steps, SETTING, {})
    assert words in refused.value.message


def test_what_happens_by_itself_is_shown_by_no_record() -> None:
    """Else it could be held, and would have to be."""
    steps = load_steps()
    assert set(BY_THEMSELVES) <= set(steps.owners) - set(steps.numbers)


def test_rings_that_are_no_part_of_real_ones_are_refused() -> None:
    setting = ModelSetting(left_bytes=3, right_bytes=1, index_span=6)
    with pytest.raises(InputError, match="Rings of 3 and 1 bytes"):
        reproduction_of("some", [ModelStep(2, "call_is_open", "client")], setting, {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "nothing is no model of the specs"),
        (["nothing", "--config", "nothing.cfg"], "cannot be read"),
        ([__file__, "--config", __file__], "there is no behaviour"),
        ([str(PRINTED), "--config", __file__], "no behaviour of the spec Libxenvchan"),
    ],
)
def test_what_is_no_counterexample_is_refused(arguments: list[str], words: str) -> None:
    status, output = invoke(*arguments)
    assert status == ExitStatus.USAGE
    assert words in output


# ---- whole runs ----


def test_the_lost_tail_that_a_model_finds_happens(tmp_path: Path) -> None:
    status, facts, verdict = reproduced(tmp_path, "l1")
    assert facts["schedule"] == {"steps": 14, "taken": 14, "unfollowed": None}
    assert (verdict["conformance"], verdict["known"]) == ("KNOWN", ["L1"])
    assert facts["endpoints"]["client"]["result"]["written_bytes"] == 1024
    assert facts["endpoints"]["server"]["result"]["read_bytes"] == 0
    assert status == ExitStatus.EXPECTED
    assert written(tmp_path / "run/experiment.yaml").schedule == tuple(pinned_steps("l1"))


def test_the_deadlock_of_packets_that_a_model_finds_happens(tmp_path: Path) -> None:
    config = config_of("packets_stand_off", tmp_path)
    status, facts, verdict = reproduced(tmp_path, str(PRINTED), "--config", config)
    steps = pinned_steps("packets_stand_off")
    assert facts["schedule"] == {"steps": len(steps), "taken": len(steps), "unfollowed": None}
    assert facts["outcome"] == "stood still"
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "STALLED")
    assert status == ExitStatus.EXPECTED
    assert written(tmp_path / "run/experiment.yaml").schedule == tuple(steps)


def test_what_reality_does_not_do_is_not_followed(tmp_path: Path) -> None:
    """A behaviour of another library, that looks for room again before it has asked to be told."""
    text = PRINTED.read_text()
    first = text.index("State 12: <w_arm")
    changed = tmp_path / "changed.txt"
    changed.write_text(text[:first] + text[first:].replace("<w_arm", "<w_space_again", 1))
    config = config_of("packets_stand_off", tmp_path)
    status, facts, _ = reproduced(tmp_path, str(changed), "--config", config)
    assert status == ExitStatus.UNEXPECTED
    assert facts["schedule"]["unfollowed"] == {
        "step": 11,
        "side": "client",
        "expected": "w_space_again",
        "instead": "it came to w_arm",
        "is_certain": True,
    }
