"""The experiments that reproduce hangs: each comes out as it is meant, at the first attempt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from library_cases import CASES

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import default_path, load_experiment
from vchan_testbed.guests.fault_steps import ON_DOMAINS

HANGS = default_path().parent / "hangs"
PAGE = Path(__file__).parents[2] / "docs" / "hangs.md"
EVERY = sorted(path.stem for path in HANGS.glob("*.yaml"))
ELSEWHERE = {case.name.partition("/")[2] for case in CASES} | {"dropped-event"}
"""Tested with what is looked at in them."""


def needs_xen(name: str) -> bool:
    """Whether something is done to a domain."""
    return any(one.do in ON_DOMAINS for one in load_experiment(HANGS / f"{name}.yaml").faults)


def run(name: str, folder: Path) -> tuple[int, str, dict[str, Any]]:
    """Exit status, what was said, and the verdict."""
    command = ["run", str(HANGS / f"{name}.yaml"), "--host", "loopback", "--out", str(folder)]
    ran = CliRunner().invoke(main, command)
    verdict = folder / "verdict.json"
    return ran.exit_code, ran.output, json.loads(verdict.read_text()) if verdict.exists() else {}


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ELSEWHERE and not needs_xen(n)])
def test_it_comes_out_as_it_is_meant(name: str, tmp_path: Path) -> None:
    status, said, _ = run(name, tmp_path / "run")
    assert status == ExitStatus.EXPECTED, said


def test_a_bad_index_is_named(tmp_path: Path) -> None:
    _, said, verdict = run("bad-index", tmp_path / "run")
    assert "4294967295" in said
    assert verdict["conformance"] == "REJECTED"


@pytest.mark.parametrize("name", [name for name in EVERY if needs_xen(name)])
def test_what_needs_xen_is_refused_without_it(name: str, tmp_path: Path) -> None:
    status, said, _ = run(name, tmp_path / "run")
    assert status == ExitStatus.USAGE
    assert "Next:" in said


def test_each_stands_in_the_list() -> None:
    page = PAGE.read_text()
    assert [name for name in EVERY if f"(../experiments/hangs/{name}.yaml)" not in page] == []
