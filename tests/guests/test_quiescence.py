"""Two looks: what counts as standing still, and what does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from vchan_testbed.guests.quiescence import SILENT, endpoint_look, quiescent, stands_still
from vchan_testbed.validate.evidence import Evidence

Look = dict[str, Any]
THREAD = {"tid": 7, "state": "S", "syscall": 0, "blocked_in_kernel": True, "in_call": "read"}


def still() -> tuple[Look, Look]:
    """Two looks at two endpoints that both block in a read."""
    answer = {
        "type": "look",
        "alive": True,
        "threads": [dict(THREAD)],
        "event_fd_readable": False,
        "records": 10,
        "page": "00" * 24,
    }
    look = {
        "endpoints": {end: endpoint_look(copy.deepcopy(answer)) for end in ("server", "client")}
    }
    return copy.deepcopy(look), copy.deepcopy(look)


def test_both_blocked_with_nothing_new_stands_still() -> None:
    assert stands_still(*still())
    assert quiescent(*still())
    assert still()[0]["endpoints"]["server"]["in_call"] == "read"


CHANGES: dict[str, Callable[[Look, Look], object]] = {
    "a new record": lambda _, second: second.update(records=11),
    "another page": lambda _, second: second.update(page="01" * 24),
    "no page yet": lambda first, second: (first.update(page=None), second.update(page=None)),
    "a thread that runs": lambda _, second: second["threads"][0].update(blocked_in_kernel=False),
    "one that ran": lambda first, _: first["threads"][0].update(blocked_in_kernel=False),
    "a second one": lambda _, s: s["threads"].append({**THREAD, "blocked_in_kernel": False}),
    "a pause": lambda _, second: second["threads"][0].update(in_call="pause"),
    "no call": lambda _, second: second["threads"][0].update(in_call=None),
    "no thread": lambda _, second: second.update(threads=[]),
}


@pytest.mark.parametrize("end", ["server", "client"])
@pytest.mark.parametrize("change", CHANGES)
def test_it_does_not_stand_still_with(change: str, end: str) -> None:
    first, second = still()
    CHANGES[change](first["endpoints"][end], second["endpoints"][end])
    assert not stands_still(first, second)
    assert not quiescent(first, second)


def test_an_unread_event_is_not_quiescent_though_all_sleep() -> None:
    first, second = still()
    second["endpoints"]["client"]["event_fd_readable"] = True
    assert stands_still(first, second)
    assert not quiescent(first, second)


def stopped(records: int | None) -> Look:
    """What a supervisor answers for a worker that a signal has stopped."""
    thread = {**THREAD, "state": "T", "blocked_in_kernel": False, "in_call": None}
    message = {"alive": True, "stopped": True, "threads": [thread], "records": records}
    return endpoint_look(message)


def test_a_process_that_is_stopped_stands_still() -> None:
    looks = still()
    for look in looks:
        look["endpoints"]["server"] = stopped(10)
    assert stands_still(*looks)
    assert Evidence({"quiescence": {"looks": list(looks)}}).stands_still


@pytest.mark.parametrize(("before", "after"), [(10, 11), (None, None)])
def test_one_of_which_nobody_knows_what_it_wrote_does_not(
    before: int | None, after: int | None
) -> None:
    looks = still()
    for look, records in zip(looks, (before, after), strict=True):
        look["endpoints"]["server"] = stopped(records)
    assert not stands_still(*looks)
    assert not Evidence({"quiescence": {"looks": list(looks)}}).stands_still


@pytest.mark.parametrize("gone", [None, {"type": "look", "alive": False, "threads": []}])
def test_one_that_is_gone_does_not_keep_the_other_from_standing_still(gone: Look | None) -> None:
    first, second = still()
    for look in (first, second):
        look["endpoints"]["server"] = endpoint_look(gone)
    assert stands_still(first, second)


@pytest.mark.parametrize("gone", [None, {"type": "look", "alive": False, "threads": []}])
def test_one_that_ends_between_the_looks_has_moved(gone: Look | None) -> None:
    """A pause was over, and its peer, which is to hear of the end, still sleeps."""
    first, second = still()
    second["endpoints"]["server"] = endpoint_look(gone)
    assert not stands_still(first, second)
    assert not Evidence({"quiescence": {"looks": [first, second]}}).stands_still


@pytest.mark.parametrize("silent_in", [(0,), (1,), (0, 1)])
def test_one_that_does_not_answer_may_be_at_work(silent_in: tuple[int, ...]) -> None:
    looks = still()
    for number in silent_in:
        looks[number]["endpoints"]["client"] = dict(SILENT)
    assert not stands_still(*looks)
    assert not quiescent(*looks)


def test_nobody_alive_is_not_a_stand_still() -> None:
    first, second = still()
    for end in ("server", "client"):
        second["endpoints"][end] = endpoint_look(None)
    assert not stands_still(first, second)
