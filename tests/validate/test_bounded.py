"""Bounded progress: small histories of which it is known to the tick who waited for what."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played
from judging import LIBRARY
from library_model import TSC_HZ, Run

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Kind
from vchan_testbed.validate.bounded import ActionTimes, Bounded
from vchan_testbed.validate.durations import Taken, durations_of
from vchan_testbed.validate.explain import waits
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.measure import measured
from vchan_testbed.validate.prepare import prepare

THERE_AND_BACK = "S.r64 C.w30 S.. C.r9 S.w9 C.. C.close S.r64 S.close"
ONE_CLOCK = {"kind": "loopback", "xen_version": None}
LATE = 10**9
"""Ticks."""
SOON = 5000
"""Ticks within which everything else is done: the model's clock goes by 25 at each look at it."""

Pick = Callable[[Records], int]


def first(kind: Kind, call: Call | None = None, nth: int = 1) -> Pick:
    """The row of the nth record of a kind in calls of one kind."""

    def row(records: Records) -> int:
        found = records["kind"] == kind
        if call is not None:
            found &= records["call"] == call
        return int(np.flatnonzero(found)[nth - 1])

    return row


def late(run: Run, role: Role, pick: Pick, ticks: int = LATE) -> dict[Role, Records]:
    """The records of both ends, with a record and all that was made behind it so much later."""
    mine = run.records(role)
    since = int(mine["t0"][pick(mine)])
    moved: dict[Role, Records] = {}
    for each in ("server", "client"):
        records = run.records(each).copy()
        behind = records["t0"] >= since
        records["t0"][behind] += ticks
        records["t1"][behind] += ticks
        moved[each] = records
    return moved


def bounded_of(
    run: Run, folder: Path, records: dict[Role, Records] | None = None, host: object = ONE_CLOCK
) -> Bounded:
    """What is measured of a run of the model."""
    paths = run.write(folder, records)
    facts = run.facts() | {"host": host}
    case = prepare(paths["server"], paths["client"], facts, tables=LIBRARY)
    return measured(case, frozenset())


def ns(ticks: int) -> int:
    """The model's ticks as nanoseconds."""
    return round(ticks * 1e9 / TSC_HZ)


def named(bounded: Bounded, action: str) -> ActionTimes:
    """The times of one action."""
    (found,) = (one for one in bounded.actions if one.action == action)
    return found


def gap(before: Records, at: int, behind: Records, to: int) -> tuple[int, int]:
    """Between two records: ns at least and at most."""
    least = int(behind["t0"][to]) - int(before["t1"][at])
    return ns(least), ns(int(behind["t1"][to]) - int(before["t0"][at]))


def assert_only_slow(bounded: Bounded, *actions: str) -> None:
    """No other action waited long."""
    slow = {one.action for one in bounded.actions if one.at_most_ns > ns(SOON)}
    assert slow == set(actions)


def assert_longest(one: ActionTimes, least_and_most: tuple[int, int]) -> None:
    """Its longest time is that one; the clocks may be one tick apart."""
    least, most = least_and_most
    assert one.longest.at_least_ns == pytest.approx(least, abs=ns(2))
    assert one.longest.at_most_ns == pytest.approx(most, abs=ns(2))


@pytest.fixture(scope="module")
def there_and_back() -> Run:
    """A write, read by who slept, and another one back."""
    run, _ = played(History.of(THERE_AND_BACK))
    return run


def test_of_a_run_in_which_nobody_waits_nothing_is_slow(
    there_and_back: Run, tmp_path: Path
) -> None:
    found = bounded_of(there_and_back, tmp_path)
    assert not found.missing
    assert found.steps == found.of_steps > 0
    owners = set(found.slowest())
    assert owners == {"library", "application", "event channel"}
    own = {one.action for one in found.actions if one.at_most_ns > ns(SOON)}
    assert own <= {"next call of the client", "next call of the server"}


def test_an_application_that_sleeps(there_and_back: Run, tmp_path: Path) -> None:
    run = there_and_back
    records = late(run, "client", first(Kind.CALL_ENTER, Call.WRITE))
    found = bounded_of(run, tmp_path, records)
    client = records["client"]
    enter = first(Kind.CALL_ENTER, Call.WRITE)(client)
    opened = first(Kind.NOTIFY, Call.CLIENT_INIT)(client)
    one = found.actions[0]
    assert (one.action, one.owner, one.fair) == ("next call of the client", "application", False)
    assert_longest(one, gap(client, opened, client, enter))
    assert one.longest.at_least_ns >= ns(LATE)
    assert (one.longest.place.endpoint, one.longest.place.row) == ("client", enter)
    assert one.longest.ended == "taken"
    # While it slept the server did nothing that anybody waited for.
    assert_only_slow(found, "next call of the client")
    assert waits(found)[0].startswith("Waited for longest: application 1 s (next call of the cl")


