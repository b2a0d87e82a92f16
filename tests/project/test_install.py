"""The installer of Debian packages, with stand-ins for dpkg-query, apt-get, sudo and id."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLER = REPOSITORY / "guests" / "packages" / "install.sh"
TOOLS = ("sh", "sed", "tr", "date", "mktemp", "tail", "cut", "rm", "sleep", "env", "cat", "grep")
SECONDS_MAX = 60


@dataclass(frozen=True)
class Machine:
    """A machine whose only programs are a few tools and what the test puts there."""

    folder: Path

    def program(self, name: str, script: str) -> None:
        """Put a program there."""
        place = self.folder / "bin" / name
        assert not place.is_symlink()
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)

    def installed(self, *packages: str) -> None:
        """Let dpkg-query know these packages."""
        self.program(
            "dpkg-query",
            f'for name; do :; done\ncase " {" ".join(packages)} " in\n'
            '*" $name "*) printf installed ;;\n*) exit 1 ;;\nesac',
        )

    def run(self, packages: str, stdin: int = subprocess.DEVNULL) -> tuple[int, str, str]:
        """Install a list's packages: exit status, output, errors."""
        (self.folder / "list").write_text(packages)
        ran = subprocess.run(
            [str(INSTALLER), str(self.folder / "list")],
            env={
                "PATH": f"{self.folder}/bin:{self.folder}/tools",
                "LOG": str(self.folder / "log"),
                "TMPDIR": str(self.folder),
                "VCHAN_TESTBED_REPORT_SECONDS": "0.01",
            },
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if stdin == subprocess.DEVNULL else stdin,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert not list(self.folder.glob("tmp.*"))
        return ran.returncode, ran.stdout, ran.stderr or ""

    def called(self) -> list[str]:
        """What apt-get and sudo were called with, in their order."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with `here` installed, whose user is root and whose apt-get does what it is told."""
    # Links to the machine's own programs, apart from `bin`: nothing may be written through them.
    for folder in ("bin", "tools"):
        (tmp_path / folder).mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (tmp_path / "tools" / tool).symlink_to(found)
    machine = Machine(tmp_path)
    machine.installed("here")
    machine.program("id", "echo 0")
    machine.program("apt-get", 'echo "apt-get $*" >>"$LOG"')
    return machine


INSTALL = "apt-get install --yes --no-install-recommends"
LIST = "# a list\nhere\naway # why\n\nfar-away\n"


def test_nothing_is_said_where_nothing_is_missing(machine: Machine) -> None:
    assert machine.run("here # why\n") == (0, "", "")
    assert machine.called() == []


def test_root_gets_what_is_missing_and_nothing_else(machine: Machine) -> None:
    status, said, wrong = machine.run(LIST)
    assert (status, wrong) == (0, "")
    assert machine.called() == [f"{INSTALL} away far-away"]
    assert said.startswith("Debian packages that are missing: away far-away\n")
    assert said.splitlines()[-1].startswith("Debian packages: installed in ")


def test_a_user_who_can_use_sudo_gets_it_by_sudo(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    machine.program("sudo", 'echo "sudo $1" >>"$LOG"; shift; "$@"')
    machine.program("true", "exit 0")
    assert machine.run(LIST)[0] == 0
    assert machine.called() == ["sudo -n", "sudo -n", f"{INSTALL} away far-away"]


@pytest.mark.parametrize("sudo", [None, "exit 1"])
def test_a_user_who_cannot_is_told_the_command(machine: Machine, sudo: str | None) -> None:
    machine.program("id", "echo 1000")
    if sudo:
        machine.program("sudo", sudo)
    status, _, said = machine.run(LIST)
    assert status == 4
    assert f"have them installed with: sudo {INSTALL} away far-away\n" in said
    assert machine.called() == []


def test_on_a_terminal_sudo_may_ask_for_a_password(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    # Without a password only after it was asked for one.
    machine.program(
        "sudo",
        'echo "sudo $1" >>"$LOG"\n'
        'if [ "$1" = -v ]; then exit 0; fi\n'
        'grep -q "sudo -v" "$LOG" || exit 1\nshift; "$@"',
    )
    leader, terminal = pty.openpty()
    try:
        status, said, _ = machine.run(LIST, stdin=terminal)
    finally:
        os.close(leader)
        os.close(terminal)
    assert status == 0
    assert "may ask for your password" in said
    assert machine.called() == ["sudo -n", "sudo -v", "sudo -n", f"{INSTALL} away far-away"]


def test_old_lists_are_fetched_once(machine: Machine) -> None:
    machine.program(
        "apt-get",
        'echo "apt-get $*" >>"$LOG"\n[ "$1" = update ] || grep -q "get update" "$LOG" || exit 100',
    )
    status, said, _ = machine.run(LIST)
    assert status == 0
    install = f"{INSTALL} away far-away"
    assert machine.called() == [install, "apt-get update", install]
    assert "lists are old or absent" in said


def test_what_apt_get_says_at_its_end_is_shown_when_it_fails(machine: Machine) -> None:
    machine.program("apt-get", "echo 'E: Unable to locate package away' >&2; exit 100")
    status, _, wrong = machine.run(LIST)
    assert status == 4
    assert "E: Unable to locate package away\nNext: " in wrong


def test_what_takes_long_says_how_far_it_is(machine: Machine) -> None:
    # It ends once a second report is under way: only then the first one is out for sure.
    machine.program("cut", 'cat >>"$LOG.report"\ntail -n 1 "$LOG.report"')
    machine.program(
        "apt-get",
        'echo "Get:1 away"\n'
        'until [ "$(grep -c Get:1 "$LOG.report" 2>/dev/null || :)" -ge 2 ] 2>/dev/null\n'
        "do sleep 0.01; done",
    )
    status, said, _ = machine.run(LIST)
    assert status == 0
    assert " s: Get:1 away\n" in said


def test_a_machine_without_dpkg_is_told_the_list(machine: Machine) -> None:
    (machine.folder / "bin" / "dpkg-query").unlink()
    status, _, said = machine.run(LIST)
    assert status == 4
    assert "here away far-away" in said


def test_a_list_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    ran = subprocess.run(
        [str(INSTALLER), str(tmp_path / "gone")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "cannot read" in ran.stderr
