"""A domain that goes while its peer waits: nobody tells, which the library's spec calls L9.

The test bed ends the domain while a thread of its process is held at a step, so all of its records
are there and its peer is judged to the end.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judging import LIBRARY
from library_model import Run, Scenario, simulate

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Kind
from vchan_testbed.validate.explain import headline
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.liveness import DOMAIN_GONE
from vchan_testbed.validate.verdict import Verdict

READS = Scenario(
    server=(("read", 500), ("read", 10), ("close",)),
    client=(("write", 500), ("is_open",), ("write", 10), ("close",)),
)
"""The server reads on when the client has gone."""
WRITES = Scenario(
    server=(("write", 9000), ("close",)), client=(("read", 100), ("is_open",), ("close",))
)
"""The server fills the ring for nobody."""


def lost_at(scenario: Scenario, call: Call, role: Role = "client", **more: Any) -> Run:
    """The domain of `role` goes at its first access of that call."""
    records = simulate(scenario).records(role)
    entered = (records["kind"] == Kind.CALL_ENTER) & (records["call"] == call)
    at = int(entered.nonzero()[0][0]) + 1
    return simulate(replace(scenario, lose=(role, at), **more))


def judged(run: Run, folder: Path, facts: dict[str, Any] | None = None) -> Verdict:
    """By TLC and the spec of the library: the protocol's has no domain that goes."""
    paths = run.write(folder)
    known = facts or run.facts()
    return judge_traces(paths["server"], paths["client"], known, options=Options(tables=LIBRARY))


def is_stalled(verdict: Verdict) -> bool:
    """As it has to be said of a domain that is gone."""
    return (
        verdict.conformance == "KNOWN"
        and [use.id for use in verdict.known] == ["L9"]
        and (verdict.progress, verdict.fault_of) == ("STALLED", DOMAIN_GONE)
    )


@pytest.mark.parametrize("scenario", [READS, WRITES])
def test_a_peer_that_waits_for_ever_is_nobodys_fault(scenario: Scenario, tmp_path: Path) -> None:
    verdict = judged(lost_at(scenario, Call.IS_OPEN), tmp_path)
    assert is_stalled(verdict), (verdict.reason, verdict.progress_reason)
    assert verdict.known[0].places[0].endpoint == "client"
    assert "domain is gone" in verdict.progress_reason
    assert DOMAIN_GONE in headline(verdict)


def test_a_server_that_goes_is_the_same(tmp_path: Path) -> None:
    scenario = Scenario(
        server=(("write", 100), ("is_open",), ("close",)), client=(("read", 100), ("read", 10))
    )
    verdict = judged(lost_at(scenario, Call.IS_OPEN, "server"), tmp_path)
    assert is_stalled(verdict), (verdict.reason, verdict.progress_reason)


def test_a_host_that_tells_needs_no_deviation(tmp_path: Path) -> None:
    """The peer's call ends; the run is over, and nothing of the deviation is needed."""
    run = lost_at(READS, Call.IS_OPEN, told=True)
    verdict = judged(run, tmp_path)
    assert (verdict.conformance, verdict.known) == ("ACCEPTED", ())


def test_a_record_too_few_and_nothing_is_said_of_progress(tmp_path: Path) -> None:
    """Then it may have done more than is recorded."""
    run = lost_at(READS, Call.IS_OPEN)
    facts = run.facts()
    facts["acts"][0]["records"] += 1
    verdict = judged(run, tmp_path, facts)
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "INCONCLUSIVE")
    assert any("last records of the client are lost" in note for note in verdict.notes)
