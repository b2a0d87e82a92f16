"""What must have come before what, by the values alone.

One lane's order is the program's. Between the lanes: who read an index read it after it was stored
and before it was stored again; the k-th effective setting of a notify bit comes before the k-th
effective clearing; a live byte goes from 1 to 0 once; the n-th wake-up needs n events. For each
step of a lane this gives the number of the other lane's steps that must be done before it.

Both directions' steps were made by the same two threads. What the values of one direction order is
so for the other one too: of two that only hand on each other's wake-ups, while all bytes go the
other way, nothing else tells how far apart they can have been.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.lanes import SpecParams
from vchan_testbed.validate.merge import LaneSteps

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Order:
    """For each step of a lane, steps of the other lane that come before it."""

    sender: Ints
    receiver: Ints

    def __post_init__(self) -> None:
        for needs in (self.sender, self.receiver):
            needs.setflags(write=False)

    def running(self) -> RunningOrder:
        """The same for prefixes of the lanes."""
        return RunningOrder(_running(self.sender), _running(self.receiver))

    def cycle(self) -> tuple[int, int] | None:
        """Positions at which neither lane can go on: each waits for a later step of the other.

        None when the values contradict nothing.
        """
        sender = receiver = 0
        sender_needs, receiver_needs = self.running().sender, self.running().receiver
        while True:
            more = int(np.searchsorted(sender_needs, receiver, side="right"))
            further = int(np.searchsorted(receiver_needs, more, side="right"))
            if (more, further) == (sender, receiver):
                break
            sender, receiver = more, further
        ended = sender == len(sender_needs) or receiver == len(receiver_needs)
        return None if ended else (sender, receiver)


@dataclass(frozen=True, slots=True)
class RunningOrder:
    """For each prefix of a lane (by its last step), steps of the other that come before its end."""

    sender: Ints
    receiver: Ints

    def closed(self, sender: int, receiver: int) -> tuple[int, int]:
        """The least closed cut with at least these numbers of steps done.

        A cut is closed when every step that must come before one of its steps belongs to it too.
        """
        while True:
            more = max(receiver, int(self.sender[sender - 1]) if sender else 0)
            wider = max(sender, int(self.receiver[more - 1]) if more else 0)
            if (wider, more) == (sender, receiver):
                return sender, receiver
            sender, receiver = wider, more


def _running(needs: Ints) -> Ints:
    return np.maximum.accumulate(needs) if len(needs) else needs


def orders_together(
    directions: Sequence[tuple[LaneSteps, LaneSteps, Order]],
) -> Iterator[RunningOrder]:
    """The order that the values of all directions together ask for, for each direction.

    A direction is its two lanes, the sender's first, and the order by its own values.
    """
    rows: dict[Role, Ints] = {}
    for sender, receiver, order in directions:
        for mine, other, needs in (
            (sender, receiver, order.sender),
            (receiver, sender, order.receiver),
        ):
            known = rows.get(mine.role, np.empty(0, np.int64))
            rows[mine.role] = _rows_needed(known, mine, other, needs)
    needed = {role: _running(column) for role, column in rows.items()}
    for sender, receiver, _ in directions:
        yield RunningOrder(
            _steps_needed(needed[sender.role], sender, receiver),
            _steps_needed(needed[receiver.role], receiver, sender),
        )


def _rows_needed(known: Ints, mine: LaneSteps, other: LaneSteps, needs: Ints) -> Ints:
    """By row of one end: the row of the other end that comes before it, -1 for none."""
    length = max(len(known), int(mine.rows.max(initial=-1)) + 1)
    found = np.full(length, -1, np.int64)
    found[: len(known)] = known
    some = needs > 0
    raise_to(found, mine.rows[some], other.rows[needs[some] - 1])
    return found


def _steps_needed(rows_needed: Ints, mine: LaneSteps, other: LaneSteps) -> Ints:
    """The same in steps of the other lane.

    A step can stand in its lane before one of an earlier row (a load that was brought forward); it
    asks for no more than that one does, and to be asked for, both have to be.
    """
    if not len(mine) or not len(other):
        return np.zeros(len(mine), np.int64)
    rows = rows_needed[np.minimum.accumulate(mine.rows[::-1])[::-1]]
    return np.searchsorted(np.maximum.accumulate(other.rows), rows, side="right").astype(np.int64)


def order_of(sender: LaneSteps, receiver: LaneSteps, params: SpecParams) -> Order:
    """The order that the values of both lanes ask for."""
    before_sender = np.zeros(len(sender), np.int64)
    before_receiver = np.zeros(len(receiver), np.int64)
    sending, receiving = _sender_view(sender, params), _receiver_view(receiver, params)
    for mine, others, before_mine, before_others in (
        (sending, receiving, before_sender, before_receiver),
        (receiving, sending, before_receiver, before_sender),
    ):
        reads_of_the_index(mine, others, before_mine, before_others)
        closing(mine, others, before_mine, before_others)
        wakes(mine, others, before_mine)
    reads_bit = Bit(sender.where("s_arm", "s_asks"), receiver.where("r_test"), 0)
    writes_bit = Bit(
        receiver.where("r_arm", "r_asks", "r_connect"),
        sender.where("s_test"),
        params.notify_at_start,
    )
    order_a_bit(reads_bit, sender, receiver, before_sender, before_receiver)
    order_a_bit(writes_bit, receiver, sender, before_receiver, before_sender)
    return Order(before_sender, before_receiver)


@dataclass(frozen=True, slots=True)
class View:
    """One lane, in the words that both sides share."""

    lane: LaneSteps
    reads: Ints
    """Reads of the other index, and the indices that they saw."""
    seen: Ints
    moves: Ints
    """Steps that move the own index."""
    live_reads: Ints
    closes: Ints
    takes: Ints
    """Steps that take a wake-up from the own port."""
    own_events: Ints
    """Events on the own port that stand in the own lane."""
    events: Ints
    """Events on the other side's port."""
    port_at_start: int


