"""A behaviour as TLC prints it, a counterexample: its states, its actions, and who took them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vchan_testbed.validate.lanes import Value
from vchan_testbed.validate.tlc.values import parse_value

_STATE = re.compile(r"^State (\d+): <(?:(\w+) line|Initial predicate)")
_CONSTANT = re.compile(r"^\s*(\w+)\s*(?:=|(<-))\s*(\S.*?)\s*$", re.MULTILINE)
_TELLS = ("at", "fate", "port")
"""Variables that tell who took a step, in this order."""

Function = frozenset[tuple[str, Any]]
"""A function of threads or sides."""


@dataclass(frozen=True, slots=True)
class TlcState:
    """One state of a behaviour."""

    number: int
    action: str
    """Empty for the first one."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Each variable's value as TLC has it."""

    def value(self, name: str) -> Value:
        """The value of a variable. Raises ValueError for what is none, KeyError without it."""
        return parse_value(self.texts[name])

    def of(self, name: str, who: str) -> Value:
        """The value of a function of threads or sides. Raises as `value`, KeyError without it."""
        function = self.value(name)
        if not isinstance(function, frozenset):
            raise ValueError(f"{name} is no function")
        return dict(function)[who]


def read_states(console: Iterable[str]) -> Iterator[TlcState]:
    """The states of the behaviour among TLC's lines, without the way back of one that goes on."""
    state: tuple[int, str] | None = None
    texts: dict[str, str] = {}
    name = ""
    for line in [*console, "State end"]:
        match = _STATE.match(line)
        if line.startswith("State "):
            if state is not None:
                yield TlcState(*state, texts)
            if match is None:
                return
            state, texts, name = (int(match[1]), match[2] or ""), {}, ""
        elif line.startswith("/\\ "):
            name, _, texts[name] = line.removeprefix("/\\ ").partition(" = ")
        elif not line.strip():
            name = ""
        elif name and line.startswith(" "):
            texts[name] += line


def steps_of(states: Sequence[TlcState]) -> Iterator[tuple[TlcState, str, str]]:
    """Each state but the first: the action that led to it, and the thread or side that took it.

    Where nothing tells whose an action was, that is empty.
    """
    for before, after in pairwise(states):
        who = next((who for name in _TELLS for who in _changed(name, before, after)), "")
        yield after, _named(who, before, after), who


def _named(who: str, before: TlcState, after: TlcState) -> str:
    """The action, where a model wraps the spec's own next-state relation into one of its own."""
    if not after.action.endswith("Next") or "at" not in before.texts:
        return after.action
    step = str(before.of("at", who))
    return f"call_{after.of('doing', who)}" if step == "app" else step


def _changed(name: str, before: TlcState, after: TlcState) -> list[str]:
    if name not in before.texts or name not in after.texts:
        return []
    was, now = before.value(name), after.value(name)
    if not isinstance(was, frozenset) or not isinstance(now, frozenset):
        return []
    return sorted(str(who) for who, _ in now - was)


def read_constants(config: str) -> dict[str, str]:
    """The constants of a TLC configuration file: text of each value, with `<- ` before a name."""
    found = _CONSTANT.findall(config)
    return {name: f"<- {value}" if arrow else value for name, arrow, value in found}
