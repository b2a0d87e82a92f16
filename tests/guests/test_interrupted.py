"""Ctrl-C, and worse, in each stage: no process, temporary folder or half cache entry is left."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vchan_testbed.cache import cache_dir
from vchan_testbed.cli import INTERRUPTED
from vchan_testbed.guests.images import build
from vchan_testbed.progress import Quiet

FAKE_MMDEBSTRAP = Path(__file__).with_name("fake_mmdebstrap.sh")
SECONDS_MAX = 600.0
MARK = "VCHAN_TEST_MARK"
# Who is started in the background by a script ignores SIGINT, and so do its children.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vchan_testbed.cli import main
main()
"""


@dataclass
class Command:
    """`vchan-testbed` with a temporary folder of its own; what it starts is known by a mark."""

    folder: Path
    process: subprocess.Popen[str]
    mark: str

    def until(self, text: str) -> str:
        """What it says up to the line with `text`."""
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if text in line:
                return said
        raise AssertionError(f"{text!r} was never said, but: {said}")

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal, as a terminal does, to the whole group; status and last words."""
        os.killpg(self.process.pid, number)
        _, said = self.process.communicate(timeout=SECONDS_MAX)
        return self.process.returncode, said

    def temporary(self) -> list[str]:
        """What is in its temporary folder."""
        return sorted(path.name for path in (self.folder / "tmp").iterdir())

    def processes(self) -> list[str]:
        """Command lines of those that it has started and that still run."""
        return [_read(process / "cmdline") for process in self._marked()]

    def wait_for_processes(self) -> None:
        """Until all of them have ended: for a command that could not wait for them itself."""
        deadline = time.monotonic() + SECONDS_MAX
        while left := list(self._marked()):
            assert time.monotonic() < deadline, self.processes()
            try:
                descriptor = os.pidfd_open(int(left[0].name))
            except ProcessLookupError:
                continue
            select.select([descriptor], [], [], 1)
            os.close(descriptor)

    def _marked(self) -> Iterator[Path]:
        for process in Path("/proc").glob("[0-9]*"):
            # A zombie has no environment any more.
            if f"{MARK}={self.mark}" in _read(process / "environ").split("\0"):
                yield process


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def start(folder: Path, *arguments: str, **environment: str) -> Command:
    """Start the command in a session of its own, as a shell does."""
    (folder / "tmp").mkdir()
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), MARK: mark, **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return Command(folder, process, mark)


def entries(cache: Path) -> set[str]:
    """All that lies in a cache, but for locks and for what a kind's folder is."""
    return {path.name for path in cache.glob("*/*") if path.suffix != ".lock"}


def assert_interrupted(command: Command) -> None:
    """Ctrl-C ends it as it ends others, and nothing of it is left."""
    status, said = command.end(signal.SIGINT)
    assert status == INTERRUPTED, said
    assert "Traceback" not in said
    assert command.processes() == []
    assert command.temporary() == []


@pytest.fixture
def endless(tmp_path: Path) -> dict[str, str]:
    """An environment whose mmdebstrap makes a temporary folder and does not come to an end."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mmdebstrap").symlink_to(FAKE_MMDEBSTRAP)
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "FAKE_ARGUMENTS": str(tmp_path / "arguments"),
        "FAKE_ENDLESS": str(tmp_path / "tmp" / "mmdebstrap.root"),
        "FAKE_STARTED": str(tmp_path / "started"),
        "VCHAN_TESTBED_CACHE": str(tmp_path / "cache"),
    }


def test_the_building_of_a_root(tmp_path: Path, endless: dict[str, str]) -> None:
    os.mkfifo(endless["FAKE_STARTED"])
    started = os.open(endless["FAKE_STARTED"], os.O_RDONLY | os.O_NONBLOCK)
    command = start(tmp_path, "image", "build", **endless)
    command.until("root for the guest images")
    assert select.select([started], [], [], SECONDS_MAX)[0]
    os.close(started)
    assert_interrupted(command)
    assert entries(tmp_path / "cache") == set()


@pytest.fixture
def no_states(tmp_path: Path) -> Path:
    """A cache with the real images and no saved state."""
    build(Quiet())
    cache = tmp_path / "cache"
    cache.mkdir()
    for kind in ("root", "extensions", "images", "helper", "kvm", "tlc-classes"):
        (cache_dir() / kind).mkdir(exist_ok=True)
        (cache / kind).symlink_to(cache_dir() / kind)
    return cache


@pytest.mark.xen
@pytest.mark.parametrize("stage", ["Boot Xen in QEMU", "Make the client's domain"])
def test_a_cold_start(stage: str, tmp_path: Path, no_states: Path) -> None:
    command = start(
        tmp_path, "run", "--host", "qemu", "--out", "out", VCHAN_TESTBED_CACHE=str(no_states)
    )
    command.until(stage)
    assert_interrupted(command)
    assert [path for path in (no_states / "warm").iterdir() if path.suffix != ".lock"] == []
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "incomplete"


@pytest.mark.xen
@pytest.mark.parametrize(
    "stage",
    [
        "Make the two endpoints",
        "Run the workload",
        "Give back what the run took",
        "Follow",
    ],
)
def test_a_run(stage: str, tmp_path: Path) -> None:
    before = entries(cache_dir())
    command = start(tmp_path, "run", "--host", "qemu", "--out", "out")
    command.until(stage)
    assert_interrupted(command)
    # A first run leaves a saved state, and nothing that is half.
    assert not [name for name in entries(cache_dir()) - before if name.startswith(".")]
    assert (tmp_path / "out/run.json").exists()


@pytest.mark.xen
def test_a_command_that_is_killed_takes_its_machine_along(tmp_path: Path) -> None:
    command = start(tmp_path, "run", "--host", "qemu", "--out", "out")
    command.until("Run the workload")
    assert any("qemu-system" in line for line in command.processes())
    status, _ = command.end(signal.SIGKILL)
    assert status == -signal.SIGKILL
    command.wait_for_processes()
