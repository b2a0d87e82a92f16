"""Faults at the steps of two processes: what the peer sees of each, and what the traces say."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vchan_testbed.errors import InputError
from vchan_testbed.guests.fault_steps import actions, load_steps
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.faults import FaultPlan
from vchan_testbed.tracer.layout import ACCESS_KINDS, Call, Cell, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.prepare import prepare

if TYPE_CHECKING:
    from conftest import Domains, TracedPair

sys.path.insert(0, str(Path(__file__).parent))

from injected import faults, faults_in, hit, in_page, look, page, until, wait_until_held

DATA = b"x" * 100
INJECTED = Flag.FAULT_INJECTED


def at(side: str, action: str, do: str, **rest: Any) -> dict[str, Any]:
    """A fault."""
    return {"side": side, "at": action, "do": do, **rest}


def held_read(**changes: Any) -> dict[str, Any]:
    """The server's first read that has found the ring empty goes on when the client is gone."""
    return at("server", "r_live", "delay", until=("cli_live", 0)) | changes


# ---- delay ----


def test_a_read_held_between_its_two_tests_loses_the_tail(traced: TracedPair) -> None:
    never = at("server", "r_raise", "drop")
    traced.trace(**faults(never, held_read()))
    traced.connect()
    traced.client("write_all", DATA, [100])
    assert traced.server("read_all", 100, 100) == DATA
    traced.server("background", "", "read_to_end", 64)
    seen = wait_until_held(traced.server)
    assert seen["faults"] == ["not yet", "held"]
    assert [(call["call"], call["held"]) for call in seen["calls"]] == [("read", True)]
    traced.client("write_all", b"tail", [4])
    # It waits for the peer to be gone, not for any change.
    assert wait_until_held(traced.server)["records"] == seen["records"]
    traced.client("close")
    assert traced.server("join", "") == b""
    assert look(traced.server)["faults"] == ["not yet", "done"]
    server, client = traced.end()
    assert faults_in(server) == [(1, FaultKind.DELAY)]
    assert hit(server) == [(Kind.LOAD, Cell.CLI_LIVE, 0, Call.READ)]
    assert check_pair(server, client) == []


def test_what_does_not_come_is_not_waited_for_for_ever(traced: TracedPair) -> None:
    traced.trace(**faults(held_read(seconds_max=0.2)))
    traced.connect()
    traced.server("background", "", "read_all", 4, 4)
    wait_until_held(traced.server)
    traced.client("write_all", b"data", [4])
    assert traced.server("join", "") == b"data"
    assert look(traced.server)["faults"] == ["in vain"]
    server, client = traced.end()
    assert hit(server) == []
    assert hit(server, Flag.HELD_IN_VAIN) == [(Kind.LOAD, Cell.CLI_LIVE, 1, Call.READ)]
    assert check_pair(server, client) == []


def test_nobody_waits_for_a_peer_that_is_over(traced: TracedPair) -> None:
    """What it waits for had not come by then; what has come is still seen."""
    fault = held_read(until=("c_close", 1), seconds_max=3600)
    traced.trace(**faults(fault))
    traced.connect()
    traced.server("background", "", "read_all", 4, 4)
    wait_until_held(traced.server)
    traced.client("write_all", b"data", [4])
    traced.server("peer_is_over")
    assert traced.server("join", "") == b"data"
    assert look(traced.server)["faults"] == ["in vain"]
    traced.end()


def test_a_delay_lasts_for_its_time(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "w_put", "delay", seconds=0.3)))
    traced.connect()
    began = time.monotonic()
    traced.client("write_all", DATA, [100])
    assert time.monotonic() - began >= 0.3
    assert look(traced.client)["faults"] == ["done"]
    assert traced.server("read_all", 100, 100) == DATA
    server, client = traced.end()
    assert hit(client) == [(Kind.RMW_PLAIN, Cell.LEFT_PROD, 100, Call.WRITE)]
    assert check_pair(server, client) == []


