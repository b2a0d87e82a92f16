"""Holds: an access waits for the peer, is seen to wait, and is written down; what is no fault."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vchan_testbed.errors import InputError
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.faults import rules_of
from vchan_testbed.tracer.layout import ACCESS_KINDS, NO_OFFSET, Call, Cell, FaultKind, Flag, Kind
from vchan_testbed.tracer.reader import Trace

if TYPE_CHECKING:
    from conftest import Domains, Remote, TracedPair

SECONDS_MAX = 20.0
DROP = {"do": "drop_notify", "nth": 1}
HOLD = {"do": "hold", "nth": 1, "call": "read", "cell": "cli_live", "until": ["cli_live", 0]}
"""The server's first read, if it has seen an empty ring, goes on when the client is gone."""


def hold(**changes: Any) -> dict[str, Any]:
    return HOLD | changes


NO_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"nth": 1}, "`do`"),
    (DROP | {"do": "drop_read"}, "`do`"),
    (DROP | {"nth": 0}, "`nth`"),
    (DROP | {"nth": True}, "`nth`"),
    (DROP | {"nth": 1 << 32}, "`nth`"),
    (DROP | {"bit": "both"}, "`bit`"),
    (hold(call="wait"), "`call`"),
    (hold(cell="left_order"), "`cell`"),
    (hold(access="both"), "`access`"),
    (hold(seconds_max=0), "`seconds_max`"),
    (hold(seconds_max=float("nan")), "`seconds_max`"),
    (hold(until=None), "`until`"),
    (hold(until={"cli_live": 0}), "`until`"),
    (hold(until=["right_order", 0]), "`until`"),
    (hold(until=["cli_live", 256]), "`until`"),
    (hold(until=["left_prod", 1 << 32]), "`until`"),
    (hold(until=["left_prod", -1]), "`until`"),
]


@pytest.mark.parametrize(("fault", "expected"), NO_FAULTS)
def test_what_is_no_fault_is_refused(fault: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match="cannot inject") as error:
        rules_of([fault])
    assert error.value.next_step.startswith(expected)


def test_there_is_room_for_16_faults() -> None:
    assert len(rules_of([DROP, HOLD] * 8)) == 16
    with pytest.raises(InputError, match="17 faults are too many"):
        rules_of([DROP] * 17)


def look(remote: Remote) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(remote("look"))
    return found


def until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not seen():
        assert time.monotonic() < deadline


def wait_until_held(remote: Remote) -> dict[str, Any]:
    """The look that sees it."""
    until(lambda: any(call["held"] for call in look(remote)["calls"]))
    return look(remote)


def faults_in(trace: Trace) -> list[tuple[int, int]]:
    """Number and kind of each fault."""
    records = trace.records[trace.records["kind"] == Kind.FAULT]
    assert set(records["offset"]) <= {NO_OFFSET}
    return [(int(fault["old"]), int(fault["new"])) for fault in records]


def held(trace: Trace, flag: Flag = Flag.HELD) -> list[tuple[int, int, int, int]]:
    """Kind, cell, new value and call of what was held, right behind its fault."""
    at = np.flatnonzero(trace.records["flags"] & flag)
    assert set(trace.records["kind"][at - 1]) <= {Kind.FAULT}
    return [tuple(row) for row in trace.records[["kind", "offset", "new", "call"]][at].tolist()]


def test_a_read_held_between_its_two_tests_loses_the_tail(traced: TracedPair) -> None:
    space = DROP | {"bit": "read"}
    traced.trace(server={"faults": [space, hold(access="load", nth=2)]})
    traced.connect()
    traced.client("write_all", b"x" * 100, [100])
    assert traced.server("read_all", 100, 100) == b"x" * 100
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
    assert faults_in(server) == [(1, FaultKind.HOLD)]
    assert held(server) == [(Kind.LOAD, Cell.CLI_LIVE, 0, Call.READ)]
    assert check_pair(server, client) == []


def test_what_does_not_come_is_not_waited_for_for_ever(traced: TracedPair) -> None:
    traced.trace(server={"faults": [hold(seconds_max=0.2)]})
    traced.connect()
    traced.server("background", "", "read_all", 4, 4)
    wait_until_held(traced.server)
    traced.client("write_all", b"data", [4])
    assert traced.server("join", "") == b"data"
    assert look(traced.server)["faults"] == ["in vain"]
    server, client = traced.end()
    assert held(server) == []
    assert held(server, Flag.HELD_IN_VAIN) == [(Kind.LOAD, Cell.CLI_LIVE, 1, Call.READ)]
    assert check_pair(server, client) == []


