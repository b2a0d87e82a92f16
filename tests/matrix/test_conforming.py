"""Random runs that conform: some of those of which `make conforming` makes ten thousand."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from batches import Clock
from conforming import Kept, sweep
from workloads import GROUP, layout_of, workload_of

SEED, RUNS = 20, 24
SECONDS = 600.0


def test_none_of_some_is_rejected(tmp_path: Path) -> None:
    kept = Kept(tmp_path, SEED)
    sweep(SEED, RUNS, (1, 1), kept, Clock(SECONDS))
    rows = kept.rows()
    assert [row["number"] for row in rows] == list(range(RUNS))
    assert {(row["conformance"], row["progress"]) for row in rows} == {("ACCEPTED", "PROGRESS")}
    assert not [row for row in rows if "leaked" in row]


def test_a_run_is_told_by_its_number_and_the_seed() -> None:
    assert workload_of(1, 5) == workload_of(1, 5)
    assert len({repr(workload_of(1, number).to_dict()) for number in range(GROUP)}) == GROUP
    assert layout_of(1, 0) != layout_of(1, 1)
