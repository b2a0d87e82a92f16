"""A Xen host behind ssh: the system's OpenSSH carries the helper there, and then its stream.

`ssh://USER@NAME[:PORT]`. What ~/.ssh/config says of NAME holds. One connection (a master) for all;
nobody is asked for a password. On the host a private folder with the helper's file is made, which
the helper removes when it ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.helper.build import helper_zipapp
from vchan_testbed.guests.hosts.carrier import ProcessCarrier
from vchan_testbed.guests.hosts.client import HelperClient
from vchan_testbed.guests.hosts.xen import XenHost, uploaded
from vchan_testbed.guests.images import build
from vchan_testbed.progress import Progress

CONFIG = "VCHAN_TESTBED_SSH_CONFIG"
"""Environment variable: a file for ssh's -F instead of ~/.ssh/config."""
CONNECT_SECONDS_MAX = 30
SEND_SECONDS_MAX = 300
MASTER_SECONDS = 60
NO_PYTHON = 41

_RECEIVE = Path(__file__).resolve().parent.parent / "helper/scripts/receive.sh"
_FORM = re.compile(r"ssh://(?:(?P<user>[^@:/\s]+)@)?(?P<host>[^@:/\s]+)(?::(?P<port>\d{1,5}))?/?")

# What OpenSSH 9 says, and what the user does about it. {0} is the address, {1} USER@NAME.
REASONS = (
    ("Host key verification failed", "Log in once by hand and compare its key: ssh {0}"),
    ("REMOTE HOST IDENTIFICATION", "Its key has changed: find out why, then ssh-keygen -R NAME"),
    ("Permission denied", "Let your key in: ssh-copy-id {0} (passwords are not asked for)"),
    ("Could not resolve", "Is the name right? Try: ssh {0}"),
    ("Connection refused", "Does sshd run there, on that port? Try: ssh {0}"),
    ("timed out", "Is it up and reachable from here? Try: ssh {0}"),
    ("No route to host", "Is it up and reachable from here? Try: ssh {0}"),
    ("Bad configuration", "Mend that line of the ssh configuration."),
)


@dataclass(frozen=True)
class Address:
    """Where to log in; user and port None: as ~/.ssh/config says."""

    host: str
    user: str | None = None
    port: int | None = None

    def arguments(self) -> list[str]:
        """What ssh is given."""
        port = ["-p", str(self.port)] if self.port is not None else []
        return [*port, "--", f"{self.user}@{self.host}" if self.user else self.host]


def parse_address(text: str) -> Address:
    """The parts of ssh://USER@NAME[:PORT]. Raises InputError."""
    found = _FORM.fullmatch(text)
    # A name that began with a dash would be one of ssh's options.
    if found is None or any((found[part] or "").startswith("-") for part in ("user", "host")):
        raise InputError(f"{text} is not an address.", next_step="Expected ssh://USER@NAME[:PORT].")
    port = int(found["port"]) if found["port"] else None
    return Address(found["host"], found["user"], port)


def ssh_host(address: str, progress: Progress) -> XenHost:
    """The Xen host at ssh://USER@NAME[:PORT], not opened yet. Raises InputError."""
    where = parse_address(address)
    return XenHost("ssh", partial(connect, where), uploaded(lambda: build(progress)), progress)


def connect(address: Address) -> HelperClient:
    """Send the helper there and say hello. Raises TestbedError that says what is in the way."""
    sockets = tempfile.TemporaryDirectory(prefix="vchan-ssh-")
    ssh = Ssh(address, Path(sockets.name))

    def end() -> None:
        ssh.close()
        sockets.cleanup()

    try:
        folder = ssh.send_helper()
    except BaseException:
        end()
        raise
    command = ssh.command("exec", "python3", f"{folder}/helper.pyz", "--remove", folder)
    return HelperClient(ProcessCarrier(command, on_end=end))


class Ssh:
    """Sessions over one master connection, whose socket is in `folder`."""

    def __init__(self, address: Address, folder: Path) -> None:
        self._address = address
        self._folder = folder

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` in a shell there."""
        return [*self._ssh(), *self._address.arguments(), *words]

    def send_helper(self) -> str:
        """Copy the helper's file; the folder it is in. Raises TestbedError."""
        with helper_zipapp().open("rb") as file:
            done = self._run(self.command(_RECEIVE.read_text()), stdin=file.fileno())
        if done.returncode == NO_PYTHON:
            raise TestbedError(
                f"{self._address.host} has no python3.",
                next_step="Install Python 3.11 or newer there.",
            )
        if done.returncode != 0:
            raise self._error(done.stderr)
        return done.stdout.strip().splitlines()[-1]

    def close(self) -> None:
        """End the master connection."""
        command = [*self._ssh(), "-O", "exit", *self._address.arguments()]
        with contextlib.suppress(TestbedError):
            self._run(command, stdin=subprocess.DEVNULL)

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ControlMaster": "auto",
            "ControlPath": f"{self._folder}/%C",
            "ControlPersist": str(MASTER_SECONDS),
            "ConnectTimeout": str(CONNECT_SECONDS_MAX),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "8",
        }
        config = os.environ.get(CONFIG)
        start = ["ssh", "-T", *(("-F", config) if config else ())]
        return start + [f"-o{name}={value}" for name, value in options.items()]

    def _run(self, command: Sequence[str], stdin: int) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                stdin=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SEND_SECONDS_MAX,
                check=False,
            )
        except FileNotFoundError:
            raise TestbedError(
                "ssh is not installed on this machine.",
                next_step="sudo apt-get install openssh-client",
            ) from None
        except subprocess.TimeoutExpired:
            raise TestbedError(
                f"{self._address.host} did not take the helper within {SEND_SECONDS_MAX} s.",
                next_step="Is the connection slow, or its disk full?",
            ) from None

    def _error(self, said: str) -> TestbedError:
        """What ssh said, and what to do about it."""
        by_hand = " ".join(word for word in self._address.arguments() if word != "--")
        for reason, advice in REASONS:
            if reason in said:
                next_step = advice.format(by_hand)
                break
        else:
            next_step = f"Try: ssh {by_hand}"
        return TestbedError(
            f"There is no way into {self._address.host} by ssh.",
            next_step=next_step,
            console=said,
        )
