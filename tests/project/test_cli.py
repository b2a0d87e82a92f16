"""The command line: help, exit statuses, and errors that say one thing and what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import SubprocessError
from typing import IO

import pytest
from click.testing import CliRunner, Result

from vchan_testbed.cli import BROKEN_PIPE, INTERRUPTED, main
from vchan_testbed.errors import ExitStatus, TestbedError
from vchan_testbed.guests.hosts.findings import Finding

# Who is started in the background by a script ignores SIGINT, and so do its children.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vchan_testbed.cli import main
main(prog_name="vchan-testbed")
"""
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SECONDS_MAX = 60


def vchan_testbed(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="vchan-testbed")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command as a process of its own, in its own session, working in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def fails(ran: Result, status: ExitStatus) -> str:
    """The one message of a failure."""
    assert ran.exit_code == status
    assert "Traceback" not in ran.output
    assert ran.exception is None or isinstance(ran.exception, SystemExit)
    return ran.output


def test_the_help_explains_every_exit_status() -> None:
    text = vchan_testbed("--help").output
    for status in ExitStatus:
        explained = re.search(rf"^ +{int(status)}  \w", text, re.MULTILINE)
        assert explained, f"exit status {int(status)} is not explained"
    for name in main.commands:
        assert vchan_testbed(name, "--help").exit_code == 0


def test_the_version_is_told() -> None:
    assert vchan_testbed("--version").output.startswith("vchan-testbed, version ")


def test_a_broken_experiment_file_is_one_message_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nserver: []\nclient:\n  - dance\n")
    ran = vchan_testbed("run", str(tmp_path / "x.yaml"), "--host", "loopback")
    message = fails(ran, ExitStatus.USAGE)
    assert f"{tmp_path / 'x.yaml'}:4: client.0 is 'dance'" in message
    assert "Expected one of write, read" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "gone.yaml", "--host", "loopback"),
        ("run", "--seed", "many"),
        ("run", "--seed", "-1"),
        ("run", "--domain-type", "hvm"),
        ("run", "--no-such-option"),
        ("run", "--host", "nowhere"),
        ("dance",),
    ],
)
def test_bad_arguments_are_usage_errors_before_anything_is_made(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(vchan_testbed(*arguments), ExitStatus.USAGE)
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_there_and_how_to_get_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "vchan_testbed.guests.hosts.qemu_doctor.doctor_findings",
        lambda: [Finding("QEMU", False, "not installed", "sudo apt-get install qemu")],
    )
    monkeypatch.setattr(
        "vchan_testbed.guests.hosts.local.doctor_findings", lambda: [Finding("dom0", False, "no")]
    )
    monkeypatch.setattr(
        "vchan_testbed.guests.hosts.table.choose", lambda: ("qemu", "there is no Xen here")
    )
    ran = vchan_testbed("doctor")
    assert ran.exit_code == ExitStatus.TESTBED_FAILED
    assert "Without --host a run takes: qemu (there is no Xen here)." in ran.output
    assert "ok      libxenvchan: libxenvchan.so." in ran.output
    assert "missing QEMU: not installed\n          Next: sudo apt-get install qemu" in ran.output
    monkeypatch.setattr(
        "vchan_testbed.guests.hosts.qemu_doctor.doctor_findings",
        lambda: [Finding("QEMU", True, "there")],
    )
    assert vchan_testbed("doctor").exit_code == ExitStatus.EXPECTED


def test_doctor_tells_of_the_rest_where_one_thing_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(tmp_path / "file"))
    message = fails(vchan_testbed("doctor"), ExitStatus.TESTBED_FAILED)
    assert message.count(f"The cache folder {tmp_path / 'file'} cannot be made") == 2
    assert "Real Xen: --host local" in message


