"""Which faults fit which action: read from the spec's tables, for every action of both sides."""

from __future__ import annotations

import pytest
import yaml

from vchan_testbed.guests.fault_steps import (
    ON_DOMAINS,
    SIDES,
    SPECS,
    actions,
    applicable,
    load_steps,
)
from vchan_testbed.tracer.faults import ACTIONS_MAX, ROWS_MAX
from vchan_testbed.tracer.layout import Call, Cell, FaultKind, Kind

SPEC = yaml.safe_load((SPECS / "libxenvchan.actions.yaml").read_text())["actions"]
NOT_SEEN_AHEAD = {"w_raise_fails", "r_raise_fails", "interrupted"}
"""That an operation fails is known when it has."""
EVERY_TIME = {"delay", "kill", *ON_DOMAINS}


def test_every_action_that_a_record_shows_can_be_named() -> None:
    shown = {
        name for name, entry in SPEC.items() if entry["record"] not in ("hidden", "death")
    } - NOT_SEEN_AHEAD
    assert set(actions("server")) | set(actions("client")) == shown
    for side, letter in zip(SIDES, "sr", strict=True):
        assert set(actions(side)) == {name for name in shown if letter in SPEC[name]["by"]}


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("w_put", {"drop", "repeat", "corrupt"}),
        ("r_arm", {"drop", "repeat", "corrupt"}),
        ("c_close", {"drop", "repeat", "corrupt"}),
        ("w_raise", {"drop", "repeat"}),
        ("unmask", {"drop", "repeat"}),
        ("r_have", {"stale", "corrupt"}),
        ("o_live", {"stale", "corrupt"}),
        ("wait", set()),
        ("call_read", set()),
        ("return", set()),
        ("c_give_back", set()),
    ],
)
def test_a_fault_fits_what_the_action_is(action: str, more: set[str]) -> None:
    for side in SIDES:
        assert set(applicable(action, side)) == EVERY_TIME | more


def test_every_fault_fits_somewhere_and_every_action_has_some() -> None:
    found = {side: {name: applicable(name, side) for name in actions(side)} for side in SIDES}
    every = {fault for of_side in found.values() for some in of_side.values() for fault in some}
    assert every == {kind.name.lower() for kind in FaultKind}
    assert all(len(some) >= 6 for of_side in found.values() for some in of_side.values())


@pytest.mark.parametrize(
    ("action", "side"),
    [("k_live", "server"), ("i_bind", "client"), ("dies", "server"), ("w_look", "client")],
)
def test_what_a_side_never_takes_has_no_faults(action: str, side: str) -> None:
    assert applicable(action, side) == []


def test_the_cell_of_an_action_is_that_of_the_side() -> None:
    steps = load_steps()
    assert steps.cell("w_put", "client") == Cell.LEFT_PROD
    assert steps.cell("w_put", "server") == Cell.RIGHT_PROD
    assert steps.cell("r_live", "server") == Cell.CLI_LIVE
    assert steps.cell("wait", "server") is None


def test_what_can_be_come_to_follows_from_the_calls() -> None:
    steps = load_steps()
    calls = [Call.CLIENT_INIT, Call.WRITE, Call.CLOSE]
    blocking = steps.taken_in("client", calls, blocking=True)
    assert {"k_live", "w_put", "wait", "w_live_again", "c_close", "return"} <= blocking
    assert not blocking & {"r_take", "call_read", "i_bind", "call_wait", "o_live"}
    # Who does not block waits in no call but wait, and so looks at the peer only once in each.
    loops = steps.taken_in("client", [*calls, Call.WAIT], blocking=False)
    assert blocking - loops == {"w_live_again"}
    assert loops - blocking == {"call_wait"}
    asks = steps.taken_in("server", [Call.DATA_READY], blocking=False)
    assert asks == {"call_data_ready", "r_arm", "r_have_again", "return"}


def test_the_tables_fit_into_the_tracers_core() -> None:
    steps = load_steps()
    assert sorted(steps.numbers.values()) == list(range(1, len(steps.numbers) + 1))
    assert len(steps.numbers) < ACTIONS_MAX
    for side in SIDES:
        rows = steps.rows_for(side)
        assert 0 < len(rows) < ROWS_MAX
        assert {row[2] for row in rows} <= {int(kind) for kind in Kind}
        assert all(row[4] < ACTIONS_MAX for row in rows)
