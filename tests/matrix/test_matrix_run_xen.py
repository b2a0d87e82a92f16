"""Some cells of the detection matrix on real Xen: they come out as on the loopback host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from batches import Clock
from cells import cells
from detection import Kept, host_called, load_pins, sweep, wrong

pytestmark = pytest.mark.xen

CELLS = (
    "server r_raise drop",
    "client w_put corrupt",
    "client w_raise drop",
    "client w_raise repeat",
)
SECONDS = 1400.0


def test_they_come_out_as_they_are_pinned(tmp_path: Path) -> None:
    chosen = [cell for cell in cells() if cell.name in CELLS]
    assert len(chosen) == len(CELLS)
    rows = list(sweep(chosen, Kept(tmp_path), Clock(SECONDS), host_called("qemu")))
    pins = load_pins()
    assert [row["cell"] for row in rows] == [cell.name for cell in chosen]
    assert {row["cell"]: wrong(row, pins) for row in rows if wrong(row, pins)} == {}
