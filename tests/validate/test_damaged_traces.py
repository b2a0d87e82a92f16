"""Traces that are no good, handed to `vchan-testbed validate`: one message, and what to do next."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.tracer import layout

HISTORY = "S.r64 C.w30 S.. C.w200 S.r200 S.r64 C.close S.. S.close"
RECORDS_KEPT = 40


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run that is good."""
    folder = tmp_path / "run"
    made, _ = played(History.of(HISTORY))
    made.write(folder / "traces")
    (folder / "run.json").write_text(json.dumps(made.facts()))
    return folder


def validate(*paths: Path) -> Result:
    return CliRunner().invoke(main, ["validate", *map(str, paths)], prog_name="vchan-testbed")


def server(run: Path) -> Path:
    return run / "traces" / "server.vtrace"


def flipped(at: int) -> Callable[[bytes], bytes]:
    """One bit changed."""
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def kept(size: int) -> Callable[[bytes], bytes]:
    """The first bytes."""
    return lambda data: data[:size]


IN_A_RECORD = layout.HEADER_BYTES + layout.BLOCK_HEADER_BYTES + 5 * layout.RECORD_BYTES + 9
VERSION_AT = len(layout.MAGIC)
RERUN, RIGHT_FILE = "repeat the run", "Hand in a .vtrace file that `vchan-testbed run` wrote"
RIGHT_VERSION = "Judge it with the version of vchan-testbed that recorded it"
NO_TRACE = {
    "a block with a wrong CRC": (
        flipped(IN_A_RECORD),
        ExitStatus.TESTBED_FAILED,
        "Block 0 of {path} has a wrong CRC",
        RERUN,
    ),
    "another version": (
        flipped(VERSION_AT),
        ExitStatus.USAGE,
        "{path} is a trace of version 5",
        RIGHT_VERSION,
    ),
    "cut off within its header": (
        kept(1000),
        ExitStatus.USAGE,
        "{path} is cut off within its header: 1000 of 4096 bytes",
        RIGHT_FILE,
    ),
    "an empty file": (kept(0), ExitStatus.USAGE, "{path} is not a trace", RIGHT_FILE),
    "another file": (
        lambda data: b"# notes\n" * 600,
        ExitStatus.USAGE,
        "{path} is not a trace",
        RIGHT_FILE,
    ),
}


@pytest.mark.parametrize("name", NO_TRACE)
def test_what_is_no_trace_is_one_message(name: str, run: Path) -> None:
    change, status, message, next_step = NO_TRACE[name]
    path = server(run)
    path.write_bytes(change(path.read_bytes()))
    before = sorted(run.rglob("*"))
    fails(validate(run), status, message.format(path=path), next_step)
    assert sorted(run.rglob("*")) == before


def fails(ran: Result, status: ExitStatus, message: str, next_step: str) -> None:
    assert ran.exit_code == status, ran.output
    assert isinstance(ran.exception, SystemExit)
    errors = ran.output[ran.output.index("Error: ") :].splitlines()
    assert len(errors) == 2, errors
    assert message in errors[0]
    assert errors[1].startswith("Next: ")
    assert next_step in errors[1]


def test_a_trace_that_is_not_there(run: Path) -> None:
    server(run).unlink()
    message = f"The run {run} has no trace of the server"
    fails(validate(run), ExitStatus.TESTBED_FAILED, message, "console folder")


def test_a_trace_that_may_not_be_read(run: Path) -> None:
    path = server(run)
    path.unlink()
    path.mkdir()
    message = f"The run {run} has no trace of the server"
    fails(validate(run), ExitStatus.TESTBED_FAILED, message, "console folder")


def test_no_run_directory(tmp_path: Path) -> None:
    message = f"{tmp_path} is not a run directory"
    fails(validate(tmp_path), ExitStatus.USAGE, message, "`vchan-testbed run` wrote")


def test_a_run_of_another_version(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "format": 99}))
    fails(validate(run), ExitStatus.USAGE, "another format than 1", "the version of vchan-testbed")


def test_traces_that_are_no_pair(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.vtrace"
    shutil.copy(server(run), copy)
    other = "the other end"
    fails(validate(server(run), copy), ExitStatus.USAGE, "are traces of the server", other)
    fails(validate(copy), ExitStatus.USAGE, "the server's trace stands alone", other)
    shutil.copy(server(run), run / "traces" / "client.vtrace")
    fails(validate(run), ExitStatus.USAGE, "both traces of the server", "one of the client")


def test_a_shortened_trace_is_judged_as_far_as_it_goes(run: Path) -> None:
    """Nobody is accused for what is missing, and nobody is acquitted."""
    path = server(run)
    path.write_bytes(
        path.read_bytes()[
            : layout.HEADER_BYTES + layout.BLOCK_HEADER_BYTES + RECORDS_KEPT * layout.RECORD_BYTES
        ]
    )
    ran = validate(run)
    assert ran.exit_code == ExitStatus.UNDECIDED, ran.output
    verdict = json.loads((run / "verdict.json").read_text())
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "INCONCLUSIVE")
    assert "judged up to record" in verdict["reason"]
    assert "The last records of the server are lost" in ran.output
    assert "Next: repeat the run" in ran.output
    assert (run / "report.html").exists()
