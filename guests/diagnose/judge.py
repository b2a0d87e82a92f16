"""What two looks at a channel mean: moving or not, and why not.

The places where both ends may be come from the spec (places.py). What was seen of processes and
ports leaves some of them; if those that are left say the same, that is the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from vchan_testbed.guests.diagnose.places import ASLEEP, SIDES, Place, places_of
from vchan_testbed.guests.diagnose.sight import End, Sight

MOVING = "moving"
IDLE = "idle"
APPLICATION = "waiting for the application"
LOST = "lost wakeup"
CORRUPT = "corrupt indices"
GONE = "peer gone"
DEADLOCK = "protocol deadlock"
OUTSIDE = "outside the spec"
UNKNOWN = "unknown"

STOPS = {
    "packets": "both ends sleep: one waits for more of a packet than is there, the other one for "
    "room for all of a packet, or for one itself",
    "writes": "both ends wait for room, and neither reads",
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The verdict, why, what each side may be waiting for, and what would tell if it is unknown."""

    word: str
    why: str
    may_be: dict[str, tuple[str, ...]]
    would_tell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one place says."""

    word: str
    why: str


def diagnose(first: Sight, second: Sight) -> Diagnosis:
    """What the two looks, taken some seconds apart, say of a channel."""
    corrupt = _corrupt(second)
    if corrupt:
        return Diagnosis(CORRUPT, corrupt, {})
    gone = _gone(second)
    if gone:
        return Diagnosis(GONE, gone, {})
    if first.page != second.page:
        return Diagnosis(MOVING, "the page has changed between the two looks", {})
    running = [f"the {side}'s process runs" for side in SIDES if _runs(first, second, side)]
    if running:
        return Diagnosis(MOVING, "the page has not changed, but " + " and ".join(running), {})
    stopped = [_stopped(side, second) for side in SIDES if _is_stopped(side, second)]
    if stopped:
        return Diagnosis(APPLICATION, " and ".join(stopped), {})
    places = places_of(second.page.key)
    if not places:
        why = "the spec has no such flags and notify bits: a library strays, or others write"
        return Diagnosis(OUTSIDE, why, {}, ("a trace of both ends (vchan-testbed record)",))
    left = [place for place in places if all(_fits(place, side, second) for side in SIDES)]
    if not left:
        why = "with such a page the spec has nobody where these processes are: a library strays"
        return Diagnosis(OUTSIDE, why, {}, ("a trace of both ends (vchan-testbed record)",))
    return _conclude(_likeliest(left, second), second)


def _corrupt(sight: Sight) -> str:
    wrong = [
        f"{direction}: prod {ring.prod} is {ring.held_bytes} bytes ahead of cons {ring.cons}, "
        f"and the ring has {ring.ring_bytes}"
        for direction, ring in (("left", sight.page.left), ("right", sight.page.right))
        if not ring.can_be
    ]
    return "; ".join(wrong)


def _gone(sight: Sight) -> str:
    """Of the dead and of those who have closed, if somebody is left to wait for them."""
    for side in SIDES:
        end, other = sight.ends[side], sight.ends[_peer(side)]
        if end.domain in ("gone", "dying", "crashed"):
            told = (
                "its live byte says so"
                if sight.page.live[side] == 0
                else ("its live byte still says that it is there, and no event tells of it (L9)")
            )
            return f"the {side}'s domain is {_domain_words(end)}: {told}"
        if sight.page.live[side] == 0 and not (other.process and other.process.readable):
            return f"the {side} has closed, or its process has died: its live byte is 0"
    return ""


def _domain_words(end: End) -> str:
    return {"gone": "no more", "dying": "being torn down", "crashed": "crashed"}[str(end.domain)]


def _peer(side: str) -> str:
    return "server" if side == "client" else "client"


def _runs(first: Sight, second: Sight, side: str) -> bool:
    """Whether a process was seen running both times, and was given no rest in between."""
    looks = [sight.ends[side].process for sight in (first, second)]
    return all(process is not None and process.runs for process in looks)


def _fits(place: Place, side: str, sight: Sight) -> bool:
    """Whether what was seen of an end's process lets it be in this place."""
    process, where = sight.ends[side].process, place.where[side]
    if process is None:
        return True
    if process.asleep:
        return where in ASLEEP
    return where in ("app", "gone")


