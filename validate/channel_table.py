"""The table of records and steps of a whole channel (`specs/libxenvchan.records.yaml`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vchan_testbed.errors import InputError
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Kind
from vchan_testbed.validate.table import TABLE as VCHAN_TABLE

TABLE = VCHAN_TABLE.parent / "libxenvchan.records.yaml"
ROLES: tuple[Role, Role] = ("server", "client")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    do: str
    """The action, or empty: the record decides nothing."""
    value: str
    after: frozenset[str]
    decides: bool
    fails: bool
    first: Mapping[str, str]
    must: int | str | None
    copies: str


@dataclass(frozen=True, slots=True)
class ChannelTable:
    """What the records of an end show: rows by call, kind and cell (empty for no cell)."""

    rows: Mapping[tuple[int, int, str], tuple[Row, ...]]
    cells: Mapping[Role, Mapping[str, Cell]]
    after_server_init: Mapping[str, int]
    rows_of_calls: Mapping[tuple[int, int, str], tuple[Row, ...]]
    """Further rows, for traces of calls and events alone."""
    show_nothing: Mapping[Kind, str]
    """Record kinds that show no step, and why."""

    def actions(self) -> frozenset[str]:
        """Every action that a row names."""
        tables = (*self.rows.values(), *self.rows_of_calls.values())
        every = [row for rows in tables for row in rows]
        firsts = {action for row in every for action in row.first.values()}
        return frozenset(row.do for row in every if row.do) | firsts

    def calls(self) -> frozenset[int]:
        """The calls of which the table speaks."""
        return frozenset(call for call, _, _ in self.rows)


def load_channel_table(path: Path = TABLE) -> ChannelTable:
    """The table in `path`. Raises InputError when it is not one."""
    try:
        data = yaml.safe_load(path.read_text())
        kinds = {name: tuple(some) for name, some in data["kinds"].items()}
        names = tuple(data["cells"]["server"])
        return ChannelTable(
            rows=_rows(data["rows"], kinds, names),
            rows_of_calls=_rows(data["rows_of_calls"], kinds, names),
            cells={
                role: {name: Cell[cell] for name, cell in data["cells"][role].items()}
                for role in ROLES
            },
            after_server_init=data["after_server_init"],
            show_nothing={Kind[kind]: why for kind, why in data["show_nothing"].items()},
        )
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


def _rows(
    given: Iterable[Mapping[str, Any]], kinds: Mapping[str, tuple[str, ...]], names: tuple[str, ...]
) -> dict[tuple[int, int, str], tuple[Row, ...]]:
    rows: dict[tuple[int, int, str], list[Row]] = {}
    for one in given:
        for key in _keys(one, kinds, names):
            rows.setdefault(key, []).append(_row(one))
    return {key: tuple(some) for key, some in rows.items()}


def _keys(
    given: Mapping[str, Any], kinds: Mapping[str, tuple[str, ...]], names: tuple[str, ...]
) -> Iterable[tuple[int, int, str]]:
    for call in _many(given["call"]):
        for kind in _many(given["kind"]):
            for one in kinds.get(kind, (kind,)):
                for cell in _many(given.get("cell", "")):
                    if cell and cell not in names:
                        raise ValueError(f"no cell {cell!r}")
                    yield int(Call[call]), int(Kind[one]), cell


def _row(given: Mapping[str, Any]) -> Row:
    return Row(
        do="" if given["do"] == "nothing" else given["do"],
        value=given.get("value", ""),
        after=frozenset(_many(given.get("after", ()))),
        decides=given.get("reads") == "decides",
        fails=bool(given.get("fails", False)),
        first=given.get("first", {}),
        must=given.get("must"),
        copies=given.get("copies", ""),
    )


def _many(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
