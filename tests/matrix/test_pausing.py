"""Random runs that pause: what came of two thousand (`make pausing`), and some more."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from batches import Clock
from conforming import Kept, sweep
from pausing import PAUSING, PINS, pausing_workload_of

RUNS_MIN = 2_000
SEED, RUNS = 21, 12
SECONDS = 600.0


def test_none_of_two_thousand_was_taken_for_one_that_hangs() -> None:
    found = json.loads(PINS.read_text())
    assert found["runs"] >= RUNS_MIN
    assert found["verdicts"] == {"ACCEPTED, PROGRESS": found["runs"]}
    assert found["outcomes"] == {"finished": found["runs"]}
    assert found["not ACCEPTED and PROGRESS"] == found["leaked"] == []
    # Else nothing was asked: they stood still for long enough to be looked at.
    assert found["runs that were looked at"] > found["runs"] // 2


def test_none_of_some_more_is_either(tmp_path: Path) -> None:
    kept = Kept(tmp_path, SEED)
    sweep(PAUSING, SEED, RUNS, (1, 1), kept, Clock(SECONDS))
    rows = kept.rows()
    assert [row["number"] for row in rows] == list(range(RUNS))
    assert {(row["conformance"], row["progress"]) for row in rows} == {("ACCEPTED", "PROGRESS")}
    assert {row["outcome"] for row in rows} == {"finished"}
    assert sum(row["looked at"] for row in rows) > 0


def test_each_run_pauses_and_closes_last() -> None:
    for number in (0, 1, 100, 200, 300, 400):
        experiment = pausing_workload_of(1, number)
        for operations in (experiment.server, experiment.client):
            assert operations[-1].do == "close"
            assert any(operation.pause_seconds > 0 for operation in operations)
