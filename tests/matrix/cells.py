"""The cells of the detection matrix: every action of the spec, at each side, with every fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from plays import ENDS, experiments

from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.experiment_model import Fault
from vchan_testbed.guests.fault_steps import ON_DOMAINS, SIDES, Steps, load_steps, value_max
from vchan_testbed.tracer.layout import Cell as Field

DELAY_SECONDS = 0.05
PLACES: Mapping[str, tuple[str, str, int]] = {
    # Opening.
    "i_bind": ("talk", "first", 1),
    "i_share": ("talk", "first", 1),
    "k_bind": ("talk", "first", 1),
    "k_unmask": ("talk", "first", 1),
    "k_map": ("talk", "first", 1),
    "k_live": ("talk", "first", 1),
    "k_notify": ("talk", "first", 1),
    "k_raise": ("talk", "first", 1),
    # Calls.
    "call_write": ("talk", "first", 2),
    "call_send": ("packets", "first", 2),
    "call_read": ("talk", "second", 2),
    "call_recv": ("packets", "second", 2),
    "call_wait": ("talk polling", "second", 2),
    "call_data_ready": ("looks", "second", 2),
    "call_buffer_space": ("looks", "second", 2),
    "call_is_open": ("looks", "second", 2),
    "call_close": ("talk", "first", 1),
    "return": ("talk", "first", 2),
    # Writing.
    "w_live": ("talk", "first", 2),
    "w_space": ("talk", "first", 2),
    "w_arm": ("full", "first", 3),
    "w_space_again": ("full", "first", 3),
    "w_put": ("talk", "first", 2),
    "w_test": ("talk", "first", 2),
    "w_raise": ("talk", "first", 2),
    "w_live_again": ("full", "first", 2),
    # Reading.
    "r_have": ("talk", "second", 3),
    "r_arm": ("talk", "second", 3),
    "r_have_again": ("talk", "second", 3),
    "r_take": ("talk", "second", 2),
    "r_test": ("full", "second", 2),
    "r_raise": ("full", "second", 2),
    "r_live": ("talk", "second", 2),
    "o_live": ("looks", "second", 2),
    # Waiting and closing.
    "wait": ("talk", "second", 3),
    "unmask": ("talk", "second", 3),
    "c_close": ("talk", "first", 1),
    "c_give_back": ("talk", "first", 1),
    "c_raise": ("talk", "first", 1),
}
"""For each action a workload in which its side takes it, as the one that speaks first or second,
and which time is meant: one at which the peer depends on it, if there is such a one."""
OPPOSITE = {"k_live": 0, "k_notify": 0, "c_close": 1}
"""What a plain store of a byte is corrupted to."""
ARMS = {"w_arm": 2, "r_arm": 1, "w_test": 1, "r_test": 2}
"""The bit that a change of a notify byte sets or clears."""
INDEX_MASK = 64
"""An index is off by one message."""


@dataclass(frozen=True)
class Cell:
    """One fault at one action of one side."""

    side: str
    at: str
    do: str

    @property
    def name(self) -> str:
        """As it is pinned."""
        return f"{self.side} {self.at} {self.do}"

    @property
    def workload(self) -> str:
        """The name of its workload."""
        name, part, _ = PLACES[self.at]
        other = ENDS[self.side == "client"]
        return f"{name}, {self.side if part == 'first' else other} first"

    @property
    def fault(self) -> Fault:
        """What is injected."""
        nth = PLACES[self.at][2]
        return Fault(self.side, self.at, nth, self.do, **_options(self, load_steps()))


def _options(cell: Cell, steps: Steps) -> dict[str, Any]:
    if cell.do == "delay":
        return {"seconds": DELAY_SECONDS}
    if cell.do != "corrupt":
        return {}
    if cell.at in OPPOSITE:
        return {"value": OPPOSITE[cell.at]}
    if cell.at in ARMS:
        return {"xor": ARMS[cell.at]}
    field: Field | None = steps.cell(cell.at, cell.side)
    assert field is not None
    return {"xor": INDEX_MASK} if value_max(field) > 255 else {"xor": 1}


def cells() -> list[Cell]:
    """All of them that need no domain, in the order of the spec."""
    steps = load_steps()
    return [
        Cell(side, action, do)
        for side in SIDES
        for action in steps.actions(side)
        for do in steps.applicable(action, side)
        if do not in ON_DOMAINS
    ]


def experiment_of(cell: Cell, workloads: Mapping[str, Experiment] | None = None) -> Experiment:
    """Its workload with its fault, the last one of all."""
    base = (workloads or experiments())[cell.workload]
    return replace(base, faults=(*base.faults, cell.fault))