def test_an_event_that_comes_late(tmp_path: Path) -> None:
    # Meanwhile the client is in its next call.
    run, _ = played(History.of("S.r64 C.w30 C.r9 S.. S.w9 C.. C.close S.r64 S.close"))
    records = late(run, "server", first(Kind.PENDING_EXIT, Call.READ, 2))
    found = bounded_of(run, tmp_path, records)
    server, client = records["server"], records["client"]
    came = first(Kind.PENDING_EXIT, Call.READ, 2)(server)
    raised = first(Kind.NOTIFY, Call.WRITE)(client)
    one = found.actions[0]
    assert (one.action, one.owner, one.fair) == ("wait server", "event channel", True)
    assert_longest(one, gap(client, raised, server, came))
    assert (one.longest.place.endpoint, one.longest.place.row) == ("server", came)
    assert found.at_most_ns("library") <= ns(SOON)
    assert waits(found)[0].startswith("Waited for longest: event channel 1 s (wait server)")


def test_a_library_that_takes_its_time(there_and_back: Run, tmp_path: Path) -> None:
    run = there_and_back
    records = late(run, "client", first(Kind.NOTIFY, Call.WRITE))
    found = bounded_of(run, tmp_path, records)
    client = records["client"]
    raised = first(Kind.NOTIFY, Call.WRITE)(client)
    one = found.actions[0]
    assert (one.action, one.owner, one.fair) == ("w_raise client", "library", True)
    assert_longest(one, gap(client, raised - 1, client, raised))
    assert found.at_most_ns("event channel") <= ns(SOON)


def test_an_application_that_does_not_read_what_is_there(tmp_path: Path) -> None:
    run, _ = played(History.of("C.w30 S.r64 C.close S.r64 S.close"))
    records = late(run, "server", first(Kind.CALL_ENTER, Call.READ))
    found = bounded_of(run, tmp_path, records)
    due = named(found, "call_read server")
    assert (due.owner, due.fair, due.not_taken) == ("application", True, 0)
    client, server = records["client"], records["server"]
    put = client["kind"] == Kind.RMW_PLAIN
    enter = first(Kind.CALL_ENTER, Call.READ)(server)
    assert_longest(due, gap(client, int(np.flatnonzero(put)[0]), server, enter))
    assert found.at_most_ns("library") <= ns(SOON)
    # And each of the bytes lay there as long.
    (left,) = (one for one in found.bytes if one.direction == "left")
    assert (left.bytes, left.unread_bytes) == (30, 0)
    take = int(np.flatnonzero(server["kind"] == Kind.RMW_PLAIN)[0])
    least, most = gap(client, int(np.flatnonzero(put)[0]), server, take)
    assert left.longest.at_least_ns == pytest.approx(least, abs=ns(2))
    assert left.longest.at_most_ns == pytest.approx(most, abs=ns(2))
    assert left.median_ns == left.p99_ns == pytest.approx(most, abs=ns(2))
    assert left.longest.place.row == take


def test_what_never_came_waited_until_the_last_look(tmp_path: Path) -> None:
    run, _ = played(History.of("S.r64 C.w30! C.r64"))
    facts = run.facts() | {"host": ONE_CLOCK}
    paths = run.write(tmp_path)
    verdict = judge_traces(
        paths["server"], paths["client"], facts, options=Options(tables=LIBRARY, bounded=True)
    )
    assert (verdict.progress, verdict.due_action) == ("VIOLATION", "wait server")
    assert verdict.bounded is not None
    one = named(verdict.bounded, "wait server")
    assert one.longest.ended == "never"
    assert one.not_taken == 1
    assert one.longest.place.endpoint == "server"
    looked = [look["at_seconds"] for look in facts["quiescence"]["looks"]]
    assert one.longest.at_least_ns >= (looked[1] - looked[0]) * 1e9
    assert verdict.to_json()["bounded"]["actions"][0]["action"] == "wait server"


def test_of_two_clocks_that_are_far_apart_the_offset_is_taken_out(
    there_and_back: Run, tmp_path: Path
) -> None:
    run = there_and_back
    records = late(run, "client", first(Kind.CALL_ENTER, Call.WRITE), SOON)
    near = bounded_of(run, tmp_path / "near", records, {"kind": "model"})
    for column in ("t0", "t1"):
        records["client"][column] += 7 * LATE
    far = bounded_of(run, tmp_path / "far", records, {"kind": "model"})
    assert near.clock_uncertainty_ns > 0
    assert [(one.bytes, one.median_ns) for one in far.bytes] == [
        (one.bytes, one.median_ns) for one in near.bytes
    ]
    figures = [
        [(one.action, one.count, one.median_ns, one.longest.at_least_ns) for one in each.actions]
        for each in (near, far)
    ]
    assert figures[0] == figures[1]


