"""One direction of a run: both lanes, the spec's parameters, and what the spec cannot express."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from vchan_testbed.tracer.format import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import Lane, Lanes, SpecParams
from vchan_testbed.validate.merge import LaneSteps, Problem, Projection, project
from vchan_testbed.validate.table import Direction, RecordTable, Ring, Side
from vchan_testbed.validate.tlc.columns import Ints
from vchan_testbed.validate.tlc.rows import counted_from

PERSIST = "a server that never asks whether the client is there (server_persist, L5)"
NOT_BLOCKING = "non-blocking calls"


@dataclass(frozen=True, slots=True)
class DirectionLanes:
    """What the judge gets for one direction."""

    ring: Ring
    params: SpecParams
    sender: LaneSteps
    receiver: LaneSteps
    endings: Mapping[Side, Ending]
    problems: tuple[Problem, ...]
    needs: tuple[str, ...]
    goes_first: Mapping[Side, Ints] = field(default_factory=dict)
    """What `Lane.goes_first` says of the whole lanes."""
    comes_after: Mapping[Side, Ints] = field(default_factory=dict)
    """What `Lane.comes_after` says of the whole lanes."""
    overlap: int = 0
    """Calls of one side that saw the other side move while they ran."""

    @property
    def direction(self) -> Direction:
        """left or right."""
        return self.ring.direction

    def lane(self, side: Side) -> LaneSteps:
        """The sender's or the receiver's."""
        return self.sender if side == "s" else self.receiver

    def whole(self) -> Lanes:
        """The lanes, with how an end died."""
        ends = (len(self.sender), len(self.receiver))
        sender, receiver = Lane(self.sender), Lane(self.receiver)
        return Lanes(self._ending("s", sender, ends[0]), self._ending("r", receiver, ends[1]))

    def piece(
        self, first: tuple[int, int], last: tuple[int, int], stop: Side | None = None
    ) -> Lanes:
        """The lanes between two places, with what only the whole tells of their order.

        How an end died belongs to the last piece alone.
        """
        sender, receiver = self._part("s", first, last), self._part("r", first, last)
        if stop:
            return Lanes(sender, receiver, stop=stop)
        return Lanes(self._ending("s", sender, last[0]), self._ending("r", receiver, last[1]))

    def _part(self, side: Side, first: tuple[int, int], last: tuple[int, int]) -> Lane:
        mine, other = (0, 1) if side == "s" else (1, 0)
        part = slice(first[mine], last[mine])
        told: list[Ints | None] = [
            counted_from(column[side][part], first[other]) if side in column else None
            for column in (self.goes_first, self.comes_after)
        ]
        return Lane(self.lane(side)[part], goes_first=told[0], comes_after=told[1])

    def _ending(self, side: Side, lane: Lane, last: int) -> Lane:
        ending = self.endings[side]
        if last < len(self.lane(side)):
            return lane
        death = ending.death
        if death == "must" and (self._never_connects(side) or not ending.mapped):
            # Who dies before it connects leaves a live byte of 2, and before it has the page it
            # raises nothing: to wait for that event for ever is nobody's fault.
            death = "may"
        return replace(lane, unlogged=ending.unlogged, death=death)

    def _never_connects(self, side: Side) -> bool:
        return side == "r" and self.params.connects and not len(self.receiver.where("r_connect"))


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
    found = {
        side: project(
            table.side(direction, side),
            traces[role].records,
            endings[role].rows,
            ring_bytes,
            table.not_in_the_spec,
        )
        for side, role in sides.items()
    }
    return DirectionLanes(
        ring=ring,
        params=SpecParams(
            ring_bytes=ring_bytes,
            notify_at_start=ring.after_server_init["tell_of_writes"],
            connects=ring.receiver_connects,
        ),
        sender=found["s"].lane,
        receiver=found["r"].lane,
        endings={side: endings[role] for side, role in sides.items()},
        problems=found["s"].problems + found["r"].problems,
        needs=tuple(
            dict.fromkeys(
                (
                    *(need for ending in endings.values() for need in ending.needs),
                    *(need for one in found.values() for need in one.needs),
                    *_calls_that_do_not_block(evidence, found),
                    *(need for one in found.values() for need in _persists(one)),
                )
            )
        ),
    )


def _calls_that_do_not_block(evidence: Evidence, found: Mapping[Side, Projection]) -> list[str]:
    """Non-blocking calls: as the experiment says; else as a result shows that no other call has."""
    if evidence.blocking is not None:
        return [] if evidence.blocking else [NOT_BLOCKING]
    writes, reads = found["s"].lane, found["r"].lane
    asked, got = _paired(writes, "s_call", "s_return")
    short = bool(np.any((got >= 0) & (got < asked)))
    asked, got = _paired(reads, "r_call", "r_return")
    return [NOT_BLOCKING] if short or bool(np.any((got == 0) & (asked > 0))) else []


def _paired(lane: LaneSteps, call: str, done: str) -> tuple[np.ndarray, np.ndarray]:
    calls, returns = lane.values[lane.where(call)], lane.values[lane.where(done)]
    count = min(len(calls), len(returns))
    return calls[:count], returns[:count]


def _persists(one: Projection) -> list[str]:
    lane = one.lane
    asks = len(lane.where("s_live", "s_live_again", "r_live"))
    had_to = len(lane.where("s_call", "r_wait"))
    return [PERSIST] if lane.role == "server" and had_to > 1 and not asks else []
