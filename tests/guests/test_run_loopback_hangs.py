"""The experiments that reproduce hangs: each comes out as it is meant, at the first attempt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from library_cases import CASES

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import ENDPOINTS, default_path, load_experiment
from vchan_testbed.guests.fault_steps import ON_DOMAINS
from vchan_testbed.tracer.layout import Call, Kind
from vchan_testbed.tracer.reader import read_trace

HANGS = default_path().parent / "hangs"
PAGE = Path(__file__).parents[2] / "docs" / "hangs.md"
EVERY = sorted(path.stem for path in HANGS.glob("*.yaml"))
ELSEWHERE = {case.name.partition("/")[2] for case in CASES} | {"dropped-event"}
"""Tested with what is looked at in them."""


def needs_xen(name: str) -> bool:
    """Whether its file says so."""
    return load_experiment(HANGS / f"{name}.yaml").needs == "xen"


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
    assert f"The experiment {name} needs Xen" in said
    assert "Next: Run it on Xen: --host qemu" in said


@pytest.mark.parametrize("name", EVERY)
def test_what_is_done_to_a_domain_needs_xen(name: str) -> None:
    faults = load_experiment(HANGS / f"{name}.yaml").faults
    assert needs_xen(name) or not any(fault.do in ON_DOMAINS for fault in faults)


def run_with(folder: Path, name: str, old: str, new: str) -> Result:
    """An experiment, one text of which is another one, run into `folder`/run."""
    text = (HANGS / f"{name}.yaml").read_text()
    assert old in text
    path = folder / "changed.yaml"
    path.write_text(text.replace(old, new))
    return CliRunner().invoke(
        main, ["run", str(path), "--host", "loopback", "--out", str(folder / "run")]
    )


def test_what_stood_still_is_no_run_that_finished(tmp_path: Path) -> None:
    """The same experiment, of which the other outcome is expected: that is not what came."""
    ran = run_with(tmp_path, "reader-stopped", "outcome: stood still", "outcome: finished")
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    assert ran.exit_code == ExitStatus.UNEXPECTED
    assert (verdict["progress"], verdict["outcome"]) == ("VIOLATION", "stood still")


def test_a_channel_is_made_after_all(tmp_path: Path) -> None:
    """Where none was expected: that is not what came."""
    ran = run_with(tmp_path, "no-grants", "server_grants_max: 0", "server_grants_max: 1")
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "PROGRESS")
    assert not verdict["expected"]
    assert ran.exit_code == ExitStatus.UNEXPECTED


def test_another_reason_why_there_is_no_channel_is_not_the_one_expected(tmp_path: Path) -> None:
    ran = run_with(
        tmp_path, "no-grants", "ENOSPC: No space left on device", "is this domain itself"
    )
    assert ran.exit_code == ExitStatus.TESTBED_FAILED
    assert "ENOSPC" in ran.output


def test_a_client_that_looks_at_half_of_the_keys_is_refused_and_asks_again(tmp_path: Path) -> None:
    status, said, _ = run("keys-one-by-one", tmp_path / "run")
    assert status == ExitStatus.EXPECTED, said
    exits = [
        [
            int(one["new"]) >> 63
            for one in trace.records
            if one["kind"] == Kind.CALL_EXIT and one["call"] in (Call.CLIENT_INIT, Call.SERVER_INIT)
        ]
        for trace in (read_trace(tmp_path / f"run/traces/{end}.vtrace") for end in ENDPOINTS)
    ]
    server, client = exits
    assert server == [0]
    # Refused at least once, and let in at last.
    assert client[-1] == 0
    assert len(client) > 1
    assert set(client[:-1]) == {1}


def test_each_stands_in_the_list() -> None:
    page = PAGE.read_text()
    assert [name for name in EVERY if f"(../experiments/hangs/{name}.yaml)" not in page] == []