def test_a_store_is_held_and_the_loads_before_it_are_not(traced: TracedPair) -> None:
    """The close waits until all has been read: the same race, the other way round."""
    write = {"call": "write", "cell": "left_prod", "access": "store", "until": ["right_prod", 1]}
    close = {"call": "close", "access": "store", "until": ["left_cons", 100]}
    traced.trace(client={"faults": [hold(**write), hold(**close)]})
    traced.connect()
    traced.client("background", "", "write_all", b"x" * 100, [100])
    seen = wait_until_held(traced.client)
    assert seen["faults"] == ["held", "not yet"]
    assert traced.server("call", "write", b"y") == 1
    traced.client("join", "")
    traced.client("background", "", "close")
    wait_until_held(traced.client)
    assert traced.server("call", "is_open") == 1
    assert traced.server("read_all", 100, 100) == b"x" * 100
    traced.client("join", "")
    server, client = traced.end()
    assert held(client) == [
        (Kind.RMW_PLAIN, Cell.LEFT_PROD, 100, Call.WRITE),
        (Kind.STORE, Cell.CLI_LIVE, 0, Call.CLOSE),
    ]
    assert check_pair(server, client) == []


def test_an_index_counts_from_its_value_on(traced: TracedPair) -> None:
    traced.trace(server={"faults": [hold(cell="left_cons", until=["left_prod", 50])]})
    traced.connect()
    traced.client("write_all", b"x" * 100, [100])
    assert traced.server("read_all", 100, 100) == b"x" * 100
    server, client = traced.end()
    assert [(kind, cell) for kind, cell, *_ in held(server)] == [(Kind.LOAD, Cell.LEFT_CONS)]
    assert check_pair(server, client) == []


def test_a_call_without_the_access_is_not_held(traced: TracedPair) -> None:
    """Nor is a later one: it is the first read that was meant."""
    traced.trace(server={"faults": [HOLD]})
    traced.connect()
    traced.client("write_all", b"x" * 100, [100])
    assert traced.server("read_all", 100, 100) == b"x" * 100
    traced.server("background", "", "read_all", 4, 4)
    until(lambda: bool(look(traced.server)["calls"]))
    traced.client("write_all", b"data", [4])
    assert traced.server("join", "") == b"data"
    assert look(traced.server)["faults"] == ["not yet"]
    server, client = traced.end()
    assert faults_in(server) == []
    assert check_pair(server, client) == []


def test_nothing_else_is_changed_by_a_hold(traced: TracedPair) -> None:
    """But for the fault and its mark the records are those of a run without."""
    shown = []
    for name in ("without", "with"):
        pair = replace(traced, folder=traced.folder / name)
        pair.folder.mkdir()
        faults = [hold(cell="left_cons", until=["left_prod", 1])] if name == "with" else []
        pair.trace(server={"faults": faults})
        pair.connect()
        pair.client("write_all", b"x" * 100, [100])
        pair.server("read_all", 100, 100)
        server, client = pair.end()
        assert check_pair(server, client) == []
        accesses = server.records[np.isin(server.records["kind"], list(ACCESS_KINDS))]
        shown.append(accesses[["site", "kind", "offset", "old", "new", "call_seq"]].tolist())
    assert shown[0] == shown[1]


def test_a_trace_can_end_while_an_access_is_held(traced: TracedPair) -> None:
    """Then nothing is held any more."""
    traced.trace(server={"faults": [HOLD]})
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


@pytest.fixture
def sweeper(domains: Domains) -> Iterator[None]:
    """Takes away the keys of a server that does not live to do it."""
    yield
    remote = domains.process("traced_end.py", 1, PART="sweeper")
    remote("server", 2, "data/vchan", 4096, 4096, True)
    remote("close")


@pytest.mark.usefixtures("sweeper")
def test_killed_while_it_is_held(traced: TracedPair) -> None:
    traced.trace(server={"faults": [HOLD]})
    traced.connect()
    traced.server("background", "", "read_all", 4, 4)
    seen = wait_until_held(traced.server)
    traced.server.kill()
    until(lambda: not bytes.fromhex(look(traced.client)["page"])[Cell.SRV_LIVE])
    traced.client("close")
    traced.client("end_trace")
    server, client = traced.read()
    assert server.ending == "cut"
    assert len(server.records) == seen["records"]
    assert Kind(server.records["kind"][-1]) == Kind.FAULT
    assert check_pair(server, client) == []
