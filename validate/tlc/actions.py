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
LIBRARY = SPECS / "libxenvchan.actions.yaml"
"""The action map of the spec of the whole library."""

ACCESSES = frozenset(("LOAD", "STORE", "RMW"))
"""Words of `record` for accesses."""
GOES_FIRST = ("never", "always", "pinned", "bit", "seen by", "raise")
"""Words of `goes_first`; the action map says what they mean."""

_VARS = re.compile(r"^vars == <<(.*?)>>", re.MULTILINE | re.DOTALL)
_THREAD = re.compile(r"\bt\b")


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
    is_death: bool
    """Taken only behind the last step of a side of which it is known that it died."""
    raises: str
    """Port variable on which it raises an event, or empty; own or peer where the action has a
    thread: that of its side or of the other one."""
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
    is_access: bool
    """What shows it is an access to the shared page, which a trace of calls does not have."""
    own_doing: bool
    """It changes shared memory, and reads nothing that decides whether it can be taken."""
    is_call: bool = False
    """The application calls the library."""
    taken_by: frozenset[str] = frozenset()
    """What does what fairness asks for, if not this action alone."""


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
    assign: str
    """Formula: the ports of s and r become s and r."""
    variables: tuple[str, ...]
    """The variables that hold the ports."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Where a state holds positions of one direction's stream: variables, or `variable[key]`."""

    positions: tuple[str, ...]
    from_the_start: tuple[str, ...]
    """Those of them that begin at position 1."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Which actions of a side move, read, set and clear what, where a lane has both directions."""

    writers: Mapping[str, Side]
    """Who writes in each direction."""
    puts: str
    takes: str
    sees_bytes: frozenset[str]
    """Actions that read the other side's index of a ring to be read."""
    sees_space: frozenset[str]
    """The same of a ring to be written."""
    sets: Mapping[str, int]
    """Actions that set a bit of the other side's notify byte, and the bit."""
    clears: Mapping[str, int]
    """Actions that test and clear a bit of the own one."""
    notify_at_start: Mapping[Side, int]
    """The byte that each side tests."""


@dataclass(frozen=True, slots=True)
class SideOfSpec:
    """What the spec says of one side."""

    port: str
    """The variable, or `variable[key]`."""
    dies: str
    gone: str
    moves: str
    """The action that moves its index."""
    reads: frozenset[str]
    """Its actions that read the other side's index."""
    domain_dies: str = ""
    """Its whole domain goes; empty where the spec has no such step."""
    live: str = ""
    """Its live byte."""


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
    fixed: dict[str, str]
    switches: tuple[str, ...]
    choices: Mapping[str, Side]
    representation: Mapping[str, str]
    represented_by: str
    ports: Ports
    threads: Mapping[Side, str]
    """What the actions are applied to: the TLA+ text of each lane's thread; empty where the spec's
    actions have no parameter."""
    hands_in: frozenset[str]
    """Words of Choice for what makes a stream longer."""
    bits: Mapping[str, Bit]
    streams: Mapping[str, Streams]
    """Of each direction."""
    ring: str
    sides: Mapping[Side, SideOfSpec]
    owed: Mapping[str, str]
    channel: Channel | None
    """None where a lane has the steps of one direction."""

    def owner_of(self, action: str) -> str:
        """Who has not done a fair action when it was due; behind its name may stand a thread's."""
        return self.actions[action.partition(" ")[0]].owner

    def text_of(self, action: Action, side: Side) -> str:
        """The action as the side's thread takes it."""
        return f"{action.name}({self.threads[side]})" if self.threads else action.name

    def named(self, action: str, side: Side) -> str:
        """The action with its thread, for people."""
        return f"{action} {self.threads[side].strip(chr(34))}" if self.threads else action

    def shown_by(self, action: Action, side: Side) -> str:
        """What the action shows, as an expression of the side's thread."""
        if not self.threads:
            return action.shows
        return _THREAD.sub(lambda _: self.threads[side], action.shows)


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
        for name, row in table.get("bits", {}).items()
    }
    rows = table["actions"] | table["peeks"]
    actions = {
        name: _action(name, number, row, bits, stutters=name in table["peeks"])
        for number, (name, row) in enumerate(rows.items(), start=1)
    }
    indices = table.get("indices", {"ring": "", "moves": {}, "reads": {}})
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
        ports=Ports(**{**table["ports"], "variables": tuple(table["ports"]["variables"])}),
        threads=table.get("threads", {}),
        hands_in=frozenset(table["hands_in"]),
        bits=bits,
        streams={
            name: Streams(tuple(row["positions"]), tuple(row["from_the_start"]))
            for name, row in table["streams"].items()
        },
        ring=indices["ring"],
        sides={
            side: SideOfSpec(
                **table["sides"][side],
                moves=indices["moves"].get(side, ""),
                reads=frozenset(indices["reads"].get(side, ())),
            )
            for side in SIDES
        },
        owed=table["owed"],
        channel=_channel(table["channel"]) if "channel" in table else None,
    )


def _channel(row: dict[str, Any]) -> Channel:
    return Channel(
        **{
            **row,
            "sees_bytes": frozenset(row["sees_bytes"]),
            "sees_space": frozenset(row["sees_space"]),
        }
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
        hidden=row["record"] in ("hidden", "death"),
        is_death=row["record"] == "death",
        raises=row.get("raises", ""),
        goes_first=goes_first,
        bit=next((b for b, who in bits.items() if name in who.set_by | who.cleared_by), ""),
        seen_by=seen_by,
        fair=fair.get("action", name) if fair else "",
        owner=fair["owner"] if fair else "",
        stutters=stutters,
        is_access=set(row["record"].split(", ")) <= ACCESSES,
        own_doing=goes_first in ("seen by", "raise") or bool(row.get("own_doing", False)),
        is_call=row["record"] == "CALL_ENTER",
        taken_by=frozenset(fair.get("taken_by", ())) if fair else frozenset(),
    )


def _variables(spec: Path) -> tuple[str, ...]:
    match = _VARS.search(spec.read_text())
    if match is None:
        raise ValueError(f"{spec} has no translated algorithm (vars == << ... >>)")
    return tuple(name.strip() for name in match[1].split(","))
