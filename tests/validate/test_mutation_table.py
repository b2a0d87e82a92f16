"""Every change in the table of mutations has the verdict that is due, at the record that is due."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judging import judged
from library_model import Run
from mutation_table import TABLE
from mutations import Mutation, apply, base_runs

from vchan_testbed.tracer.layout import Kind


@pytest.fixture(scope="module")
def bases() -> dict[str, Run]:
    """The good runs."""
    return base_runs()


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.name)
def test_what_is_due_comes_out(mutation: Mutation, bases: dict[str, Run], tmp_path: Path) -> None:
    run = bases[mutation.base]
    changed, row = apply(run, mutation)
    verdict = judged(run, tmp_path, changed)
    assert (verdict.conformance, verdict.progress, verdict.fault_of) == (
        mutation.conformance,
        mutation.progress,
        mutation.fault_of,
    )
    named = verdict.first_unexplained
    if mutation.at is None:
        assert named is None
        return
    pick = mutation.pick if mutation.at == "here" else mutation.at
    if mutation.at != "here":
        row = pick.row(run.records(pick.endpoint))
    assert named is not None
    assert (named.endpoint, named.row) == (pick.endpoint, row + mutation.shift), named


@pytest.mark.parametrize(
    "mutation",
    [one for one in TABLE if one.why.startswith("older, and the first")]
    + [one for one in TABLE if one.why == "fails after everything was put"],
    ids=lambda mutation: mutation.name,
)
def test_tlc_says_so_too(mutation: Mutation, bases: dict[str, Run], tmp_path: Path) -> None:
    run = bases[mutation.base]
    changed, _ = apply(run, mutation)
    by_hand = judged(run, tmp_path / "hand", changed)
    by_tlc = judged(run, tmp_path / "tlc", changed, tlc=True)
    assert by_tlc.conformance == by_hand.conformance == mutation.conformance
    assert by_tlc.first_unexplained == by_hand.first_unexplained


def test_the_bases_are_good(bases: dict[str, Run], tmp_path: Path) -> None:
    found = {name: judged(run, tmp_path / name) for name, run in bases.items()}
    stuck = found.pop("stuck")
    assert (stuck.conformance, stuck.progress) == ("ACCEPTED", "VIOLATION")
    for verdict in found.values():
        assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS")


def test_every_kind_of_record_has_its_change() -> None:
    assert {mutation.kind or mutation.pick.kind for mutation in TABLE} == set(Kind)
