"""A whole channel of a run: both ends' lanes, the spec's parameters, what it cannot express."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.channel_merge import ChannelLane, Rings, lane_of
from vchan_testbed.validate.channel_table import ChannelTable
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import SpecParams
from vchan_testbed.validate.merge import Ints
from vchan_testbed.validate.table import Side
from vchan_testbed.validate.two_lanes import Part, TwoLanes
from vchan_testbed.validate.window_index import first_index, last_seen

INDEX_SPAN = 1 << 30
"""The indices count modulo this while TLC follows a trace: its integers have 32 bits. It is a
multiple of every ring; that each index is right modulo 2**32 is looked at in the merge."""
SIDES: Mapping[Side, Role] = {"s": "server", "r": "client"}
BLOCKING = {True: "<- AlwaysBlocking", False: "<- NeverBlocking", None: "<- EitherBlocking"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLanes(TwoLanes):
    """What the judge gets for a whole channel."""

    server: ChannelLane
    client: ChannelLane

    @property
    def direction(self) -> Part:
        """Both of them."""
        return "both"

    def role(self, side: Side) -> Role:
        """Whose lane it is."""
        return SIDES[side]

    def ring_bytes(self, way: str) -> int:
        """Of a direction."""
        return self.server.ring_out if way == "right" else self.client.ring_out


def channel_lanes(
    table: ChannelTable,
    traces: Mapping[Role, Trace],
    endings: Mapping[Role, Ending],
    evidence: Evidence,
) -> ChannelLanes:
    """Project both ends' records."""
    of_calls = any(trace.header.level == "calls" for trace in traces.values())
    left, right = (
        1 << max(trace.header.order_of(way) for trace in traces.values())
        for way in ("left", "right")
    )
    later = any(trace.begins_later for trace in traces.values())
    firsts = first_indices(table, traces, endings) if later else None
    server = lane_of(
        table,
        "server",
        traces["server"].records,
        endings["server"].rows,
        Rings(right, left),
        firsts["server"] if firsts else (0, 0),
        of_calls=of_calls,
        tells_sleep=evidence.blocking is None,
    )
    client = lane_of(
        table,
        "client",
        traces["client"].records,
        endings["client"].rows,
        Rings(left, right),
        firsts["client"] if firsts else (server.first_into, server.first_out),
        of_calls=of_calls,
        tells_sleep=evidence.blocking is None,
    )
    given = {
        "SideOf": "<- ThreadSide",
        "LeftBytes": str(left),
        "RightBytes": str(right),
        "IndexSpan": str(INDEX_SPAN),
        "FirstLeft": str(server.first_into % INDEX_SPAN),
        "FirstRight": str(server.first_out % INDEX_SPAN),
        "Blocking": BLOCKING[evidence.blocking],
    }
    return ChannelLanes(
        params=SpecParams(max(left, right), given=tuple(given.items())),
        sender=server.steps,
        receiver=client.steps,
        endings={side: endings[role] for side, role in SIDES.items()},
        problems=server.problems + client.problems,
        needs=tuple(
            dict.fromkeys(
                (
                    *(need for ending in endings.values() for need in ending.needs),
                    *(need for lane in (server, client) for need in lane.needs),
                )
            )
        ),
        searched=of_calls,
        overlap=_overlap(server) + _overlap(client),
        server=server,
        client=client,
    )


def first_indices(
    table: ChannelTable, traces: Mapping[Role, Trace], endings: Mapping[Role, Ending]
) -> dict[Role, tuple[int, int]]:
    """Each end's own indices where its records begin: of the ring that it writes, and reads.

    They are known modulo 2**32.
    """

    def of(role: Role, own: str) -> int:
        """An index by the owner's first access, or the peer's last one."""
        peer: Role = "client" if role == "server" else "server"
        seen_as = {"out_prod": "in_prod", "in_cons": "out_cons"}[own]
        here, there = traces[role].records, traces[peer].records
        if role == "server" and not traces[role].begins_later:
            # Its init makes them 0, and the merge sees what its application sets then.
            return 0
        return first_index(
            here,
            endings[role].rows,
            table.cells[role][own],
            lambda: last_seen(there, endings[peer].rows, table.cells[peer][seen_as]),
        )

    return {role: (of(role, "out_prod"), of(role, "in_cons")) for role in SIDES.values()}


def _overlap(lane: ChannelLane) -> int:
    """Calls that saw the other side move an index while they ran."""
    names = [name for name in lane.steps.names if name.startswith("call_")]
    starts = np.zeros(len(lane.steps), np.int64)
    starts[lane.steps.where(*names)] = 1
    call = np.cumsum(starts)
    looks = (
        (lane.out, lane.steps.where("w_space", "w_space_again", "w_look")),
        (lane.into, lane.steps.where("r_have", "r_have_again", "r_look")),
    )
    return sum(_saw_a_move(call, own[at] + lane.steps.values[at], at) for own, at in looks)


def _saw_a_move(call: Ints, shown: Ints, at: Ints) -> int:
    calls = call[at]
    moved = (shown[1:] != shown[:-1]) & (calls[1:] == calls[:-1])
    return len(np.unique(calls[1:][moved]))