def test_what_is_no_behaviour_is_not_measured(tmp_path: Path) -> None:
    run, changed = played(
        History.of(f"{THERE_AND_BACK}\nchange server read load left_prod 2: lose")
    )
    paths = run.write(tmp_path, changed)
    verdict = judge_traces(
        paths["server"], paths["client"], options=Options(tables=LIBRARY, bounded=True)
    )
    assert verdict.conformance == "REJECTED"
    assert verdict.bounded is None


def test_one_clock_bounded_from_one_side_gives_no_times(tmp_path: Path) -> None:
    run, _ = played(History.of("S.r64"))
    found = bounded_of(run, tmp_path, host={"kind": "model"})
    assert found.missing
    assert not found.actions
    assert waits(found) == [f"How long what was due waited is not known: {found.missing}."]


def steps(*times: tuple[str, int, int]) -> Taken:
    """Steps of both sides with their own bounds, which are those of the behaviour too."""
    sides, t0, t1 = zip(*times, strict=True)
    bounds = np.array(t0), np.array(t1)
    return Taken(np.array(sides), np.arange(len(times)), bounds, bounds)


def test_a_time_has_the_bounds_of_the_steps_around_it() -> None:
    of = steps(("s", 10, 12), ("r", 20, 25), ("s", 40, 41), ("r", 50, 60))
    possible = np.array([True, False, True, True, True])
    is_it = np.array([True, False, False, True])
    found = durations_of(possible, is_it, of, since=5, until=100)
    # From the beginning, from the second step to the fourth, and from there on.
    assert found.shortest.tolist() == [5, 25, 40]
    assert found.longest.tolist() == [7, 40, 50]
    assert found.last.tolist() == [0, 3, 4]
    assert found.taken.tolist() == [True, True, False]


def test_before_an_end_came_nothing_waited_for_it() -> None:
    of = steps(("s", 10, 12), ("r", 200, 201))
    found = durations_of(np.array([True, True, False]), np.array([False, True]), of, 150, 300)
    assert (found.shortest.tolist(), found.longest.tolist()) == ([50], [51])


def test_before_the_client_came_nobody_waited_for_its_library(
    there_and_back: Run, tmp_path: Path
) -> None:
    run = there_and_back
    records = late(run, "client", first(Kind.CALL_ENTER, Call.CLIENT_INIT))
    found = bounded_of(run, tmp_path, records)
    # When the server published its keys no record shows: until the client asks for them.
    assert named(found, "i_publish server").longest.at_least_ns == 0
    slow = {one.action for one in found.actions if one.at_most_ns > ns(SOON)}
    assert slow == {"i_publish server", "next call of the server"}


def test_an_event_that_may_have_been_lost_in_another_one_is_not_missed(tmp_path: Path) -> None:
    # A write and a read of the client's raise two events before the server takes one, and the
    # second was lost in the first: it sleeps at once. Nobody knows before the next one comes.
    run, _ = played(History.of("S.w9 S.space S.r64 C.w30 C.r9 S.. S.r64 C.w9 S.. C.close"))
    records = late(run, "client", first(Kind.CALL_ENTER, Call.WRITE, 2))
    server = records["server"]
    asleep = [first(Kind.PENDING_ENTER, Call.READ, nth)(server) for nth in (3, 4)]
    kept = np.delete(server, slice(asleep[0] + 1, asleep[1] + 1))
    kept["seq"] = np.arange(1, len(kept) + 1)
    found = bounded_of(run, tmp_path, {**records, "server": kept})
    assert not found.missing
    assert found.at_most_ns("event channel") <= ns(SOON)


def test_between_steps_of_one_end_the_other_ends_clock_says_nothing() -> None:
    own = (np.array([10, 50]), np.array([11, 51]))
    wide = (np.array([0, 40]), np.array([30, 90]))
    of = Taken(np.array(["s", "s"]), np.arange(2), own, wide)
    found = durations_of(np.array([False, True, False]), np.array([False, True]), of, 0, 200)
    assert (found.shortest.tolist(), found.longest.tolist()) == ([39], [41])
    of = Taken(np.array(["s", "r"]), np.arange(2), own, wide)
    found = durations_of(np.array([False, True, False]), np.array([False, True]), of, 0, 200)
    assert (found.shortest.tolist(), found.longest.tolist()) == ([10], [90])


def test_a_read_is_due_whatever_the_application_does_next(tmp_path: Path) -> None:
    # The lane's next step has no size, and a read is due all the same.
    run, _ = played(History.of("C.w30 S.open S.r64 C.close S.r64 S.close"))
    records = late(run, "server", first(Kind.CALL_ENTER, Call.IS_OPEN))
    found = bounded_of(run, tmp_path, records)
    due = named(found, "call_read server")
    assert due.not_taken == 1
    assert due.longest.ended == "no more possible"
    assert due.longest.at_least_ns >= ns(LATE)
