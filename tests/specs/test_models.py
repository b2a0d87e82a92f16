"""The manifest of models: what TLC finds in the quick ones, and how a difference is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vchan_testbed.cli import main
from vchan_testbed.errors import InputError
from vchan_testbed.validate.models import (
    MANIFEST,
    Holds,
    Model,
    Violates,
    check,
    chosen,
    load_models,
    pinned,
    write,
)

MODELS = load_models()
QUICK = sorted(name for name, model in MODELS.items() if model.quick)
SWITCHES = [f"L{number}" for number in range(1, 10)]


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_model_is_as_it_is_due(name: str) -> None:
    model = MODELS[name]
    found = check(model)
    assert found.differs(model.due) == "", "\n".join(found.console)


def test_every_model_is_pinned() -> None:
    assert len(MODELS) >= 20
    assert [name for name, model in MODELS.items() if model.due is None] == []


def test_every_switch_that_breaks_a_property_has_a_counterexample() -> None:
    breaks = {
        switch: [
            model.name
            for model in MODELS.values()
            if model.constants.get(switch) == "TRUE" and isinstance(model.due, Violates)
        ]
        for switch in SWITCHES
    }
    # L6, two events a close, is legal: it is on in all the models that hold, and off in one.
    assert breaks.pop("L6")
    assert all(isinstance(MODELS[name].due, Holds) for name in ("library_left", "l6_off"))
    assert [switch for switch, names in breaks.items() if not names] == []


def test_a_counterexample_goes_away_with_its_switch_off() -> None:
    """A model that is violated by more than its switch would say nothing about it."""
    for name in ("l1", "l8"):
        off = {**MODELS[name].constants, name.upper(): "FALSE"}
        model = replace(MODELS[name], constants=off, properties=())
        assert isinstance(check(model).result, Holds)


@pytest.mark.parametrize("name", ["l1", "application_stops"])
def test_a_wrong_figure_is_told(name: str) -> None:
    model = MODELS[name]
    assert isinstance(model.due, Violates)
    wrong = replace(model.due, states=model.due.states + 1)
    assert "states is" in check(model).differs(wrong)
    assert "due: it holds" in check(model).differs(Holds(1, 1, 1, ()))


def test_an_action_that_is_never_taken_is_told() -> None:
    found = check(MODELS["library_first_write"])
    assert isinstance(found.result, Holds)
    assert found.differs(replace(found.result, never_taken=())).startswith("never_taken is")


def test_what_is_found_can_be_pinned(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    data = json.loads(MANIFEST.read_text())
    due = data["models"]["l1"].pop("violates")
    manifest.write_text(json.dumps(data))
    model = load_models(manifest)["l1"]
    found = check(model)
    assert found.differs(model.due) == "nothing is pinned for it yet"
    pinned(manifest, {"l1": found})
    assert json.loads(manifest.read_text())["models"]["l1"]["violates"] == due


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"module": None}, "module missing"),
        ({"colour": "red"}, "no such key: colour"),
        ({"holds": {"generated": 1}}, "both hold and be violated"),
        ({"violates": {"property": "P"}}, "steps"),
    ],
)
def test_a_bad_manifest_is_refused(change: dict[str, object], says: str, tmp_path: Path) -> None:
    data = json.loads(MANIFEST.read_text())
    row = data["models"]["l1"] | change
    data["models"]["l1"] = {key: value for key, value in row.items() if value is not None}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(data))
    with pytest.raises(InputError, match=says):
        load_models(manifest)


def test_no_json_is_refused_with_its_line(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{\n\n  models\n}")
    with pytest.raises(InputError, match="line 3"):
        load_models(manifest)
    with pytest.raises(InputError, match="cannot be read"):
        load_models(tmp_path / "nothing.json")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no model l10"):
        chosen(MODELS, ["l10"], quick=False)


@given(st.sets(st.sampled_from(sorted(MODELS)), min_size=1), st.booleans())
def test_chosen_are_those_that_are_named(names: set[str], quick: bool) -> None:
    found = {model.name for model in chosen(MODELS, sorted(names), quick=quick)}
    assert found == {name for name in names if MODELS[name].quick or not quick}


def test_the_models_can_be_written_for_tlc(tmp_path: Path) -> None:
    write(MODELS["l1"], tmp_path)
    text = (tmp_path / "l1.cfg").read_text()
    assert "  L1 = TRUE\n" in text
    assert "  Choice <- MCChoice\n" in text
    assert (tmp_path / "MCLibxenvchan.tla").is_file()


def test_the_command_says_a_line_for_each_and_fails_on_a_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = CliRunner().invoke(main, ["specs", "l3", "l4"])
    assert done.exit_code == 0, done.output
    assert "l3: violates WaitsOnlyIfAsked after 6 states" in done.output
    assert "2 of 2 models are as they are due." in done.output
    wrong: dict[str, Model] = {"l3": replace(MODELS["l3"], due=MODELS["l4"].due)}
    monkeypatch.setattr("vchan_testbed.commands.specs.load_models", lambda: wrong)
    done = CliRunner().invoke(main, ["specs"])
    assert done.exit_code == 1
    assert "DIFFERS: property is WaitsOnlyIfAsked, due is FailsForAReason" in done.output
    assert "vchan-testbed specs --pin l3" in done.output
