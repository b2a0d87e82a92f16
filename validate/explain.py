"""A verdict in a few plain lines, for the terminal and for the head of the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vchan_testbed.validate.bounded import Bounded
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.verdict import Direction, Verdict

LINES_MAX = 10
NOTES_MAX = 2

_CONFORMANCE = {
    "ACCEPTED": "What happened is a behaviour of the spec",
    "KNOWN": "What happened is a behaviour of the spec only with known deviations of libxenvchan",
    "UNDECIDED": "Whether what happened is a behaviour of the spec was not decided",
    "REJECTED": "What happened is not a behaviour of the spec",
}
_REJECTED = {
    "log": "The traces contradict themselves",
    "memory-order": "The values that were read contradict the order of the steps",
    "payload": "Bytes were lost, doubled or moved",
    "record": "A record contradicts what the code of libxenvchan can do",
}
_PROGRESS = {
    "PROGRESS": "everything that was promised was done",
    "STALLED": "it stands still, with a promise open, where the spec admits that",
    "INCONCLUSIVE": "what became of the promises cannot be told",
}
_SENDS: dict[Direction, str] = {"left": "client", "right": "server", "both": "server"}
_DUE = {
    "s_wait": "the {s} sleeps in a write, and what should have woken it never did",
    "r_wait": "the {r} sleeps in a read, and what should have woken it never did",
    "s_raise": "the {s} has put bytes and owes the {r} an event",
    "r_raise": "the {r} has taken bytes and owes the {s} an event",
    "s_close_raise": "the {s} has closed and owes the {r} an event",
    "r_close_raise": "the {r} has closed and owes the {s} an event",
    "r_call": "the {r} has something to read and does not",
    "r_connect": "the {r} has not connected",
}
"""Fair actions in words; of the others the side does not go on in its call."""
_DEVIATIONS = {
    "L1": "a reader that finds the ring empty and then the writer gone does not look into the ring "
    "again, and loses the last bytes",
    "L2": "a blocking write whose notify fails goes on one byte before what it has just put",
    "L4": "a call whose notify fails returns an error, though it has moved its index",
    "L5": "a server with server_persist set never asks whether the client is there",
    "L8": "a wait that a signal ends makes the call fail",
    "L9": "the death of a domain raises no event and leaves its live byte as it is",
}
_NEXT_REJECTED = {
    "log": "run it again; if this comes back, the tracer is at fault, not vchan",
    "memory-order": "run it again; if this comes back, look at the barriers and the locked changes "
    "of the library, then at the memory of both ends",
    "payload": "run it again; under an emulator the processor can be at fault",
}


def headline(verdict: Verdict) -> str:
    """The verdict as one plain sentence."""
    conformance = _CONFORMANCE[verdict.conformance]
    if verdict.conformance == "KNOWN":
        conformance += f" ({', '.join(use.id for use in verdict.known)})"
    if verdict.conformance == "REJECTED":
        conformance = _REJECTED.get(verdict.kind, conformance)
    if not _asks_for_progress(verdict):
        return f"{conformance}."
    if verdict.progress == "VIOLATION":
        return f"{conformance}, but {_violation(verdict)}."
    joint = "and" if verdict.progress == "PROGRESS" else "but"
    if verdict.conformance in ("UNDECIDED", "REJECTED"):
        joint = "and"
    blame = f" ({verdict.fault_of})" if verdict.fault_of else ""
    return f"{conformance}, {joint} {_PROGRESS[verdict.progress]}{blame}."


def explain(verdict: Verdict, run: Path | None = None) -> list[str]:
    """At most ten lines: the verdict, where, why, what was due and whose, what to do next.

    `run` is the run directory, if there is one: then the last line says where the report is.
    """
    lines = [_words(verdict)]
    if verdict.no_xen:
        lines.append(xen_words(verdict))
    lines.append(headline(verdict))
    lines += details(verdict)
    lines += verdict.notes[:NOTES_MAX]
    lines += waits(verdict.bounded)
    if verdict.records:
        lines.append(f"{verdict.records} records{_judged(verdict)}.")
    last = last_words(verdict)
    if run is not None:
        last.append(f"Report: {run / 'report.html'}")
    return lines[: LINES_MAX - len(last)] + last


def xen_words(verdict: Verdict) -> str:
    """What is to be said of Xen's part; nothing when there was one."""
    if not verdict.no_xen:
        return ""
    if verdict.host.get("kind") == "loopback":
        return (
            "No Xen was involved: both ends ran on stand-ins for its libraries, on one machine. "
            "This says nothing about a Xen host."
        )
    return "It is not known whether a Xen was involved: nothing says where these traces were made."


