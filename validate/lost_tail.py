"""Traces whose last records are lost: how far the other end can be judged.

An agent sends its trace while it runs. When its whole domain dies, what it had not sent yet is
gone: any number of records, not one access as when a process is killed. After the last record
that came that end may have done anything that the spec allows, and what its peer saw of that is
neither right nor wrong. The same goes for a file that was shortened after it had been ended.

    client  s.put 64 | (lost: s.put 64, s.test, s.raise)
    server  r.have 64   r.take 64   r.have 64 ...

So the server is judged up to the first step that no behaviour reaches and that reads what the
client writes: it may follow from what is lost. A step that shows the server's own doing alone, or
one before the client's end, is no less a rejection than in a whole trace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import Position
from vchan_testbed.validate.states import States, states_of
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.tlc.actions import Action, ActionMap
from vchan_testbed.validate.two_lanes import TwoLanes

WHOLE = ("killed", "died")
"""Ends that did not end their traces, and whose agents sent everything that they had written."""


def lost_tails(
    traces: Mapping[Role, Trace], endings: Mapping[Role, Ending], evidence: Evidence
) -> tuple[Role, ...]:
    """The ends of whose traces the last records may be missing."""
    return tuple(
        role
        for role, trace in traces.items()
        if trace.ending == "cut"
        and (trace.header.complete or evidence.ended(role) not in WHOLE)
        and not endings[role].closed
        and endings[role].death != "domain"
        and not endings[role].looked
    )


def judged_up_to(
    frontier: Iterable[Position],
    lanes: TwoLanes,
    lost: Collection[Role],
    actions: ActionMap,
) -> Position | None:
    """The farthest of the maximal positions that what is lost can explain; None if none is."""
    fitting = [at for at in frontier if _explained(at, lanes, lost, actions)]
    return max(fitting, key=lambda at: at.sender + at.receiver, default=None)


def _explained(
    position: Position, lanes: TwoLanes, lost: Collection[Role], actions: ActionMap
) -> bool:
    done: dict[Side, int] = {"s": position.sender, "r": position.receiver}
    left = [side for side in SIDES if done[side] < len(lanes.lane(side))]
    if len(left) != 1:
        return False
    (side,) = left
    peer: Side = "r" if side == "s" else "s"
    (step,) = lanes.lane(side).steps(done[side], done[side] + 1)
    action = actions.actions[step.action]
    return (
        lanes.role(peer) in lost
        and _reads_the_peer(action)
        and _is_next(side, action, position, states_of(actions))
    )


def _reads_the_peer(action: Action) -> bool:
    return not (action.local or action.own_doing)


def _is_next(side: Side, action: Action, position: Position, states: States) -> bool:
    """Whether only the value is another one, or the wake-up not there yet.

    A load where the spec has the side arm first is no doing of the peer's.
    """
    if action.stutters or action.name.endswith("_stolen"):
        return True
    return states.next_step(position.state, side) == action.name
