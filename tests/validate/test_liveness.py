"""What is said of progress: asked of every end state, with what was seen when it stood still."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.lanes import EndState, State, Value
from vchan_testbed.validate.liveness import Judged, Question, progress_of
from vchan_testbed.validate.states import VchanStates
from vchan_testbed.validate.table import load_table
from vchan_testbed.validate.tlc.actions import load_action_map

LEFT = load_table().rings["left"]
OWNER_OF = load_action_map().owner_of
ASLEEP: dict[str, Value] = {"sWhere": "away", "rWhere": "here", "sPort": 0, "rPort": 0, "took": 0}
GONE: dict[str, Value] = {**ASLEEP, "sWhere": "gone", "rWhere": "gone"}


def end(*enabled: str, owed: tuple[str, ...] = (), **state: Any) -> EndState:
    """An end state of a run whose ends sleep."""
    return EndState(State.of({**ASLEEP, **state}), enabled, frozenset(owed))


def seen(readable: bool | None = False, **changed: Any) -> dict[str, Any]:
    """One look at one end that sleeps in the kernel."""
    thread = {"tid": 1, "blocked_in_kernel": True}
    looked = {"alive": True, "threads": [thread], "event_fd_readable": readable, "records": 9}
    return {**looked, "page": "00", "in_call": "read", **changed}


def still(
    server: dict[str, Any] | None = None, client: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """What run.json says of a run that stood still."""
    looks = [
        {"at_seconds": at, "endpoints": {"server": server or seen(), "client": client or seen()}}
        for at in (5.0, 7.0)
    ]
    ended = {"server": {"ended": "killed"}, "client": {"ended": "killed"}}
    facts = {"outcome": "stood still", "quiescence": {"looks": looks}, "endpoints": ended}
    return {**facts, **more}


def judged(ends: list[EndState], facts: dict[str, Any]) -> Judged:
    return progress_of(ends, Question(VchanStates(), LEFT.role, Evidence(facts), OWNER_OF))


def test_nothing_due_and_nothing_owed_is_progress() -> None:
    assert judged([end()], still()).word == "PROGRESS"


def test_something_owed_and_nothing_due_is_a_stop_that_the_spec_admits() -> None:
    found = judged([end(owed=("write",))], still())
    assert (found.word, found.fault_of) == ("STALLED", None)
    assert "a write has not returned" in found.reason


DUE = [
    # The server, the left direction's receiver, sleeps; an event was raised.
    ("r_wait", seen(readable=False), "VIOLATION", "event channel"),
    ("r_wait", seen(readable=True), "VIOLATION", "kernel"),
    ("r_wait", seen(readable=None), "INCONCLUSIVE", None),
    ("r_raise", seen(), "VIOLATION", "library"),
    ("r_call", seen(), "VIOLATION", "application not calling"),
    ("r_close_raise", seen(alive=False, threads=[]), "VIOLATION", "peer process"),
]


@pytest.mark.parametrize(("action", "server", "word", "fault"), DUE)
def test_whose_fault_it_is(action: str, server: dict[str, Any], word: str, fault: Any) -> None:
    found = judged([end(action, owed=("bytes",), rPort=1)], still(server=server))
    assert (found.word, found.fault_of) == (word, fault)
    assert found.due_action == (action if fault else None)


def test_every_owner_in_the_action_map_can_be_at_fault() -> None:
    fair = [action for action in load_action_map().actions.values() if action.fair]
    assert {action.owner for action in fair} == {"library", "application", "event channel"}


def test_end_states_that_disagree_decide_nothing() -> None:
    found = judged([end(), end("r_raise", took=1)], still())
    assert (found.word, found.fault_of, found.due_action) == ("INCONCLUSIVE", None, None)
    assert {one.says for one in found.candidates} == {"PROGRESS", "VIOLATION"}


def test_two_events_that_may_have_become_one_are_nobodys_fault() -> None:
    """Another end state is the same but for the wake-up: the event was not lost, it was one."""
    waiting = end("r_wait", rPort=1)
    assert judged([waiting], still()).word == "VIOLATION"
    found = judged([waiting, end(rPort=0)], still())
    assert found.word == "PROGRESS"
    assert len(found.candidates) == 1


def test_another_end_state_that_differs_elsewhere_explains_nothing() -> None:
    found = judged([end("r_wait", rPort=1), end(rPort=0, took=5)], still())
    assert found.word == "INCONCLUSIVE"


def without(facts: dict[str, Any], how: str) -> dict[str, Any]:
    """What spoils the evidence."""
    facts = deepcopy(facts)
    second = facts["quiescence"]["looks"][1]["endpoints"]["server"]
    if how == "one look only":
        del facts["quiescence"]["looks"][0]
    elif how == "a record came between the looks":
        second["records"] = 10
    elif how == "the page changed":
        second["page"] = "01"
    elif how == "a thread ran":
        second["threads"].append({"tid": 2, "blocked_in_kernel": False})
    elif how == "it pauses":
        for look in facts["quiescence"]["looks"]:
            look["endpoints"]["server"]["in_call"] = "pause"
    elif how == "it went on":
        facts["endpoints"]["server"]["ended"] = "finished"
    elif how == "no looks":
        del facts["quiescence"]
    return facts


@pytest.mark.parametrize(
    "how",
    [
        "one look only",
        "a record came between the looks",
        "the page changed",
        "a thread ran",
        "it pauses",
        "it went on",
        "no looks",
    ],
)
def test_time_that_passed_is_no_evidence(how: str) -> None:
    ends = [end("r_wait", rPort=1)]
    assert judged(ends, still()).word == "VIOLATION"
    found = judged(ends, without(still(), how))
    assert (found.word, found.fault_of) == ("INCONCLUSIVE", None)
    assert found.reason


def over(**ended: str) -> dict[str, Any]:
    """A run that nobody had to look at."""
    return {
        "outcome": "finished" if "killed" not in ended.values() else "endpoint died",
        "endpoints": {role: {"ended": how} for role, how in ended.items()},
    }


def test_traces_that_are_over_need_no_look() -> None:
    ends = [EndState(State.of(GONE), (), frozenset())]
    assert judged(ends, over(server="finished", client="finished")).word == "PROGRESS"
    assert judged(ends, over(server="finished", client="killed")).word == "PROGRESS"


def test_who_kills_both_ends_learns_nothing() -> None:
    ends = [EndState(State.of(GONE), (), frozenset())]
    assert judged(ends, over(server="killed", client="killed")).word == "INCONCLUSIVE"


def test_a_close_that_told_nobody_is_the_librarys_fault() -> None:
    """Both are gone, and the receiver was never woken: shown by the traces alone."""
    ends = [EndState(State.of(GONE), ("s_close_raise",), frozenset())]
    found = judged(ends, over(server="finished", client="finished"))
    assert (found.word, found.fault_of) == ("VIOLATION", "library")


@pytest.mark.parametrize("role", ["server", "client"])
def test_which_end_a_fault_is_looked_for_at(role: Role) -> None:
    """The left direction's sender is the client."""
    action = "r_wait" if role == "server" else "s_wait"
    looked = {role: seen(readable=True)}
    found = judged([end(action, rPort=1, sPort=1)], still(**looked))
    assert found.fault_of == "kernel"


def test_without_end_states_nothing_is_said() -> None:
    assert judged([], still()).word == "INCONCLUSIVE"