def details(verdict: Verdict) -> list[str]:
    """Where, why, and what would have been right; nothing when there is nothing to say."""
    lines = []
    if verdict.schedule:
        lines.append(schedule_words(verdict))
    if verdict.reason and verdict.conformance != "KNOWN":
        lines.append(f"Why: {_sentence(verdict.reason)}")
    if verdict.first_unexplained is not None:
        place = verdict.first_unexplained
        # Where it is the same reason, once is enough.
        known = place.reason and place.reason in verdict.reason
        lines.append(f"Where: {place_words(replace(place, reason='') if known else place)}")
    if verdict.maximal:
        instead = verdict.maximal[0].instead
        if instead:
            lines.append(f"The spec would have gone on with: {'; '.join(instead)}.")
    places = {(at.direction, at.sender_done, at.receiver_done) for at in verdict.maximal}
    if len(places) > 1:
        lines.append(f"Behaviours end in {len(places)} places; this is the farthest.")
    for use in verdict.known:
        if use.id in _DEVIATIONS:
            lines.append(f"{use.id}: {_DEVIATIONS[use.id]}.")
        first = f", first at {place_words(use.places[0])}" if use.places else ""
        lines.append(f"{use.id} was used {_times(len(use.places))}{first}.")
    if others := [text for one in verdict.directions for text in one.alternatives]:
        lines.append(f"As few deviations would do: {' or '.join(dict.fromkeys(others))}.")
    if verdict.faults_injected:
        steps = "one step" if verdict.faults_injected == 1 else f"{verdict.faults_injected} steps"
        lines.append(f"Faults: the test bed changed {steps}, as the experiment asked.")
    if verdict.progress == "VIOLATION":
        lines += _due(verdict)
    elif (
        _asks_for_progress(verdict)
        and verdict.progress_reason
        and verdict.progress_reason != verdict.reason
    ):
        lines.append(f"Progress: {_sentence(verdict.progress_reason)}")
    return lines


def schedule_words(verdict: Verdict) -> str:
    """What came of the schedule of a run that had one."""
    assert verdict.schedule is not None
    steps = verdict.schedule["steps"]
    at = verdict.unfollowed
    if at is None:
        return f"Schedule: all {steps} steps were taken, in their order."
    return (
        f"Schedule: step {at['step']} of {steps} was to be {at['expected']} of the {at['side']}: "
        f"{at['instead']}. The run was ended there."
    )


def _due(verdict: Verdict) -> Iterator[str]:
    """Each action that was due, with who has not done what."""
    found = False
    for one in verdict.directions:
        sender = _SENDS[one.direction]
        sides = {"s": sender, "r": "server" if sender == "client" else "client"}
        for action in (one.due_action or "").split(" or "):
            if not action:
                continue
            if one.direction == "both":
                yield f"Due: {action}: {_due_in_the_library(action)}."
                found = True
                continue
            call = "write" if action.startswith("s_") else "read"
            words = _DUE.get(action, f"the {sides[action[0]]} does not go on in its {call}")
            yield f"Due: {action}, direction {one.direction}: {words.format(**sides)}."
            found = True
    if not found and verdict.progress_reason:
        yield f"Progress: {_sentence(verdict.progress_reason)}"


def _due_in_the_library(action: str) -> str:
    """A fair action of the library's spec, with the side's name behind it."""
    name, _, who = action.partition(" ")
    peer = "server" if who == "client" else "client"
    if name == "wait":
        return f"the {who} sleeps in a call, and what should have woken it never did"
    if name in ("w_raise", "r_raise", "c_give_back", "c_raise", "k_raise"):
        return f"the {who} owes the {peer} an event"
    if name == "call_read":
        return f"the {who} has something to read and does not"
    if name.startswith(("k_", "i_")):
        return f"the {who} does not go on opening the channel"
    return f"the {who} does not go on in its call"


