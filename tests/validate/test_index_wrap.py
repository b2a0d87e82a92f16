"""A stream of more than 4 GiB: the 32-bit indices wrap, and nothing else happens.

The model's rings are larger than the library's own (16 MiB each), so that the wrap comes after some
thousand records.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judging import judged
from library_model import Run, Scenario, simulate

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Cell, Kind
from vchan_testbed.validate.cuts import Size

ORDER = 24
CALL_BYTES = (3 << ORDER) // 2 - 5
"""No power of two: the wrap lies within a move."""
CALLS = (1 << 32) // CALL_BYTES + 3
LONG = Scenario(
    server=(("read_to_end", CALL_BYTES), ("close",)),
    client=(*[("write", CALL_BYTES)] * CALLS, ("close",)),
    left_order=ORDER,
)
MASK = (1 << 32) - 1


@pytest.fixture(scope="module")
def run() -> Run:
    return simulate(LONG)


def wraps(records: Records, cell: Cell) -> int:
    """The row of the move in which an index wraps; there is one."""
    moves = (records["kind"] == Kind.RMW_PLAIN) & (records["offset"] == cell)
    (row,) = np.flatnonzero(moves & (records["new"] < records["old"]))
    return int(row)


def next_load(records: Records, row: int, cell: Cell) -> int:
    """The first load of a cell behind a row."""
    loads = (records["kind"] == Kind.LOAD) & (records["offset"] == cell)
    found = np.flatnonzero(loads)
    return int(found[found > row][0])


def test_a_wrap_is_nothing_special(run: Run, tmp_path: Path) -> None:
    for role, cell in (("client", Cell.LEFT_PROD), ("server", Cell.LEFT_CONS)):
        records = run.records(role)  # type: ignore[arg-type]
        row = wraps(records, cell)
        assert records["new"][row] not in (0, records["old"][row])
    verdict = judged(run, tmp_path)
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS")
    # A piece has 512 MiB at most.
    assert verdict.directions[0].pieces >= 8


def test_also_where_pieces_are_small(run: Run, tmp_path: Path) -> None:
    verdict = judged(run, tmp_path, size=Size(steps=100))
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS")
    assert verdict.directions[0].pieces > 20


@pytest.mark.parametrize("by", [1 << 24, 1 << 30, 1 << 31, -1, 1], ids=hex)
@pytest.mark.parametrize(
    ("role", "own", "theirs"),
    [("server", Cell.LEFT_CONS, Cell.LEFT_PROD), ("client", Cell.LEFT_PROD, Cell.LEFT_CONS)],
)
def test_a_wrong_index_behind_the_wrap_is_found(
    role: Role, own: Cell, theirs: Cell, by: int, run: Run, tmp_path: Path
) -> None:
    """Wrong by a byte, or by what a count in fewer bits would not see."""
    records = run.records(role)
    row = next_load(records, wraps(records, own), theirs)
    wrong = (int(records["old"][row]) + by) & MASK
    records["old"][row] = records["new"][row] = wrong
    verdict = judged(run, tmp_path, {role: records})
    assert verdict.conformance == "REJECTED"
    named = verdict.first_unexplained
    assert named is not None
    assert named.endpoint == role
    assert abs(named.row - row) < 20


@pytest.mark.parametrize("role", ["server", "client"])
def test_an_index_that_does_not_wrap_is_found(role: Role, run: Run, tmp_path: Path) -> None:
    """It stops at the highest value, as one that saturates would."""
    records = run.records(role)
    row = wraps(records, Cell.LEFT_PROD if role == "client" else Cell.LEFT_CONS)
    records["new"][row] = MASK
    verdict = judged(run, tmp_path, {role: records})
    assert verdict.conformance == "REJECTED"
    named = verdict.first_unexplained
    assert named is not None
    assert abs(named.row - row) < 20
