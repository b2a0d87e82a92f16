"""Test oracle: specs/Vchan.tla read by hand, and a follower over it without a JVM.

It is to TLC what `library_model` is to the library: a second reading by other means. A test holds
the two against each other; where they agree, the many small traces of the other tests need not
start a JVM each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vchan_testbed.progress import Progress
from vchan_testbed.validate.lanes import (
    Candidate,
    EndState,
    FollowResult,
    Lane,
    Lanes,
    Position,
    SpecParams,
    Start,
    State,
    Step,
)
from vchan_testbed.validate.tlc.actions import load_action_map
from vchan_testbed.validate.tlc.indices import overlap


class Vchan(NamedTuple):
    """A state. Streams are in order by construction, so their sizes are enough."""

    ring: int
    tellOfWrites: int
    tellOfReads: int
    senderOpen: int
    receiverOpen: int
    sPort: int
    rPort: int
    sWhere: str
    rWhere: str
    Sent: int
    Got: int
    pcs: str
    pcr: str
    todo: int
    wrote: int
    space: int
    want: int
    have: int
    took: int
    rTold: bool


Next = Iterator[tuple[Vchan, int]]
"""States after an action, each with the value that it shows."""

ACTIONS = load_action_map()
FAIR = (
    *("s_live", "s_space", "s_arm", "s_space_again", "s_put", "s_test", "s_raise", "s_wait"),
    *("s_live_again", "s_return", "s_close_raise"),
    *("r_call", "r_have", "r_arm", "r_have_again", "r_take", "r_test", "r_raise", "r_live"),
    *("r_final", "r_wait", "r_return", "r_close_raise", "r_connect"),
)
SHOW_NOTHING = frozenset(name for name, action in ACTIONS.actions.items() if not action.shows)
CALLS = frozenset(("s_call", "r_call"))


def initial(params: SpecParams) -> Vchan:
    """The spec's initial state."""
    return Vchan(
        ring=0,
        tellOfWrites=params.notify_at_start,
        tellOfReads=0,
        senderOpen=1,
        receiverOpen=1,
        sPort=params.sender_port,
        rPort=params.receiver_port,
        sWhere="app",
        rWhere="connecting" if params.connects else "app",
        Sent=0,
        Got=0,
        pcs="s_call",
        pcr="r_call",
        todo=0,
        wrote=0,
        space=0,
        want=0,
        have=0,
        took=0,
        rTold=False,
    )


def _raised(port: int) -> tuple[int, ...]:
    return (1,) if port == 0 else tuple(sorted({port, min(port + 1, 3)}))