def waits(bounded: Bounded | None) -> list[str]:
    """Who was waited for longest, and how long bytes lay in the rings; nothing if nobody asked."""
    if bounded is None:
        return []
    lines = []
    if bounded.missing:
        lines.append(f"How long what was due waited is not known: {bounded.missing}.")
    elif slowest := bounded.slowest():
        said = (
            f"{owner} {span_words(one.longest.at_least_ns, bounded.at_most_ns(owner))}"
            f" ({one.action})"
            for owner, one in slowest.items()
        )
        reach = "" if bounded.steps == bounded.of_steps else f", in {bounded.reach}"
        lines.append(f"Waited for longest{reach}: {', '.join(said)}.")
    rings = (
        f"{one.direction} {_ns(one.median_ns)} in the median, {_ns(one.longest.at_most_ns)} at most"
        for one in bounded.bytes
    )
    if bounded.bytes:
        lines.append(f"From write to read: {', '.join(rings)}.")
    return lines


def span_words(at_least_ns: int, at_most_ns: int) -> str:
    """A time with its two bounds; one figure where they are all but the same."""
    if at_most_ns <= 1.1 * at_least_ns:
        return _ns(at_most_ns)
    return f"{_ns(at_least_ns)} to {_ns(at_most_ns)}"


def _ns(ns: int) -> str:
    for unit_ns, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "µs")):
        if ns >= unit_ns:
            return f"{ns / unit_ns:.3g} {unit}"
    return f"{ns} ns"


def last_words(verdict: Verdict) -> list[str]:
    """What to do next, in a line; nothing to do about what was expected."""
    return [] if verdict.expected else [f"Next: {next_step(verdict)}."]


def next_step(verdict: Verdict) -> str:
    """What to do about a verdict that was not expected."""
    if verdict.unfollowed:
        return (
            "compare that step with the calls of the experiment; docs/experiments.md has schedules"
        )
    if verdict.advice:
        return verdict.advice
    if verdict.conformance == "REJECTED":
        return _NEXT_REJECTED.get(
            verdict.kind,
            "look at the records around that place in the report, both ends side by side",
        )
    if verdict.conformance == "KNOWN":
        return "name the deviation under `expect: known:` if the experiment is there to show it"
    if verdict.progress == "VIOLATION":
        fault = verdict.fault_of or "owner of that action"
        if verdict.faults_injected:
            return "say so under `expect:` in the experiment, which injects a fault"
        return f"look at the {fault}: the report shows both looks at the run that stood still"
    if verdict.progress == "STALLED":
        return "see in the report what each end waits for; the spec allows both to wait"
    if verdict.conformance == "UNDECIDED":
        return "the reason names what is missing"
    if verdict.progress == "INCONCLUSIVE":
        return "let the run come to rest (timeouts: settle_seconds) and judge it again"
    return "compare with what the experiment expects"


def place_words(place: Place) -> str:
    """A record with its end, number and time."""
    reason = f": {place.reason}" if place.reason else ""
    return f"{place.endpoint} record {place.record} at {place.time:.6f} s, {place.what}{reason}"


def _words(verdict: Verdict) -> str:
    want = verdict.expectation
    if verdict.expected:
        return f"{verdict.conformance} and {verdict.progress}, as expected"
    expected = f"{want.conformance} and {want.progress}"
    if want.known:
        expected += f", known {', '.join(want.known)}"
    if want.fault_of:
        expected += f", the fault of the {want.fault_of}"
    if verdict.unfollowed:
        expected += ", by a schedule that could not be followed"
    return f"{verdict.conformance} and {verdict.progress}; expected was {expected}"


def _asks_for_progress(verdict: Verdict) -> bool:
    """What the spec promises after a step that it does not have, or of what it did not see."""
    return verdict.conformance in ("ACCEPTED", "KNOWN") or verdict.progress != "INCONCLUSIVE"


def _violation(verdict: Verdict) -> str:
    due = f"{verdict.due_action} was due and never came" if verdict.due_action else "a step was due"
    fault = f": the fault of the {verdict.fault_of}" if verdict.fault_of else ""
    return f"{due}{fault}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _judged(verdict: Verdict) -> str:
    """By whom and how fast, if it came to that: some traces are turned down before."""
    if not verdict.directions:
        return ""
    return f", judged by {verdict.judge} in {verdict.seconds:.1f} s"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