def test_a_delay_ends_when_the_peer_has_done_what_is_waited_for(traced: TracedPair) -> None:
    """Whoever runs both tells the one what the other has done: here it is the test."""
    fault = at("server", "call_read", "delay", nth=2, until=("w_put", 3), seconds_max=60)
    traced.trace(**faults(fault))
    traced.connect()
    traced.client("write_all", DATA, [50])
    assert traced.server("call", "read", 100) == DATA
    traced.server("background", "", "read_all", 100, 100)
    seen = wait_until_held(traced.server)
    # It is held before its call has begun.
    assert [call["call"] for call in seen["calls"]] == ["none"]
    assert look(traced.client)["told"] == [False]
    traced.client("write_all", DATA, [100])
    until(lambda: look(traced.client)["told"] == [True])
    assert wait_until_held(traced.server)["faults"] == ["held"]
    traced.server("release", 0, True)
    assert traced.server("join", "") == DATA
    assert look(traced.server)["faults"] == ["done"]
    server, client = traced.end()
    assert [(kind, call) for kind, _, _, call in hit(server)] == [(Kind.CALL_ENTER, Call.READ)]
    assert check_pair(server, client) == []


def test_what_was_released_before_it_came_is_not_held(traced: TracedPair) -> None:
    traced.trace(**faults(held_read(until=("w_put", 1), seconds_max=3600)))
    traced.connect()
    traced.server("release", 0, True)
    traced.server("background", "", "read_all", 4, 4)
    until(lambda: look(traced.server)["faults"] == ["done"])
    traced.client("write_all", b"data", [4])
    assert traced.server("join", "") == b"data"
    traced.end()


def test_a_store_is_held_and_the_loads_before_it_are_not(traced: TracedPair) -> None:
    """The close waits until all has been read: the same race, the other way round."""
    write = at("client", "w_put", "delay", until=("right_prod", 1))
    close = at("client", "c_close", "delay", until=("left_cons", 100))
    traced.trace(**faults(write, close))
    traced.connect()
    traced.client("background", "", "write_all", DATA, [100])
    seen = wait_until_held(traced.client)
    assert seen["faults"] == ["held", "not yet"]
    assert traced.server("call", "write", b"y") == 1
    traced.client("join", "")
    traced.client("background", "", "close")
    wait_until_held(traced.client)
    assert traced.server("call", "is_open") == 1
    assert traced.server("read_all", 100, 100) == DATA
    traced.client("join", "")
    server, client = traced.end()
    assert hit(client) == [
        (Kind.RMW_PLAIN, Cell.LEFT_PROD, 100, Call.WRITE),
        (Kind.STORE, Cell.CLI_LIVE, 0, Call.CLOSE),
    ]
    assert check_pair(server, client) == []


def test_a_step_is_counted_from_behind_another_one(traced: TracedPair) -> None:
    fault = at("client", "w_put", "delay", nth=2, behind=("r_take", 1), seconds=0.001)
    traced.trace(**faults(fault))
    traced.connect()
    traced.client("write_all", DATA, [20])
    traced.server("call", "write", b"y")
    traced.client("read_all", 1, 1)
    traced.client("write_all", DATA, [20])
    assert hit(traced.end()[1]) == [(Kind.RMW_PLAIN, Cell.LEFT_PROD, 140, Call.WRITE)]


def test_nothing_else_is_changed_by_a_delay(traced: TracedPair) -> None:
    """But for the fault and its mark the records are those of a run without."""
    shown = []
    for name in ("without", "with"):
        pair = replace(traced, folder=traced.folder / name)
        pair.folder.mkdir()
        fault = at("server", "r_take", "delay", until=("left_prod", 1))
        pair.trace(**(faults(fault) if name == "with" else {}))
        pair.connect()
        pair.client("write_all", DATA, [100])
        pair.server("read_all", 100, 100)
        server, client = pair.end()
        assert check_pair(server, client) == []
        accesses = server.records[np.isin(server.records["kind"], list(ACCESS_KINDS))]
        shown.append(accesses[["site", "kind", "offset", "old", "new", "call_seq"]].tolist())
    assert shown[0] == shown[1]


