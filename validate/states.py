"""What is asked of an end state, whichever spec it is a state of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from vchan_testbed.validate.lanes import State
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.paths import at


class States(Protocol):
    """How to read a spec's states and the names of its actions."""

    def port(self, state: State, side: Side) -> int:
        """Wake-ups that are to come on a side's port."""

    def port_place(self, side: Side) -> str:
        """Where that is in a state."""

    def is_over(self, state: State, side: Side) -> bool:
        """Whether the side has closed, or is dead."""

    def next_step(self, state: State, side: Side) -> str:
        """The step of the library that the side's thread is at."""

    def wait(self, side: Side) -> str:
        """The fair action that is the side's waiting in a call."""

    def side_of(self, action: str) -> Side:
        """Whose fair action it is."""


@dataclass(frozen=True, slots=True)
class VchanStates:
    """States of one direction: s is the sender, r the receiver."""

    def port(self, state: State, side: Side) -> int:
        """Wake-ups that are to come on a side's port."""
        return cast(int, state[self.port_place(side)])

    def port_place(self, side: Side) -> str:
        """Where that is in a state."""
        return f"{side}Port"

    def is_over(self, state: State, side: Side) -> bool:
        """Whether the side has closed, or is dead."""
        return state[f"{side}Where"] == "gone"

    def next_step(self, state: State, side: Side) -> str:
        """The step of the library that the side's thread is at."""
        return str(dict(state["pc"]).get(side, ""))  # type: ignore[arg-type]

    def wait(self, side: Side) -> str:
        """The fair action that is the side's waiting in a call."""
        return f"{side}_wait"

    def side_of(self, action: str) -> Side:
        """Whose fair action it is."""
        return "s" if action.startswith("s_") else "r"


@dataclass(frozen=True, slots=True)
class LibraryStates:
    """States of a whole channel: s is the server, r its remote end, the client."""

    actions: ActionMap

    def port(self, state: State, side: Side) -> int:
        """Wake-ups that are to come on a side's port."""
        value = at(state, self.port_place(side))
        return cast(int, value[0] if isinstance(value, tuple) else value)

    def port_place(self, side: Side) -> str:
        """Where that is in a state."""
        return self.actions.sides[side].port

    def is_over(self, state: State, side: Side) -> bool:
        """Whether the side has closed, or is dead."""
        alive = at(state, f"fate[{self._thread(side)}]") == "alive"
        return not alive or self.next_step(state, side) == "gone"

    def next_step(self, state: State, side: Side) -> str:
        """The step of the library that the side's thread is at."""
        return str(at(state, f"at[{self._thread(side)}]"))

    def wait(self, side: Side) -> str:
        """The fair action that is the side's waiting in a call."""
        return self.actions.named("wait", side)

    def side_of(self, action: str) -> Side:
        """Whose fair action it is."""
        return next(side for side in SIDES if action == self.actions.named(action.split()[0], side))

    def _thread(self, side: Side) -> str:
        return self.actions.threads[side]


def states_of(actions: ActionMap) -> States:
    """How to read the states of a spec."""
    return LibraryStates(actions) if actions.threads else VchanStates()
