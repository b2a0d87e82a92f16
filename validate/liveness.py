"""Progress: is what the trace ends in a state in which the spec may stay for ever?

Asked of *every* end state that fits the trace and what was seen at the end. A fair action that
could be taken and was not is a violation, and its owner is named; none, with a promise open, is a
deadlock that the spec admits; none and nothing open is progress. Time that passed is no evidence:
the looks at a run that stood still are (`guests/quiescence.py`), and so are traces that are over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.evidence import ROLES, Evidence
from vchan_testbed.validate.lanes import OWED, EndState, State
from vchan_testbed.validate.states import States
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.tlc.paths import changed
from vchan_testbed.validate.verdict import EndCandidate, ProgressWord
from vchan_testbed.validate.wording import plain_state

WAITS_BY_ITSELF = "wait"
"""What an application is in that polls the event descriptor."""

DOMAIN_GONE = "peer domain gone"
"""To blame where a call waits for a domain that is no more, of which nobody tells (L9)."""

NOT_CALLING = "application not calling"
"""To blame where a call is due that nobody makes, or a process is stopped in the middle of one."""

DOMAIN_PAUSED = "peer domain paused"
"""To blame for what an endpoint does not do whose domain Xen does not run."""
XEN_BITS = ("pending", "masked")

OwnerOf = Callable[[str], str]
"""Who owes a fair action, as the spec's action map says."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is said of the progress of one direction."""

    word: ProgressWord
    reason: str
    due_action: str | None = None
    fault_of: str | None = None
    candidates: tuple[EndCandidate, ...] = ()


@dataclass(frozen=True, slots=True)
class _Said:
    """What one end state says."""

    word: ProgressWord
    due: tuple[str, ...] = ()
    faults: frozenset[str] = frozenset()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What has to be known to judge end states."""

    states: States
    role: Callable[[Side], Role]
    """Whose side it is."""
    evidence: Evidence
    owner_of: OwnerOf


def progress_of(ends: Sequence[EndState], question: Question) -> Judged:
    """Judge the end states of a direction or of a whole channel."""
    states, evidence = question.states, question.evidence
    if not ends:
        return Judged("INCONCLUSIVE", "No end state is known.")
    over = _died_at_most_one(evidence) and all(
        states.is_over(end.state, side) for end in ends for side in SIDES
    )
    if not (over or evidence.stands_still):
        return Judged("INCONCLUSIVE", _what_is_missing(evidence), candidates=_shown(ends))
    fitting = [end for end in ends if not _explained_by_another(end, ends, question)]
    said = [_say(end, question) for end in fitting]
    shown = _shown(fitting, said)
    words = {one.word for one in said}
    if len(words) > 1:
        found = ", ".join(sorted(words))
        reason = f"{len(said)} end states fit, and they disagree: {found}."
        return Judged("INCONCLUSIVE", reason, candidates=shown)
    (word,) = words
    due = sorted({action for one in said for action in one.due})
    faults = sorted({fault for one in said for fault in one.faults})
    owed = sorted({owed_words(what) for end in fitting for what in end.owed})
    owner = " or ".join(faults) if word == "VIOLATION" else _owner(word, fitting)
    return Judged(
        word=word,
        reason=_reason(word, said, owed) + _more(word, said, question),
        due_action=" or ".join(due) if word == "VIOLATION" else None,
        fault_of=owner,
        candidates=shown,
    )


def _more(word: ProgressWord, said: Sequence[_Said], question: Question) -> str:
    """What was seen of the event that a violation is about."""
    if word != "VIOLATION":
        return ""
    states = question.states
    due = {action for one in said for action in one.due}
    waiting = [side for side in SIDES if states.wait(side) in due]
    words = [event_words(question.role(side), question.evidence) for side in waiting]
    return "".join(f" {text}" for text in words if text)


def _owner(word: ProgressWord, ends: Sequence[EndState]) -> str | None:
    """Who is to blame for a stop that the spec admits, if somebody is."""
    waits_for_the_dead = all(any(what.startswith("death ") for what in end.owed) for end in ends)
    return DOMAIN_GONE if word == "STALLED" and waits_for_the_dead else None


def _died_at_most_one(evidence: Evidence) -> bool:
    """Whether somebody was left to do what was due: who kills both ends learns nothing."""
    killed = [role for role in ROLES if evidence.ended(role) in ("killed", "died", "lost")]
    return len(killed) < len(ROLES) and evidence.outcome != "stopped while moving"


def owed_words(what: str) -> str:
    """What is owed, and in which direction if the name says so."""
    name, _, direction = what.partition(" ")
    return f"{OWED[name]} ({direction})" if direction else OWED[name]


def _explained_by_another(end: EndState, ends: Sequence[EndState], question: Question) -> bool:
    """Whether an end state differs from one that fits only in events that may have become one.

    Its side sleeps with a wake-up to come, and the event descriptor shows none. If another end
    state has the same in all but that count, and there it is 0, then two events became one, which
    is legal; else the event was lost.
    """
    states = question.states
    for side in SIDES:
        place = states.port_place(side)
        readable = question.evidence.readable(question.role(side))
        if readable is None or bool(states.port(end.state, side)) == readable:
            continue
        if readable is False and states.wait(side) not in end.enabled:
            # It does not wait here: the other direction answers for the port.
            continue
        if any(
            bool(states.port(other.state, side)) == readable
            and changed(end.state, {place: 0}) == changed(other.state, {place: 0})
            for other in ends
        ):
            return True
    return False


def _say(end: EndState, question: Question) -> _Said:
    if not end.enabled:
        return _Said("STALLED") if end.owed else _Said("PROGRESS")
    faults, why = set(), []
    for action in end.enabled:
        fault = _fault(action, end.state, question)
        if fault is None:
            role = question.role(question.states.side_of(action))
            why.append(f"whether the event descriptor of the {role} was readable")
        else:
            faults.add(fault)
    if why:
        return _Said("INCONCLUSIVE", tuple(end.enabled), why="; ".join(why))
    return _Said("VIOLATION", tuple(end.enabled), frozenset(faults))


def _fault(action: str, state: State, question: Question) -> str | None:
    """Whose fault it is that an action was not taken; None when the evidence does not say."""
    states, evidence = question.states, question.evidence
    side = states.side_of(action)
    role = question.role(side)
    if _is_dead(role, evidence):
        return "peer process"
    if evidence.domain_state(role) == "paused":
        return DOMAIN_PAUSED
    readable = evidence.readable(role)
    if action == states.wait(side):
        return event_lost_by(role, evidence)
    owner = question.owner_of(action)
    waits = evidence.in_call(role) == WAITS_BY_ITSELF
    if owner == "application" and waits and states.port(state, side) and readable is False:
        # What should have made its event descriptor readable was lost: it cannot know that there is
        # something to do.
        return "event channel"
    return NOT_CALLING if owner == "application" or evidence.stopped(role) else owner


def event_lost_by(role: Role, evidence: Evidence) -> str | None:
    """Who has an event that is due to a process which sleeps; None when that is not known.

    It goes from Xen to the domain's kernel, which counts it, and makes the descriptor readable. The
    kernel masks a port in Xen until its process has read the event before.
    """
    readable = evidence.readable(role)
    if readable is None:
        return None
    counted, read = evidence.counted(role), evidence.events_read(role)
    if readable or (counted is not None and read is not None and counted > read):
        return "kernel"
    return "kernel" if evidence.in_xen(role) == (True, True) else "event channel"


def event_words(role: Role, evidence: Evidence) -> str:
    """What was seen on an event's way to a process; empty if nothing but its descriptor was."""
    found = []
    counted, read = evidence.counted(role), evidence.events_read(role)
    if counted is not None and read is not None:
        found.append(f"its kernel counted {counted} events on the port and its process read {read}")
    if (port := evidence.in_xen(role)) is not None:
        bits = zip(XEN_BITS, port, strict=True)
        words = " and ".join(name if is_so else f"not {name}" for name, is_so in bits)
        found.append(f"in Xen the port was {words}")
    return f"Of the {role}: {', '.join(found)}." if found else ""