def test_doctor_does_without_a_jdk_and_says_that_nothing_can_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\necho 'openjdk 17' >&2\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(
        "vchan_testbed.guests.hosts.qemu_doctor.doctor_findings",
        lambda: [Finding("QEMU", True, "there")],
    )
    message = fails(vchan_testbed("doctor"), ExitStatus.TESTBED_FAILED)
    assert "ok      java: openjdk 17" in message
    assert f"missing javac: not in {tmp_path}/bin (JAVA_HOME)\n" in message
    assert "default-jdk-headless" in message


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    ran = vchan_testbed("run", "--host", "loopback", "--out", str(tmp_path))
    assert "not empty" in fails(ran, ExitStatus.USAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_run_without_a_verdict_leaves_a_complete_directory(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = vchan_testbed(
        "run",
        str(EXPERIMENTS / "ping-pong.yaml"),
        *("--host", "loopback", "--out", str(out), "--seed", "5", "--no-validate"),
    )
    assert ran.exit_code == 0, ran.output
    assert "no Xen is involved" in ran.output
    facts = json.loads((out / "run.json").read_text())
    assert (facts["state"], facts["seed"], facts["outcome"]) == ("complete", 5, "finished")
    assert facts["host"]["xen_version"] is None
    assert facts["domain_type"] == "none"
    assert not (out / "verdict.json").exists()
    assert (out / "traces" / "server.vtrace").exists()


def test_without_out_the_run_goes_below_the_current_folder(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        *("run", str(EXPERIMENTS / "ping-pong.yaml"), "--host", "loopback", "--no-validate"),
    )
    _, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, said
    (run,) = (tmp_path / "runs").iterdir()
    assert "-ping-pong-" in run.name
    assert f"runs/{run.name}" in said


def test_what_was_collected_before_a_failure_stays_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("failed registers: xmm3\n")
    monkeypatch.setenv("VCHAN_SELFTEST_FILE", str(tmp_path / "status"))
    out = tmp_path / "run"
    ran = vchan_testbed("run", "--host", "loopback", "--out", str(out))
    message = fails(ran, ExitStatus.TESTBED_FAILED)
    assert "xmm3" in message
    assert f"What was collected is in {out}" in message
    facts = json.loads((out / "run.json").read_text())
    assert facts["state"] == "incomplete"
    assert "xmm3" in facts["error"]
    assert (out / "junit.xml").exists()


def test_what_the_system_refuses_is_one_message_and_the_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_to_a_full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vchan_testbed.commands.run.run_experiment", write_to_a_full_disk)
    out = tmp_path / "run"
    message = fails(
        vchan_testbed("run", "--host", "loopback", "--out", str(out)), ExitStatus.TESTBED_FAILED
    )
    assert f"Error: {out}: No space left on device.\nNext: Make room there" in message
    assert f"What was collected is in {out}" in message
    assert "No space left" in json.loads((out / "run.json").read_text())["error"]
    assert "write_to_a_full_disk" in (out / "console" / "vchan-testbed.log").read_text()


def test_of_a_machine_that_does_not_come_up_the_whole_console_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = tmp_path / "serial-line.txt"
    console.write_text("(XEN) one\r\r\n(XEN) two\r\r\n")

    def fail_to_boot(*_: object, **__: object) -> None:
        raise TestbedError("It ended.", console="(XEN) one\r\r\n(XEN) two\r\r\n", log=console)

    monkeypatch.setattr("vchan_testbed.commands.run.run_experiment", fail_to_boot)
    out = tmp_path / "run"
    message = fails(
        vchan_testbed("run", "--host", "loopback", "--out", str(out)), ExitStatus.TESTBED_FAILED
    )
    assert message.endswith(f"is in {out}.\nLast lines:\n(XEN) one\n(XEN) two\n")
    assert (out / "console" / "serial-line.log").read_bytes() == console.read_bytes()


def test_with_no_room_left_for_the_end_of_the_story_the_message_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def full_from_now_on(*_: object, **__: object) -> None:
        monkeypatch.setattr(Path, "write_text", refuse)
        refuse()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vchan_testbed.commands.run.run_experiment", full_from_now_on)
    ran = vchan_testbed("run", "--host", "loopback", "--out", str(out))
    assert f"Error: {out}: No space left on device." in fails(ran, ExitStatus.TESTBED_FAILED)
    assert json.loads((out / "run.json").read_text())["state"] == "incomplete"


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied", "/place"), SubprocessError("no")]
)
def test_no_command_shows_a_traceback_for_what_the_system_refuses(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("vchan_testbed.commands.image.build", refuse)
    message = fails(vchan_testbed("image", "build"), ExitStatus.TESTBED_FAILED)
    assert re.search(r"^Error: (/place: Permission denied|no)\.\nNext: [\w`]", message)


@pytest.mark.parametrize(
    "error", [TestbedError("the bridge stays"), ValueError("the bridge stays")]
)
def test_what_fails_behind_ctrl_c_is_said_and_does_not_hide_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise error

    monkeypatch.setattr("vchan_testbed.commands.image.build", interrupted)
    result = vchan_testbed("image", "build")
    assert result.exit_code == INTERRUPTED
    assert "While giving back what was taken: the bridge stays" in result.stderr
    assert "Interrupted." in result.stderr


IDLE = """\
name: idle
server:
  - read: {bytes: 8, sizes: 8}
client:
  - pause: {seconds: 600}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_asked_to_end_it_keeps_what_it_has_and_leaves_no_process(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    (tmp_path / "idle.yaml").write_text(IDLE)
    process = start(tmp_path, "run", "idle.yaml", "--host", "loopback", "--out", "out")
    assert process.stderr is not None
    said = read_until(process.stderr, "Run the workload")
    os.killpg(process.pid, number)
    _, rest = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == status
    assert ("Interrupted." in rest) == (number == signal.SIGINT)
    assert ("Ended by SIGTERM." in rest) == (number == signal.SIGTERM)
    assert "What was collected is in out." in rest
    assert "Traceback" not in said + rest
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "incomplete"
    assert (tmp_path / "out" / "traces" / "server.vtrace").exists()
    assert processes_with(str(tmp_path)) == []


def read_until(stream: IO[str], text: str) -> str:
    """All lines up to the one with `text`."""
    said = ""
    for line in stream:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never said, but: {said}")


def processes_with(folder: str) -> list[str]:
    """Command lines of the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd").startswith(folder):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_reader_that_goes_away_is_not_an_error_message(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "doctor"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    _, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == BROKEN_PIPE
    assert said == ""
