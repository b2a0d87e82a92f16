"""Where a thread is between two steps of its lane: the library's own variables, from its steps.

A window begins in the middle of a run, so no behaviour of the spec leads to it. But a lane that
begins with a call tells all that is the thread's own at each place in it: the next step, the call
that it is in, what of it is done. Only whether the call blocks may be open, until it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from vchan_testbed.validate.lanes import Step
from vchan_testbed.validate.merge import LaneSteps

LOOKS = frozenset(("w_look", "r_look", "live_look", "sleeps"))
"""Steps that change nothing: the thread stays where it is."""
FAILS = {"w_raise_fails": "w_raise", "r_raise_fails": "r_raise", "interrupted": "wait"}
"""Steps that are another end of one that has its own name."""
OPENING = ("i_", "k_")
SEEING = frozenset(("w_space", "w_space_again", "r_have", "r_have_again"))
MOVING = frozenset(("write", "send", "read", "recv"))
SIZE_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Local:
    """A thread's own variables, in the spec's words; `at` and `doing` as there."""

    at: str
    doing: str = "none"
    todo: int = 0
    want: int = 0
    seen: int = 0
    result: int = 0
    ended: bool = False
    told: bool = False
    """A read has reported the end."""
    blocks: tuple[bool, ...] = (False,)
    """What `blocking` can have been."""
    live: int = 1
    hold: str = "held"


@dataclass
class _Walk:
    """Along a lane, from one call to the next."""

    blocking: bool | None
    now: Local = field(default_factory=lambda: Local("app"))
    found_dead: bool = False
    """The last step was a look at the peer's live byte, and it was 0."""

    def take(self, step: Step) -> None:
        """Take in a step that is done."""
        if step.action in LOOKS:
            return
        if step.action.startswith("call_"):
            self._enter(step.action.removeprefix("call_"), step.value)
        elif step.action == "return":
            told = self.now.told or self.now.ended
            self.now = replace(Local("app"), told=told, live=self.now.live, hold=self.now.hold)
        else:
            self._go_on(step)
        self.found_dead = step.action == "r_live" and step.value == 0

    def _enter(self, call: str, size: int) -> None:
        size = min(size, SIZE_MAX)
        moves = call in MOVING
        either = (self.blocking,) if self.blocking is not None else (False, True)
        self.now = replace(
            self.now,
            doing=call,
            todo=size if call in ("write", "send") else 0,
            want=size if call in ("read", "recv") else 0,
            blocks=either if moves else (False,),
        )

    def _go_on(self, step: Step) -> None:
        now = self.now
        if step.action in SEEING:
            self.now = replace(now, seen=step.value)
        elif step.action == "w_put":
            done = step.value
            self.now = replace(now, seen=0, todo=now.todo - done, result=now.result + done)
        elif step.action == "r_take":
            self.now = replace(now, seen=0, result=step.value)
        elif step.action == "c_close":
            self.now = replace(now, live=0, hold="closing")
        elif step.action == "c_give_back":
            self.now = replace(now, hold="back")

    def before(self, step: Step) -> tuple[Local, ...]:
        """Where the thread can be before its next step that is no look."""
        name = FAILS.get(step.action, step.action)
        if name.startswith("call_"):
            return (replace(self.now, at="app"),)
        if name == "return":
            found = replace(self.now, at=name, result=step.value)
            if self.found_dead:
                # The look that no record shows is made, or still to come.
                return replace(found, ended=True), replace(self.now, at="r_final")
            return (found,)
        found = replace(self.now, at=name)
        return (found, replace(found, at="r_final")) if self.found_dead else (found,)


def places(
    lane: LaneSteps, blocking: bool | None, *, sleeps: bool
) -> Iterator[tuple[int, tuple[Local, ...]]]:
    """For each place from the lane's first call on, where its thread can be before that step.

    The place behind the last step is the last one, if it is known where the thread is there:
    between two calls, or (`sleeps`) in a wait. `blocking` is what the application has set, None if
    nobody knows.
    """
    names = lane.names
    calls = lane.where(*(name for name in names if name.startswith("call_")))
    if not len(calls):
        return
    steps = lane.steps(int(calls[0]), len(lane))
    waits = _waits_in_its_call(steps)
    walk = _Walk(blocking)
    following = _following(steps)
    for place, step in enumerate(steps):
        deciding = following[place]
        if deciding is not None:
            found = walk.before(deciding)
            if waits[place]:
                found = tuple(replace(one, blocks=_blocking(one)) for one in found)
            yield int(calls[0]) + place, found
        elif sleeps:
            yield int(calls[0]) + place, (_asleep(walk.now),)
        walk.take(step)
    if walk.now.doing == "none":
        end = replace(walk.now, at="gone" if walk.now.hold == "back" else "app")
        yield len(lane), (end,)
    elif sleeps:
        yield len(lane), (_asleep(walk.now),)


def _asleep(now: Local) -> Local:
    return replace(now, at="wait", blocks=_blocking(now))


def _blocking(one: Local) -> tuple[bool, ...]:
    return (True,) if one.doing in MOVING else one.blocks


def _following(steps: tuple[Step, ...]) -> list[Step | None]:
    """For each step the first one from it on that is no look."""
    found: list[Step | None] = [None] * len(steps)
    latest: Step | None = None
    for place in range(len(steps) - 1, -1, -1):
        if steps[place].action not in LOOKS:
            latest = steps[place]
        found[place] = latest
    return found


def _waits_in_its_call(steps: tuple[Step, ...]) -> list[bool]:
    """For each step whether the call that it is in, or begins, waits: then it blocks."""
    found = [False] * len(steps)
    begin, waits = 0, False
    for place, step in enumerate((*steps, Step("call_end", 0, -1))):
        if step.action.startswith("call_"):
            found[begin + 1 : place] = [waits] * max(place - begin - 1, 0)
            begin, waits = place, False
        waits = waits or step.action == "wait"
    return found
