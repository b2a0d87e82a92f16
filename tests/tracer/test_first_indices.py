"""Rings whose indices begin near 2**32: a wrap in the middle of the traffic is nothing special."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.checks_cells import cell_problems
from vchan_testbed.tracer.checks_parts import paired_sides
from vchan_testbed.tracer.layout import Call, Cell, Flag, Kind

if TYPE_CHECKING:
    from conftest import TracedPair

LEFT, RIGHT = 2**32 - 296, 2**32 - 1024


def begin(traced: TracedPair) -> None:
    """A traced pair whose rings begin there."""
    traced.trace()
    traced.server("server", 2, "data/vchan", 4096, 1024, True)
    traced.server("call", "start_indices_at", LEFT, RIGHT)


def exchange(traced: TracedPair) -> None:
    """Several rings both ways, each end waiting for the other."""
    traced.client.start("write_all", bytes(range(250)) * 40, [900, 5000])
    assert traced.server("read_all", 10000, 1100) == bytes(range(250)) * 40
    traced.client.finish()
    traced.server.start("write_all", bytes(range(200)) * 20, [700, 3])
    assert traced.client("read_all", 4000, 500) == bytes(range(200)) * 20
    traced.server.finish()


def test_what_was_set_stands_behind_the_init(traced: TracedPair) -> None:
    begin(traced)
    traced.client("client", 1, "/local/domain/1/data/vchan", True)
    exchange(traced)
    server, client = traced.end()
    at = np.flatnonzero(server.records["flags"] & Flag.BY_APPLICATION)
    own = server.records[at]
    assert own[["kind", "call", "offset", "width", "old", "new"]].tolist() == [
        (Kind.STORE, Call.NONE, cell, 4, 0, value)
        for cell, value in (
            (Cell.LEFT_PROD, LEFT),
            (Cell.LEFT_CONS, LEFT),
            (Cell.RIGHT_PROD, RIGHT),
            (Cell.RIGHT_CONS, RIGHT),
        )
    ]
    before = server.records[at[0] - 1]
    assert (before["kind"], before["call"]) == (Kind.CALL_EXIT, Call.SERVER_INIT)
    moves = client.records[client.records["kind"] == Kind.RMW_PLAIN]
    puts = moves[moves["offset"] == Cell.LEFT_PROD]
    assert int(puts["new"][-1]) == (LEFT + 10000) % 2**32
    assert (puts["new"] < puts["old"]).sum() == 1
    assert check_pair(server, client) == []


def test_the_values_bind_the_ends_together_across_the_wrap(traced: TracedPair) -> None:
    begin(traced)
    traced.client("client", 1, "/local/domain/1/data/vchan", True)
    exchange(traced)
    server, client = traced.end()
    (sides,) = paired_sides(server, client)
    cells = cell_problems(*sides)
    assert cells.problems == []
    wrapped = np.flatnonzero(
        (client.records["offset"] == Cell.LEFT_PROD) & (client.records["new"] < 2**31)
    )
    first = client.records["kind"][cells.edges.client_first[0]]
    beyond = np.isin(cells.edges.client_first[0], wrapped) & (first == Kind.RMW_PLAIN)
    assert beyond.any()


def test_a_ring_that_was_used_cannot_begin_anew(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    traced.client("write_all", b"x" * 100, [100])
    traced.server("call", "start_indices_at", LEFT, RIGHT)
    server, client = traced.end()
    problems = check_pair(server, client)
    assert "R1" in {problem.rule for problem in problems}
    (told,) = {problem.text for problem in problems if "used already" in problem.text}
    assert told == f"An index that is to begin with {LEFT} was 100: its ring was used already."


def test_nor_behind_another_call(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    assert traced.server("call", "is_open") == 1
    traced.server("call", "start_indices_at", LEFT, RIGHT)
    server, client = traced.end()
    text = {p.text for p in check_pair(server, client) if p.rule == "R1"}
    assert f"An index is moved to {LEFT} by the side that must not." in text


@pytest.mark.parametrize("cell", [Cell.LEFT_PROD, Cell.RIGHT_CONS])
def test_a_ring_begins_empty(traced: TracedPair, cell: Cell) -> None:
    begin(traced)
    traced.client("client", 1, "/local/domain/1/data/vchan", True)
    server, client = traced.end()
    (place,) = np.flatnonzero(
        (server.records["flags"] == Flag.BY_APPLICATION) & (server.records["offset"] == cell)
    )
    server.records["new"][place] -= 8
    assert [p.rule for p in check_pair(server, client) if "not empty" in p.text] == ["R1"]


def test_an_index_read_as_before_it_was_set(traced: TracedPair) -> None:
    begin(traced)
    traced.client("client", 1, "/local/domain/1/data/vchan", True)
    exchange(traced)
    server, client = traced.end()
    (place, *_) = np.flatnonzero(
        (client.records["kind"] == Kind.LOAD) & (client.records["offset"] == Cell.LEFT_CONS)
    )
    assert client.records["old"][place] == LEFT
    client.records["old"][place] = client.records["new"][place] = 0
    assert check_pair(server, client) != []