def _sender_view(lane: LaneSteps, params: SpecParams) -> View:
    reads = lane.where("s_space", "s_space_again", "s_peek")
    seen = lane.indices[reads] + lane.values[reads] - params.ring_bytes
    return View(
        lane=lane,
        reads=reads,
        seen=as_read(seen, lane.values[reads]),
        moves=lane.where("s_put"),
        live_reads=lane.where("s_live", "s_live_again", "s_peek_live"),
        closes=lane.where("s_close"),
        takes=lane.where("s_wait", "s_stolen"),
        own_events=lane.where("s_spurious"),
        events=lane.where("s_raise", "s_close_raise", "r_spurious"),
        port_at_start=params.sender_port,
    )


def _receiver_view(lane: LaneSteps, params: SpecParams) -> View:
    reads = lane.where("r_have", "r_have_again", "r_peek")
    return View(
        lane=lane,
        reads=reads,
        seen=as_read(lane.indices[reads] + lane.values[reads], lane.values[reads]),
        moves=lane.where("r_take"),
        live_reads=lane.where("r_live", "r_peek_live"),
        closes=lane.where("r_close"),
        takes=lane.where("r_wait", "r_stolen"),
        own_events=lane.where("r_spurious"),
        events=lane.where("r_raise", "r_close_raise", "s_spurious"),
        port_at_start=params.receiver_port,
    )


def as_read(seen: Ints, values: Ints) -> Ints:
    """Indices as read; one that is impossible asks for nothing, and an index never goes back.

    (A read that went back is the judge's to reject; here it must only not upset the searches.)
    """
    possible = np.where(values < 0, 0, seen)
    return np.maximum.accumulate(possible) if len(possible) else possible


def reads_of_the_index(mine: View, others: View, before_mine: Ints, before_others: Ints) -> None:
    """A read comes after the move that it saw, and before the next one."""
    after = others.lane.indices[others.moves]
    count = np.searchsorted(after, mine.seen, side="left")
    # Seen beyond everything that was stored: after all of it, and that will not be enough.
    saw = np.where(mine.seen > 0, np.minimum(count, len(after) - 1), -1)
    if len(after):
        raise_to(before_mine, mine.reads[saw >= 0], others.moves[saw[saw >= 0]] + 1)
        first_beyond = np.searchsorted(mine.seen, after, side="left") - 1
        some = first_beyond >= 0
        raise_to(before_others, others.moves[some], mine.reads[first_beyond[some]] + 1)


def closing(mine: View, others: View, before_mine: Ints, before_others: Ints) -> None:
    """Who saw the peer closed came after its close, who saw it open before."""
    if not len(others.closes):
        return
    values = mine.lane.values[mine.live_reads]
    close = others.closes[:1]
    closed = mine.live_reads[values == 0]
    raise_to(before_mine, closed, np.repeat(close + 1, len(closed)))
    if (values == 1).any():
        raise_to(before_others, close, mine.live_reads[values == 1][-1:] + 1)


def wakes(mine: View, others: View, before_mine: Ints) -> None:
    """The n-th wake-up comes after the n-th event, less those that the own lane has."""
    if not len(others.events) or not len(mine.takes):
        return
    own = np.searchsorted(mine.own_events, mine.takes)
    needed = np.arange(1, len(mine.takes) + 1) - own - mine.port_at_start
    some = needed > 0
    # More wake-ups than events: the last ones came from a death that no record shows.
    which = np.minimum(needed[some], len(others.events)) - 1
    raise_to(before_mine, mine.takes[some], others.events[which] + 1)


@dataclass(frozen=True, slots=True)
class Bit:
    """The steps that set a notify bit, those that test and clear it, and how it began."""

    sets: Ints
    tests: Ints
    at_start: int


def order_a_bit(
    bit: Bit, setter: LaneSteps, tester: LaneSteps, before_set: Ints, before_test: Ints
) -> None:
    """Effective settings and clearings take turns; the others fit in between."""
    works = setter.values[bit.sets] == 0
    clears = tester.values[bit.tests] == 1
    # A bit that is set at the start: as if it had been set before the first step.
    set_number = np.cumsum(works) + bit.at_start
    clear_number = np.cumsum(clears)
    # After the setting that it clears, and after those that found it set already.
    of_set = _last_with(set_number, clear_number[clears])
    some = of_set >= 0
    raise_to(before_test, bit.tests[clears][some], bit.sets[of_set[some]] + 1)
    # After the clearing before it, and after the tests that found nothing to clear.
    of_test = _last_with(clear_number, set_number[works] - 1)
    some = of_test >= 0
    raise_to(before_set, bit.sets[works][some], bit.tests[of_test[some]] + 1)


def _last_with(numbers: Ints, most: Ints) -> Ints:
    """For each of `most` the last place with at most that number, -1 for none."""
    return np.searchsorted(numbers, most, side="right") - 1


def raise_to(target: Ints, places: Ints, values: Ints) -> None:
    """Let each of `places` ask for at least its value."""
    np.maximum.at(target, places, values)
