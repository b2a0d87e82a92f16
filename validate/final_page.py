"""Whether the page in the end is the one that its records lead to.

A record has what the library saw or meant to store. If something else reached the page (a fault
that the test bed injected, a store that nobody recorded), no record need ever show it, but the page
does: it was looked at when nothing moved any more, or by each end when it gave it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.format import Records, page_cells
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import CELL_WIDTH, Call, Cell, Kind
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.evidence import ROLES, Evidence
from vchan_testbed.validate.merge import Problem

WRITES = (Kind.STORE, Kind.RMW_LOCKED, Kind.RMW_PLAIN, Kind.CMPXCHG_OK, Kind.BULK)
GIVES_BACK = (Kind.UNSHARE_PAGE, Kind.UNMAP_PAGE)
WRITERS: Mapping[Cell, Role] = {
    Cell.LEFT_PROD: "client",
    Cell.RIGHT_CONS: "client",
    Cell.CLI_LIVE: "client",
    Cell.LEFT_CONS: "server",
    Cell.RIGHT_PROD: "server",
    Cell.SRV_LIVE: "server",
}
"""Cells that one side writes, once server_init has filled all of them."""
NOTIFY = (Cell.CLI_NOTIFY, Cell.SRV_NOTIFY)
BITS = (1, 2)


@dataclass(frozen=True, slots=True)
class _End:
    """What one end stored."""

    role: Role
    records: Records
    rows: np.ndarray
    is_known: bool
    """All that it stored until the look: it stood still, or had closed."""

    def stores(self, cell: Cell) -> np.ndarray:
        """The rows that change the cell, in program order."""
        records = self.records[self.rows]
        changes = np.isin(records["kind"], WRITES) & (records["offset"] == cell)
        # What the kernel does when the page is given back changes the byte as well.
        changes |= np.isin(records["kind"], GIVES_BACK) & (records["offset"] == cell)
        return np.asarray(self.rows[changes])

    def value(self, row: int) -> int:
        """What the cell had behind one of them."""
        gives_back = self.records["kind"][row] in GIVES_BACK
        return 0 if gives_back else int(self.records["new"][row])


def page_problems(
    records: Mapping[Role, Records],
    endings: Mapping[Role, Ending],
    evidence: Evidence,
    windows: Collection[Role] = (),
) -> Iterator[Problem]:
    """Cells of the last look that hold another value than the records lead to.

    Nothing is said of a cell that an end may have changed of which records are missing. Of an end
    of `windows` the first ones are: it tells what it stored last, but not what it left alone, nor
    what a notify byte was when the window began.
    """
    page = _page(evidence)
    if not evidence.stands_still or page is None:
        return
    ends = {
        role: _End(
            role,
            records[role],
            endings[role].rows,
            endings[role].looked or endings[role].closed,
        )
        for role in ROLES
    }
    for cell, role in WRITERS.items():
        if role in windows and not len(ends[role].stores(cell)):
            continue
        if ends[role].is_known and ends["server"].is_known:
            yield from _single(page, cell, ends[role], ends["server"])
    if not windows and all(end.is_known for end in ends.values()):
        for cell in NOTIFY:
            yield from _notify(page, cell, ends)


def given_back_problems(
    records: Mapping[Role, Records], endings: Mapping[Role, Ending]
) -> Iterator[Problem]:
    """Cells of one side that held another value when it gave the page back than it had stored.

    What its peer writes may come later. An end that died, and one of which calls alone were
    recorded, gave nothing back.
    """
    for role in ROLES:
        rows = endings[role].rows
        mine = _End(role, records[role], rows, is_known=True)
        for at in rows[records[role]["kind"][rows] == Kind.PAGE].tolist():
            for cell, held in page_cells(records[role][at]).items():
                before = mine.stores(cell)
                before = before[before < at]
                if WRITERS.get(cell) != role or not len(before):
                    continue
                expected = mine.value(int(before[-1]))
                if held != expected:
                    name = cell.name.lower()
                    text = f"{name} is {held} in the page that the {role} gives back"
                    yield Problem(role, at, f"{text}, and its records lead to {expected}")


def _page(evidence: Evidence) -> bytes | None:
    pages = [evidence.page(role) for role in ROLES]
    return next((page for page in pages if page is not None), None)


def _held(page: bytes, cell: Cell) -> int:
    return int.from_bytes(page[cell : cell + CELL_WIDTH[cell]], "little")


def _single(page: bytes, cell: Cell, writer: _End, server: _End) -> Iterator[Problem]:
    last = writer if len(writer.stores(cell)) else server
    rows = last.stores(cell)
    if len(rows) and _held(page, cell) != last.value(int(rows[-1])):
        yield _problem(page, cell, last, int(rows[-1]), last.value(int(rows[-1])))


def _notify(page: bytes, cell: Cell, ends: Mapping[Role, _End]) -> Iterator[Problem]:
    """Of each bit only one side sets it and only the other clears it: settings less clearings."""
    expected, last = 0, None
    for bit in BITS:
        count = 0
        for end in ends.values():
            for row in end.stores(cell).tolist():
                before, after = _bits(end, row)
                count += (after & bit > 0) - (before & bit > 0)
                last = (end, row)
        expected |= bit if count > 0 else 0
    if last is not None and _held(page, cell) != expected:
        yield _problem(page, cell, *last, expected)


def _bits(end: _End, row: int) -> tuple[int, int]:
    record = end.records[row]
    # A plain store comes where the byte is 0 still: while the channel is opened.
    is_plain = record["kind"] in (Kind.STORE, Kind.BULK)
    opening = is_plain and record["call"] in (Call.SERVER_INIT, Call.CLIENT_INIT)
    return (0 if opening else int(record["old"])), int(record["new"])


def _problem(page: bytes, cell: Cell, end: _End, row: int, expected: int) -> Problem:
    name = cell.name.lower()
    text = (
        f"{name} is {_held(page, cell)} in the page that the run stood still with, and the records "
        f"lead to {expected}"
    )
    return Problem(end.role, row, text)