def test_a_trace_can_end_while_a_step_is_held(traced: TracedPair) -> None:
    """Then nothing is held any more."""
    traced.trace(**faults(held_read()))
    traced.connect()
    traced.server("background", "", "read_all", 4, 4)
    wait_until_held(traced.server)
    traced.server("end_trace")
    traced.client("write_all", b"data", [4])
    assert traced.server("join", "") == b"data"
    for remote in (traced.client, traced.server):
        remote("close")
    traced.client("end_trace")
    server, _ = traced.read()
    assert server.ending == "complete"
    assert Kind(server.records["kind"][-1]) == Kind.FAULT


# ---- drop, repeat ----


def test_an_index_that_is_not_stored_is_not_seen(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "w_put", "drop", nth=2)))
    traced.connect()
    traced.client("write_all", DATA, [50])
    assert look(traced.client)["faults"] == ["done"]
    assert page(traced.client)[Cell.LEFT_PROD] == 50
    assert traced.server("call", "data_ready") == 50
    server, client = traced.end()
    # The record has what the library meant, and the fault what the page has instead.
    assert hit(client, INJECTED) == [(Kind.RMW_PLAIN, Cell.LEFT_PROD, 100, Call.WRITE)]
    assert in_page(client) == [50]
    # The server looked when the close had come, and did not see what was written before that.
    assert {problem.rule for problem in check_pair(server, client)} == {"order"}


def test_a_notify_bit_that_is_not_set_asks_for_nothing(traced: TracedPair) -> None:
    traced.trace(**faults(at("server", "r_arm", "drop")))
    traced.connect()
    assert traced.client("call", "write", b"y" * 8) == 8
    before = page(traced.server)[Cell.CLI_NOTIFY]
    assert traced.server("call", "read", 8) == b"y" * 8
    traced.server("call", "data_ready")
    assert page(traced.server)[Cell.CLI_NOTIFY] == before
    server, _ = traced.end()
    ((_, cell, new, _),) = hit(server, INJECTED)
    assert (cell, new & 1) == (Cell.CLI_NOTIFY, 1)
    assert in_page(server) == [before]


def test_a_live_byte_that_is_not_stored_leaves_the_end_open(traced: TracedPair) -> None:
    late = at("client", "c_give_back", "delay", until=("right_prod", 1))
    traced.trace(**faults(at("client", "c_close", "drop"), late))
    traced.connect()
    traced.client("background", "", "close")
    wait_until_held(traced.client)
    assert traced.server("call", "is_open") == 1
    assert traced.server("call", "write", b"y") == 1
    traced.client("join", "")
    # The kernel clears it all the same when the page is given back.
    assert traced.server("call", "is_open") == 0
    _, client = traced.end()
    assert hit(client, INJECTED) == [(Kind.STORE, Cell.CLI_LIVE, 0, Call.CLOSE)]
    assert in_page(client) == [1]


def test_an_index_that_is_stored_twice_has_moved_twice(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "w_put", "repeat")))
    traced.connect()
    assert traced.client("call", "write", DATA) == 100
    assert traced.server("call", "data_ready") == 200
    server, client = traced.end()
    assert hit(client, INJECTED) == [(Kind.RMW_PLAIN, Cell.LEFT_PROD, 100, Call.WRITE)]
    assert in_page(client) == [200]
    assert "never written" in check_pair(server, client)[0].text


def test_a_byte_that_is_stored_twice_is_as_if_once(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "k_notify", "repeat"), at("client", "w_raise", "repeat")))
    traced.connect()
    traced.client("write_all", DATA, [100])
    assert traced.server("read_all", 100, 100) == DATA
    server, client = traced.end()
    assert (Kind.STORE, Cell.SRV_NOTIFY, 1, Call.CLIENT_INIT) in hit(client, INJECTED)
    assert in_page(client)[0] == 1
    assert check_pair(server, client) == []


# ---- stale, corrupt ----


