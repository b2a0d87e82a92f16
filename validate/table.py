"""The table of records and steps (`specs/vchan.records.yaml`), read for one side of a direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

import vchan_testbed
from vchan_testbed.errors import InputError
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Kind

Side = Literal["s", "r"]
Direction = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("s", "r")
DIRECTIONS: tuple[Direction, Direction] = ("left", "right")
TABLE = Path(vchan_testbed.__file__).parent / "specs" / "vchan.records.yaml"

TRIPS = ("away", "stolen", "asks", "back")
CELLS = ("prod", "cons", "sender_live", "receiver_live", "tell_of_writes", "tell_of_reads")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    do: str
    """The action, or empty: the record decides nothing."""
    value: str
    after: frozenset[str]
    decides: bool
    first: Mapping[str, str]
    must: int | str | None
    copies: str
    trip: str
    """One of `TRIPS`, or empty: the thread is in a call of the other direction."""


@dataclass(frozen=True, slots=True)
class Ring:
    """One direction's cells and roles."""

    direction: Direction
    sender: Role
    receiver: Role
    cells: Mapping[str, Cell]
    bits: Mapping[str, int]
    """Mask of this direction's bit, of the two notify cells."""
    receiver_connects: bool
    after_server_init: Mapping[str, int]

    def role(self, side: Side) -> Role:
        """Who is the sender or the receiver."""
        return self.sender if side == "s" else self.receiver

    def named(self, offset: int) -> str:
        """The name of the cell at an offset of the page; empty when it is not one of these."""
        return next((name for name, cell in self.cells.items() if cell == offset), "")


@dataclass(frozen=True, slots=True)
class SideTable:
    """What one side's records show: rules by call, kind and cell (empty for no cell)."""

    side: Side
    ring: Ring
    rules: Mapping[tuple[int, int, str], tuple[Rule, ...]]

    @property
    def own(self) -> str:
        """The index that this side moves."""
        return "prod" if self.side == "s" else "cons"

    @property
    def theirs(self) -> str:
        """The index that the other side moves."""
        return "cons" if self.side == "s" else "prod"

    @property
    def peer_live(self) -> str:
        """The other side's live byte."""
        return "receiver_live" if self.side == "s" else "sender_live"

    @property
    def transfer(self) -> Call:
        """The call in which this side takes part in this direction."""
        return Call.WRITE if self.side == "s" else Call.READ

    @property
    def brings_forward(self) -> bool:
        """Whether a load of the live byte can stand for one that came earlier."""
        return any(rule.first for rules in self.rules.values() for rule in rules)

    def actions(self) -> frozenset[str]:
        """Every action that a row names."""
        every = [rule for rules in self.rules.values() for rule in rules]
        firsts = {action for rule in every for action in rule.first.values()}
        return frozenset(rule.do for rule in every if rule.do) | firsts


@dataclass(frozen=True, slots=True)
class RecordTable:
    """The whole table."""

    text: str
    rings: Mapping[Direction, Ring]
    not_in_the_spec: Mapping[int, str]
    """Calls that the spec has no steps for, and how to name them."""
    rows: tuple[Mapping[str, Any], ...]
    kinds: Mapping[str, tuple[str, ...]]
    away: Mapping[Side, tuple[str, ...]]

    def side(self, direction: Direction, side: Side) -> SideTable:
        """The rules for one side of a direction."""
        rules: dict[tuple[int, int, str], list[Rule]] = {}
        for row in self.rows:
            if row["side"] != side:
                continue
            for key in self._keys(row, side):
                rules.setdefault(key, []).append(_rule(row))
        ring = self.rings[direction]
        return SideTable(side, ring, {key: tuple(found) for key, found in rules.items()})

    def _keys(self, row: Mapping[str, Any], side: Side) -> Iterable[tuple[int, int, str]]:
        calls = self.away[side] if row["call"] == "away" else _many(row["call"])
        kinds = [one for kind in _many(row["kind"]) for one in self.kinds.get(kind, (kind,))]
        for call in calls:
            for kind in kinds:
                for cell in _many(row.get("cell", "")):
                    if cell and cell not in CELLS:
                        raise ValueError(f"no cell {cell!r}")
                    yield int(Call[call]), int(Kind[kind]), cell


def load_table(path: Path | None = None) -> RecordTable:
    """The table in `path`, by default that of Vchan. Raises InputError when it is not one."""
    path = path or TABLE
    try:
        text = path.read_text()
        data = yaml.safe_load(text)
        table = RecordTable(
            text=text,
            rings={name: _ring(name, data) for name in DIRECTIONS},
            not_in_the_spec={int(Call[call]): why for call, why in data["not_in_the_spec"].items()},
            rows=tuple(data["rows"]),
            kinds={name: tuple(kinds) for name, kinds in data["kinds"].items()},
            away={side: tuple(data["away"][side]) for side in SIDES},
        )
        for direction in DIRECTIONS:
            for side in SIDES:
                table.side(direction, side)
    except OSError as error:
        raise InputError(
            f"The table of records {path} cannot be read: {error.strerror}.",
            next_step="Name a file that is there.",
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a table of records: {error!r}.",
            next_step=f"Compare it with {TABLE}.",
        ) from error
    return table


def _ring(name: Direction, data: Mapping[str, Any]) -> Ring:
    given = data["directions"][name]
    cells, bits = {}, {}
    for cell in CELLS:
        place = given[cell]
        if isinstance(place, list):
            bits[cell] = int(place[1])
            place = place[0]
        cells[cell] = Cell[place]
    sender: Role = given["sender"]
    return Ring(
        direction=name,
        sender=sender,
        receiver="server" if sender == "client" else "client",
        cells=cells,
        bits=bits,
        receiver_connects=bool(given["receiver_connects"]),
        after_server_init=data["after_server_init"][name],
    )


def _rule(row: Mapping[str, Any]) -> Rule:
    return Rule(
        do="" if row["do"] == "nothing" else row["do"],
        value=row.get("value", ""),
        after=frozenset(_many(row.get("after", ()))),
        decides=row.get("reads") == "decides",
        first=row.get("first", {}),
        must=row.get("must"),
        copies=row.get("copies", ""),
        trip=row["do"][2:] if row["do"][2:] in TRIPS else "",
    )


def _many(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
