"""Ends that were killed are not accused, wherever it was, and the verdict says how far it goes.

The model's library is killed at each of its records in turn, also with one access made that left no
record. A verdict of REJECTED would accuse a library that has done nothing wrong.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played
from judging import judged, judged_scenario
from library_model import Build, Scenario, simulate

from vchan_testbed.errors import ExitStatus
from vchan_testbed.tracer.header import Role

BUILDS = (
    Build(),
    Build(hoists=False, exchanges=False, cons_first=True, adds_in_memory=False),
    Build(index_before_live=True, copies=False),
)
ECHO = Scenario(
    server=(("read", 1500), ("write", 700), ("read_to_end", 64), ("close",)),
    client=(("write", 1500), ("read", 700), ("close",)),
    burst=0.5,
)
BACK = Scenario(
    server=(("write", 500), ("read_to_end", 64), ("close",)),
    client=(("read", 500), ("write", 1500), ("close",)),
    burst=0.5,
)
ROLES: tuple[Role, Role] = ("server", "client")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scenario=st.sampled_from((ECHO, BACK)),
    build=st.sampled_from(BUILDS),
    seed=st.integers(0, 3),
    role=st.sampled_from(ROLES),
    share=st.floats(0, 1),
    unlogged=st.booleans(),
)
def test_a_killed_end_is_never_accused(
    tmp_path_factory: pytest.TempPathFactory,
    scenario: Scenario,
    build: Build,
    seed: int,
    role: Role,
    share: float,
    *,
    unlogged: bool,
) -> None:
    whole = replace(scenario, seed=seed, server_build=build, client_build=build)
    at = max(1, int(share * (len(simulate(whole).records(role)) - 1)))
    killed = replace(whole, kill=(role, at), unlogged=unlogged)
    _, verdict = judged_scenario(killed, tmp_path_factory.mktemp("run"))
    assert verdict.conformance in ("ACCEPTED", "KNOWN"), verdict.first_unexplained
    assert {use.id for use in verdict.known} <= {"L1"}
    assert verdict.progress != "VIOLATION", verdict.progress_reason


@pytest.mark.parametrize(
    "history",
    [
        # It had looked into the ring and copied its bytes, and moved the index.
        pytest.param("S.r64 C.w30:7 C.kill+ S..", id="put"),
        pytest.param("C.w30 S.r30:6 S.kill+ C.w1024", id="take"),
        # It had found too little and asked to be told.
        pytest.param("C.w1024 C.w8:5 C.kill+ S.r1024", id="arm for space"),
        pytest.param("C.w8 S.r8 S.r8:2 S.kill+ C.w8", id="arm for data"),
        pytest.param("S.r64 C.w30:9 C.kill+ S..", id="test"),
        pytest.param("C.w30:3 C.kill+ S.r64", id="look"),
        pytest.param("C.w30 C.close:0 C.kill+ S.r64", id="close"),
    ],
)
def test_the_access_that_left_no_record_is_found(history: str, tmp_path: Path) -> None:
    run, _ = played(History.of(history))
    verdict = judged(run, tmp_path)
    assert verdict.conformance == "ACCEPTED", verdict.first_unexplained


def test_who_dies_before_it_has_the_page_raises_no_event(tmp_path: Path) -> None:
    """The server waits for a client that was killed while it connected: the event channel's fault
    it is not."""
    scenario = replace(ECHO, kill=("client", 1), unlogged=True)
    run, verdict = judged_scenario(scenario, tmp_path)
    assert run.outcome == "stood still"
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "INCONCLUSIVE")
    assert verdict.fault_of is None


@pytest.mark.parametrize("role", ROLES)
def test_the_verdict_says_how_far_it_reaches(role: Role, tmp_path: Path) -> None:
    _, verdict = judged_scenario(replace(ECHO, kill=(role, 60)), tmp_path)
    assert any(f"The {role} was cut off: one access more" in note for note in verdict.notes)
    assert all("not judged" in note for note in verdict.notes if "was cut off" in note)


@pytest.mark.parametrize("role", ROLES)
def test_a_run_that_an_end_did_not_survive_has_not_passed(role: Role, tmp_path: Path) -> None:
    """Nothing is owed to the dead: but a library that crashes at its second call is no good one."""
    run = simulate(replace(ECHO, kill=(role, 150)))
    facts = run.facts()
    facts["endpoints"][role] = {"ended": "died", "signal": 11}
    verdict = judged(run, tmp_path, facts=facts)
    assert verdict.conformance in ("ACCEPTED", "KNOWN")
    assert verdict.progress == "INCONCLUSIVE"
    assert f"The {role} died before it was through" in verdict.progress_reason
    assert not verdict.expected
    assert verdict.exit_status == ExitStatus.UNDECIDED
    assert "console folder" in verdict.advice
