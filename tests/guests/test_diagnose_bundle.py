"""What goes into the file that tells of a hang, and what does not."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from hanging import HANGS, Hanging

from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.diagnose.bundle import CONTROL_BYTES, without_names, write
from vchan_testbed.guests.diagnose.page import parse
from vchan_testbed.guests.experiment import Experiment, load_experiment

LISTING = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   512     1     r-----      12.3
bank of the rich                             7   128     1     -b----       1.0
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Callable[[Experiment], Hanging]]:
    with ExitStack() as stack:
        yield lambda experiment: stack.enter_context(Hanging(experiment, tmp_path))


def test_all_that_tells_of_it_is_there_and_no_byte_of_the_streams(
    tmp_path: Path, hanging: Callable[[Experiment], Hanging]
) -> None:
    way = hanging(load_experiment(HANGS / "mutual-writes.yaml"))
    way.look()
    pids = [word for pid in way.host.workers().values() for word in ("--pid", str(pid))]
    (tmp_path / "a.vtrace").write_bytes(b"a trace")
    out = tmp_path / "hang.tar.gz"
    options = ["--loopback", "--seconds", "0.2", "--trace", str(tmp_path / "a.vtrace"), *pids]
    shown = CliRunner().invoke(main, ["bundle", "--show", *options])
    assert shown.exit_code == ExitStatus.EXPECTED, shown.output
    assert not out.exists()
    assert '"word": "protocol deadlock"' in shown.output
    ran = CliRunner().invoke(main, ["bundle", str(out), *options])
    assert ran.exit_code == ExitStatus.EXPECTED, ran.output
    with tarfile.open(out) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
        page = archive.extractfile("hang/channel-0/control-page.bin")
        assert page is not None
        data = page.read()
    assert {f"==== {name}" for name in names} == {
        line.rpartition(" (")[0] for line in shown.output.splitlines() if line.startswith("==== ")
    }
    assert len(data) == CONTROL_BYTES
    assert parse(data).left.filled == parse(data).right.filled == "full"
    for pid in way.host.workers().values():
        for what in ("stack", "wchan", "syscall", "status"):
            assert f"channel-0/process-{pid}/{pid}/{what}" in names
    assert {"channel-0/looks.json", "traces/0-a.vtrace", "kernel.txt"} <= names
    kernel = os.uname()
    assert f"\n{kernel.sysname} {kernel.release} {kernel.version}\n" in shown.output


def test_names_of_domains_are_replaced() -> None:
    said = without_names(LISTING)
    assert "rich" not in said
    assert "domain-7 7 128 1 -b----" in said
    assert said.count("\n") == LISTING.count("\n")


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_text("mine")
    with pytest.raises(Exception, match="is there already"):
        write({"a": b"b"}, tmp_path / "x.tar.gz")
    assert (tmp_path / "x.tar.gz").read_text() == "mine"


def test_without_a_file_it_says_what_to_do() -> None:
    ran = CliRunner().invoke(main, ["bundle"])
    assert ran.exit_code == ExitStatus.USAGE
    assert "--show" in ran.output


def test_a_trace_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        main, ["bundle", "--show", "--loopback", "--trace", str(tmp_path / "none.vtrace")]
    )
    assert ran.exit_code != ExitStatus.EXPECTED
    assert "Next:" in ran.output
