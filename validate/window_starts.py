"""All states of Libxenvchan in which two lanes can be taken up in the middle of a run.

What the lanes tell is bound: both threads' own variables, and all four indices. What they do not
tell is every combination that fits: whether a call blocks, a notify byte, which is whatever its
first access shows and that may be the one of either end, and how many wake-ups wait on a port. A
wrong one does not get far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from vchan_testbed.validate.channel import INDEX_SPAN, ChannelLanes
from vchan_testbed.validate.channel_merge import ChannelLane
from vchan_testbed.validate.lanes import Start, State, Value
from vchan_testbed.validate.merge import Ints, LaneSteps
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.window_cut import Window
from vchan_testbed.validate.window_places import Local

THREAD: Mapping[Side, str] = {"s": "server", "r": "client"}
OTHER: Mapping[Side, Side] = {"s": "r", "r": "s"}
WRITER: Mapping[str, Side] = {"left": "r", "right": "s"}
READER: Mapping[str, Side] = {"left": "s", "right": "r"}
TESTS = ("w_test", "r_test")
ARMS = ("w_arm", "r_arm")
BYTES = range(4)
PORT_MAX = 2
PORT_MAX_RARELY = 3
"""Of a client that has unmasked its port with an event queued, until it unmasks an empty one."""


@dataclass(frozen=True, slots=True)
class Known:
    """Both lanes, and where their threads can be at each place."""

    lanes: ChannelLanes
    local: Mapping[Side, Mapping[int, tuple[Local, ...]]]

    def lane(self, side: Side) -> ChannelLane:
        """The lane s or r with its indices."""
        return self.lanes.server if side == "s" else self.lanes.client

    def put(self, way: str, places: Mapping[Side, int]) -> int:
        """The writer's index of a direction."""
        return index_at(self.lane(WRITER[way]), "out", places[WRITER[way]])

    def taken(self, way: str, places: Mapping[Side, int]) -> int:
        """The reader's index of a direction."""
        return index_at(self.lane(READER[way]), "into", places[READER[way]])


def starts_of(window: Window, known: Known, client_port_max: int = PORT_MAX) -> tuple[Start, ...]:
    """The start states, with places counted from where the lanes are taken up.

    `client_port_max`: the most wake-ups that the client's port can ever have from then on.
    """
    first = window.begins
    begins: Mapping[Side, int] = dict(zip(SIDES, first, strict=True))
    origin = {way: known.taken(way, begins) for way in WRITER}
    port_max: Mapping[Side, int] = {"s": PORT_MAX, "r": client_port_max}
    making = _Making(known, origin, _accesses(known), port_max)
    return tuple(
        Start(state, pair[0] - first[0], pair[1] - first[1])
        for pair in window.pairs()
        for state in making.states(dict(zip(SIDES, pair, strict=True)))
    )


@dataclass(frozen=True, slots=True)
class _Ring:
    """The indices of a direction, and where its stream's positions count from.

    That is the same in all start states: they could never become one state else.
    """

    taken: int
    put: int
    origin: int

    @property
    def held(self) -> int:
        """Bytes in the ring."""
        return self.put - self.taken

    def bytes(self, first: int, last: int) -> Value:
        """The stream between two indices."""
        return ((first - self.origin + 1, last - self.origin),) if last > first else ()


@dataclass(frozen=True, slots=True)
class _Making:
    """What does not depend on the places."""

    known: Known
    origin: Mapping[str, int]
    accesses: Mapping[tuple[Side, Side], _Accesses]
    port_max: Mapping[Side, int]

    def states(self, places: Mapping[Side, int]) -> Iterator[State]:
        """All states with the threads at these places; none where a ring would hold too much."""
        known = self.known
        rings = {
            way: _Ring(known.taken(way, places), known.put(way, places), self.origin[way])
            for way in WRITER
        }
        if any(not 0 <= ring.held <= known.lanes.ring_bytes(way) for way, ring in rings.items()):
            return
        bytes_of = [_notify(owner, places, self.accesses) for owner in SIDES]
        for threads in product(*(known.local[side].get(places[side], ()) for side in SIDES)):
            local: Mapping[Side, Local] = dict(zip(SIDES, threads, strict=True))
            fixed = {**_streams(rings, local), **_threads(local)}
            for notify, open_ in product(product(*bytes_of), self._open(local)):
                yield State.of({**fixed, **open_, "notify": _by_side(notify)})

    def _open(self, local: Mapping[Side, Local]) -> list[dict[str, Value]]:
        """What else the lanes leave open."""
        ports = product(*(_ports(local[side], self.port_max[side]) for side in SIDES))
        blocks = product(*(local[side].blocks for side in SIDES))
        told = product(*(_told(local, READER[way]) for way in WRITER))
        return [
            {
                "port": _by_side(port),
                "blocks": _by_side(block),
                "told": _by_way(dict(zip(WRITER, end, strict=True))),
            }
            for port, block, end in product(ports, blocks, told)
        ]


