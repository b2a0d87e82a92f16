"""What goes into following a trace and what comes out: lanes, parameters, states, results.

One *direction* of a channel has a sender and a receiver. Each side has a *lane*: the steps that
its trace shows, in program order. The two lanes are not merged: TLC looks for the interleavings.

Actions and values (`Step.action`, `Step.value`); the table with the C functions and the records is
in `specs/vchan.actions.yaml`:

====================================  =========================================================
action                                value
====================================  =========================================================
s_call, r_call                        size argument
s_live, s_live_again, r_live          the peer's live byte as 0 or 1 (2, not yet connected, is 1)
s_space, s_space_again                free bytes as read
r_have, r_have_again                  bytes in the ring as read
s_arm, r_arm, s_test, r_test          the bit before the access, 0 or 1
s_put, r_take                         bytes by which the index moves
s_return, r_return                    result of the call
s_peek, r_peek                        a read that decides nothing: free bytes, bytes in the ring
s_peek_live, r_peek_live              a read that decides nothing: the peer's live byte, 0 or 1
all others                            0
====================================  =========================================================

`s_spurious` and `s_stolen` speak of the *sender's* port, `r_spurious` and `r_stolen` of the
receiver's. A step stands in the lane of the side that did it, so an event that the sender's other
direction raises on the receiver's port is `r_spurious` in the *sender's* lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Value: TypeAlias = "bool | int | str | tuple[Value, ...] | frozenset[tuple[str, Value]]"
"""A value of TLA+: BOOLEAN, integer, string, sequence, or a function from strings."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that a trace shows."""

    action: str
    value: int
    record: int
    """Number of the record in the endpoint's trace."""
    local: bool = False
    """It touches no shared variable. Only told to readers: the follower asks the action map."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The steps of one side in one direction, in program order."""

    steps: Sequence[Step]
    unlogged: bool = False
    """One access more may have been made after the last record (killed between the two)."""
    death: Literal["no", "may", "must", "domain"] = "no"
    """The process died after the last step: its live byte is cleared and an event raised. `domain`:
    its whole domain did."""
    live_left: int | None = None
    """The domain died: what its live byte was seen to hold in the end; None: nobody saw it."""
    goes_first: npt.NDArray[np.int64] | None = field(default=None, compare=False)
    """For each step, how many of the other lane's steps must be done before it may be taken in
    front of all others; None: to be worked out from these lanes. Part of a longer trace, they do
    not have all that it depends on."""
    comes_after: npt.NDArray[np.int64] | None = field(default=None, compare=False)
    """For each step, how many of the other lane's steps came before it, as all the trace's values
    tell; None: nothing is known of it. Where these orders lead to an end, no others are tried."""
    ranks: npt.NDArray[np.int64] | None = field(default=None, compare=False)
    """For each step its place in the order of both lanes' times; None: not asked for. It decides
    which of several behaviours is found first, never whether there is one."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Both sides of one direction."""

    sender: Lane
    receiver: Lane
    stop: Literal["s", "r"] | None = field(default=None, kw_only=True)
    """The side whose lane's end is the end, wherever in its lane the other side is then: so ends a
    piece of a longer trace. None: both lanes have to be done."""
    searched: bool = field(default=False, kw_only=True)
    """The lanes have calls and events alone: the accesses between them are searched for."""


@dataclass(frozen=True, slots=True)
class SpecParams:
    """The spec's constants and initial state for one direction of one run."""

    ring_bytes: int
    notify_at_start: int = 1
    """The receiver's bit "tell me of writes" at the start, 0 or 1."""
    connects: bool = False
    """The receiver is the client and its connecting is still to come (`r_connect`)."""
    sender_port: int = 0
    """Wake-ups that wait on the sender's port at the start, 0 to 2."""
    receiver_port: int = 0
    deviations: frozenset[str] = frozenset()
    """Switches that are on, for example {"L1"}."""
    spurious_max: int = 0
    """Wake-ups out of nowhere that are allowed, from the start of the trace."""
    given: tuple[tuple[str, str], ...] = ()
    """Further constants of the spec, each with its TLA+ text; `<- Name` is what stands for it. They
    go before the fixed ones of the action map."""


@dataclass(frozen=True, slots=True)
class State:
    """One state of the spec: each variable with its value."""

    values: frozenset[tuple[str, Value]]

    def __getitem__(self, variable: str) -> Value:
        return self.as_dict()[variable]

    def as_dict(self) -> dict[str, Value]:
        """The variables by name."""
        return dict(self.values)

    @staticmethod
    def of(values: Mapping[str, Value]) -> State:
        """The state with these variables."""
        return State(frozenset(values.items()))


@dataclass(frozen=True, slots=True)
class Start:
    """A state in which lanes are taken up, and how many steps of each are done in it."""

    state: State
    sender: int = 0
    receiver: int = 0


@dataclass(frozen=True, slots=True)
class EndState:
    """A state in which a behaviour has got to the end of the lanes."""

    state: State
    enabled: tuple[str, ...]
    """Fair actions of the spec that could be taken here."""
    owed: frozenset[str]
    """What has been promised and has not happened; see `OWED`."""
    left: tuple[int, int] = (0, 0)
    """Steps of the sender's and of the receiver's lane that are still to come (`Lanes.stop`)."""


OWED = {
    "bytes": "bytes were handed to a write and have not come out of a read",
    "write": "a write has not returned",
    "read": "a read has not returned",
    "end": "the sender has closed and the receiver has not been told",
    "death": "a call waits for a peer whose domain is gone",
}
"""The words of `EndState.owed`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An action that the spec allows at a position, with the value that it would show."""

    side: Literal["s", "r"]
    action: str
    value: int | None
    """None for an action that shows no value, and for a call: its size is the application's."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in both lanes beyond which nothing goes on from `state`."""

    sender: int
    """Steps of the sender's lane that were done; the next one is `steps[sender]`."""
    receiver: int
    state: State
    candidates: tuple[Candidate, ...]
    """What the spec would have allowed here instead."""


@dataclass(frozen=True, slots=True)
class FollowResult:
    """What following two lanes gave."""

    accepted: bool
    """Some interleaving of the lanes is a behaviour of the spec."""
    undecided: str
    """Empty, or the bound at which the search stopped: `ends` or the rejection are then unknown."""
    ends: tuple[EndState, ...]
    """Every end state (some of them, if undecided)."""
    frontier: tuple[Position, ...] = ()
    """If rejected: the maximal positions, largest sum first, then the lower sender's."""
    coverage: Mapping[str, int] = field(default_factory=dict)
    """How often each action was taken, hidden ones with them."""
    overlap: int = 0
    """Calls of one side that saw the other side move while they ran."""
    states: int = 0
    """Distinct states that TLC visited."""
    seconds: float = 0.0
