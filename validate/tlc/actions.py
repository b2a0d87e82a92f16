"""The action map: what a trace shows of each action of a spec (`specs/vchan.actions.yaml`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import yaml

import vchan_testbed
from vchan_testbed.errors import InputError
from vchan_testbed.validate.lanes import SpecParams

Side: TypeAlias = Literal["s", "r"]
SIDES: tuple[Side, Side] = ("s", "r")
SPECS = Path(vchan_testbed.__file__).parent / "specs"

GOES_FIRST = ("never", "always", "pinned", "bit", "seen by", "raise")
"""Words of `goes_first`; the action map says what they mean."""

_VARS = re.compile(r"^vars == <<(.*?)>>", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Action:
    """One action of the spec, or a read that decides nothing (`stutters`)."""

    name: str
    number: int
    by: tuple[Side, ...]
    shows: str
    """Expression that the logged value equals; empty when it shows nothing."""
    chooses: str
    local: bool
    hidden: bool
    raises: str
    """Port variable on which it raises an event, or empty."""
    goes_first: str
    bit: str
    """The notify bit that it sets or clears, or empty."""
    seen_by: frozenset[str]
    """Actions of the other side that read what it changes (`goes_first` is "seen by")."""
    fair: str
    """What fairness speaks of: the action or one with a condition; empty: not fair."""
    owner: str
    """Who has not done it when it was due."""
    stutters: bool


@dataclass(frozen=True, slots=True)
class Bit:
    """Who sets and who clears a notify bit."""

    starts_as: str | int
    """Its value at the start, or the field of SpecParams that holds it."""
    set_by: frozenset[str]
    cleared_by: frozenset[str]

    def at_start(self, params: SpecParams) -> int:
        """The bit in the spec's initial state."""
        starts_as = self.starts_as
        return starts_as if isinstance(starts_as, int) else int(getattr(params, starts_as))


@dataclass(frozen=True, slots=True)
class Ports:
    """How ports are represented while a trace is followed."""

    representation: Mapping[str, str]
    room: str
    """Operator: an event makes one wake-up more."""
    counts: str
    """Operator: the numbers of wake-ups for which a port stands, one by one."""


@dataclass(frozen=True, slots=True)
class SideOfSpec:
    """What the spec says of one side."""

    port: str
    dies: str
    gone: str
    moves: str
    """The action that moves its index."""
    reads: frozenset[str]
    """Its actions that read the other side's index."""


@dataclass(frozen=True, slots=True)
class ActionMap:
    """A spec and the table of what shows its actions."""

    spec: Path
    """The module's file; what it extends lies beside it."""
    module: str
    variables: tuple[str, ...]
    actions: Mapping[str, Action]
    constants: Mapping[str, str]
    """Constant: field of SpecParams."""
    fixed: Mapping[str, str]
    switches: tuple[str, ...]
    choices: Mapping[str, Side]
    representation: Mapping[str, str]
    represented_by: str
    ports: Ports
    bits: Mapping[str, Bit]
    positions: tuple[str, ...]
    from_the_start: tuple[str, ...]
    ring: str
    sides: Mapping[Side, SideOfSpec]
    owed: Mapping[str, str]

    def owner_of(self, action: str) -> str:
        """Who has not done a fair action when it was due."""
        return self.actions[action].owner


def load_action_map(path: Path | None = None) -> ActionMap:
    """The map in `path`, by default that of Vchan.

    Raises InputError when it is not one.
    """
    path = path or SPECS / "vchan.actions.yaml"
    try:
        table = yaml.safe_load(path.read_text())
        return _action_map(path, table)
    except OSError as error:
        raise InputError(
            f"The action map {path} cannot be read: {error.strerror}.",
            next_step="Name a file that is there.",
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not an action map: {error!r}.",
            next_step=f"Compare it with {SPECS / 'vchan.actions.yaml'}.",
        ) from error


def _action_map(path: Path, table: dict[str, Any]) -> ActionMap:
    module = str(table["module"])
    spec = path.parent / f"{module}.tla"
    bits = {
        name: Bit(row["starts_as"], frozenset(row["set_by"]), frozenset(row["cleared_by"]))
        for name, row in table["bits"].items()
    }
    rows = table["actions"] | table["peeks"]
    actions = {
        name: _action(name, number, row, bits, stutters=name in table["peeks"])
        for number, (name, row) in enumerate(rows.items(), start=1)
    }
    indices = table["indices"]
    return ActionMap(
        spec=spec,
        module=module,
        variables=_variables(spec),
        actions=actions,
        constants=table["constants"],
        fixed=table["fixed"],
        switches=tuple(table["switches"]),
        choices=table["choices"],
        representation=table["representation"],
        represented_by=table["represented_by"],
        ports=Ports(**table["ports"]),
        bits=bits,
        positions=tuple(table["positions"]),
        from_the_start=tuple(table["from_the_start"]),
        ring=indices["ring"],
        sides={
            side: SideOfSpec(
                **table["sides"][side],
                moves=indices["moves"][side],
                reads=frozenset(indices["reads"][side]),
            )
            for side in SIDES
        },
        owed=table["owed"],
    )


def _action(
    name: str, number: int, row: dict[str, Any], bits: Mapping[str, Bit], *, stutters: bool
) -> Action:
    fair = row.get("fair")
    goes_first = str(row.get("goes_first", "never"))
    seen_by: frozenset[str] = frozenset()
    if goes_first.startswith("seen by "):
        seen_by = frozenset(part.strip() for part in goes_first[8:].split(","))
        goes_first = "seen by"
    if goes_first not in GOES_FIRST:
        raise ValueError(f"{name}: goes_first: {goes_first}")
    return Action(
        name=name,
        number=number,
        by=tuple(cast(Side, side) for side in row["by"]),
        shows=str(row.get("shows", "")),
        chooses=row.get("chooses", ""),
        local=row.get("scope") == "local",
        hidden=row["record"] == "hidden",
        raises=row.get("raises", ""),
        goes_first=goes_first,
        bit=next((b for b, who in bits.items() if name in who.set_by | who.cleared_by), ""),
        seen_by=seen_by,
        fair=fair.get("action", name) if fair else "",
        owner=fair["owner"] if fair else "",
        stutters=stutters,
    )


def _variables(spec: Path) -> tuple[str, ...]:
    match = _VARS.search(spec.read_text())
    if match is None:
        raise ValueError(f"{spec} has no translated algorithm (vars == << ... >>)")
    return tuple(name.strip() for name in match[1].split(","))
