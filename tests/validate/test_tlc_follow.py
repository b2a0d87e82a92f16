"""Lanes made by hand: which are behaviours of the spec, how they end, and why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.validate.lanes import (
    Candidate,
    FollowResult,
    Lane,
    Lanes,
    SpecParams,
    Start,
    State,
    Step,
)
from vchan_testbed.validate.tlc.actions import SPECS, load_action_map
from vchan_testbed.validate.tlc.follow import Bounds, follow
from vchan_testbed.validate.tlc.module import Search

RING = SpecParams(ring_bytes=4)
L1 = replace(RING, deviations=frozenset({"L1"}))

WRITE_3 = "s_call 3, s_live 1, s_space 4, s_put 3, s_test 1, s_raise, s_return 3"
READ_3 = "r_call 3, r_have 3, r_take 3, r_test 0, r_return 3"
ASLEEP = "r_call 9, r_have 0, r_arm {bit}, r_have_again 0, r_live 1"
CLOSE = "s_close, s_close_raise"
NOTHING_LEFT = "r_call 9, r_have 0, r_arm 0, r_have_again 0, r_live 0, r_return -1"


def steps(text: str) -> tuple[Step, ...]:
    """`"s_call 3, s_live 1, s_raise"`: actions with their values, 0 if there is none."""
    words = [part.split() for part in text.split(",") if part.strip()]
    return tuple(
        Step(word[0], int(word[1]) if len(word) > 1 else 0, record)
        for record, word in enumerate(words)
    )


def lanes(sender: str, receiver: str) -> Lanes:
    return Lanes(Lane(steps(sender)), Lane(steps(receiver)))


def cut(lane: str, death: str = "no", *, unlogged: bool = True) -> Lane:
    assert death in ("no", "may", "must")
    return Lane(steps(lane), unlogged=unlogged, death=death)  # type: ignore[arg-type]


def only_end(result: FollowResult) -> tuple[State, tuple[str, ...], frozenset[str]]:
    (end,) = result.ends
    return end.state, end.enabled, end.owed


def rejected_at(result: FollowResult) -> set[tuple[int, int]]:
    assert not result.accepted
    assert not result.undecided
    return {(position.sender, position.receiver) for position in result.frontier}


def candidates(result: FollowResult, side: str) -> set[tuple[str, int | None]]:
    return {
        (candidate.action, candidate.value)
        for position in result.frontier
        for candidate in position.candidates
        if candidate.side == side
    }


class TestAccepted:
    def test_a_write_and_a_read(self) -> None:
        result = follow(lanes(WRITE_3, READ_3), RING)
        state, enabled, owed = only_end(result)
        assert state["Got"] == state["Sent"] == ((1, 3),)
        assert (state["ring"], state["rPort"]) == ((), 1)
        assert (enabled, owed) == ((), frozenset())
        assert result.coverage["s_put"] == result.coverage["r_take"] == 1

    def test_a_close_is_seen_after_the_last_byte(self) -> None:
        sender, receiver = f"{WRITE_3}, {CLOSE}", f"{READ_3}, {NOTHING_LEFT}"
        result = follow(lanes(sender, receiver), RING)
        assert result.accepted
        assert {end.state["rTold"] for end in result.ends} == {True}
        assert {end.enabled for end in result.ends} == {()}
        # The look at the ring that no record shows has found nothing.
        assert result.coverage["r_final"] == 1

    def test_events_coalesce_or_do_not(self) -> None:
        sender = "s_away, r_spurious, r_spurious, s_back"
        ports = {end.state["rPort"] for end in follow(lanes(sender, ""), RING).ends}
        assert ports == {1, 2}

    def test_a_client_connects_while_the_server_writes(self) -> None:
        client = SpecParams(ring_bytes=4, notify_at_start=0, connects=True)
        sender = "s_call 1, s_live 1, s_space 4, s_put 1, s_test 0, s_return 1"
        receiver = "r_connect, s_spurious, r_call 1, r_have 1, r_take 1, r_test 0, r_return 1"
        assert follow(lanes(sender, receiver), client).accepted
        assert rejected_at(follow(lanes(WRITE_3, ""), client)) == {(4, 0)}

    def test_a_write_of_nothing_and_reads_that_decide_nothing(self) -> None:
        sender = "s_peek 4, s_call 0, s_live 1, s_peek_live 1, s_space 4, s_return 0"
        assert follow(lanes(sender, "r_peek_live 1, r_peek 0"), RING).accepted
        assert rejected_at(follow(lanes("s_peek 3", "r_peek 0"), RING)) == {(0, 1)}

    def test_a_size_beyond_32_bits_asks_for_all(self) -> None:
        receiver = f"r_call {2**62}, r_have 3, r_arm 1, r_have_again 3, r_take 3, r_test 0"
        sender = WRITE_3.replace("s_test 1, s_raise", "s_test 1, s_raise")
        late = receiver.replace("r_arm 1", "r_arm 0")
        assert follow(lanes(sender, late), RING).accepted

    def test_calls_that_saw_the_other_side_move_are_counted(self) -> None:
        receiver = (
            f"{ASLEEP.format(bit=1)}, r_wait, r_have 3, r_arm 0, r_have_again 3, "
            "r_take 3, r_test 0, r_return 3"
        )
        result = follow(lanes(WRITE_3, receiver), RING)
        assert result.accepted
        assert result.overlap == 1
        assert follow(lanes(WRITE_3, READ_3), RING).overlap == 0


class TestEnds:
    def test_idle_owes_nothing(self) -> None:
        result = follow(lanes(WRITE_3, f"{READ_3}, {ASLEEP.format(bit=0)}"), RING)
        assert {(end.state["rPort"], end.enabled) for end in result.ends} == {(1, ("r_wait",))}
        quiet = (
            f"{READ_3}, {ASLEEP.format(bit=0)}, r_wait, r_have 0, r_arm 1, r_have_again 0, r_live 1"
        )
        _, enabled, owed = only_end(follow(lanes(WRITE_3, quiet), RING))
        assert (enabled, owed) == ((), frozenset())

    def test_a_dropped_event_leaves_a_wait_due(self) -> None:
        state, enabled, owed = only_end(follow(lanes(WRITE_3, ASLEEP.format(bit=1)), RING))
        assert state["rPort"] == 1
        assert enabled == ("r_wait",)
        assert owed == {"bytes", "read"}

    def test_a_full_ring_waits_for_the_application(self) -> None:
        sender = (
            "s_call 6, s_live 1, s_space 4, s_arm 0, s_space_again 4, s_put 4, s_test 1, s_raise"
        )
        state, enabled, owed = only_end(follow(lanes(sender, ""), RING))
        assert state["pc"] >= frozenset({("s", "s_wait")})  # type: ignore[operator]
        assert enabled == ("r_call",)
        assert owed == {"bytes", "write"}

    def test_mid_call_the_library_is_due(self) -> None:
        _, enabled, _ = only_end(follow(lanes("s_call 1, s_live 1", ""), RING))
        assert enabled == ("s_space",)

    def test_an_end_that_was_not_told_is_owed(self) -> None:
        _, enabled, owed = only_end(follow(lanes(CLOSE, ""), RING))
        assert (enabled, set(owed)) == (("r_call",), {"end"})


class TestRejected:
    def test_a_wait_without_an_event(self) -> None:
        result = follow(lanes("", f"{ASLEEP.format(bit=1)}, r_wait"), RING)
        assert rejected_at(result) == {(0, 5)}
        assert candidates(result, "r") == set()

    def test_a_wait_too_many(self) -> None:
        again = "r_wait, r_have 0, r_arm 1, r_have_again 0, r_live 1, r_wait"
        result = follow(
            lanes("s_away, r_spurious, s_back", f"{ASLEEP.format(bit=1)}, {again}"), RING
        )
        assert rejected_at(result) == {(3, 10)}

    def test_bytes_that_are_not_there(self) -> None:
        result = follow(lanes(WRITE_3, READ_3.replace("r_have 3", "r_have 4")), RING)
        assert rejected_at(result) == {(7, 1)}
        # Each candidate says what the spec would have shown.
        assert candidates(result, "r") == {("r_have", 3)}

    @pytest.mark.parametrize("result", [2**32 + 3, -(2**32) + 3, -(2**63), 2**63 - 1])
    def test_a_result_beyond_32_bits_is_wrong_and_nothing_else(self, result: int) -> None:
        sender = WRITE_3.replace("s_return 3", f"s_return {result}")
        found = follow(lanes(sender, READ_3), RING)
        assert rejected_at(found) == {(6, 5)}
        assert ("s_return", 3) in candidates(found, "s")

    def test_more_taken_than_there_is(self) -> None:
        result = follow(lanes(WRITE_3, READ_3.replace("r_take 3", "r_take 4")), RING)
        assert rejected_at(result) == {(7, 2)}
        assert candidates(result, "r") == {("r_take", 3)}

    def test_an_early_end_is_l1(self) -> None:
        # No data, then closed, then the end: the bytes came between the first two.
        receiver = f"{ASLEEP.format(bit=1)}, r_return -1".replace("r_live 1", "r_live 0")
        sender = f"{WRITE_3}, {CLOSE}"
        result = follow(lanes(sender, receiver), RING)
        assert rejected_at(result) == {(9, 5)}
        assert candidates(result, "r") == {("r_final", None), ("r_have", 3)}
        known = follow(lanes(sender, receiver), L1)
        assert known.accepted
        for end in known.ends:
            assert end.state["ring"] == ((1, 3),)
            assert (end.enabled, set(end.owed)) == ((), {"bytes"})

    def test_several_maximal_positions_largest_sum_first(self) -> None:
        # Whichever of the two tests comes first clears the bit; each lane wants to be it.
        sender = "s_call 1, s_live 1, s_space 4, s_put 1, s_test 0"
        receiver = f"{ASLEEP.format(bit=1)}"
        result = follow(lanes(sender, receiver), RING)
        places = [(position.sender, position.receiver) for position in result.frontier]
        assert places == sorted(places, key=lambda at: (-sum(at), at[0]))
        assert places[0] == (4, 5)

    def test_the_candidates_belong_to_the_side_that_takes_them(self) -> None:
        result = follow(lanes("s_call 1, s_live 0", ""), RING)
        (position,) = result.frontier
        assert position.candidates == (
            Candidate("r", "r_call", None),
            Candidate("s", "s_live", 1),
        ) or position.candidates == (Candidate("s", "s_live", 1),)


class TestCutOff:
    def test_one_access_without_a_record(self) -> None:
        # Killed after the store of prod and before its record; the peer has seen the bytes.
        sender = "s_call 3, s_live 1, s_space 4"
        receiver = Lane(steps("r_call 3, r_have 3, r_take 3, r_test 0, r_return 3"))
        assert not follow(Lanes(Lane(steps(sender)), receiver), RING).accepted
        assert follow(Lanes(cut(sender), receiver), RING).accepted
        # Two accesses are too many.
        assert not follow(Lanes(cut("s_call 3, s_live 1"), receiver), RING).accepted

    def test_a_death_is_seen_by_the_peer(self) -> None:
        receiver = Lane(
            steps(
                f"{ASLEEP.format(bit=1)}, r_wait, {NOTHING_LEFT[10:]}".replace("r_arm 0", "r_arm 1")
            )
        )
        for death, accepted in (("no", False), ("may", True), ("must", True)):
            lane = cut("s_call 3, s_live 1", death, unlogged=False)
            assert follow(Lanes(lane, receiver), RING).accepted is accepted

    def test_who_must_be_dead_is_dead_in_every_end(self) -> None:
        alive = Lane(steps(""))
        for death, where in (("may", {"here", "gone"}), ("must", {"gone"})):
            result = follow(Lanes(cut("s_call 3, s_live 1", death), alive), RING)
            assert {end.state["sWhere"] for end in result.ends} == where


class TestPieces:
    def test_a_piece_starts_from_every_end_of_the_one_before(self) -> None:
        first = lanes("s_away, r_spurious, r_spurious, s_back", ASLEEP.format(bit=1))
        ends = [Start(end.state) for end in follow(first, RING).ends]
        assert {start.state["rPort"] for start in ends} == {1, 2}
        again = "r_wait, r_have 0, r_arm 1, r_have_again 0, r_live 1"
        second = lanes("", f"{again}, r_wait")
        # Only where the second event was not lost in the first can the second wait return.
        assert follow(second, RING, ends).accepted
        for start in ends:
            assert follow(second, RING, [start]).accepted is (start.state["rPort"] == 2)

    @pytest.mark.parametrize("reduce", [True, False])
    def test_positions_go_on_where_the_piece_before_ended(self, reduce: bool) -> None:
        search = Search(reduce=reduce)
        first = follow(lanes(WRITE_3, READ_3), RING, search=search)
        starts = [Start(end.state) for end in first.ends]
        write = WRITE_3.replace("s_test 1, s_raise", "s_test 0")
        second = follow(lanes(write, READ_3), RING, starts, search=search)
        assert {end.state["Got"] for end in second.ends} == {((1, 6),)}

    def test_pieces_with_bytes_in_the_ring(self) -> None:
        middle = follow(lanes(WRITE_3, "r_call 9, r_have 3, r_arm 0, r_have_again 3"), RING)
        rest = lanes("", "r_take 3, r_test 0, r_return 3")
        ends = follow(rest, RING, [Start(end.state) for end in middle.ends]).ends
        assert {(end.state["ring"], end.state["Got"]) for end in ends} == {((), ((1, 3),))}

    def test_no_start_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no state"):
            follow(lanes("", ""), RING, [])


class TestNoVerdict:
    def test_a_bound_on_states(self) -> None:
        result = follow(lanes(WRITE_3, READ_3), RING, bounds=Bounds(states_max=3))
        assert result.undecided == "states, 3"
        assert not result.frontier

    def test_a_bound_on_time(self) -> None:
        result = follow(lanes(WRITE_3, READ_3), RING, bounds=Bounds(seconds_max=0.01))
        assert result.undecided == "time, 0.01 s"

    def test_a_bound_on_memory(self) -> None:
        result = follow(lanes(WRITE_3, READ_3), RING, bounds=Bounds(heap_mib=2))
        assert result.undecided == "memory, a heap of 2 MiB"

    def test_more_bytes_than_positions(self) -> None:
        result = follow(lanes(f"s_call {2**31}", ""), RING)
        assert result.undecided.startswith("bytes")

    def test_no_search_at_all_is_no_rejection(self) -> None:
        # An assumption of the spec does not hold: TLC follows nothing, and ends without an error.
        with pytest.raises(TestbedError, match="before it had tried"):
            follow(lanes(WRITE_3, READ_3), replace(RING, ring_bytes=0))

    def test_a_step_that_its_lane_cannot_hold(self) -> None:
        for sender in ("r_have 0", "s_die", "s_dance"):
            with pytest.raises(TestbedError, match=f"'{sender.split()[0]}'.*lane"):
                follow(lanes(sender, ""), RING)

    def test_tlc_fails_with_its_last_lines(self, tmp_path: Path) -> None:
        for name in ("Vchan.tla", "Stream.tla", "Intervals.tla"):
            (tmp_path / name).write_text((SPECS / name).read_text())
        table = (SPECS / "vchan.actions.yaml").read_text()
        broken = tmp_path / "vchan.actions.yaml"
        broken.write_text(table.replace("shows: wrote,", "shows: written,"))
        with pytest.raises(TestbedError) as caught:
            follow(lanes(WRITE_3, READ_3), RING, actions=load_action_map(broken))
        assert "Unknown operator: `written'" in caught.value.console

    def test_what_is_not_an_action_map(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read"):
            load_action_map(tmp_path / "missing.yaml")
        (tmp_path / "a.yaml").write_text("module: Vchan\nactions: [")
        with pytest.raises(InputError, match="not an action map"):
            load_action_map(tmp_path / "a.yaml")
