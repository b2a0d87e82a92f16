"""The steps at which a fault can be: what the spec's tables say of each of its actions.

Which accesses, events and calls an action stands for is read from `specs/libxenvchan.records.yaml`,
whose it is from `specs/libxenvchan.actions.yaml`; which faults make sense there follows from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import vchan_testbed
from vchan_testbed.tracer.faults import ACTIONS_MAX, NO_CELL, StepRow
from vchan_testbed.tracer.layout import ACCESS_KINDS, CELL_WIDTH, Call, Cell, Kind

SPECS = Path(vchan_testbed.__file__).parent / "specs"
SIDES = ("server", "client")
ON_DOMAINS = ("pause", "unpause", "destroy", "panic", "save")
ANYWHERE = ("delay", "kill")
"""Whatever a step is, it can be waited for and not be come to."""
OF_LOADS = ("stale", "corrupt")
OF_STORES = ("drop", "repeat", "corrupt")
OF_PORTS = ("drop", "repeat")
PORT_OPERATIONS = (Kind.NOTIFY, Kind.UNMASK)
"""Events and their like: they can be left out, and what they report be made up."""
WAITS = (Kind.PENDING_ENTER, Kind.PENDING_EXIT, Kind.UNMASK)
"""What a call only makes if it blocks, all but `wait` itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of records, as far as it says where a step is."""

    action: str
    """Empty: it decides nothing."""
    calls: tuple[Call, ...]
    kind: Kind
    cell: str
    """As the side sees it; empty: none."""
    after: tuple[str, ...]
    decides: bool
    first: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Steps:
    """All actions that a record shows, by the side that takes them."""

    rows: tuple[Row, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    """By side and name."""
    owners: Mapping[str, tuple[str, ...]]
    """By action: the sides that take it."""
    numbers: Mapping[str, int]
    """By action: its number, from 1 on."""

    def actions(self, side: str) -> tuple[str, ...]:
        """The actions of one side that can be named in a fault, in the order of the spec."""
        shown = {row.action for row in self.rows}
        return tuple(name for name, sides in self.owners.items() if side in sides and name in shown)

    def kinds(self, action: str) -> frozenset[Kind]:
        """The kinds of records that show the action."""
        return frozenset(row.kind for row in self.rows if row.action == action)

    def cell(self, action: str, side: str) -> Cell | None:
        """The field of the shared page that the action is at."""
        cells = [row.cell for row in self.rows if row.action == action and row.cell]
        return self.cells[side][cells[0]] if cells else None

    def applicable(self, action: str, side: str) -> tuple[str, ...]:
        """The faults that make sense at the action, those on domains last; () if it is not taken.

        A read-modify-write counts as a store: what it reads cannot be an earlier value, because no
        processor's copy of the cell stands between its two halves.
        """
        if action not in self.actions(side):
            return ()
        kinds = self.kinds(action)
        found = list(ANYWHERE)
        if Kind.LOAD in kinds:
            found += OF_LOADS
        elif kinds & ACCESS_KINDS:
            found += OF_STORES
        elif kinds & set(PORT_OPERATIONS):
            found += OF_PORTS
        return (*sorted(found), *ON_DOMAINS)

    def taken_in(self, side: str, calls: Sequence[Call], *, blocking: bool) -> frozenset[str]:
        """The actions that the side can come to if it makes no calls but these.

        An action that is only taken behind others of its call needs one of them to be possible.
        """
        possible = [
            (row, call)
            for row in self.rows
            for call in row.calls
            if call in calls and (blocking or row.kind not in WAITS or call not in _BLOCKING)
        ]
        found: set[tuple[str, Call]] = set()
        while True:
            more = {
                (name, call)
                for row, call in possible
                if not row.after or any((last, call) in found for last in row.after)
                for name in (
                    row.action,
                    *(due for last, due in row.first.items() if (last, call) in found),
                )
            }
            if more <= found:
                break
            found |= more
        own = self.actions(side)
        return frozenset(name for name, _ in found if name in own)

    def rows_for(self, side: str) -> tuple[StepRow, ...]:
        """The rows as the tracer's core takes them."""
        return tuple(self._row(row, self.cells[side]) for row in self.rows)

    def _row(self, row: Row, cells: Mapping[str, Cell]) -> StepRow:
        firsts = [(self.numbers[last], self.numbers[due]) for last, due in row.first.items()]
        places = [self._load_of(due, cells) for due in row.first.values()]
        padded = [*firsts, (0, 0), (0, 0)][:2]
        return (
            sum(1 << self.numbers[name] for name in row.after),
            sum(1 << call for call in row.calls),
            int(row.kind),
            int(cells[row.cell]) if row.cell else NO_CELL,
            self.numbers.get(row.action, 0),
            int(row.decides),
            [last for last, _ in padded],
            [due for _, due in padded],
            [*places, 0, 0][:2],
        )

    def _load_of(self, action: str, cells: Mapping[str, Cell]) -> int:
        loads = [row.cell for row in self.rows if row.action == action and row.kind == Kind.LOAD]
        return int(cells[loads[0]])


_BLOCKING = (Call.READ, Call.WRITE, Call.RECV, Call.SEND)


def applicable(action: str, side: str) -> list[str]:
    """The faults that make sense at an action of the spec at "server" or "client"."""
    return list(load_steps().applicable(action, side))


def actions(side: str) -> list[str]:
    """The actions of the spec at "server" or "client" at which a fault can be."""
    return list(load_steps().actions(side))


@cache
def load_steps(folder: Path = SPECS) -> Steps:
    """The steps that the tables in `folder` tell of. They are the package's own, and tested."""
    records = yaml.safe_load((folder / "libxenvchan.records.yaml").read_text())
    spec = yaml.safe_load((folder / "libxenvchan.actions.yaml").read_text())
    sides = {lane: name.strip('"') for lane, name in spec["threads"].items()}
    owners = {
        name: tuple(sides[lane] for lane in entry["by"]) for name, entry in spec["actions"].items()
    }
    # What decides nothing is no action of the spec.
    looks = set(spec["peeks"])
    shown = [row for given in records["rows"] for row in _rows(given, records["kinds"], looks)]
    used = {row.action for row in shown if row.action}
    numbers = {name: i for i, name in enumerate((n for n in owners if n in used), 1)}
    if len(numbers) >= ACTIONS_MAX:
        raise ValueError(f"the tracer's core has room for {ACTIONS_MAX - 1} actions")
    return Steps(
        rows=tuple(shown),
        cells={
            side: {name: Cell[cell] for name, cell in records["cells"][side].items()}
            for side in SIDES
        },
        owners=owners,
        numbers=numbers,
    )


def _rows(
    given: Mapping[str, Any], kinds: Mapping[str, Sequence[str]], looks: set[str]
) -> Iterator[Row]:
    """One row for each kind and cell. That an operation fails is not known before it is made."""
    if given.get("fails"):
        return
    action = "" if given["do"] == "nothing" or given["do"] in looks else given["do"]
    for named in _many(given["kind"]):
        for kind in (Kind[one] for one in kinds.get(named, (named,))):
            for cell in _many(given.get("cell", "")):
                yield Row(
                    action=action,
                    calls=tuple(Call[call] for call in _many(given["call"])),
                    kind=kind,
                    cell=cell,
                    after=_many(given.get("after", ())),
                    decides=given.get("reads") == "decides",
                    first=given.get("first", {}),
                )


def _many(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def value_max(cell: Cell) -> int:
    """The largest value of a field of the shared page."""
    return int(256 ** CELL_WIDTH[cell] - 1)
