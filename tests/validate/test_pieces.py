"""A long trace judged in pieces has the verdict that it has in one piece, good or changed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from judging import judged, options
from library_model import Run, Scenario, simulate
from mutations import Change, double, drop, sets, swap
from spec_model import follow_by_hand

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.validate.cuts import Size
from vchan_testbed.validate.judge import judge_traces
from vchan_testbed.validate.lanes import FollowResult
from vchan_testbed.validate.verdict import Verdict

LONG = Scenario(
    server=(("read", 6000), ("write", 5000), ("read_to_end", 64), ("close",)),
    client=(("write", 6000), ("read", 5000), ("close",)),
)
STUCK = replace(
    # The last event of the client is dropped; both wait.
    LONG,
    server=(("read", 6000), ("write", 5000), ("read", 64), ("write", 8)),
    client=(("write", 6000), ("read", 5000), ("write", 64), ("read", 8)),
)
IN_STEP = Scenario(
    # Each read ends within a write: every event counts, and none of them can be told from the next
    # one by its values.
    server=(("read_to_end", 1531), ("close",)),
    client=(*[("write", 1531)] * 60, ("close",)),
)
KINDS = (
    Kind.LOAD,
    Kind.RMW_LOCKED,
    Kind.CMPXCHG_OK,
    Kind.PENDING_EXIT,
    Kind.NOTIFY,
    Kind.CALL_EXIT,
)
ROLES: tuple[Role, Role] = ("server", "client")
SIZES = (10, 25, 60)
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]


@dataclass(frozen=True)
class Said:
    """What must not hang on the pieces."""

    words: tuple[str, str]
    reasons: tuple[str, str]
    known: Any
    named: Any
    due: Any
    maximal: frozenset[tuple[str, int, int]]
    steps: Any
    """How often each action was taken."""

    @staticmethod
    def of(verdict: Verdict) -> Said:
        """From a verdict."""
        every = frozenset((m.direction, m.sender_done, m.receiver_done) for m in verdict.maximal)
        return Said(
            words=(verdict.conformance, verdict.progress),
            reasons=(verdict.reason, verdict.progress_reason),
            known=verdict.known,
            named=verdict.first_unexplained,
            due=(verdict.due_action, verdict.fault_of),
            maximal=every,
            steps=dict(verdict.coverage),
        )


def in_pieces(run: Run, folder: Path, steps: int, changed: dict[Role, Records]) -> Said:
    """The same as in one piece, which is looked at."""
    whole = judged(run, folder, changed)
    parts = judged(run, folder, changed, size=Size(steps=steps))
    assert [one.pieces for one in whole.directions] == [1] * len(whole.directions)
    assert Said.of(parts) == Said.of(whole)
    return Said.of(whole)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(
    seed=st.integers(0, 50), burst=st.sampled_from((0.3, 0.6, 0.9)), steps=st.sampled_from(SIZES)
)
def test_a_good_run(
    tmp_path_factory: pytest.TempPathFactory, seed: int, burst: float, steps: int
) -> None:
    run = simulate(replace(LONG, seed=seed, burst=burst))
    said = in_pieces(run, tmp_path_factory.mktemp("run"), steps, {})
    assert said.words == ("ACCEPTED", "PROGRESS")


@pytest.mark.parametrize("steps", [60, 100, 300, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_in_which_every_event_counts(seed: int, steps: int, tmp_path: Path) -> None:
    said = in_pieces(simulate(replace(IN_STEP, seed=seed)), tmp_path, steps, {})
    assert said.words == ("ACCEPTED", "PROGRESS")


def another_value(records: Records, row: int, other: int) -> Records:
    """The value that another record of this kind and cell has."""
    alike = np.flatnonzero(
        (records["kind"] == records["kind"][row]) & (records["offset"] == records["offset"][row])
    )
    there = alike[other % len(alike)]
    change = sets(old=int(records["old"][there]), new=int(records["new"][there]))
    return change(records, row)


CHANGES: tuple[Change, ...] = (drop, double, swap)


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW)
@given(
    seed=st.integers(0, 4),
    role=st.sampled_from(ROLES),
    kind=st.sampled_from(KINDS),
    which=st.integers(0, 1000),
    other=st.integers(0, 1000),
    change=st.sampled_from((None, None, *CHANGES)),
    steps=st.sampled_from(SIZES),
)
def test_a_changed_run(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    role: Role,
    kind: Kind,
    which: int,
    other: int,
    change: Change | None,
    steps: int,
) -> None:
    run = simulate(replace(LONG, seed=seed))
    records = run.records(role)
    rows = np.flatnonzero(records["kind"] == kind)[:-1]
    assume(len(rows))
    row = int(rows[which % len(rows)])
    changed = another_value(records, row, other) if change is None else change(records, row)
    in_pieces(run, tmp_path_factory.mktemp("run"), steps, {role: changed})


@pytest.mark.parametrize("steps", SIZES)
@pytest.mark.parametrize("nth", [-1, -7, -25, -54, -69])
def test_a_load_that_is_left_out(nth: int, steps: int, tmp_path: Path) -> None:
    """Loads that decided: only the spec says that they had to be there."""
    run = simulate(LONG)
    records = run.records("server")
    row = int(np.flatnonzero(records["kind"] == Kind.LOAD)[nth])
    said = in_pieces(run, tmp_path, steps, {"server": drop(records, row)})
    assert said.words[0] == "REJECTED"
    assert said.maximal


@pytest.mark.parametrize("steps", SIZES)
def test_a_run_that_stands_still(steps: int, tmp_path: Path) -> None:
    run = simulate(STUCK)
    notified = run.processes["client"].notified[1]
    stuck = simulate(replace(STUCK, drop=(("client", notified, 1),)))
    assert stuck.outcome == "stood still"
    said = in_pieces(stuck, tmp_path, steps, {})
    assert said.words == ("ACCEPTED", "VIOLATION")
    assert said.due == ("r_wait", "event channel")


def test_there_are_many_pieces(tmp_path: Path) -> None:
    run = simulate(LONG)
    counts = [
        max(one.pieces for one in judged(run, tmp_path, size=Size(steps=steps)).directions)
        for steps in SIZES
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 10
    assert counts[-1] > 1


def test_from_a_piece_of_which_not_all_ends_are_known_nothing_goes_on(tmp_path: Path) -> None:
    """A search that met its bound may have found an end, and not the one that the run took."""
    pieces = []

    def bounded(*asked: Any, **more: Any) -> FollowResult:
        found = follow_by_hand(*asked, **more)
        pieces.append(found)
        return replace(found, undecided="states, 10")

    run = simulate(LONG)
    paths = run.write(tmp_path)
    judge = replace(options(Size(steps=25)), judge=bounded)
    verdict = judge_traces(paths["server"], paths["client"], run.facts(), options=judge)
    assert (verdict.conformance, verdict.progress) == ("UNDECIDED", "INCONCLUSIVE")
    assert "states, 10" in verdict.reason
    # One of each direction.
    assert len(pieces) == 2
    assert all(piece.ends for piece in pieces)