def test_a_stale_load_returns_the_value_before_the_last_change(traced: TracedPair) -> None:
    # The library looks once more when it finds less than it was asked for.
    again = at("server", "r_have_again", "stale")
    traced.trace(**faults(at("server", "r_have", "stale", nth=2), again))
    traced.connect()
    for size in (10, 20):
        traced.client("write_all", b"x" * size, [size])
        if size == 10:
            assert traced.server("call", "read", 4) == b"x" * 4
    # Of the 26 bytes that are there it sees the 6 that were.
    assert traced.server("call", "read", 26) == b"x" * 6
    assert look(traced.server)["faults"] == ["done", "done"]
    server, client = traced.end()
    seen = hit(server, INJECTED)
    assert set(seen) == {(Kind.LOAD, Cell.LEFT_PROD, 10, Call.READ)}
    assert set(in_page(server)) == {30}
    assert faults_in(server) == [(0, FaultKind.STALE), (1, FaultKind.STALE)]
    assert {problem.rule for problem in check_pair(server, client)} <= {"order"}


def test_a_load_without_an_earlier_value_is_stale_in_vain(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "w_live", "stale")))
    traced.connect()
    traced.client("write_all", DATA, [100])
    assert look(traced.client)["faults"] == ["in vain"]
    assert traced.server("read_all", 100, 100) == DATA
    server, client = traced.end()
    assert faults_in(client) == []
    assert check_pair(server, client) == []


def test_a_corrupt_load_is_what_the_library_saw(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "w_live", "corrupt", value=0, nth=2)))
    traced.connect()
    assert traced.client("call", "write", b"x") == 1
    assert "PeerGone" in str(traced.client.fails("call", "write", b"x"))
    assert traced.client("call", "write", b"x") == 1
    server, client = traced.end()
    assert hit(client, INJECTED)[0] == (Kind.LOAD, Cell.SRV_LIVE, 0, Call.WRITE)
    assert in_page(client)[0] == 1
    assert check_pair(server, client) != []


def test_a_corrupt_store_is_what_the_page_has(traced: TracedPair) -> None:
    traced.trace(**faults(at("client", "w_put", "corrupt", xor=0x4)))
    traced.connect()
    assert traced.client("call", "write", DATA) == 100
    assert traced.server("call", "data_ready") == 100 ^ 4
    server, client = traced.end()
    assert hit(client, INJECTED) == [(Kind.RMW_PLAIN, Cell.LEFT_PROD, 100, Call.WRITE)]
    assert in_page(client) == [100 ^ 4]
    assert "never written" in check_pair(server, client)[0].text


def test_a_corrupt_notify_byte(traced: TracedPair) -> None:
    traced.trace(**faults(at("server", "w_arm", "corrupt", value=0xF0)))
    traced.connect()
    traced.server("call", "buffer_space")
    assert page(traced.server)[Cell.CLI_NOTIFY] == 0xF0
    server, _ = traced.end()
    ((_, cell, new, _),) = hit(server, INJECTED)
    assert (cell, new & 2) == (Cell.CLI_NOTIFY, 2)
    assert in_page(server) == [0xF0]


# ---- kill ----


@pytest.fixture
def sweeper(domains: Domains) -> Iterator[None]:
    """Takes away the keys of a server that does not live to do it."""
    yield
    remote = domains.process("traced_end.py", 1, PART="sweeper")
    remote("server", 2, "data/vchan", 4096, 4096, True)
    remote("close")


@pytest.mark.usefixtures("sweeper")
def test_killed_while_it_is_held(traced: TracedPair) -> None:
    traced.trace(**faults(held_read()))
    traced.connect()
    traced.server("background", "", "read_all", 4, 4)
    seen = wait_until_held(traced.server)
    traced.server.kill()
    until(lambda: not page(traced.client)[Cell.SRV_LIVE])
    traced.client("close")
    traced.client("end_trace")
    server, client = traced.read()
    assert server.ending == "cut"
    assert len(server.records) == seen["records"]
    assert Kind(server.records["kind"][-1]) == Kind.FAULT
    assert check_pair(server, client) == []


