"""The detection matrix: what is pinned, some of its cells made anew, and what would be told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from batches import Clock
from cells import cells
from detection import UNSEEN, Kept, called, load_pins, sweep, why_by_calls, wrong
from table import write_table

from vchan_testbed.guests.fault_steps import ON_DOMAINS, load_steps

WORKLOAD = "talk, client first"
EVERY = 16
SECONDS = 600.0
GOOD: dict[str, Any] = {
    "cell": "client w_put delay",
    "workload": "talk, client first",
    "nth": 2,
    "became": "done",
    "effect": False,
    "differs": [],
    "outcome": "finished",
    "conformance": "ACCEPTED",
    "progress": "PROGRESS",
    "kind": "",
    "reason": "",
    "by_calls": "ACCEPTED, PROGRESS",
}
BAD: dict[str, Any] = {"conformance": "REJECTED", "progress": "INCONCLUSIVE", "kind": "order"}


def test_the_cells_are_every_action_with_every_fault() -> None:
    steps = load_steps()
    due = {
        f"{side} {action} {do}"
        for side in ("server", "client")
        for action in steps.actions(side)
        for do in steps.applicable(action, side)
        if do not in ON_DOMAINS
    }
    assert {cell.name for cell in cells()} == due
    assert set(load_pins()) == due


def test_no_fault_with_an_effect_passes() -> None:
    """By all that was recorded, and by calls alone."""
    for name, outcomes in load_pins().items():
        for outcome in outcomes:
            verdicts = {f"{outcome['conformance']}, {outcome['progress']}", outcome["by_calls"]}
            assert not (outcome["effect"] and "ACCEPTED, PROGRESS" in verdicts), name


def test_some_cells_come_out_as_they_are_pinned(tmp_path: Path) -> None:
    pins, kept = load_pins(), Kept(tmp_path)
    # Of one workload: its run without a fault is made once for all of them.
    chosen = [cell for cell in cells() if cell.workload == WORKLOAD][::EVERY]
    rows = list(sweep(chosen, kept, Clock(SECONDS), None))
    assert {row["cell"] for row in rows} == {cell.name for cell in chosen}
    assert {row["cell"]: wrong(row, pins) for row in rows if wrong(row, pins)} == {}
    assert not [path for path in tmp_path.iterdir() if path.name != "cells"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"became": "not yet"}, ["the fault did not happen: not yet"]),
        (
            {"effect": True},
            ["the fault had an effect, and the run is ACCEPTED with PROGRESS", "it is "],
        ),
        ({"free": "KNOWN, PROGRESS"}, ["the run without the fault is KNOWN, PROGRESS"]),
        ({"leaked": {"before": 1}}, ["something leaked: "]),
        ({"outcome": "stood still"}, ["it is "]),
        ({"cell": "nobody's"}, ["nothing is pinned for it"]),
        ({"by_calls": "UNDECIDED, INCONCLUSIVE", "effect": True, **BAD}, ["by calls", "it is "]),
    ],
)
def test_what_is_wrong_with_a_cell_is_said(change: dict[str, Any], said: list[str]) -> None:
    pinned = {key: GOOD[key] for key in ("effect", "outcome", "conformance", "progress", "kind")}
    pins = {GOOD["cell"]: [{**pinned, "by_calls": GOOD["by_calls"]}]}
    found = wrong({**GOOD, **change}, pins)
    assert len(found) == len(said)
    for text in said:
        assert any(each.startswith(text) for each in found), found


def test_a_fault_that_accesses_alone_show_is_explained() -> None:
    row = {**GOOD, **BAD}
    assert (called(row), why_by_calls(row)) == ("seen", UNSEEN)
    for other in (
        {"effect": True},
        {"by_calls": "UNDECIDED, INCONCLUSIVE"},
        {"conformance": "ACCEPTED", "by_calls": "REJECTED, INCONCLUSIVE"},
        {"cell": "client w_raise drop"},
        {"cell": "client call_write delay"},
    ):
        assert why_by_calls({**row, **other}) == "", other
    assert why_by_calls(GOOD) == ""


def test_the_table_has_each_cell_twice(tmp_path: Path) -> None:
    rows: dict[str, dict[str, Any]] = {
        "client w_put delay": {**GOOD, "why_by_calls": ""},
        "client w_put drop": {**GOOD, **BAD, "cell": "client w_put drop", "why_by_calls": UNSEEN},
    }
    words = {name: called(row) for name, row in rows.items()}
    write_table(tmp_path, rows, words, {name: ["<amiss>"] for name in rows})
    data = json.loads((tmp_path / "matrix.json").read_text())
    assert [(row["cell"], row["called"]) for row in data] == list(words.items())
    page = (tmp_path / "matrix.html").read_text()
    assert "1 harmless, 1 seen; 2 not as pinned" in page
    assert "calls: ACCEPTED, PROGRESS" in page
    assert "&lt;amiss&gt;" in page
