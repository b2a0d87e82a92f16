"""The parts around TLC that need no TLC: values, ports, positions, the order of steps."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchan_testbed.validate.lanes import Lane, Lanes, State, Step, Value
from vchan_testbed.validate.tlc.actions import GOES_FIRST, load_action_map
from vchan_testbed.validate.tlc.channel_first import NEVER
from vchan_testbed.validate.tlc.indices import overlap
from vchan_testbed.validate.tlc.module import hidden_actions
from vchan_testbed.validate.tlc.rebase import settled, size, with_first, without_first
from vchan_testbed.validate.tlc.rows import AtStart, rows_of
from vchan_testbed.validate.tlc.values import format_value, parse_value
from vchan_testbed.validate.tlc.wakeups import as_intervals, as_numbers

ACTIONS = load_action_map()

leaves = st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text("ab _", max_size=4)
values: st.SearchStrategy[Value] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["s", "r", "s closes"]), inner, min_size=1).map(
            lambda pairs: frozenset(pairs.items())
        )
    ),
    max_leaves=8,
)


@given(values)
def test_a_value_is_read_as_it_was_written(value: Value) -> None:
    assert parse_value(format_value(value)) == value


def test_values_as_tlc_prints_them() -> None:
    printed = '<<<<>>, -1, TRUE, ("s" :> "s_call" @@ "r closes" :> "Done"), [s |-> <<1, 2>>]>>'
    assert parse_value(printed) == (
        (),
        -1,
        True,
        frozenset({("s", "s_call"), ("r closes", "Done")}),
        frozenset({("s", (1, 2))}),
    )
    for broken in ("<<1", "", "1 2", "(1 2)", "?"):
        with pytest.raises(ValueError, match=r"\w"):
            parse_value(broken)


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_intervals_stand_for_exactly_the_states(pairs: set[tuple[int, int]]) -> None:
    states = {State.of({"sPort": s, "rPort": r, "have": 0}) for s, r in pairs}
    found: list[State] = []
    for state in as_intervals(states, ACTIONS):
        sender, receiver = state["sPort"], state["rPort"]
        assert isinstance(sender, tuple)
        assert isinstance(receiver, tuple)
        ranges = (range(int(str(a)), int(str(b)) + 1) for a, b in (sender, receiver))
        for s, r in product(*ranges):
            split = State.of({**state.as_dict(), "sPort": (s, s), "rPort": (r, r)})
            found.append(as_numbers(split, ACTIONS))
    assert len(found) == len(pairs)
    assert set(found) == states


def test_all_numbers_of_wakeups_are_one_state() -> None:
    states = [State.of({"sPort": s, "rPort": r}) for s in range(3) for r in range(3)]
    assert as_intervals(states, ACTIONS) == (State.of({"sPort": (0, 2), "rPort": (0, 2)}),)


def test_positions_move_and_come_back() -> None:
    state = State.of(
        {"Sent": ((1, 90),), "Got": ((1, 50),), "ring": ((51, 60),), "todo": ((61, 90),), "have": 7}
    )
    assert settled([state], ACTIONS) == {"stream": 50}
    moved = without_first(state, {"stream": 50}, ACTIONS)
    assert moved.as_dict() == {
        "Sent": ((1, 40),), "Got": (), "ring": ((1, 10),), "todo": ((11, 40),), "have": 7,
    }  # fmt: skip
    assert with_first(moved, {"stream": 50}, ACTIONS) == state
    assert size(((1, 40), (42, 42))) == 41


def test_positions_of_a_stream_with_a_gap() -> None:
    state = State.of({"Sent": ((1, 90),), "Got": ((1, 5), (7, 9)), "ring": (), "todo": ()})
    assert settled([state], ACTIONS) == {"stream": 5}
    moved = without_first(state, {"stream": 5}, ACTIONS)
    assert moved["Got"] == ((2, 4),)
    assert with_first(moved, {"stream": 5}, ACTIONS) == state


def after(sender: list[tuple[str, int]], receiver: list[tuple[str, int]]) -> tuple[list[int], ...]:
    """When each step of both lanes may go first."""
    lanes = Lanes(
        *(
            Lane(tuple(Step(action, value, at) for at, (action, value) in enumerate(side)))
            for side in (sender, receiver)
        )
    )
    rows = rows_of(lanes, ACTIONS, 4, AtStart(0, {"tellOfWrites": 1, "tellOfReads": 0}))
    return rows["s"].after.tolist(), rows["r"].after.tolist()


def test_an_index_moves_after_those_who_saw_it_unmoved() -> None:
    sender, receiver = after(
        [("s_put", 2), ("s_put", 1), ("s_space", 2)],
        [("r_have", 0), ("r_have", 2), ("r_take", 1), ("r_have", 2), ("r_take", 1)],
    )
    # The first put comes after the look that saw nothing, the second after the one that saw two;
    # the second take after the sender's look at two free bytes, before it.
    assert sender == [1, 2, 0]
    assert receiver == [0, 0, 0, 0, 3]


def test_the_changes_of_a_bit_take_turns() -> None:
    sender, receiver = after(
        [("s_test", 1), ("s_test", 0), ("s_test", 1)],
        [("r_arm", 1), ("r_arm", 0), ("r_arm", 1)],
    )
    # Set at the start. The first test comes after the arming that found it set and before the
    # one that found it clear; that one comes after the test that found it clear.
    assert sender == [1, 0, 3]
    assert receiver == [0, 2, 0]


def test_a_wait_never_goes_first() -> None:
    sender, receiver = after([("s_raise", 0)], [("r_wait", 0)])
    assert (sender, receiver) == ([0], [NEVER])


def test_nothing_conditional_goes_first_where_an_access_may_have_no_record() -> None:
    steps = tuple(Step(action, 1, 0) for action in ("s_put", "s_test", "s_raise", "s_close"))
    lanes = Lanes(Lane(steps), Lane((), unlogged=True))
    rows = rows_of(lanes, ACTIONS, 4, AtStart(0, {"tellOfWrites": 1}))
    assert set(rows["s"].after.tolist()) == {NEVER}


def test_overlap_needs_two_looks_in_one_call() -> None:
    receiver = [("r_call", 1), ("r_have", 0), ("r_have_again", 1), ("r_call", 1), ("r_have", 5)]
    lanes = Lanes(Lane(()), Lane(tuple(Step(a, v, 0) for a, v in receiver)))
    assert overlap(lanes, ACTIONS) == 1


def test_the_action_map_fits_the_spec() -> None:
    text = ACTIONS.spec.read_text()
    fair = set()
    for line in text.splitlines():
        if line.startswith("Fair") and "F_vars(" in line:
            fair.add(line.partition("F_vars(")[2].rstrip(")"))
    assert fair == {action.fair for action in ACTIONS.actions.values() if action.fair}
    labels = {
        line[:-1] for line in text.splitlines() if line[:2] in ("s_", "r_") and line[-1] == ":"
    }
    named = {action.name for action in ACTIONS.actions.values() if not action.stutters}
    assert labels == named
    assert hidden_actions(ACTIONS) == ["r_final"]
    assert {action.goes_first for action in ACTIONS.actions.values()} == set(GOES_FIRST)


def test_the_table_at_the_head_of_the_spec_has_every_action() -> None:
    head = ACTIONS.spec.read_text().partition("EXTENDS")[0]
    table = head[head.index("action          |") :]
    named = {
        word.strip(",") for line in table.splitlines() for word in line.partition("|")[0].split()
    }
    assert {action.name for action in ACTIONS.actions.values() if not action.stutters} <= named
