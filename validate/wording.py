"""Where a trace cannot be followed, and what the spec would have done there, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vchan_testbed.tracer.format import Records, page_cells
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, Call, Cell, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.lanes import Candidate, Position, Step, Value
from vchan_testbed.validate.order import Order
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.states import States, VchanStates
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.two_lanes import TwoLanes
from vchan_testbed.validate.verdict import Maximal

SHOWN = {
    "s_space": "free bytes",
    "s_space_again": "free bytes",
    "s_peek": "free bytes",
    "r_have": "bytes in the ring",
    "r_have_again": "bytes in the ring",
    "r_peek": "bytes in the ring",
    "s_live": "the peer's live byte",
    "s_live_again": "the peer's live byte",
    "r_live": "the peer's live byte",
    "s_peek_live": "the peer's live byte",
    "r_peek_live": "the peer's live byte",
    "s_arm": "the bit before",
    "r_arm": "the bit before",
    "s_test": "the bit before",
    "r_test": "the bit before",
    "s_put": "bytes put",
    "r_take": "bytes taken",
    "s_return": "the result",
    "r_return": "the result",
    "s_call": "the size",
    "r_call": "the size",
    # Of the spec of the library.
    "w_space": "free bytes",
    "w_space_again": "free bytes",
    "w_look": "free bytes",
    "r_look": "bytes in the ring",
    "w_live": "the peer's live byte",
    "w_live_again": "the peer's live byte",
    "o_live": "the peer's live byte",
    "live_look": "the peer's live byte",
    "w_arm": "the notify byte before",
    "w_test": "the notify byte before",
    "w_put": "bytes put",
    "return": "the result",
    "call_write": "the size",
    "call_send": "the size",
    "call_read": "the size",
    "call_recv": "the size",
}
"""What the value of a step is."""

FAULTS = {
    FaultKind.DROP: "drops what follows",
    FaultKind.DELAY: "holds what follows",
    FaultKind.REPEAT: "does what follows twice",
    FaultKind.STALE: "lets what follows read an earlier value",
    FaultKind.CORRUPT: "puts another value into what follows",
    FaultKind.KILL: "kills the process",
    FaultKind.PAUSE: "holds what follows and pauses a domain",
    FaultKind.UNPAUSE: "holds what follows and unpauses a domain",
    FaultKind.DESTROY: "holds what follows and destroys a domain",
    FaultKind.PANIC: "holds what follows and lets a domain's kernel panic",
    FaultKind.SAVE: "holds what follows and saves and restores a domain",
}
REMARKS = {
    Flag.FAULT_INJECTED: "changed by the test bed",
    Flag.HELD: "held by the test bed",
    Flag.HELD_IN_VAIN: "held by the test bed in vain",
}
"""What the test bed did to a record."""


@dataclass(frozen=True, slots=True)
class Words:
    """Turns records and positions of one direction into words."""

    lanes: TwoLanes
    traces: Mapping[Role, Trace]
    order: Order
    states: States = field(default_factory=VchanStates)

    def maximal(self, position: Position) -> Maximal:
        """A maximal position; the lanes' steps count from their starts."""
        return Maximal(
            direction=self.lanes.direction,
            sender_done=position.sender,
            receiver_done=position.receiver,
            sender=self._next("s", position),
            receiver=self._next("r", position),
            instead=tuple(_candidate(one) for one in position.candidates),
            state=plain_state(position.state.as_dict()),
        )

    def unexplained(self, position: Position) -> Place:
        """The record that a maximal position is stuck at.

        Of two lanes that both cannot go on, one may only be waiting for a later step of the
        other. If neither waits for the other, the sender's is named.
        """
        done: dict[Side, int] = {"s": position.sender, "r": position.receiver}
        needs = {"s": self.order.sender, "r": self.order.receiver}
        other: dict[Side, Side] = {"s": "r", "r": "s"}
        left: list[Side] = [side for side in SIDES if done[side] < len(self.lanes.lane(side))]
        if not left:
            return self._last_of_the_dead()
        free = [side for side in left if needs[side][done[side]] <= done[other[side]]]
        side = min(free or left, key=lambda one: self._waits(one, position))
        place = self._next(side, position)
        assert place is not None
        return place

    def _last_of_the_dead(self) -> Place:
        """Both lanes are done, and how one of them ended does not fit to what was seen then."""
        side = next(side for side in SIDES if self.lanes.death_of(side) != "no")
        row = int(self.lanes.lane(side).rows[-1])
        return self.place(side, row, f"the {self.lanes.role(side)}'s death behind it was not told")

    def place(self, side: Side, row: int, reason: str = "") -> Place:
        """One record of a side's trace."""
        role = self.lanes.role(side)
        return place_of(self.traces[role], row, reason)

    def _next(self, side: Side, position: Position) -> Place | None:
        lane = self.lanes.lane(side)
        at = position.sender if side == "s" else position.receiver
        if at >= len(lane):
            return None
        (step,) = lane.steps(at, at + 1)
        return self.place(side, step.record, self._why_not(side, step, position))

    def _why_not(self, side: Side, step: Step, position: Position) -> str:
        remark = self.lanes.lane(side).remarks.get(step.record)
        shown = f"{step.action} comes"
        if step.action in SHOWN:
            shown = f"{step.action} shows {_value(step.action, step.value)}"
        if remark:
            return f"{step.action}: {remark}"
        mine = [one for one in position.candidates if one.side == side]
        if step.action.endswith(("wait", "_stolen")) and self._waits(side, position):
            return f"{step.action}: a wake-up, and no event is left that could have caused it"
        if same := [one for one in mine if one.action == step.action]:
            due = " or ".join(sorted({_value(one.action, one.value) for one in same}))
            return f"{shown}; the spec has {due} here"
        if mine:
            due = " or ".join(_candidate(one) for one in mine)
            return f"{shown}; the spec goes on with {due}"
        return f"{shown}; the spec cannot take this step here"

    def _waits(self, side: Side, position: Position) -> bool:
        """Whether the spec's next step of this side is the wait that the lane shows too."""
        lane = self.lanes.lane(side)
        at = position.sender if side == "s" else position.receiver
        (step,) = lane.steps(at, at + 1)
        if step.action.endswith("_stolen"):
            return True
        next_step = self.states.next_step(position.state, side)
        return step.action.endswith("wait") and next_step == step.action


