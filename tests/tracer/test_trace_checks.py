"""Production checks of a pair of traces: nothing to say of a legal one, something of a changed one.

The traces are real ones of a run on the loopback host, so what is legal is not made up here.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vchan_testbed.tracer.checks import PROBLEMS_OF_A_RULE_MAX, check_pair
from vchan_testbed.tracer.checks_cells import cell_problems
from vchan_testbed.tracer.checks_parts import paired_sides
from vchan_testbed.tracer.completed import copies_of_digests
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace

Traces = tuple[Trace, Trace]
Change = Callable[[Records], Records]


def with_records(trace: Trace, records: Records) -> Trace:
    """The trace with other records, numbered anew so that no number tells."""
    digests, copies = copies_of_digests(records)
    renumbered = records.copy()
    for thread in np.unique(records["thread"]):
        own = renumbered["thread"] == thread
        renumbered["seq"][own] = np.arange(1, int(own.sum()) + 1)
    renumbered["operand"][digests] = renumbered["seq"][copies]
    return dataclasses.replace(trace, records=renumbered)


def places(records: Records, kind: Kind, **fields: int) -> list[int]:
    """Where records of a kind are that have these fields, in the middle of the run."""
    wanted = records["kind"] == kind
    for name, value in fields.items():
        wanted &= records[name] == value
    found = np.flatnonzero(wanted)
    assert len(found)
    return [int(place) for place in found]


def one_of(found: list[int]) -> int:
    """One in the middle, always the same."""
    return found[len(found) // 2]


def without(records: Records, place: int) -> Records:
    kept: Records = np.delete(records, place)
    return kept


def setting(place: int, **fields: int) -> Change:
    """Change fields of one record."""

    def change(records: Records) -> Records:
        changed = records.copy()
        for name, value in fields.items():
            changed[name][place] = value
        return changed

    return change


def effective(records: Records, cell: Cell, up: bool) -> list[int]:
    """Accesses that set or clear a bit of a notify byte."""
    bits = records["old"] ^ records["new"]
    moved = (records["offset"] == cell) & (bits != 0) & ((records["new"] > records["old"]) == up)
    return [int(place) for place in np.flatnonzero(moved & (records["call"] > Call.CLIENT_INIT))]


def test_a_legal_pair_has_no_problem(recorded: Traces) -> None:
    server, client = recorded
    assert len(server.records) > 500
    assert check_pair(server, client) == []
    for place in (Kind.PENDING_EXIT, Kind.NOTIFY, Kind.CMPXCHG_OK, Kind.RMW_LOCKED):
        assert places(server.records, place)
        assert places(client.records, place)


def test_the_values_bind_both_ends_together(recorded: Traces) -> None:
    (sides,) = paired_sides(*recorded)
    edges = cell_problems(*sides).edges
    for first, second in (edges.server_first, edges.client_first):
        assert len(first) == len(second) > 200


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_legal_pair_cut_anywhere_has_no_problem(recorded: Traces, data: st.DataObject) -> None:
    cut = []
    for trace in recorded:
        # Within the init as often as anywhere else.
        count = data.draw(st.integers(0, 40) | st.integers(0, len(trace.records)))
        if data.draw(st.booleans()):
            cut.append(trace)
        else:
            cut.append(dataclasses.replace(trace, records=trace.records[:count], ending="cut"))
    assert check_pair(cut[0], cut[1]) == []


def test_only_so_many_problems_of_a_rule_are_told(recorded: Traces) -> None:
    server, client = recorded
    records = client.records.copy()
    records["new"][records["kind"] == Kind.CALL_EXIT] = 0
    problems = check_pair(server, with_records(client, records))
    assert len(problems) == PROBLEMS_OF_A_RULE_MAX
    assert {problem.rule for problem in problems} == {"R2"}


def test_missing_and_doubled_records_are_holes(recorded: Traces) -> None:
    server, client = recorded
    for records in (
        without(client.records, 100),
        np.insert(client.records, 100, client.records[100]),
        client.records[1:],
    ):
        problems = check_pair(server, dataclasses.replace(client, records=records))
        assert {problem.rule for problem in problems} == {"log"}
        assert all(problem.is_hole for problem in problems)


def test_dropped_records_are_told(recorded: Traces) -> None:
    server, client = recorded
    (problem,) = check_pair(dataclasses.replace(server, dropped=3), client)
    assert (problem.endpoint, problem.record, problem.rule) == ("server", -1, "log")
    assert "3 records" in problem.text


def changes_of_the_client(records: Records) -> dict[str, tuple[Change, set[str]]]:
    """What is changed in the client's trace, and the rules of which one at least must say so."""
    write = one_of(places(records, Kind.RMW_PLAIN, offset=Cell.LEFT_PROD))
    take = one_of(places(records, Kind.RMW_PLAIN, offset=Cell.RIGHT_CONS))
    own_load = one_of(places(records, Kind.LOAD, offset=Cell.LEFT_PROD))
    peer_load = one_of(places(records, Kind.LOAD, offset=Cell.LEFT_CONS))
    armed = one_of(effective(records, Cell.SRV_NOTIFY, up=True))
    cleared = one_of(effective(records, Cell.CLI_NOTIFY, up=False))
    notify = cleared + 1
    assert records["kind"][notify] == Kind.NOTIFY
    taken = one_of(places(records, Kind.PENDING_EXIT))
    exit_ = one_of(places(records, Kind.CALL_EXIT, call=Call.WRITE))
    enter = one_of(places(records, Kind.CALL_ENTER, call=Call.WRITE))
    copy = one_of(places(records, Kind.COPY))
    live = places(records, Kind.LOAD, offset=Cell.SRV_LIVE)[0]
    order = places(records, Kind.LOAD, offset=Cell.LEFT_ORDER)[0]
    attach = places(records, Kind.ATTACH)[0]
    close = places(records, Kind.NOTIFY, call=Call.CLOSE)[0]
    connect = places(records, Kind.STORE, offset=Cell.CLI_LIVE)[0]

    def dropped(place: int) -> Change:
        return lambda r: without(r, place)

    def doubled(place: int) -> Change:
        return lambda r: np.insert(r, place, r[place])

    return {
        "an index write is missing": (dropped(write), {"log"}),
        "an index write is there twice": (doubled(write), {"log"}),
        "an index goes further": (setting(write, new=int(records["new"][write]) + 1), {"log"}),
        "an index jumps": (setting(write, new=int(records["old"][write]) + 5000), {"R1"}),
        "an index goes back": (setting(write, new=int(records["old"][write]) - 1), {"R1"}),
        "an index starts elsewhere": (setting(write, old=int(records["old"][write]) - 1), {"log"}),
        "the other's index is moved": (setting(write, offset=Cell.LEFT_CONS), {"R1"}),
        "an own load reads otherwise": (setting(own_load, old=7, new=7), {"log"}),
        "a load changes the value": (setting(peer_load, new=1), {"log"}),
        "the other's index reads what was never written": (
            setting(
                peer_load, old=records["old"][peer_load] + 1, new=records["old"][peer_load] + 1
            ),
            {"log", "R1"},
        ),
        "the other's index goes back": (setting(peer_load, old=1, new=1), {"R1"}),
        "a setting of a bit is missing": (dropped(armed), {"R4", "order"}),
        "a setting of a bit is there twice": (doubled(armed), {"R4", "order"}),
        "a clearing of a bit is missing": (dropped(cleared), {"R4"}),
        "a clearing of a bit is there twice": (doubled(cleared), {"R4"}),
        "a clearing found nothing": (setting(cleared, old=records["new"][cleared]), {"R4"}),
        "an asked bit is cleared by the asker": (
            setting(armed, old=3, new=0),
            {"R4"},
        ),
        "an event is missing": (dropped(notify), {"R4"}),
        "an event is there twice": (doubled(notify), {"R4"}),
        "an event's end is missing": (dropped(taken), {"log"}),
        "an unmask is missing": (dropped(taken + 1), {"R10"}),
        "an unmask is there twice": (doubled(taken + 1), {"R10"}),
        "another port is unmasked": (setting(taken + 1, old=99), {"R10"}),
        "a return is missing": (dropped(exit_), {"log"}),
        "a call's begin is missing": (dropped(enter), {"log"}),
        "a call returns less": (setting(exit_, new=records["new"][exit_] - 1), {"R2"}),
        "a call returns more than it was given": (setting(exit_, new=1 << 20), {"log"}),
        "a call has another number": (setting(enter, call_seq=9999), {"log"}),
        "a copy is missing": (dropped(copy), {"R2"}),
        "a copy is shorter": (setting(copy, new=records["new"][copy] - 1), {"R2"}),
        "the peer's live byte was never so": (setting(live, old=2, new=2), {"R8"}),
        "the own live byte comes from elsewhere": (setting(connect, old=1), {"R8"}),
        "an order reads otherwise": (setting(order, old=13, new=13), {"R15"}),
        "orders are taken otherwise": (setting(attach, old=13 | 11 << 16), {"R15"}),
        "a close raises no event": (dropped(close), {"R8"}),
        "an event is dropped and no fault says so": (
            setting(notify, flags=Flag.FAULT_INJECTED),
            {"log"},
        ),
        "an access was held and no fault says so": (setting(peer_load, flags=Flag.HELD), {"log"}),
        "an access was held in vain and no fault says so": (
            setting(peer_load, flags=Flag.HELD_IN_VAIN),
            {"log"},
        ),
        "a record of no kind": (setting(copy, kind=99), {"log"}),
        "an access of no place": (setting(peer_load, offset=0xFFFF), {"log"}),
        "a taking moves by more than was copied": (
            setting(take, old=int(records["old"][take]) - 1),
            {"log", "R2"},
        ),
    }