class Model:
    """The actions, for one ring size and one set of deviations."""

    def __init__(self, params: SpecParams) -> None:
        self.size = params.ring_bytes
        self.deviations = params.deviations

    def take(self, action: str, s: Vchan, asked: int) -> Next:
        """The states after `action`; `asked` is the size that a call asks for."""
        side = action[0]
        if action in ("s_call", "r_call"):
            if self._at(s, side, action, "app"):
                yield from getattr(self, action)(s, asked)
        elif hasattr(self, action):
            if self._at(s, side, action, "here"):
                yield from getattr(self, action)(s)
        else:
            yield from self._around(action, s)

    @staticmethod
    def _at(s: Vchan, side: str, label: str, where: str) -> bool:
        if side == "s":
            return s.pcs == label and s.sWhere == where
        return s.pcr == label and s.rWhere == where

    # ---- the sender

    def s_call(self, s: Vchan, asked: int) -> Next:
        yield s._replace(todo=asked, Sent=s.Sent + asked, sWhere="here", pcs="s_live"), asked

    def s_live(self, s: Vchan) -> Next:
        if s.receiverOpen:
            yield s._replace(pcs="s_space"), 1
        else:
            yield s._replace(wrote=-1, pcs="s_return"), 0

    def s_space(self, s: Vchan) -> Next:
        space = self.size - s.ring
        after = "s_arm"
        if space >= s.todo:
            after = "s_put" if s.todo else "s_return"
        yield s._replace(space=space, pcs=after), space

    def s_arm(self, s: Vchan) -> Next:
        yield s._replace(tellOfReads=1, pcs="s_space_again"), s.tellOfReads

    def s_space_again(self, s: Vchan) -> Next:
        space = self.size - s.ring
        yield s._replace(space=space, pcs="s_put" if space else "s_wait"), space

    def s_put(self, s: Vchan) -> Next:
        count = min(s.space, s.todo)
        left = s.todo - count
        yield (
            s._replace(
                ring=s.ring + count, todo=left, wrote=s.wrote + count, space=0, pcs="s_test"
            ),
            count,
        )

    def s_test(self, s: Vchan) -> Next:
        after = "s_return" if s.todo == 0 else "s_wait"
        if s.tellOfWrites:
            yield s._replace(tellOfWrites=0, pcs="s_raise"), 1
        else:
            yield s._replace(pcs=after), 0

    def s_raise(self, s: Vchan) -> Next:
        for port in _raised(s.rPort):
            yield s._replace(rPort=port, pcs="s_return" if s.todo == 0 else "s_wait"), 0

    def s_wait(self, s: Vchan) -> Next:
        if s.sPort:
            yield s._replace(sPort=s.sPort - 1, pcs="s_live_again"), 0

    def s_live_again(self, s: Vchan) -> Next:
        if s.receiverOpen:
            yield s._replace(pcs="s_space"), 1
        else:
            yield s._replace(wrote=-1, pcs="s_return"), 0

    def s_return(self, s: Vchan) -> Next:
        sent = s.Sent - s.todo
        yield s._replace(Sent=sent, todo=0, wrote=0, space=0, sWhere="app", pcs="s_call"), s.wrote

    # ---- the receiver

    def r_call(self, s: Vchan, asked: int) -> Next:
        yield s._replace(want=asked, rWhere="here", pcr="r_have"), asked

    def r_have(self, s: Vchan) -> Next:
        after = "r_arm"
        if s.ring >= s.want:
            after = "r_take" if s.ring else "r_live"
        yield s._replace(have=s.ring, pcr=after), s.ring

    def r_arm(self, s: Vchan) -> Next:
        yield s._replace(tellOfWrites=1, pcr="r_have_again"), s.tellOfWrites

    def r_have_again(self, s: Vchan) -> Next:
        yield s._replace(have=s.ring, pcr="r_take" if s.ring else "r_live"), s.ring

    def r_take(self, s: Vchan) -> Next:
        count = min(s.have, s.want)
        yield (
            s._replace(ring=s.ring - count, Got=s.Got + count, took=count, have=0, pcr="r_test"),
            count,
        )

    def r_test(self, s: Vchan) -> Next:
        if s.tellOfReads:
            yield s._replace(tellOfReads=0, pcr="r_raise"), 1
        else:
            yield s._replace(pcr="r_return"), 0

    def r_raise(self, s: Vchan) -> Next:
        for port in _raised(s.sPort):
            yield s._replace(sPort=port, pcr="r_return"), 0

    def r_live(self, s: Vchan) -> Next:
        if s.senderOpen:
            yield s._replace(pcr="r_wait"), 1
        elif "L1" in self.deviations:
            yield s._replace(took=-1, pcr="r_return"), 0
        else:
            yield s._replace(pcr="r_final"), 0

    def r_final(self, s: Vchan) -> Next:
        if s.ring:
            yield s._replace(pcr="r_have"), 0
        else:
            yield s._replace(took=-1, pcr="r_return"), 0

    def r_wait(self, s: Vchan) -> Next:
        if s.rPort:
            yield s._replace(rPort=s.rPort - 1, pcr="r_have"), 0

    def r_return(self, s: Vchan) -> Next:
        told = s.rTold or s.took == -1
        yield s._replace(rTold=told, want=0, took=0, rWhere="app", pcr="r_call"), s.took

    # ---- closing, connecting, the rest of the world

    def _around(self, action: str, s: Vchan) -> Next:
        side, what = action.split("_", 1)
        mine, peer = ("s", "r") if side == "s" else ("r", "s")
        where = getattr(s, f"{mine}Where")
        live = "senderOpen" if mine == "s" else "receiverOpen"
        own_port, peer_port = getattr(s, f"{mine}Port"), getattr(s, f"{peer}Port")

        def at(place: str, **more: int) -> Vchan:
            return s._replace(**{f"{mine}Where": place}, **more)  # type: ignore[arg-type]

        if what == "close" and where == "app":
            yield at("closing", **{live: 0}), 0
        elif what == "close_raise" and where == "closing":
            for port in _raised(peer_port):
                yield at("gone", **{f"{peer}Port": port}), 0
        elif what == "connect" and where == "connecting":
            yield at("app", tellOfWrites=1), 0
        elif what == "away" and where == "app":
            yield at("away"), 0
        elif what == "back" and where == "away":
            yield at("app"), 0
        elif what == "stolen" and where == "away" and own_port:
            yield at("away", **{f"{mine}Port": own_port - 1}), 0
        elif what == "spurious":
            for port in _raised(own_port):
                yield at(where, **{f"{mine}Port": port}), 0
        elif what == "asks" and where == "away":
            bit = "tellOfReads" if mine == "s" else "tellOfWrites"
            yield s._replace(**{bit: 1}), getattr(s, bit)  # type: ignore[arg-type]
        elif what == "die" and where != "gone":
            for port in _raised(peer_port):
                yield at("gone", **{live: 0, f"{peer}Port": port}), 0
        elif what == "peek":
            yield s, self.size - s.ring if mine == "s" else s.ring
        elif what == "peek_live":
            yield s, s.receiverOpen if mine == "s" else s.senderOpen

    # ---- questions

    def enabled(self, s: Vchan) -> tuple[str, ...]:
        """Fair actions that could be taken."""
        return tuple(action for action in FAIR if self._is_due(action, s))

    def _is_due(self, action: str, s: Vchan) -> bool:
        if action == "r_call" and (s.rTold or not (s.ring or not s.senderOpen)):
            return False
        return any(True for _ in self.take(action, s, 1))

    @staticmethod
    def owed(s: Vchan) -> frozenset[str]:
        """What has been promised and has not happened."""
        cut_off = s.todo if s.sWhere == "gone" else 0
        found = {
            "bytes": bool(s.receiverOpen) and s.Sent - cut_off > s.Got,
            "write": s.sWhere == "here",
            "read": s.rWhere == "here" and bool(s.ring or not s.senderOpen),
            "end": not s.senderOpen and bool(s.receiverOpen) and not s.rTold,
        }
        return frozenset(name for name, open_ in found.items() if open_)

    def instead(self, s: Vchan) -> tuple[Candidate, ...]:
        """What could be done here, with the value that it would show."""
        found = set()
        for action in (*FAIR, "s_call"):
            for _, value in self.take(action, s, 1):
                found.add((action, None if action in SHOW_NOTHING | CALLS else value))
        return tuple(
            Candidate("s" if action[0] == "s" else "r", action, value)
            for action, value in sorted(found, key=str)
        )


