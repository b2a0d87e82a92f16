"""The agent by itself: what it imports, what it answers, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.agent import inspect, supervisor
from vchan_testbed.guests.experiment import load_experiment
from vchan_testbed.guests.frames import Frame, Kind, Message, encode, message_frame, read_frame
from vchan_testbed.guests.hosts.loopback import LoopbackHost
from vchan_testbed.tracer.faults import FaultPlan

NOT_IN_A_GUEST = (
    "numpy",
    "yaml",
    "click",
    "rich",
    "jsonschema",
    "jinja2",
    "pyroute2",
    "pytest",
    "z3",
    "setuptools",
)
SECONDS_MAX = 60


class Agent:
    """An agent process, spoken to directly."""

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vchan_testbed.guests.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self) -> Frame | None:
        assert self.process.stdout is not None
        return read_frame(self.process.stdout)

    def hear(self) -> Message:
        frame = self.read()
        assert frame is not None
        return frame.message()

    def end(self) -> int:
        """Hang up and wait."""
        self.process.communicate(timeout=SECONDS_MAX)
        return self.process.returncode


@contextmanager
def agent(**environment: str) -> Iterator[Agent]:
    it = Agent(**environment)
    try:
        yield it
    finally:
        it.process.kill()
        it.process.communicate()


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A folder for PYTHONPATH in which what no guest has cannot be imported."""
    for name in NOT_IN_A_GUEST:
        text = f"raise ImportError('a guest has no {name}')\n"
        (tmp_path / "bare" / name).mkdir(parents=True)
        (tmp_path / "bare" / name / "__init__.py").write_text(text)
    return str(tmp_path / "bare")


def test_it_runs_where_only_the_standard_library_and_cffi_are(
    bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", bare)
    blocked = subprocess.run([sys.executable, "-c", "import numpy"], capture_output=True)
    assert blocked.returncode == 1, "the test's own trap does not work"
    experiment = load_experiment()
    with LoopbackHost() as host:
        link = host.endpoints(experiment)["server"]
        hello = link.events.get(timeout=SECONDS_MAX)
        assert hello is not None
        assert hello.message()["type"] == "hello"
        link.send(
            {
                "type": "start",
                "role": "server",
                "domid": 1,
                "peer_domid": 2,
                "path": "/local/domain/1/data/x",
                "experiment": experiment.to_dict(),
                "seed": 1,
                "run_id": "00" * 16,
                "faults": FaultPlan().to_plain(),
            }
        )
        heard: list[Message] = []
        while not heard or heard[-1]["type"] not in ("listening", "error"):
            frame = link.events.get(timeout=SECONDS_MAX)
            assert frame is not None
            if frame.kind is Kind.MESSAGE:
                heard.append(frame.message())
        assert heard[-1]["type"] == "listening", heard[-1]


def test_a_binding_that_does_not_load_is_said_when_the_run_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare" / "_cffi_backend.py").parent.mkdir()
    (tmp_path / "bare" / "_cffi_backend.py").write_text("raise ImportError('no cffi here')\n")
    with agent(PYTHONPATH=str(tmp_path / "bare")) as it:
        assert it.hear()["type"] == "hello"
        it.send(encode(message_frame({"type": "start", "role": "server", "path": "/x"})))
        error = it.hear()
        assert error["type"] == "error"
        assert error["next_step"]
        assert it.end() == 4


def test_it_says_hello_and_good_bye() -> None:
    with agent() as it:
        hello = it.hear()
        assert hello["type"] == "hello"
        assert hello["pid"] == it.process.pid
        assert hello["versions"]["kernel"]
        assert hello["selftest"] == {"ok": None, "detail": "no self-test runs here"}
        it.send(encode(message_frame({"type": "finish"})))
        assert it.hear()["type"] == "bye"
        assert it.read() is None
        assert it.end() == 0


def test_it_ends_when_the_host_hangs_up() -> None:
    with agent() as it:
        it.hear()
        assert it.end() == 0


def test_a_look_before_the_start_shows_nobody_alive() -> None:
    with agent() as it:
        it.hear()
        it.send(encode(message_frame({"type": "look", "number": 7})))
        look = it.hear()
        assert (look["type"], look["alive"], look["threads"]) == ("look", False, [])
        assert look["number"] == 7


@pytest.mark.parametrize("said", [b"login: root\n", encode(message_frame({"type": "dance"}))])
def test_what_it_does_not_understand_is_an_error_that_says_what_to_do(said: bytes) -> None:
    with agent() as it:
        it.hear()
        it.send(said)
        error = it.hear()
        assert error["type"] == "error"
        assert error["next_step"]
        assert it.end() == 4


@pytest.mark.parametrize(("text", "ok"), [("ok 3 rounds\n", True), ("ok\nfailed: xmm3\n", False)])
def test_the_self_tests_last_word_is_passed_on(tmp_path: Path, text: str, ok: bool) -> None:
    (tmp_path / "status").write_text(text)
    with agent(VCHAN_SELFTEST_FILE=str(tmp_path / "status")) as it:
        assert it.hear()["selftest"]["ok"] is ok


def test_a_thread_that_waits_is_told_from_one_that_runs() -> None:
    waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    running = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert any(blocked(waiting.pid) for _ in until(SECONDS_MAX))
        assert any(not blocked(running.pid) for _ in until(SECONDS_MAX))
    finally:
        for process in (waiting, running):
            process.kill()
            process.wait()
    assert inspect.thread_state(waiting.pid, waiting.pid) is None


def until(seconds: float) -> Iterator[None]:
    """Turns until the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield


def blocked(pid: int) -> bool:
    state = inspect.thread_state(pid, pid)
    return state is not None and bool(state["blocked_in_kernel"])


def test_a_kernel_is_let_panic_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = tmp_path / "sysrq-trigger"
    trigger.touch()
    monkeypatch.setattr(supervisor, "SYSRQ_TRIGGER", trigger)
    supervisor.panic()
    assert trigger.read_text() == "c"
    monkeypatch.setattr(supervisor, "SYSRQ_TRIGGER", tmp_path / "no" / "trigger")
    with pytest.raises(TestbedError, match="cannot be made to crash") as error:
        supervisor.panic()
    assert "CONFIG_MAGIC_SYSRQ" in error.value.next_step