@pytest.mark.parametrize(
    ("action", "before"),
    [("r_take", Kind.COPY), ("r_raise", Kind.CMPXCHG_OK), ("call_read", Kind.CALL_EXIT)],
)
@pytest.mark.usefixtures("sweeper")
def test_a_process_dies_at_its_step(traced: TracedPair, action: str, before: Kind) -> None:
    traced.trace(**faults(at("server", action, "kill")))
    traced.connect()
    # So many that the client cannot be through without what the server does no more.
    traced.client.start("write_all", b"x" * 30000, [5000])
    traced.server.start("read_all", 30000, 5000)
    until(lambda: not traced.server.alive)
    assert traced.server.status == -signal.SIGKILL
    assert "PeerGone" in str(traced.client.finish_fails())
    traced.client("close")
    traced.client("end_trace")
    server, client = traced.read()
    assert server.ending == "cut"
    assert faults_in(server) == [(0, FaultKind.KILL)]
    last = [Kind(kind) for kind in server.records["kind"][-2:]]
    assert last[-1] == Kind.FAULT
    if action != "r_raise":
        assert last[0] in (before, Kind.ATTACH)
    assert check_pair(server, client) == []


# ---- which step is which ----


def exchange(traced: TracedPair, options: dict[str, dict[str, Any]]) -> tuple[Trace, Trace]:
    """A conversation in which both ends come to every step but those of packets and failures."""
    traced.trace(**options)
    traced.connect(4096, 4096)
    traced.client.start("write_all", b"x" * 20000, [3000, 5000])
    assert traced.server("read_all", 20000, 1500) == b"x" * 20000
    traced.client.finish()
    traced.server.start("write_all", b"y" * 20000, [3000, 5000])
    assert traced.client("read_all", 20000, 1500) == b"y" * 20000
    traced.server.finish()
    for remote in (traced.server, traced.client):
        remote("call", "data_ready")
        remote("call", "buffer_space")
        remote("call", "is_open")
    traced.client("call", "send", b"x" * 64)
    assert traced.server("call", "recv", 64) == b"x" * 64
    traced.server("call", "send", b"x" * 64)
    assert traced.client("call", "recv", 64) == b"x" * 64
    return traced.end()


@pytest.mark.parametrize("half", [0, 1, 2])
def test_a_step_is_that_which_the_merge_takes_it_for(traced: TracedPair, half: int) -> None:
    """Each named step is held for no time: what was held is a record of that step in its lane."""
    names = {side: actions(side)[half * 16 : half * 16 + 16] for side in ("server", "client")}
    some = [at(side, name, "delay", seconds=1e-6) for side in names for name in names[side]]
    server, client = exchange(traced, faults(*some))
    assert check_pair(server, client) == []
    case = prepare(traced.path("server"), traced.path("client"), None)
    assert case.channel is not None
    for side, trace in (("server", server), ("client", client)):
        lane = case.channel.lanes.lane("s" if side == "server" else "r")
        for name in names[side]:
            rows = lane.rows[lane.where(name)]
            place = fault_of(trace, names[side].index(name))
            assert (place is not None) == bool(len(rows)), (side, name)
            if place is not None:
                assert_is_first(trace, name, place, int(rows[0]))


def fault_of(trace: Trace, number: int) -> int | None:
    """The record that was hit by a fault, by the fault's number."""
    marks = (trace.records["kind"] == Kind.FAULT) & (trace.records["old"] == number)
    found = np.flatnonzero(marks)
    return int(found[0]) + 1 if len(found) else None


def assert_is_first(trace: Trace, name: str, held: int, row: int) -> None:
    """It is the record of the lane, or the first of several loads of which the last one decides."""
    assert trace.records["flags"][held] & Flag.HELD, name
    steps = load_steps()
    # Of a compare and exchange that the peer came before it was the first try that was held.
    assert Kind(trace.records["kind"][held]) in {*steps.kinds(name), Kind.CMPXCHG_FAIL}, name
    between = set(trace.records["kind"][held:row])
    assert held <= row, name
    assert between <= {Kind.LOAD, Kind.CMPXCHG_FAIL}, name
    assert trace.records["offset"][held] == trace.records["offset"][row], name


# ---- plans ----


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"rows": [], "rules": [], "faults": 1},
        {"rows": [[1, 2]], "rules": [], "faults": 0},
        {"rows": [], "rules": [[0] * 10] * 65, "faults": 0},
        {"rows": [], "rules": [[0] * 10] * 17, "faults": 17},
    ],
)
def test_what_is_no_plan_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot inject this plan"):
        FaultPlan.from_plain(plan)
