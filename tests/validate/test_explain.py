"""What the terminal says of a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vchan_testbed.validate.explain import LINES_MAX, explain, headline
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.verdict import (
    CONFORMANCE,
    PROGRESS,
    DirectionVerdict,
    Expectation,
    KnownUse,
    Maximal,
    Verdict,
)

GOOD = Verdict("ACCEPTED", "PROGRESS", host={"kind": "qemu", "xen_version": "4.17.5"})
PLACE = Place("client", 812, 811, 0.25, "store left.prod 0 → 8", "the ring is full")
MAXIMAL = Maximal("left", 5, 4, PLACE, None, ("s_arm", "r_take with 8"), {})


def test_a_good_verdict_is_two_lines() -> None:
    assert explain(GOOD) == [
        "ACCEPTED and PROGRESS, as expected",
        "What happened is a behaviour of the spec, and everything that was promised was done.",
    ]


def test_how_much_was_judged_is_said_of_what_was() -> None:
    direction = DirectionVerdict("left", "ACCEPTED", "PROGRESS")
    verdict = replace(GOOD, records=812, seconds=5.04)
    assert explain(verdict)[-1] == "812 records."
    followed = replace(verdict, directions=(direction,))
    assert explain(followed)[-1] == "812 records, judged by TLC in 5.0 s."


def test_the_report_comes_last() -> None:
    assert explain(GOOD, Path("runs/x"))[-1] == "Report: runs/x/report.html"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ({"kind": "loopback", "xen_version": None}, "No Xen was involved"),
        ({}, "It is not known whether a Xen was involved"),
    ],
)
def test_it_is_said_when_there_was_no_xen(host: dict[str, Any], said: str) -> None:
    assert explain(replace(GOOD, host=host))[1].startswith(said)


def test_a_rejection_says_where_why_and_what_was_due() -> None:
    verdict = replace(
        GOOD,
        conformance="REJECTED",
        progress="INCONCLUSIVE",
        kind="protocol",
        reason="no room for 8 bytes",
        first_unexplained=PLACE,
        maximal=(MAXIMAL, replace(MAXIMAL, sender_done=4), replace(MAXIMAL, state={"ring": 1})),
    )
    lines = explain(verdict)
    assert lines[0] == "REJECTED and INCONCLUSIVE; expected was ACCEPTED and PROGRESS"
    assert lines[1] == "What happened is not a behaviour of the spec."
    assert "Why: no room for 8 bytes." in lines
    assert (
        "Where: client record 812 at 0.250000 s, store left.prod 0 → 8: the ring is full" in lines
    )
    assert "The spec would have gone on with: s_arm; r_take with 8." in lines
    assert "Behaviours end in 2 places; this is the farthest." in lines
    assert lines[-1].startswith("Next: ")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("log", "The traces contradict themselves"),
        ("memory-order", "The values that were read contradict the order of the steps"),
        ("payload", "Bytes were lost, doubled or moved"),
        ("record", "A record contradicts what the code of libxenvchan can do"),
        ("protocol", "What happened is not a behaviour of the spec"),
    ],
)
def test_each_kind_of_rejection_is_told_apart(kind: Any, said: str) -> None:
    verdict = replace(GOOD, conformance="REJECTED", kind=kind)
    assert headline(verdict).startswith(said)


def test_a_violation_names_the_action_and_whose_fault_it_is() -> None:
    verdict = replace(
        GOOD,
        progress="VIOLATION",
        progress_reason="the event was raised at record 40 and never came",
        due_action="r_wait",
        fault_of="event channel",
        faults_injected=1,
    )
    lines = explain(verdict)
    assert "r_wait was due and never came: the fault of the event channel." in lines[1]
    assert "Progress: the event was raised at record 40 and never came." in lines
    assert "Faults: the test bed changed one step, as the experiment asked." in lines
    assert "under `expect:`" in lines[-1]
    assert "look at the event channel" in explain(replace(verdict, faults_injected=0))[-1]


@pytest.mark.parametrize(
    ("direction", "action", "said"),
    [
        ("left", "r_wait", "the server sleeps in a read, and what should have woken it never did"),
        ("right", "s_wait", "the server sleeps in a write"),
        ("right", "s_raise", "the server has put bytes and owes the client an event"),
        ("left", "r_call", "the server has something to read and does not"),
        ("left", "s_space", "the client does not go on in its write"),
    ],
)
def test_what_was_due_is_said_in_words(direction: Any, action: str, said: str) -> None:
    one = DirectionVerdict(direction, "ACCEPTED", "VIOLATION", due_action=action)
    verdict = replace(GOOD, progress="VIOLATION", due_action=action, directions=(one,))
    (line,) = (line for line in explain(verdict) if line.startswith("Due: "))
    assert line.startswith(f"Due: {action}, direction {direction}: {said}")


def test_what_to_do_may_hang_on_the_reason() -> None:
    verdict = replace(GOOD, conformance="UNDECIDED", reason="why", advice="do this")
    assert explain(verdict)[-1] == "Next: do this."


def test_a_known_deviation_says_where_it_was_used() -> None:
    verdict = replace(GOOD, conformance="KNOWN", known=(KnownUse("L1", (PLACE, PLACE)),))
    lines = explain(verdict)
    assert "(L1)" in lines[1]
    assert any(line.startswith("L1 was used 2 times, first at client record 812") for line in lines)


def test_what_was_expected_instead_is_said_whole() -> None:
    want = Expectation("KNOWN", "VIOLATION", ("L1",), "library")
    assert explain(replace(GOOD, expectation=want))[0] == (
        "ACCEPTED and PROGRESS; expected was KNOWN and VIOLATION, known L1, "
        "the fault of the library"
    )


def test_an_expected_failure_asks_for_nothing() -> None:
    verdict = replace(GOOD, progress="VIOLATION", expectation=Expectation("ACCEPTED", "VIOLATION"))
    assert not any(line.startswith("Next:") for line in explain(verdict))


def test_no_verdict_needs_more_than_ten_lines() -> None:
    for conformance in CONFORMANCE:
        for progress in PROGRESS:
            verdict = replace(
                GOOD,
                conformance=conformance,
                progress=progress,
                reason="why",
                progress_reason="also why",
                known=(KnownUse("L1", (PLACE,)), KnownUse("L9", ())),
                first_unexplained=PLACE,
                maximal=(MAXIMAL, MAXIMAL),
                notes=("one", "two", "three", "four"),
                host={},
            )
            lines = explain(verdict, Path("run"))
            assert len(lines) <= LINES_MAX
            assert lines[0].startswith(f"{conformance} and {progress}")
            assert lines[-1] == "Report: run/report.html"
            assert verdict.expected or lines[-2].startswith("Next: ")
            assert all(line == line.strip() and "\n" not in line for line in lines)