def _likeliest(places: list[Place], sight: Sight) -> list[Place]:
    """Of those in which the same ends sleep, the ones that need the fewest lost wake-ups.

    Which call an end sleeps in is not seen: an empty ring and a sleeping reader would else be the
    writer, too, whose event was lost. That an end is within a call and does not go on, unseen, is
    thought of last: whoever is not seen mostly lives.
    """
    groups: dict[tuple[bool, ...], list[Place]] = {}
    for place in places:
        groups.setdefault(tuple(place.where[side] in ASLEEP for side in SIDES), []).append(place)
    kept = []
    for group in groups.values():
        least = min(_cost(place, sight) for place in group)
        kept += [place for place in group if _cost(place, sight) == least]
    awake = [place for place in kept if not _unseen_within_a_call(place, sight)]
    return awake or kept


def _cost(place: Place, sight: Sight) -> tuple[int, int]:
    lost = sum(_wakes(side, place, sight) for side in SIDES)
    return (len(_unseen_within_a_call(place, sight)), lost)


def _unseen_within_a_call(place: Place, sight: Sight) -> list[str]:
    return [
        side for side in SIDES if "step" in place.due[side] and sight.ends[side].process is None
    ]


def _conclude(places: list[Place], sight: Sight) -> Diagnosis:
    may_be = {side: tuple(sorted({place.where[side] for place in places})) for side in SIDES}
    readings = [_read(place, sight) for place in places]
    words = {reading.word for reading in readings}
    if len(words) == 1:
        whys = sorted({reading.why for reading in readings})
        return Diagnosis(words.pop(), " or ".join(whys), may_be)
    whys = sorted({f"{reading.word}: {reading.why}" for reading in readings})
    return Diagnosis(UNKNOWN, "; ".join(whys), may_be, _would_tell(may_be, sight))


def _would_tell(may_be: dict[str, tuple[str, ...]], sight: Sight) -> tuple[str, ...]:
    unseen = [side for side in SIDES if sight.ends[side].process is None]
    tell = [
        f"whether the {side}'s process sleeps in a call ({' or '.join(may_be[side])}): "
        "run this in its domain, too"
        for side in unseen
        if len(may_be[side]) > 1
    ]
    return tuple(tell or ["a trace of both ends (vchan-testbed record)"])


def _read(place: Place, sight: Sight) -> _Reading:
    for stop in place.stops:
        return _Reading(DEADLOCK, STOPS[stop])
    held = [
        f"the {side} is within a call, or connects, and does not go on: stopped, or dead"
        for side in _unseen_within_a_call(place, sight)
    ]
    if held:
        return _Reading(APPLICATION, " and ".join(held))
    lost = [_lost(side, place, sight) for side in SIDES if _wakes(side, place, sight)]
    if lost:
        return _Reading(LOST, " and ".join(lost))
    reads = [_unread(side, sight) for side in SIDES if "read" in place.due[side]]
    if reads:
        return _Reading(APPLICATION, " and ".join(reads))
    paused = [f"the {side}'s domain is paused" for side in SIDES if _paused(sight, side)]
    return _Reading(IDLE, "nothing is due" + "".join(f", {what}" for what in paused))


def _paused(sight: Sight, side: str) -> bool:
    return sight.ends[side].domain == "paused"


def _is_stopped(side: str, sight: Sight) -> bool:
    process = sight.ends[side].process
    return process is not None and process.stopped


def _stopped(side: str, sight: Sight) -> str:
    process = sight.ends[side].process
    assert process is not None
    return f"the {side}'s process {process.pid} is stopped (state {process.state})"


def _wakes(side: str, place: Place, sight: Sight) -> bool:
    """Whether a wake-up is due that did not come."""
    process = sight.ends[side].process
    if _paused(sight, side):
        return False
    if place.due[side] & {"event", "look"}:
        return True
    # Whoever polls by itself and has an event to read is late by itself.
    polls = process is not None and process.polls and process.readable is False
    return "poll" in place.due[side] and polls and "read" in place.due[side]


def _lost(side: str, place: Place, sight: Sight) -> str:
    end = sight.ends[side]
    asleep = (
        f"the {side} sleeps in {place.where[side]}"
        if place.where[side] in ASLEEP
        else (f"the {side} polls its event descriptor")
    )
    port = end.port
    if "look" in place.due[side]:
        return f"{asleep} beside something to read: it, or another call, has taken the event"
    if end.process is not None and end.process.readable:
        return f"{asleep}, though its event can be read: the kernel has not woken it"
    if port is not None and port.pending:
        masked = " and masked" if port.masked else ""
        return f"{asleep}, and Xen has its port {port.port} pending{masked}: it was not delivered"
    return f"{asleep}, its event was due and is nowhere to be seen: it was lost on its way"


def _unread(side: str, sight: Sight) -> str:
    ring = sight.page.left if side == "server" else sight.page.right
    what = f"{ring.held_bytes} bytes are there" if ring.held_bytes else "its peer has closed"
    if _paused(sight, side):
        return f"{what}, and the {side}'s domain is paused"
    return f"{what}, and the {side}'s application does not read"