def _is_dead(role: Role, evidence: Evidence) -> bool:
    alive = evidence.alive(role)
    if alive is None:
        return evidence.ended(role) in ("died", "lost")
    return not alive and evidence.ended(role) != "finished"


def _what_is_missing(evidence: Evidence) -> str:
    if evidence.outcome == "stopped while moving":
        return "The run was stopped while it moved: nothing is known of what it would have done."
    if evidence.looks:
        return "The looks at the end do not show that it stood still."
    return (
        "The traces end before both ends have closed, and no look shows that the run stood still: "
        "a longer trace, or the run directory with its quiescence record, would tell."
    )


def _reason(word: ProgressWord, said: Sequence[_Said], owed: Sequence[str]) -> str:
    if word == "PROGRESS":
        return ""
    if word == "STALLED":
        return "The spec admits that it stays here for ever; still open: " + "; ".join(owed) + "."
    if word == "INCONCLUSIVE":
        missing = sorted({one.why for one in said})
        return "It is not known " + "; ".join(missing) + "."
    due = " or ".join(sorted({action for one in said for action in one.due}))
    faults = " or ".join(sorted({fault for one in said for fault in one.faults}))
    return f"{due} was due and was not taken. At fault: {faults}."


def _shown(ends: Sequence[EndState], said: Sequence[_Said] = ()) -> tuple[EndCandidate, ...]:
    words = [one.word for one in said] or ["INCONCLUSIVE"] * len(ends)
    return tuple(
        EndCandidate(
            state=plain_state(end.state.as_dict()),
            due=end.enabled,
            owed=tuple(sorted(owed_words(what) for what in end.owed)),
            says=word,
        )
        for end, word in zip(ends, words, strict=True)
    )
