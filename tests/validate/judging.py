"""For the tests of the judge: which judge follows the lanes, and a run judged in one line.

Most tests follow their small traces with `spec_model`, because a JVM for each would take minutes;
test_judges_agree.py holds it against TLC. VCHAN_TESTS_JUDGE=tlc has TLC follow them all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from library_model import Run, Scenario, simulate
from spec_model import follow_by_hand

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.cuts import Size
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.prepare import load_tables
from vchan_testbed.validate.verdict import Verdict

TABLES = load_tables("vchan")
LIBRARY = load_tables()
BY_TLC = os.environ.get("VCHAN_TESTS_JUDGE") == "tlc"


def options(size: Size | None = None, *, tlc: bool = False) -> Options:
    """How the tests judge."""
    return Options(size=size, judge=None if tlc or BY_TLC else follow_by_hand, tables=TABLES)


def judged(
    run: Run,
    folder: Path,
    changed: dict[Role, Records] | None = None,
    *,
    facts: dict[str, Any] | None = None,
    size: Size | None = None,
    tlc: bool = False,
) -> Verdict:
    """The verdict on a run of the model, some of its records changed."""
    paths = run.write(folder, changed)
    known = run.facts() if facts is None else facts
    return judge_traces(
        paths["server"], paths["client"], known or None, options=options(size, tlc=tlc)
    )


def judged_scenario(scenario: Scenario, folder: Path, **more: Any) -> tuple[Run, Verdict]:
    """Simulate and judge."""
    run = simulate(scenario)
    return run, judged(run, folder, **more)