def to_state(s: Vchan) -> State:
    """The state as a judge gives it out."""
    values = {name: value for name, value in s._asdict().items() if name not in ("pcs", "pcr")}
    return State.of({**values, "pc": frozenset({("s", s.pcs), ("r", s.pcr)})})


def of_state(state: State) -> Vchan:
    """The reverse."""
    values = state.as_dict()
    control = dict(values.pop("pc"))  # type: ignore[arg-type]
    return Vchan(pcs=control["s"], pcr=control["r"], **values)  # type: ignore[arg-type]


class _Node(NamedTuple):
    sender: int
    receiver: int
    state: Vchan
    extra: tuple[int, int]


def follow_by_hand(
    lanes: Lanes,
    params: SpecParams,
    starts: Sequence[Start] | None = None,
    progress: Progress | None = None,
    *,
    explain: bool = True,
) -> FollowResult:
    """As `validate.tlc.follow.follow`, by a plain search through all orders."""
    model = Model(params)
    first = starts or [Start(to_state(initial(params)))]
    extra = (int(lanes.sender.unlogged), int(lanes.receiver.unlogged))
    todo = [_Node(at.sender, at.receiver, of_state(at.state), extra) for at in first]
    seen = set(todo)
    while todo:
        if lanes.stop and _ended(todo[-1], lanes):
            todo.pop()
            continue
        for node in _after(model, lanes, todo.pop()):
            if node not in seen:
                seen.add(node)
                todo.append(node)
    ends = {node._replace(extra=extra) for node in seen if _ended(node, lanes)}
    if ends:
        found = [_end(model, lanes, node) for node in ends]
        return _result(lanes, len(seen), ends=tuple(found))
    return _result(lanes, len(seen), frontier=_frontier(model, seen) if explain else ())


