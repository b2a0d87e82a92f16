"""A Xen host behind ssh: the helper goes there, runs, and is gone again.

The system's OpenSSH is used with the user's own configuration and keys; VCHAN_TESTBED_SSH_CONFIG
names another configuration file. It never asks: a host that wants a password is an error.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.helper.build import helper_zipapp
from vchan_testbed.guests.hosts.carrier import ProcessCarrier
from vchan_testbed.guests.hosts.client import HelperClient
from vchan_testbed.guests.hosts.xen import XenHost, uploaded
from vchan_testbed.guests.images import build
from vchan_testbed.progress import Progress

ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[^@/:\s-][^@/:\s]*)@)?(?P<name>[^@/:\s-][^@/:\s]*)(?::(?P<port>\d+))?/?"
)
CONNECT_SECONDS = 30
SEND_SECONDS_MAX = 300.0
FOLDER = re.compile(r"/[A-Za-z0-9_./-]+")

# Said by ssh or by the far side, what it means, what to do about it.
EXPLANATIONS = (
    ("Permission denied", "it does not let us in", "Try `{command}` by hand: a key is needed."),
    ("Host key verification failed", "its host key is not known", "Log in once by hand."),
    ("Could not resolve", "its name is not known", "Look at the name."),
    ("Connection refused", "nothing answers there", "Is its sshd running, on that port?"),
    ("timed out", "it does not answer", "Is it up, and may it be reached?"),
    ("python3: ", "it has no python3", "Install python3 there: it is all that is needed."),
)


@dataclass(frozen=True)
class Address:
    """Where to: `ssh://USER@NAME:PORT`, user and port as ssh's configuration has them if absent."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises InputError for what is no such address."""
        match = ADDRESS.fullmatch(text)
        if match is None:
            raise InputError(
                f"{text} is not the address of a host",
                next_step="Write ssh://USER@NAME or ssh://USER@NAME:PORT.",
            )
        port = match["port"]
        return cls(match["name"], match["user"], int(port) if port else None)

    def command(self, *words: str) -> list[str]:
        """ssh's command line for a command there."""
        config = os.environ.get("VCHAN_TESTBED_SSH_CONFIG")
        return [
            "ssh",
            *(["-F", config] if config else []),
            *(["-p", str(self.port)] if self.port else []),
            *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"),
            *("-o", "ServerAliveInterval=15", "-T"),
            f"{self.user}@{self.name}" if self.user else self.name,
            *words,
        ]


def ssh_host(address: str, progress: Progress) -> XenHost:
    """The Xen host behind `address`. Raises InputError for no address, TestbedError later on."""
    where = Address.parse(address)
    return XenHost(
        "ssh",
        lambda: _connected(where, progress),
        uploaded(lambda: build(progress)),
        progress,
    )


def _connected(where: Address, progress: Progress) -> HelperClient:
    with progress.step(f"send the helper to {where.name}"):
        folder = _send(where)
    helper = f"python3 {folder}/helper.pyz --remove {folder}"
    return HelperClient(ProcessCarrier(where.command(f"exec {helper}")))


def _send(where: Address) -> str:
    """The folder there that now has helper.pyz."""
    script = 'python3 -c "" && d=$(mktemp -d) && cat >"$d/helper.pyz" && echo "$d"'
    command = where.command(script)
    try:
        sent = subprocess.run(
            command,
            input=helper_zipapp().read_bytes(),
            capture_output=True,
            timeout=SEND_SECONDS_MAX,
            check=False,
        )
    except FileNotFoundError as error:
        raise TestbedError(
            "There is no ssh here.", next_step="Install the package openssh-client."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise _unreachable(where, "it took too long to take the helper") from error
    folder = sent.stdout.decode(errors="replace").strip()
    if sent.returncode or not FOLDER.fullmatch(folder):
        raise _unreachable(where, sent.stderr.decode(errors="replace").strip())
    return folder


def _unreachable(where: Address, said: str) -> TestbedError:
    for words, meaning, next_step in EXPLANATIONS:
        if words in said:
            by_hand = " ".join(where.command("true"))
            return TestbedError(
                f"The host {where.name} cannot be used: {meaning} ({said.splitlines()[-1]}).",
                next_step=next_step.format(command=by_hand),
            )
    return TestbedError(
        f"The host {where.name} cannot be used: {said or 'ssh said nothing'}.",
        next_step=f"Try by hand: {' '.join(where.command('true'))}",
    )
