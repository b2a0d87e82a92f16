"""One direction of a run: both lanes, the spec's parameters, and what the spec cannot express."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.endings import Death, Ending
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import SpecParams
from vchan_testbed.validate.merge import LaneSteps, Projection, project
from vchan_testbed.validate.table import SIDES, Direction, RecordTable, Ring, Side
from vchan_testbed.validate.two_lanes import TwoLanes

CALLS_ONLY = "the accesses that calls alone do not show"
PERSIST = "a server that never asks whether the client is there (server_persist, L5)"


@dataclass(frozen=True, slots=True)
class DirectionLanes(TwoLanes):
    """What the judge gets for one direction."""

    ring: Ring

    @property
    def direction(self) -> Direction:
        """left or right."""
        return self.ring.direction

    def role(self, side: Side) -> Role:
        """Who is the sender or the receiver."""
        return self.ring.role(side)

    def _never_connects(self, side: Side) -> bool:
        return side == "r" and self.params.connects and not len(self.receiver.where("r_connect"))

    def death_of(self, side: Side) -> Death:
        """How a side died behind its lane.

        Who dies before it connects leaves a live byte of 2, and before it has the page it raises
        nothing: to wait for that event for ever is nobody's fault. Vchan knows no domain that goes:
        to its peer it died like a process, if that was told, or takes no step more.
        """
        ending = self.endings[side]
        if ending.death == "domain":
            return "may"
        if ending.death == "must" and (self._never_connects(side) or not ending.mapped):
            return "may"
        return ending.death


def direction_lanes(
    table: RecordTable,
    direction: Direction,
    traces: Mapping[Role, Trace],
    endings: Mapping[Role, Ending],
    evidence: Evidence,
) -> DirectionLanes:
    """Project both ends' records onto one direction."""
    ring = table.rings[direction]
    orders = [trace.header.order_of(direction) for trace in traces.values()]
    ring_bytes = 1 << max(orders)
    sides: Mapping[Side, Role] = {"s": ring.sender, "r": ring.receiver}
    found: dict[Side, Projection] = {}
    # The server's first: where a ring's indices do not begin at 0, the server has set them.
    for side in sorted(sides, key=lambda one: sides[one] != "server"):
        found[side] = project(
            table.side(direction, side),
            traces[sides[side]].records,
            endings[sides[side]].rows,
            ring_bytes,
            table.not_in_the_spec,
            next((one.first for one in found.values()), 0),
        )
    return DirectionLanes(
        ring=ring,
        params=SpecParams(
            ring_bytes=ring_bytes,
            notify_at_start=ring.after_server_init["tell_of_writes"],
            connects=ring.receiver_connects,
            given=(("GivesUp", '{"s", "r"}'),) if _may_not_block(evidence, found) else (),
        ),
        sender=found["s"].lane,
        receiver=found["r"].lane,
        endings={side: endings[role] for side, role in sides.items()},
        problems=found["s"].problems + found["r"].problems,
        needs=tuple(
            dict.fromkeys(
                (
                    *(need for ending in endings.values() for need in ending.needs),
                    *(CALLS_ONLY for trace in traces.values() if trace.header.level == "calls"),
                    *(need for side in SIDES for need in found[side].needs),
                    *(need for side in SIDES for need in _persists(found[side])),
                )
            )
        ),
    )


def _may_not_block(evidence: Evidence, found: Mapping[Side, Projection]) -> bool:
    """Non-blocking calls: as the experiment says; else as a result shows that no other call has."""
    if evidence.blocking is not None:
        return not evidence.blocking
    writes, reads = found["s"].lane, found["r"].lane
    asked, got = _paired(writes, "s_call", "s_return")
    short = bool(np.any((got >= 0) & (got < asked)))
    asked, got = _paired(reads, "r_call", "r_return")
    return short or bool(np.any((got == 0) & (asked > 0)))


def _paired(lane: LaneSteps, call: str, done: str) -> tuple[np.ndarray, np.ndarray]:
    calls, returns = lane.values[lane.where(call)], lane.values[lane.where(done)]
    count = min(len(calls), len(returns))
    return calls[:count], returns[:count]


def _persists(one: Projection) -> list[str]:
    lane = one.lane
    asks = len(lane.where("s_live", "s_live_again", "r_live"))
    had_to = len(lane.where("s_call", "r_wait"))
    return [PERSIST] if lane.role == "server" and had_to > 1 and not asks else []
