"""Progress: is what the trace ends in a state in which the spec may stay for ever?

Asked of *every* end state that fits the trace and what was seen at the end. A fair action that
could be taken and was not is a violation, and its owner is named; none, with a promise open, is a
deadlock that the spec admits; none and nothing open is progress. Time that passed is no evidence:
the looks at a run that stood still are (`guests/quiescence.py`), and so are traces that are over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vchan_testbed.tracer.format import Role
from vchan_testbed.validate.evidence import ROLES, Evidence
from vchan_testbed.validate.lanes import OWED, EndState, State
from vchan_testbed.validate.table import SIDES, Ring, Side
from vchan_testbed.validate.verdict import EndCandidate, ProgressWord
from vchan_testbed.validate.wording import plain_state

PORTS: Mapping[Side, str] = {"s": "sPort", "r": "rPort"}
PLACES: Mapping[Side, str] = {"s": "sWhere", "r": "rWhere"}
WAITS: Mapping[Side, str] = {"s": "s_wait", "r": "r_wait"}
OVER = "gone"

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


def progress_of(
    ends: Sequence[EndState], ring: Ring, evidence: Evidence, owner_of: OwnerOf
) -> Judged:
    """Judge the end states of one direction."""
    if not ends:
        return Judged("INCONCLUSIVE", "No end state is known.")
    over = _died_at_most_one(evidence) and all(
        end.state[PLACES[side]] == OVER for end in ends for side in SIDES
    )
    if not (over or evidence.stands_still):
        return Judged("INCONCLUSIVE", _what_is_missing(evidence), candidates=_shown(ends))
    fitting = [end for end in ends if not _explained_by_another(end, ends, ring, evidence)]
    said = [_say(end, ring, evidence, owner_of) for end in fitting]
    shown = _shown(fitting, said)
    words = {one.word for one in said}
    if len(words) > 1:
        found = ", ".join(sorted(words))
        reason = f"{len(said)} end states fit, and they disagree: {found}."
        return Judged("INCONCLUSIVE", reason, candidates=shown)
    (word,) = words
    due = sorted({action for one in said for action in one.due})
    faults = sorted({fault for one in said for fault in one.faults})
    owed = sorted({OWED[what] for end in fitting for what in end.owed})
    return Judged(
        word=word,
        reason=_reason(word, said, owed),
        due_action=" or ".join(due) if word == "VIOLATION" else None,
        fault_of=" or ".join(faults) if word == "VIOLATION" else None,
        candidates=shown,
    )


def _died_at_most_one(evidence: Evidence) -> bool:
    """Whether somebody was left to do what was due: who kills both ends learns nothing."""
    killed = [role for role in ROLES if evidence.ended(role) in ("killed", "died", "lost")]
    return len(killed) < len(ROLES) and evidence.outcome != "stopped while moving"


def _explained_by_another(
    end: EndState, ends: Sequence[EndState], ring: Ring, evidence: Evidence
) -> bool:
    """Whether an end state differs from one that fits only in events that may have become one.

    Its side sleeps with a wake-up to come, and the event descriptor shows none. If another end
    state has the same in all but that count, and there it is 0, then two events became one, which
    is legal; else the event was lost.
    """
    for side in SIDES:
        port = PORTS[side]
        readable = evidence.readable(ring.role(side))
        if readable is None or bool(end.state[port]) == readable:
            continue
        if readable is False and WAITS[side] not in end.enabled:
            # It does not wait here: the other direction answers for the port.
            continue
        if any(
            bool(other.state[port]) == readable and _same_but(end.state, other.state, port)
            for other in ends
        ):
            return True
    return False


def _same_but(one: State, other: State, variable: str) -> bool:
    left, right = one.as_dict(), other.as_dict()
    return all(left[name] == right[name] for name in left if name != variable)


def _say(end: EndState, ring: Ring, evidence: Evidence, owner_of: OwnerOf) -> _Said:
    if not end.enabled:
        return _Said("STALLED") if end.owed else _Said("PROGRESS")
    faults, why = set(), []
    for action in end.enabled:
        fault = _fault(action, ring, evidence, owner_of)
        if fault is None:
            role = ring.role(_side(action))
            why.append(f"whether the event descriptor of the {role} was readable")
        else:
            faults.add(fault)
    if why:
        return _Said("INCONCLUSIVE", tuple(end.enabled), why="; ".join(why))
    return _Said("VIOLATION", tuple(end.enabled), frozenset(faults))


def _fault(action: str, ring: Ring, evidence: Evidence, owner_of: OwnerOf) -> str | None:
    """Whose fault it is that an action was not taken; None when the evidence does not say."""
    role = ring.role(_side(action))
    if _is_dead(role, evidence):
        return "peer process"
    if action == WAITS[_side(action)]:
        readable = evidence.readable(role)
        if readable is None:
            return None
        return "kernel" if readable else "event channel"
    return owner_of(action)


def _is_dead(role: Role, evidence: Evidence) -> bool:
    alive = evidence.alive(role)
    if alive is None:
        return evidence.ended(role) in ("died", "lost")
    return not alive and evidence.ended(role) != "finished"


def _side(action: str) -> Side:
    return "s" if action.startswith("s_") else "r"


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
            owed=tuple(sorted(OWED[what] for what in end.owed)),
            says=word,
        )
        for end, word in zip(ends, words, strict=True)
    )