def _told(local: Mapping[Side, Local], side: Side) -> tuple[bool, ...]:
    """Whether a side's reads have reported the end: of a peer that is there none has."""
    if local[OTHER[side]].live or local[side].told:
        return (local[side].told,)
    return (False, True)


def _ports(local: Local, most: int) -> list[Value]:
    """Wake-ups to come; while the port is held whatever is raised becomes one."""
    held = local.at == "unmask"
    return [(count, held, most) for count in range(most if held else most + 1)]


def index_at(lane: ChannelLane, which: str, place: int) -> int:
    """An own index before the step at a place."""
    after: Ints = getattr(lane, which)
    return int(after[place - 1]) if place else int(getattr(lane, f"first_{which}"))


def _streams(rings: Mapping[str, _Ring], local: Mapping[Side, Local]) -> dict[str, Value]:
    """The indices, and the bytes that they speak of."""
    due = {way: ring.put + local[WRITER[way]].todo for way, ring in rings.items()}
    return {
        "prod": _by_way({way: ring.put % INDEX_SPAN for way, ring in rings.items()}),
        "cons": _by_way({way: ring.taken % INDEX_SPAN for way, ring in rings.items()}),
        "ring": _by_way({way: ring.bytes(ring.taken, ring.put) for way, ring in rings.items()}),
        "Sent": _by_way({way: ring.bytes(ring.origin, due[way]) for way, ring in rings.items()}),
        "Got": _by_way({way: ring.bytes(ring.origin, ring.taken) for way, ring in rings.items()}),
        "todo": _function(
            {WRITER[way]: ring.bytes(ring.put, due[way]) for way, ring in rings.items()}
        ),
    }


def _threads(local: Mapping[Side, Local]) -> dict[str, Value]:
    own = ("at", "doing", "want", "seen", "result", "ended", "live", "hold")
    return {
        **{name: _function({side: getattr(local[side], name) for side in SIDES}) for name in own},
        "keys": True,
        "fate": _function(dict.fromkeys(SIDES, "alive")),
        "awakened": 0,
    }


def _function(by_side: Mapping[Side, Value]) -> Value:
    return frozenset((THREAD[side], value) for side, value in by_side.items())


def _by_side(values: Sequence[Value]) -> Value:
    return _function(dict(zip(SIDES, values, strict=True)))


def _by_way(values: Mapping[str, Value]) -> Value:
    return frozenset(values.items())


# ---- notify bytes ----


@dataclass(frozen=True, slots=True, eq=False)
class _Accesses:
    """One lane's accesses to a notify byte, and what they found."""

    places: Ints
    values: Ints

    @staticmethod
    def of(lane: LaneSteps, names: Sequence[str]) -> _Accesses:
        places = lane.where(*names)
        return _Accesses(places, lane.values[places])

    def next_value(self, place: int) -> int | None:
        """What the first access from a place on finds; None if there is none."""
        at = int(np.searchsorted(self.places, place))
        return int(self.values[at]) if at < len(self.places) else None


def _accesses(known: Known) -> dict[tuple[Side, Side], _Accesses]:
    """By the side that tests the byte, and the side whose accesses they are."""
    return {
        (owner, side): _Accesses.of(known.lane(side).steps, TESTS if side == owner else ARMS)
        for owner in SIDES
        for side in SIDES
    }


def _notify(
    owner: Side, places: Mapping[Side, int], accesses: Mapping[tuple[Side, Side], _Accesses]
) -> tuple[int, ...]:
    """What the byte can be: one that nobody looks at any more is as good as 0."""
    shown = [accesses[owner, side].next_value(places[side]) for side in SIDES]
    found = sorted({one for one in shown if one is not None})
    return tuple(one for one in found if one in BYTES) or (0,)
