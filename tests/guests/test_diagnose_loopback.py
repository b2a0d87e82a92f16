"""A look at channels that hang, from outside of their processes: the cause is named."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hanging import HANGS, Hanging

from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.diagnose.build import build_zipapp
from vchan_testbed.guests.diagnose.main import main
from vchan_testbed.guests.experiment import Experiment, load_experiment, parse_experiment


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Callable[[Experiment], Hanging]]:
    with contextlib.ExitStack() as stack:
        yield lambda experiment: stack.enter_context(Hanging(experiment, tmp_path))


CAUSES = {
    "mutual-writes": ("protocol deadlock", "both ends wait for room"),
    "packets-stand-off": ("protocol deadlock", "waits for more of a packet"),
    "dropped-event": ("lost wakeup", "it was lost on its way"),
    "idle-application": ("idle", "nothing is due"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_of_a_hang_is_named(name: str, hanging: Callable[[Experiment], Hanging]) -> None:
    word, why = CAUSES[name]
    # Between two calls a channel may be idle for a while.
    passing = ("moving",) if word == "idle" else ("moving", "idle")
    (said,) = hanging(load_experiment(HANGS / f"{name}.yaml")).look(passing)
    assert said["verdict"]["word"] == word, said
    assert why in said["verdict"]["why"]
    assert {end["process"] is not None for end in said["ends"].values()} == {True}


STEADY = """\
name: steady
server:
  - read: {bytes: 400000000, sizes: 4096}
client:
  - write: {bytes: 400000000, sizes: 4096}
expect: {progress: INCONCLUSIVE}
"""


def test_a_reader_that_is_stopped_is_named(hanging: Callable[[Experiment], Hanging]) -> None:
    way = hanging(parse_experiment(STEADY, "steady"))
    assert way.look_once()[0]["verdict"]["word"] == "moving"
    server = way.host.workers()["server"]
    os.kill(server, signal.SIGSTOP)
    (said,) = way.look()
    assert said["verdict"]["word"] == "waiting for the application", said
    assert f"the server's process {server} is stopped (state T)" in said["verdict"]["why"]


def test_a_process_without_a_channel_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--loopback", "--pid", str(os.getpid())]) == ExitStatus.USAGE
    assert "maps no page of a vchan" in capsys.readouterr().err


def test_without_xen_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([])
    said = capsys.readouterr().err
    assert status in (ExitStatus.TESTBED_FAILED, ExitStatus.USAGE)
    assert "Next:" in said
    assert "--pid" in said or "root" in said


def test_one_file_is_all_it_takes(tmp_path: Path) -> None:
    build_zipapp(tmp_path / "diagnose.pyz")
    command = [sys.executable, "-I", "-S", str(tmp_path / "diagnose.pyz"), "--loopback"]
    ran = subprocess.run(
        [*command, "--json", "--seconds", "0", "--pid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == ExitStatus.USAGE
    assert "maps no page of a vchan" in ran.stderr