def _candidate(one: Candidate) -> str:
    if one.value is None:
        return one.action
    return f"{one.action} ({_value(one.action, one.value)})"


def _value(action: str, value: int | None) -> str:
    if value is None:
        return "any size"
    return f"{SHOWN[action]} {value}" if action in SHOWN else str(value)


def plain_state(state: Mapping[str, Value]) -> dict[str, Any]:
    """The spec's variables as JSON has them."""
    return {name: _plain(value) for name, value in sorted(state.items())}


def _plain(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, frozenset):
        return {key: _plain(part) for key, part in sorted(value, key=lambda pair: pair[0])}
    return value


def place_of(trace: Trace, row: int, reason: str = "") -> Place:
    """A record of a trace, for people."""
    record = trace.records[row]
    header = trace.header
    ticks = int(record["t0"]) - header.start_tsc
    return Place(
        endpoint=header.role,
        record=int(record["seq"]),
        row=int(row),
        time=ticks / header.tsc_hz if header.tsc_hz else 0.0,
        what=describe(trace.records[row : row + 1]),
        reason=reason,
    )


def describe(one: Records) -> str:
    """A record in words: `read: load left.prod 64`."""
    record = one[0]
    kind, call = int(record["kind"]), int(record["call"])
    old, new = int(record["old"]), int(record["new"])
    what = _kind(kind)
    if kind in ACCESS_KINDS:
        what = f"{what} {_cell(int(record['offset']))} " + (
            str(old) if kind == Kind.LOAD else f"{old} -> {new}"
        )
    elif kind == Kind.CALL_ENTER:
        what = f"{what}, size {old}"
    elif kind in (Kind.CALL_EXIT, Kind.PENDING_EXIT, Kind.NOTIFY):
        what = f"{what}, {_signed(new)}"
    elif kind == Kind.PAYLOAD:
        what = f"{what} of {new} bytes at {old}"
    elif kind == Kind.PAGE:
        cells = (f"{_cell(cell)} {value}" for cell, value in page_cells(record).items())
        what = f"{what} given back with {', '.join(cells)}"
    elif kind == Kind.COPY:
        what = f"{what} of {new} bytes at {int(record['operand'])}"
    elif kind == Kind.DIGEST:
        what = f"{what} of a copy of {new} bytes"
    elif kind == Kind.FAULT:
        known = new in tuple(FaultKind)
        what = f"the test bed {FAULTS[FaultKind(new)] if known else 'interferes'}"
    flags = int(record["flags"])
    what += "".join(f" ({remark})" for flag, remark in REMARKS.items() if flags & flag)
    name = Call(call).name.lower() if call in tuple(Call) else str(call)
    return f"{name}: {what}" if call else what


def _kind(kind: int) -> str:
    return Kind(kind).name.lower().replace("_", " ") if kind in tuple(Kind) else f"kind {kind}"


def _cell(offset: int) -> str:
    if offset not in tuple(Cell):
        return f"at {offset}"
    first, second = Cell(offset).name.lower().split("_", 1)
    return f"{first}.{second}" if second in ("prod", "cons") else f"{first}_{second}"


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
