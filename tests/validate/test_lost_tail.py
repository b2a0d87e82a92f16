"""A domain that died takes the last records of its end along: its peer is judged as far as it can.

Wherever the trace of one end of a good run breaks off, the other end's trace is no fault. What the
other end did wrong before the break is one all the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judging import options
from library_model import Run, Scenario, simulate, write_run_trace

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Kind
from vchan_testbed.validate.judge import judge_traces
from vchan_testbed.validate.verdict import Verdict

SCENARIO = Scenario(
    server=(("read", 3000), ("write", 2500), ("read_to_end", 64), ("close",)),
    client=(("write", 3000), ("read", 2500), ("close",)),
    seed=5,
)
SHORTEST = 40
"""Records after which both ends have opened the channel."""


@pytest.fixture(scope="module")
def run() -> Run:
    """A run with full and empty rings in both directions."""
    return simulate(SCENARIO)


def other(role: Role) -> Role:
    """The peer."""
    return "client" if role == "server" else "server"


def judged(
    run: Run, role: Role, kept: int, folder: Path, *, tlc: bool = False, **changed: Records
) -> Verdict:
    """The verdict when the domain of `role` died after `kept` of its records had been sent."""
    folder.mkdir(exist_ok=True)
    facts: dict[str, Any] = run.facts()
    facts["endpoints"][role] = {"ended": "lost"}
    paths = {}
    for end in ("server", "client"):
        records = changed.get(end, run.records(end))
        paths[end] = write_run_trace(
            folder / f"{end}.vtrace",
            run.scenario,
            end,
            records[:kept] if end == role else records,
            complete=end != role,
        )
    return judge_traces(paths["server"], paths["client"], facts, options=options(tlc=tlc))


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_good_run_is_no_fault_wherever_it_breaks_off(
    role: Role, run: Run, tmp_path: Path
) -> None:
    reached = 0
    for kept in range(SHORTEST, len(run.records(role)) - 12, 3):
        verdict = judged(run, role, kept, tmp_path)
        assert verdict.conformance == "ACCEPTED", (kept, verdict.reason)
        assert verdict.progress == "INCONCLUSIVE", kept
        assert verdict.first_unexplained is None
        assert any(f"last records of the {role} are lost" in note for note in verdict.notes)
        reached += "judged up to record" in verdict.reason
    assert reached > 5


def test_tlc_says_so_too(run: Run, tmp_path: Path) -> None:
    kept = len(run.records("client")) // 2
    by_hand = judged(run, "client", kept, tmp_path)
    by_tlc = judged(run, "client", kept, tmp_path, tlc=True)
    assert "judged up to record" in by_hand.reason
    assert by_tlc.reason == by_hand.reason
    assert by_tlc.conformance == by_hand.conformance


def rows(records: Records, kind: Kind, call: Call, cell: Cell) -> list[int]:
    """Where records of this kind are."""
    chosen = (records["kind"] == kind) & (records["call"] == call) & (records["offset"] == cell)
    found: list[int] = np.flatnonzero(chosen).tolist()
    return found


def without(records: Records, row: int) -> Records:
    """As if it had never been made."""
    records = np.delete(records, row)
    records["seq"] = np.arange(1, len(records) + 1)
    return records


def test_what_the_peer_did_wrong_before_is_rejected(run: Run, tmp_path: Path) -> None:
    records = run.records("server")
    arm = rows(records, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY)[1]
    kept = len(run.records("client")) - 20
    verdict = judged(run, "client", kept, tmp_path, server=without(records, arm))
    assert verdict.conformance == "REJECTED"
    assert verdict.first_unexplained is not None
    assert verdict.first_unexplained.endpoint == "server"


def test_nor_is_its_own_doing_after_the_break_excused(run: Run, tmp_path: Path) -> None:
    """After the last record of the client the server waits without having asked to be told."""
    records = run.records("server")
    arms = rows(records, Kind.RMW_LOCKED, Call.READ, Cell.CLI_NOTIFY)
    arm = next(row for row in arms if Kind.PENDING_EXIT in records["kind"][row : row + 8])
    seen = int(records["old"][rows(records, Kind.LOAD, Call.READ, Cell.LEFT_PROD)[0]])
    puts = rows(run.records("client"), Kind.RMW_PLAIN, Call.WRITE, Cell.LEFT_PROD) or rows(
        run.records("client"), Kind.STORE, Call.WRITE, Cell.LEFT_PROD
    )
    kept = puts[0] if seen == 0 else puts[1]
    verdict = judged(run, "client", kept, tmp_path, server=without(records, arm))
    assert verdict.conformance == "REJECTED", verdict.reason


def test_a_write_that_puts_too_little_is_its_own_doing(tmp_path: Path) -> None:
    """There is room for all of it, whatever the client did after its last record."""
    run = simulate(
        Scenario(
            server=(("read", 1500), ("write", 100), ("read_to_end", 64), ("close",)),
            client=(("write", 1500), ("read", 100), ("close",)),
            right_order=12,
            seed=3,
        )
    )
    records = run.records("client")
    reads = (records["kind"] == Kind.CALL_ENTER) & (records["call"] == Call.READ)
    kept = int(np.flatnonzero(reads)[0])
    assert judged(run, "client", kept, tmp_path / "good").conformance == "ACCEPTED"
    changed = run.records("server")
    writes = (changed["kind"] == Kind.CALL_ENTER) & (changed["call"] == Call.WRITE)
    changed["old"][writes] = 120
    verdict = judged(run, "client", kept, tmp_path / "changed", server=changed)
    assert verdict.conformance == "REJECTED"
    assert verdict.first_unexplained is not None
    assert verdict.first_unexplained.endpoint == "server"
    assert "s_put" in verdict.reason
