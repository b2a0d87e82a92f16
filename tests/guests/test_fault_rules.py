"""Faults of an experiment: what is refused and with which words, and what the tracers get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment import Fault, parse_experiment
from vchan_testbed.guests.fault_rules import Act, Injection, Setting, injection_of, refusal
from vchan_testbed.guests.fault_steps import load_steps
from vchan_testbed.tracer.faults import FaultPlan
from vchan_testbed.tracer.layout import Cell, FaultKind

EXPERIMENT = """\
name: some
%s
server:
  - read: {bytes: 8, sizes: 8}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
client:
  - write: {bytes: 8, sizes: 8}
  - read: {bytes: 8, sizes: 8}
  - close
"""


def fault(at: str, do: str, side: str = "client", nth: int = 1, **rest: Any) -> Fault:
    return Fault(side, at, nth, do, **rest)


def setting(text: str = "about: nothing") -> Setting:
    return Setting.of(parse_experiment(EXPERIMENT % text, "x.yaml"))


REFUSED = [
    # the fault, its entry, what was found, what would do
    (fault("w_putt", "drop"), "at", "no action 'w_putt'", "k_bind"),
    (fault("dies", "kill"), "at", "no action 'dies'", "w_put"),
    (fault("i_share", "kill"), "at", "client never takes i_share", "k_bind"),
    (fault("call_recv", "kill"), "at", "does not come to call_recv", "call_read"),
    (fault("call_wait", "kill"), "at", "does not come to call_wait", "wait"),
    (fault("r_have", "drop"), "do", "drop does not apply to r_have", "corrupt, delay, kill, stale"),
    (fault("w_put", "stale"), "do", "stale does not apply to w_put", "repeat"),
    (fault("wait", "corrupt", xor=1), "do", "corrupt does not apply to wait", "delay, kill"),
    (fault("w_put", "drop", seconds=1.0), "seconds", "drop has no entry 'seconds'", "behind"),
    (fault("w_put", "kill", domain="client"), "domain", "no entry 'domain'", "nth"),
    (fault("w_put", "corrupt"), "do", "a value or a mask", "value, xor"),
    (fault("w_put", "corrupt", value=1, xor=1), "do", "a value or a mask", "value, xor"),
    (fault("w_arm", "corrupt", value=256), "value", "value is 256", "0 to 255"),
    (fault("w_arm", "corrupt", xor=0), "xor", "xor is 0", "1 to 255"),
    (fault("w_put", "delay"), "do", "for a time or until", "seconds, until"),
    (fault("w_put", "delay", seconds=1.0, until=("w_put", 1)), "do", "for a time", "seconds"),
    (fault("w_put", "delay", seconds=1.0, seconds_max=2.0), "seconds_max", "`until`", "Leave"),
    (fault("w_put", "delay", until=("cli_live", 256)), "until", "become 256", "0 to 255"),
    (fault("w_put", "delay", until=("w_put", 0)), "until", "counted from 1", "1 or more"),
    (fault("w_put", "delay", until=("k_live", 1)), "until", "server never takes", "left_cons"),
    (fault("w_put", "delay", until=("call_send", 1)), "until", "does not come", "srv_live"),
    (fault("w_put", "drop", behind=("i_bind", 1)), "behind", "client never takes i_bind", "w_put"),
    (fault("w_put", "unpause", domain="client"), "domain", "takes no step", "other side"),
]


@pytest.mark.parametrize(("given", "entry", "found", "expected"), REFUSED)
def test_what_makes_no_sense_is_refused(
    given: Fault, entry: str, found: str, expected: str
) -> None:
    wrong = refusal(given, setting())
    assert wrong is not None
    assert wrong.entry == entry
    assert found in wrong.found
    assert expected in wrong.expected
    with pytest.raises(InputError, match="makes no sense") as error:
        injection_of([given], setting())
    assert error.value.next_step == wrong.expected


def test_what_a_mode_never_takes_is_refused() -> None:
    loops = setting("channel: {blocking: false}")
    wrong = refusal(fault("w_live_again", "stale"), loops)
    assert wrong is not None
    assert "does not come to w_live_again" in wrong.found
    assert refusal(fault("call_wait", "delay", seconds=1.0), loops) is None
    calls = setting("tracing: {level: calls}")
    wrong = refusal(fault("w_put", "drop"), calls)
    assert wrong is not None
    assert "accesses are not caught" in wrong.found
    assert refusal(fault("w_raise", "drop"), calls) is None


@pytest.mark.parametrize("do", ["pause", "unpause", "destroy", "panic", "save"])
def test_dom0_is_left_alone(do: str) -> None:
    in_dom0 = setting("domains: {client: {type: dom0}}")
    wrong = refusal(fault("w_put", do, "server", domain="client"), in_dom0)
    assert wrong is not None
    assert "runs in dom0" in wrong.found
    assert refusal(fault("w_put", do, "client", domain="server"), in_dom0) is None


def test_more_than_16_at_one_side_are_refused() -> None:
    one = fault("w_put", "drop")
    assert len(injection_of([one] * 16, setting()).plans["client"].rules) == 16
    with pytest.raises(InputError, match="too many"):
        injection_of([one] * 17, setting())


def injected() -> Injection:
    return injection_of(
        [
            fault("w_put", "corrupt", nth=2, xor=4),
            fault("r_live", "delay", "server", until=("c_close", 1), behind=("w_put", 3)),
            fault("w_put", "delay", until=("left_cons", 7), seconds_max=2.0),
            fault("r_take", "destroy", "server"),
            fault("w_raise", "unpause"),
        ],
        setting(),
    )


def test_the_tracers_get_rules_and_the_runner_what_to_hand_on() -> None:
    injection = injected()
    numbers = load_steps().numbers
    client, server = injection.plans["client"], injection.plans["server"]
    assert client.rules == (
        (0, FaultKind.CORRUPT, 2, 0, 4, numbers["w_put"], 0, 1, 0, 0),
        (2_000_000_000, FaultKind.DELAY, 1, 0, 7, numbers["w_put"], 0, 0, 2, Cell.LEFT_CONS),
        (300_000_000_000, FaultKind.UNPAUSE, 1, 0, 0, numbers["w_raise"], 0, 0, 1, 0),
        # The close that the server waits for: only to be told of.
        (0, 0, 1, 0, 0, numbers["c_close"], 0, 0, 0, 0),
    )
    delay = (FaultKind.DELAY, 1, 3, 0, numbers["r_live"], numbers["w_put"], 0, 1, 0)
    assert server.rules[0][1:] == delay
    assert (client.faults, server.faults) == (3, 2)
    assert injection.relays == {("client", 0): ("server", 0)}
    assert injection.acts == {
        ("server", 1): Act("destroy", "server"),
        ("client", 2): Act("unpause", "server"),
    }


def test_a_plan_goes_through_json() -> None:
    plan = injected().plans["client"]
    assert FaultPlan.from_plain(json.loads(json.dumps(plan.to_plain()))) == plan


def test_an_end_without_faults_gets_no_table() -> None:
    plan = injection_of([fault("w_put", "drop")], setting()).plans["server"]
    assert plan == FaultPlan()
