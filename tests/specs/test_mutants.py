"""Mutants of Libxenvchan.tla, made by rule: each is noticed, or is the spec in other words.

`make mutants` checks all of them. Here: that none is missing from what is pinned, that the judge
takes the corpora for what they are, and a fixed part of the mutants.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "mutation"))
sys.path.insert(0, str(Path(__file__).parents[1] / "validate"))

from pins import ACCEPTS, BROKEN, EQUIVALENT, FAILS, MISSES, REJECTS, Pins, load_pins, sample
from rules import Spec, mutants
from spec_text import definitions
from sweep import ORIGINAL, library, small_models, wrong, wrong_corpora
from traces import followed

TRACES_EVERY = 6
BY_TRACES, BY_PROPERTIES, EQUIVALENTS = 60, 12, 2


@pytest.fixture(scope="module")
def spec() -> Spec:
    return library()


@pytest.fixture(scope="module")
def pins() -> Pins:
    return load_pins()


def test_every_mutant_is_pinned_and_no_other(spec: Spec, pins: Pins) -> None:
    names = [one.name for one in mutants(spec)]
    assert len(set(names)) == len(names)
    assert list(pins.fates) == names, "make mutants ARGS=--pin"


def test_every_action_has_mutants_of_each_sort(spec: Spec) -> None:
    names = [one.name for one in mutants(spec)]
    for action in spec.actions:
        own = [name.partition(": ")[2] for name in names if name.startswith(f"{action}: ")]
        assert "taken away" in own
        assert any(name.startswith("guard") and name.endswith("dropped") for name in own), action
        assert any(name.endswith("negated") for name in own), action
    for recheck in ("w_space_again", "r_have_again", "r_final", "w_live_again"):
        assert f"{recheck}: shows what was shown before" in names
    assert sum(" swapped with " in name for name in names) >= 20
    assert sum(" enabled at " in name for name in names) >= 80


def test_a_mutant_is_another_text_than_the_spec(spec: Spec) -> None:
    for one in mutants(spec):
        for name, body in one.bodies.items():
            assert body.split() != spec.defined[name].body.split(), one.name


def test_bodies_are_read_to_their_ends() -> None:
    text = "A(t) ==\n    /\\ x = 1  \\* why\n    /\\ \\/ y' = 2\n       \\/ UNCHANGED y\n\n"
    text += "B == 1\n====\n"
    found = definitions(text)
    assert list(found) == ["A", "B"]
    tree = found["A"].tree
    assert [part.text(found["A"].body) for part in tree.parts] == [
        "x = 1",
        "\\/ y' = 2\n       \\/ UNCHANGED y",
    ]


def test_those_that_survive_were_asked_in_models(pins: Pins) -> None:
    models = set(small_models())
    for name, fate in pins.of(EQUIVALENT).items():
        assert fate.models, name
        assert set(fate.models) <= models, name


def test_the_judge_takes_the_corpora_for_what_they_are(pins: Pins) -> None:
    assert len(pins.corpus(ACCEPTS)) > 30
    assert len(pins.corpus(REJECTS)) > 10
    assert wrong_corpora(pins, print, every=TRACES_EVERY) == []


def test_some_of_them_are_noticed_as_it_is_pinned(spec: Spec, pins: Pins) -> None:
    names = [
        *sample([*pins.of(ACCEPTS), *pins.of(REJECTS)], BY_TRACES),
        *sample([*pins.of(FAILS), *pins.of(BROKEN), *pins.of(MISSES)], BY_PROPERTIES),
        *sample(list(pins.of(EQUIVALENT)), EQUIVALENTS),
    ]
    assert wrong(spec, pins, names, print, whole=False) == []


def test_the_spec_itself_is_none_of_them(spec: Spec, pins: Pins) -> None:
    """The follower of the mutants says of the spec what the judge says."""
    traces = [*pins.corpus(ACCEPTS)[::8], *pins.corpus(REJECTS)[::4]]
    legal = {place for place, trace in enumerate(traces) if trace in set(pins.corpus(REJECTS))}
    assert followed(spec, ORIGINAL, traces)[0] == legal
