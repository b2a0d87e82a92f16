"""A tiny language for runs of the library's model, one step of one end after another.

    S.r64:5 C.w30 C.close S.. S.close
    change server payload: new=29

S is the server, C the client; both have opened the channel when the history begins.

    C.w30     the client begins a write of 30 bytes and goes on until it returns or sleeps
    S.r64     one read of at most 64 bytes; more calls: see CALLS
    S.r64:5   the same, but stops after five accesses to the page or the port
    S..       goes on: until its call returns or it sleeps
    C.w30!    the event that this write raises gets lost: a fault of the test bed
    C.kill    the process dies where it stands; C.kill+ makes one more access without a record
    S.close   closes, and ends its trace

What still runs at the end is looked at if all of it sleeps, else stopped while it moves.

A line `change` changes a record of what came out: end, call, kind and cell of the record, the how
many-th of those it is, and the change, as in `mutations.py`. A line `rings 10 12` gives the rings'
orders, left and right; a line `expect` the verdict that the experiment expects.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from library_model import (
    READ_BIT,
    WRITE_BIT,
    Killed,
    Outcome,
    Process,
    Run,
    Scenario,
    World,
    looks,
)
from mutations import Change, Pick, double, drop, lose, sets, swap

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Kind

ENDS: dict[str, Role] = {"S": "server", "C": "client"}
CALLS = {
    "w": "write",
    "r": "read",
    "send": "send",
    "recv": "recv",
    "open": "is_open",
    "ready": "data_ready",
    "space": "buffer_space",
    "wait": "wait",
    "close": "close",
}
STEP = re.compile(
    r"(?P<end>[SC])\.(?:(?P<on>\.)|(?P<kill>kill)(?P<more>\+?)"
    r"|(?P<call>[a-z]+?)(?P<size>\d+)?)(?::(?P<stop>\d+))?(?P<lost>!?)"
)
CHANGES: dict[str, Change] = {"drop": drop, "double": double, "swap": swap, "lose": lose}


@dataclass(frozen=True)
class History:
    """What is written down of a run."""

    steps: tuple[str, ...]
    left_order: int = 10
    right_order: int = 11
    changes: tuple[tuple[Pick, Change], ...] = ()
    expect: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(text: str) -> History:
        """Read a history. Raises ValueError for what is none."""
        found = History(())
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "change":
                found = replace(found, changes=(*found.changes, _change(rest)))
            elif word == "rings":
                left, right = rest.split()
                found = replace(found, left_order=int(left), right_order=int(right))
            elif word == "expect":
                found = replace(found, expect=_expected(*rest.split()))
            elif word and not word.startswith("#"):
                found = replace(found, steps=(*found.steps, *line.split()))
        return found


def _expected(conformance: str, progress: str, *known: str) -> dict[str, Any]:
    return {"conformance": conformance, "progress": progress, "known": known}


def _change(text: str) -> tuple[Pick, Change]:
    record, _, what = text.partition(":")
    endpoint, *words = record.split()
    call = next((Call[word.upper()] for word in words if word.upper() in Call.__members__), None)
    kind = next(Kind[word.upper()] for word in words if word.upper() in Kind.__members__)
    cell = next((Cell[word.upper()] for word in words if word.upper() in Cell.__members__), None)
    nth = next((int(word) for word in words if word.isdigit()), 1)
    (role,) = (role for role in ENDS.values() if role == endpoint)
    what = what.strip()
    if what in CHANGES:
        return Pick(role, kind, call, cell, nth), CHANGES[what]
    pairs = (pair.split("=") for pair in what.split())
    values = {name: int(value) & (1 << 64) - 1 for name, value in pairs}
    return Pick(role, kind, call, cell, nth), sets(**values)


def played(history: History) -> tuple[Run, dict[Role, Records]]:
    """The run, and the records that were changed. Raises ValueError for an impossible step."""
    run = _Play(history).run()
    changed: dict[Role, Records] = {}
    for pick, change in history.changes:
        records = changed.get(pick.endpoint, run.records(pick.endpoint))
        changed[pick.endpoint] = change(records, pick.row(records))
    return run, changed


class _Play:
    """Both ends, and where each of them is in its call."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.scenario = Scenario(
            (), (), left_order=history.left_order, right_order=history.right_order
        )
        self.world = World(self.scenario)
        self.ends: dict[Role, Process] = {role: Process(role, self.world) for role in ENDS.values()}
        self.calls: dict[Role, Generator[Any, None, int] | None] = dict.fromkeys(ENDS.values())

    def run(self) -> Run:
        """Play it to its end."""
        for role in ENDS.values():
            self._begin(role, f"{role}_init")
            self._go_on(role)
        for step in self.history.steps:
            self._step(step)
        return self._ended()

    def _step(self, text: str) -> None:
        match = STEP.fullmatch(text)
        if match is None:
            raise ValueError(f"not a step of a history: {text}")
        role = ENDS[match["end"]]
        process = self.ends[role]
        if match["kill"]:
            self._kill(role, one_more=bool(match["more"]))
            return
        if not match["on"]:
            self._begin(
                role, CALLS[match["call"]], *([int(match["size"])] if match["size"] else [])
            )
        elif self.calls[role] is None or self._sleeps(role):
            raise ValueError(f"{text}: the {role} is in no call, or sleeps and no event has come")
        if match["lost"]:
            lost = ((role, process.notified[bit] + 1, bit) for bit in (WRITE_BIT, READ_BIT))
            process.scenario = replace(process.scenario, drop=tuple(lost))
        self._go_on(role, int(match["stop"]) if match["stop"] else None)

    def _begin(self, role: Role, name: str, *arguments: int) -> None:
        process = self.ends[role]
        if self.calls[role] is not None or process.finished or not process.alive:
            raise ValueError(f"the {role} cannot begin a {name} here")
        if name.endswith("_init"):
            self.calls[role] = process.api(Call[name.upper()], 0, getattr(process, name))
        elif name == "read":
            # One call, however much it brings.
            self.calls[role] = process.perform("read", *arguments, 1)
        else:
            self.calls[role] = process.perform(name, *arguments)
        self._advance(role)

    def _go_on(self, role: Role, accesses: int | None = None) -> None:
        done = 0
        while self.calls[role] is not None and not self._sleeps(role) and done != accesses:
            self._advance(role)
            done += 1

    def _sleeps(self, role: Role) -> bool:
        return self.ends[role].waiting and not self.world.ports[role].queued

    def _advance(self, role: Role) -> None:
        """To the next access, or out of the call."""
        process, call = self.ends[role], self.calls[role]
        assert call is not None
        try:
            next(call)
        except StopIteration:
            self.calls[role] = None
            if not process.world.ports[role].open:
                process.log(Kind.DETACH)
                process.finished = True

    def _kill(self, role: Role, *, one_more: bool) -> None:
        process, call = self.ends[role], self.calls[role]
        if one_more:
            process.silent = 1
            with suppress(Killed):
                assert call is not None
                next(call)
        process.die()
        self.calls[role] = None

    def _ended(self) -> Run:
        living = [end for end in self.ends.values() if end.alive and not end.finished]
        died = any(not end.alive for end in self.ends.values())
        outcome: Outcome = "endpoint died" if died else "finished"
        seen = None
        if living and all(self._sleeps(end.role) for end in living):
            outcome, seen = "stood still", looks(self.world, self.ends)
        elif living:
            outcome = "stopped while moving"
            for process in living:
                process.die()
        return Run(self.scenario, self.ends, outcome, seen)
