"""The report of a run: one page for people, one JUnit file for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report.junit import junit_of, junit_of_failure
from vchan_testbed.validate.report.page import html_of
from vchan_testbed.validate.verdict import Verdict


def write_report(run: Path, verdict: Verdict, server: Trace, client: Trace) -> None:
    """Write report.html and junit.xml into the run directory `run`.

    A file that is there already is replaced as a whole. Raises OSError when that cannot be done.
    """
    facts = _facts(run)
    _write(run / "report.html", html_of(run, facts, verdict, server, client))
    _write(run / "junit.xml", junit_of(verdict, facts))


def write_failure(run: Path, message: str) -> None:
    """Write the junit.xml of a run that has no verdict, because the test bed failed."""
    _write(run / "junit.xml", junit_of_failure(message, _facts(run)))


def _facts(run: Path) -> dict[str, Any]:
    """What run.json holds; two traces in a folder of their own have none."""
    path = run / "run.json"
    if not path.exists():
        return {}
    facts = json.loads(path.read_text())
    return facts if isinstance(facts, dict) else {}


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # A name out of a guest can hold half of a character: replaced, so that the page is there.
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
