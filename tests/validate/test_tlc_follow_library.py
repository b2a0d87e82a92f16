"""Lanes of a whole channel, made by hand: which are behaviours of Libxenvchan, and how they end."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from one_jvm import follow_all

from vchan_testbed.validate.lanes import FollowResult, Lane, Lanes, SpecParams, Step, Value
from vchan_testbed.validate.tlc.actions import SPECS, load_action_map
from vchan_testbed.validate.tlc.follow import follow

ACTIONS = load_action_map(SPECS / "libxenvchan.actions.yaml")
Death = Literal["no", "may", "must"]

CLIENT = "k_bind, k_unmask, k_map, k_live, k_notify, k_raise"
SERVER = "i_bind, i_share"
CLOSE = "call_close, c_close, c_give_back, c_raise, return"


def params(
    *,
    blocking: str = "Always",
    left: int = 4,
    right: int = 4,
    first: tuple[int, int] = (0, 0),
    span: int = 2**30,
    spurious: int = 0,
    deviations: str = "",
) -> SpecParams:
    """Of a channel that is opened first."""
    given = {
        "SideOf": "<- ThreadSide",
        "LeftBytes": str(left),
        "RightBytes": str(right),
        "IndexSpan": str(span),
        "FirstLeft": str(first[0]),
        "FirstRight": str(first[1]),
        "Blocking": f"<- {blocking}Blocking",
    }
    return SpecParams(
        max(left, right),
        given=tuple(given.items()),
        spurious_max=spurious,
        deviations=frozenset(deviations.split()),
    )


BLOCKS = params()
NEVER = params(blocking="Never")


def steps(text: str) -> tuple[Step, ...]:
    """`"call_write 3, w_live 1, w_raise"`: actions with their values, 0 if there is none."""
    words = [part.split() for part in text.split(",") if part.strip()]
    return tuple(
        Step(word[0], int(word[1]) if len(word) > 1 else 0, record)
        for record, word in enumerate(words)
    )


def lanes(server: str, client: str, deaths: tuple[Death, Death] = ("no", "no")) -> Lanes:
    """What both do behind opening the channel."""
    return Lanes(
        Lane(steps(f"{SERVER}, {server}"), death=deaths[0]),
        Lane(steps(f"{CLIENT}, {client}"), death=deaths[1]),
    )


def followed(server: str, client: str, of: SpecParams = BLOCKS) -> FollowResult:
    return follow(lanes(server, client), of, actions=ACTIONS)


def part(result: FollowResult, variable: str, key: str) -> set[Value]:
    """What a function of the state has at a key, in the end states."""
    return {
        dict(cast(frozenset[tuple[str, Value]], end.state[variable]))[key] for end in result.ends
    }


def owed(result: FollowResult) -> set[str]:
    return {word for end in result.ends for word in end.owed}


def candidates(result: FollowResult, side: str) -> set[tuple[str, int | None]]:
    return {
        (one.action, one.value)
        for position in result.frontier
        for one in position.candidates
        if one.side == side
    }


def write(count: int, free: int, notify: int) -> str:
    """A write that finds room for all of it; `notify` is the byte that it tests."""
    raises = ", w_raise" if notify & 1 else ""
    return f"call_write {count}, w_live 1, w_space {free}, w_put {count}, w_test {notify}{raises}"


def read(count: int, held: int, notify: int) -> str:
    """A read that finds all that it asks for."""
    raises = ", r_raise" if notify & 2 else ""
    return f"call_read {count}, r_have {held}, r_take {count}, r_test {notify}{raises}"


WRITE_3 = f"{write(3, 4, 1)}, return 3"
READ_3 = f"{read(3, 3, 1)}, return 3"
BOTH_WAYS = (
    f"{READ_3}, {write(2, 4, 1)}, return 2",
    f"{WRITE_3}, {read(2, 2, 0)}, return 2",
)
LOOKS = "call_read 2, r_have 0, r_arm {byte}, r_have_again 0"
ASLEEP = f"{LOOKS.format(byte=1)}, r_live 1"
WOKEN = ", wait, unmask, r_have 0, r_arm 1, r_have_again 0"
AGAIN = f"{WOKEN}, r_live 1"


class TestAccepted:
    def test_one_write_each_way(self) -> None:
        result = followed(*BOTH_WAYS)
        assert result.accepted, result.frontier[:1]
        assert part(result, "Got", "left") == {((1, 3),)}
        assert part(result, "Got", "right") == {((1, 2),)}
        assert owed(result) == set()
        assert {end.enabled for end in result.ends} == {()}
        assert (result.coverage["w_put"], result.coverage["r_take"]) == (2, 2)

    def test_a_write_that_waits_for_room(self) -> None:
        client = (
            "call_write 6, w_live 1, w_space 4, w_arm 1, w_space_again 4, w_put 4, w_test 1,"
            "w_raise, wait, unmask, w_live_again 1, w_space 4, w_put 2, w_test 0, return 6"
        )
        server = "call_read 4, r_have 4, r_take 4, r_test 3, r_raise, return 4"
        result = followed(server, client)
        assert result.accepted, result.frontier[:1]
        assert part(result, "ring", "left") == {((5, 6),)}
        assert owed(result) == {"bytes left"}

    def test_packets(self) -> None:
        server = "call_recv 3, r_have 3, r_take 3, r_test 1, return 3"
        client = "call_send 3, w_live 1, w_space 4, w_put 3, w_test 1, w_raise, return 3"
        assert followed(server, client).accepted
        too_large = "call_send 5, w_live 1, w_space 4, w_arm 1, w_space_again 4, return -1"
        assert followed("", too_large).accepted

    def test_calls_that_do_not_block(self) -> None:
        server = "call_read 2, r_have 0, r_arm 1, r_have_again 0, r_live 1, return 0"
        client = (
            "call_write 6, w_live 1, w_space 4, w_arm 1, w_space_again 4, w_put 4, w_test 1,"
            "w_raise, return 4"
        )
        assert followed(server, client, NEVER).accepted
        assert not followed(server, client, BLOCKS).accepted

    def test_questions(self) -> None:
        server = (
            "call_data_ready, r_arm 0, r_have_again 3, return 3, call_is_open, o_live 1, return 1"
        )
        client = f"{WRITE_3}, call_buffer_space, w_arm 1, w_space_again 1, return 1"
        result = followed(server, client)
        assert result.accepted, result.frontier[:1]
        # Both have asked to be told.
        assert part(result, "notify", "client") == {1}
        assert part(result, "notify", "server") == {3}

    def test_a_wait_takes_the_event_of_another_direction(self) -> None:
        """What woke the server was a write; it waits by itself, and reads nothing."""
        result = followed("call_wait, wait, unmask, return", WRITE_3)
        assert result.accepted
        assert owed(result) == {"bytes left"}

    def test_indices_wrap(self) -> None:
        wraps = params(first=(6, 7), span=8)
        result = followed(*BOTH_WAYS, wraps)
        assert result.accepted
        assert part(result, "prod", "left") == {1}
        assert part(result, "cons", "right") == {1}


class TestTheEnd:
    def test_of_an_empty_ring(self) -> None:
        server = f"{READ_3}, {LOOKS.format(byte=0)}, r_live 0, return -1, {CLOSE}"
        result = followed(server, f"{WRITE_3}, {CLOSE}")
        assert result.accepted, result.frontier[:1]
        assert owed(result) == set()
        assert part(result, "told", "left") == {True}

    @pytest.mark.parametrize("deviations", ["", "L1"])
    def test_of_a_ring_that_is_not(self, deviations: str) -> None:
        """The server has looked before the last write, and does not look again."""
        server = f"{LOOKS.format(byte=1)}, r_live 0, return -1"
        result = followed(server, f"{WRITE_3}, {CLOSE}", params(deviations=deviations))
        assert result.accepted == bool(deviations)
        if not deviations:
            assert ("r_have", 3) in candidates(result, "s")

    def test_of_a_process(self) -> None:
        server = f"{ASLEEP}{WOKEN}, r_live 0, return -1"
        waits = lanes(server, "", ("no", "must"))
        result = follow(waits, BLOCKS, actions=ACTIONS)
        assert result.accepted, result.frontier[:1]
        assert part(result, "live", "client") == {0}
        lives = lanes(server, "", ("no", "no"))
        assert not follow(lives, BLOCKS, actions=ACTIONS).accepted


class TestWakeUps:
    def test_each_needs_an_event(self) -> None:
        assert followed(ASLEEP + AGAIN, "").accepted  # that of the opening
        result = followed(ASLEEP + 2 * AGAIN, "")
        assert not result.accepted
        assert not candidates(result, "s")

    @pytest.mark.parametrize(("spurious", "accepted"), [(0, False), (1, False), (2, True)])
    def test_from_nowhere_are_counted(self, spurious: int, accepted: bool) -> None:
        result = followed(ASLEEP + 3 * AGAIN, "", params(spurious=spurious))
        assert result.accepted == accepted
        if accepted:
            assert {end.state["awakened"] for end in result.ends} == {2}

    @pytest.mark.parametrize(("waits", "accepted"), [(1, True), (2, True), (3, False)])
    def test_two_events_may_become_one(self, waits: int, accepted: bool) -> None:
        """That of the opening and that of the write."""
        result = followed(waits * "call_wait, wait, unmask, return, ", WRITE_3)
        assert result.accepted == accepted
        if waits == 1:
            assert part(result, "port", "server") >= {(0, False, 2), (1, False, 2)}


def test_each_value_counts() -> None:
    """Of every step that shows one: with another value it is no behaviour."""
    whole = lanes(*BOTH_WAYS)
    cases = [whole]
    for lane in ("sender", "receiver"):
        old = getattr(whole, lane)
        for at, step in enumerate(old.steps):
            if not ACTIONS.actions[step.action].shows:
                continue
            for value in (step.value - 1, step.value + 1):
                other = (*old.steps[:at], replace(step, value=value), *old.steps[at + 1 :])
                cases.append(replace(whole, **{lane: replace(old, steps=other)}))
    found, starts = follow_all([(case, BLOCKS) for case in cases], actions=ACTIONS, explain=False)
    assert [result.accepted for result in found] == [True] + [False] * (len(cases) - 1)
    assert len(cases) > 40
    assert starts == 1
