"""Random runs that conform: what came of ten thousand (`make conforming`), and some more."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from batches import Clock
from conforming import CONFORMING, PINS, Kept, sweep
from workloads import GROUP, layout_of, workload_of

RUNS_MIN = 10_000
SEED, RUNS = 20, 24
SECONDS = 600.0


def test_none_of_ten_thousand_was_rejected() -> None:
    found = json.loads(PINS.read_text())
    assert found["runs"] >= RUNS_MIN
    assert found["verdicts"] == {"ACCEPTED, PROGRESS": found["runs"]}
    assert found["outcomes"] == {"finished": found["runs"]}
    assert found["not ACCEPTED and PROGRESS"] == found["leaked"] == []


def test_none_of_some_more_is_either(tmp_path: Path) -> None:
    kept = Kept(tmp_path, SEED)
    sweep(CONFORMING, SEED, RUNS, (1, 1), kept, Clock(SECONDS))
    rows = kept.rows()
    assert [row["number"] for row in rows] == list(range(RUNS))
    assert {(row["conformance"], row["progress"]) for row in rows} == {("ACCEPTED", "PROGRESS")}
    assert not [row for row in rows if "leaked" in row]


def test_a_run_is_told_by_its_number_and_the_seed() -> None:
    assert workload_of(1, 5) == workload_of(1, 5)
    assert len({repr(workload_of(1, number).to_dict()) for number in range(GROUP)}) == GROUP
    assert layout_of(1, 0) != layout_of(1, 1)