def _end(model: Model, lanes: Lanes, node: _Node) -> EndState:
    left = (len(lanes.sender.steps) - node.sender, len(lanes.receiver.steps) - node.receiver)
    return EndState(to_state(node.state), model.enabled(node.state), model.owed(node.state), left)


def _after(model: Model, lanes: Lanes, node: _Node) -> Iterator[_Node]:
    for side, lane in ((0, lanes.sender), (1, lanes.receiver)):
        done = node.receiver if side else node.sender
        if done < len(lane.steps):
            step = lane.steps[done]
            for state, value in model.take(step.action, node.state, step.value):
                if value == step.value or step.action in SHOW_NOTHING:
                    yield _moved(node, side, state)
        else:
            yield from _beyond(model, node, side, lane)
    for state, _ in model.take("r_final", node.state, 0):
        yield node._replace(state=state)


def _moved(node: _Node, side: int, state: Vchan) -> _Node:
    if side == 0:
        return node._replace(sender=node.sender + 1, state=state)
    return node._replace(receiver=node.receiver + 1, state=state)


def _beyond(model: Model, node: _Node, side: int, lane: Lane) -> Iterator[_Node]:
    """What a side that was cut off may have done after its last record."""
    letter = "sr"[side]
    if node.extra[side]:
        left = (0, node.extra[1]) if side == 0 else (node.extra[0], 0)
        for action in _shared_actions(letter):
            for state, _ in model.take(action, node.state, 1):
                yield node._replace(state=state, extra=left)
    if lane.death != "no":
        left = (0, node.extra[1]) if side == 0 else (node.extra[0], 0)
        for state, _ in model.take(f"{letter}_die", node.state, 0):
            yield node._replace(state=state, extra=left)


def _shared_actions(side: str) -> list[str]:
    return [
        action.name
        for action in ACTIONS.actions.values()
        if side in action.by and not (action.hidden or action.local or action.stutters)
    ]


def _ended(node: _Node, lanes: Lanes) -> bool:
    if lanes.stop:
        lane = lanes.sender if lanes.stop == "s" else lanes.receiver
        return (node.sender if lanes.stop == "s" else node.receiver) == len(lane.steps)
    done = node.sender == len(lanes.sender.steps) and node.receiver == len(lanes.receiver.steps)
    dead = (lanes.sender.death != "must" or node.state.sWhere == "gone") and (
        lanes.receiver.death != "must" or node.state.rWhere == "gone"
    )
    return done and dead


def _frontier(model: Model, seen: set[_Node]) -> tuple[Position, ...]:
    places = {(node.sender, node.receiver) for node in seen}
    best = {
        at
        for at in places
        if not any(at != other and at[0] <= other[0] and at[1] <= other[1] for other in places)
    }
    found = {
        Position(node.sender, node.receiver, to_state(node.state), model.instead(node.state))
        for node in seen
        if (node.sender, node.receiver) in best
    }
    return tuple(sorted(found, key=_by_place))


def _by_place(at: Position) -> tuple[int, int, int, str]:
    """The farthest first; of states at one place, first those in which nothing is hidden."""
    hidden = sum(ACTIONS.actions[one.action].hidden for one in at.candidates)
    return -at.sender - at.receiver, at.sender, hidden, repr(sorted(at.state.as_dict().items()))


def _result(
    lanes: Lanes,
    states: int,
    ends: tuple[EndState, ...] = (),
    frontier: tuple[Position, ...] = (),
) -> FollowResult:
    steps: list[Step] = [*lanes.sender.steps, *lanes.receiver.steps]
    if frontier:
        at = frontier[0]
        steps = [*lanes.sender.steps[: at.sender], *lanes.receiver.steps[: at.receiver]]
    return FollowResult(
        accepted=bool(ends),
        undecided="",
        ends=ends,
        frontier=frontier,
        coverage=Counter(step.action for step in steps),
        overlap=overlap(lanes, ACTIONS),
        states=states,
    )