def test_what_is_changed_is_found(recorded: Traces) -> None:
    server, client = recorded
    changes = changes_of_the_client(client.records)
    assert len(changes) > 35
    unseen = []
    for name, (change, rules) in changes.items():
        problems = check_pair(server, with_records(client, change(client.records)))
        if not rules & {problem.rule for problem in problems}:
            unseen.append((name, [problem.text for problem in problems]))
    assert unseen == []


def test_a_record_moved_far_contradicts_the_order(recorded: Traces) -> None:
    """A load of the peer's index that stands too early has seen what was not there yet."""
    server, client = recorded
    records = client.records
    source = random.Random(4)
    loads = places(records, Kind.LOAD, offset=Cell.LEFT_CONS)
    found = 0
    for late in source.sample(loads[len(loads) // 2 :], 10):
        early = places(records, Kind.CALL_ENTER, call=Call.WRITE)[1]
        moved = records[late : late + 1].copy()
        moved["call_seq"], moved["call"] = records["call_seq"][early], records["call"][early]
        kept = without(records, late)
        changed = np.concatenate([kept[: early + 1], moved, kept[early + 1 :]])
        rules = {problem.rule for problem in check_pair(server, with_records(client, changed))}
        assert rules <= {"order", "R1", "log"}
        found += bool(rules)
    assert found == 10


def test_a_cycle_names_its_four_records(recorded: Traces) -> None:
    """Each side sees the other's later index before it moves its own earlier one."""
    server, client = recorded
    first = places(server.records, Kind.RMW_PLAIN, offset=Cell.LEFT_CONS)
    loads = places(client.records, Kind.LOAD, offset=Cell.LEFT_CONS)
    last = int(server.records["new"][first[-1]])
    early = next(p for p in loads if client.records["old"][p] == 0)
    changed = setting(early, old=last, new=last)(client.records)
    # Later loads of smaller values would be told as going back: take them out.
    later = [p for p in loads if p > early and client.records["old"][p] != last]
    problems = check_pair(server, with_records(client, np.delete(changed, later)))
    assert {problem.rule for problem in problems} == {"order"}
    assert "came before" in problems[0].text


def test_the_server_is_checked_too(recorded: Traces) -> None:
    server, client = recorded
    records = server.records
    move = one_of(places(records, Kind.RMW_PLAIN, offset=Cell.LEFT_CONS))
    jumps = setting(move, new=int(records["old"][move]) + 5000)
    problems = check_pair(with_records(server, jumps(records)), client)
    assert ("server", move, "R1") in [(p.endpoint, p.record, p.rule) for p in problems]


HITS = [
    (Kind.NOTIFY, FaultKind.DROP, Flag.FAULT_INJECTED),
    (Kind.LOAD, FaultKind.DELAY, Flag.HELD),
    (Kind.RMW_PLAIN, FaultKind.DELAY, Flag.HELD_IN_VAIN),
]


def with_fault(records: Records, place: int, kind: int) -> Records:
    """With a fault of the kind before the record at a place."""
    fault = records[place : place + 1].copy()
    fault["kind"], fault["old"], fault["new"] = Kind.FAULT, 0, kind
    return np.insert(records, place, fault)


@pytest.mark.parametrize(("hit", "kind", "flag"), HITS)
def test_a_fault_must_hit_something(
    recorded: Traces, hit: Kind, kind: FaultKind, flag: Flag
) -> None:
    server, client = recorded
    place = one_of(places(client.records, hit, call=Call.WRITE))
    records = with_fault(client.records, place, kind)
    (problem,) = check_pair(server, with_records(client, records))
    assert problem.text == "A fault that hit nothing."
    records["flags"][place + 1] = flag
    assert check_pair(server, with_records(client, records)) == []
    records["new"][place] = 3 - kind
    told = {problem.text for problem in check_pair(server, with_records(client, records))}
    assert "A fault that hit nothing." in told
    assert len(told) == 2


def test_a_fault_of_no_known_kind_is_told(recorded: Traces) -> None:
    server, client = recorded
    records = with_fault(client.records, one_of(places(client.records, Kind.LOAD)), 99)
    problems = check_pair(server, with_records(client, records))
    assert [problem.text for problem in problems] == ["A fault of no known kind."]


def test_one_fault_holds_all_records_of_one_access(recorded: Traces) -> None:
    """A store over two cells is two records of one time; the next access is another one."""
    server, client = recorded
    place = one_of(places(client.records, Kind.LOAD, offset=Cell.LEFT_CONS))
    both = np.insert(client.records, place, client.records[place])
    records = with_fault(both, place, FaultKind.DELAY)
    records["flags"][place + 1 : place + 3] = Flag.HELD
    assert check_pair(server, with_records(client, records)) == []
    records["t0"][place + 2] += 1
    (problem,) = check_pair(server, with_records(client, records))
    assert problem.text == "A step was held, and no fault says so."


def test_ends_that_never_met_are_checked_alone(recorded: Traces) -> None:
    server, client = recorded
    records = client.records.copy()
    records["old"][records["kind"] == Kind.MAP_PAGE] += 1
    assert list(paired_sides(server, with_records(client, records))) == []
    records["new"][one_of(places(records, Kind.RMW_PLAIN, offset=Cell.LEFT_PROD))] += 5000
    rules = {problem.rule for problem in check_pair(server, with_records(client, records))}
    assert rules == {"R2"}


def test_a_bit_may_be_set_when_the_clearer_was_cut(recorded: Traces) -> None:
    server, client = recorded
    sets = effective(server.records, Cell.CLI_NOTIFY, up=True)
    clears = effective(client.records, Cell.CLI_NOTIFY, up=False)
    # Without its last clearings the client's trace is only legal if it was cut there.
    cut = clears[len(clears) // 2]
    short = client.records[:cut]
    complete = dataclasses.replace(client, records=short)
    assert len(sets) > 3
    assert "R4" in {problem.rule for problem in check_pair(server, complete)}
    assert check_pair(server, dataclasses.replace(complete, ending="cut")) == []


ROLES: tuple[Role, ...] = ("server", "client")


@settings(max_examples=80, deadline=None)
@given(role=st.sampled_from(ROLES), at=st.integers(0, 10**6), bit=st.integers(0, 31))
def test_a_changed_value_of_an_index_never_goes_unseen(
    recorded: Traces, role: Role, at: int, bit: int
) -> None:
    traces = list(recorded)
    which = ROLES.index(role)
    records = traces[which].records
    on_index = np.flatnonzero(
        (records["kind"] <= Kind.RMW_PLAIN)
        & (records["offset"] <= Cell.RIGHT_PROD)
        & (records["call"] > Call.CLIENT_INIT)
    )
    place = int(on_index[at % len(on_index)])
    changed = records.copy()
    changed["new"][place] ^= np.uint64(1 << bit)
    traces[which] = with_records(traces[which], changed)
    assert check_pair(traces[0], traces[1])
