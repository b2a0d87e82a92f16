"""Runs xl and the xenstore programs, and reads what they print."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass

from vchan_testbed.errors import TestbedError

COMMAND_SECONDS_MAX = 120.0
"""For commands that only ask: under an emulator on a busy machine one takes seconds."""

# Where distributions keep programs of Xen that are not on everybody's PATH.
PROGRAM_FOLDERS: tuple[str, ...] = (
    "/usr/sbin",
    "/sbin",
    "/usr/lib/xen/bin",
    "/usr/libexec/xen/bin",
)

LAST_LINES = 12


@dataclass(frozen=True)
class Domain:
    """A line of `xl list`."""

    name: str
    domid: int
    memory_mib: int
    vcpus: int
    state: str
    """"gone", "crashed", "shut down", "dying", "paused" or "alive"."""
    scheduling: str = "not known"
    """The same, and of one that is alive "running", "blocked" or "ready to run"."""


class CommandFailed(TestbedError):
    """A program ended with another status than 0, or not in time."""

    def __init__(self, message: str, output: str, *, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step, console=output)
        self.output = output


async def run(*command: str, seconds_max: float = COMMAND_SECONDS_MAX) -> str:
    """What the command printed. Raises CommandFailed, with the last lines of its errors."""
    process = await start(*command)
    try:
        # Not asyncio.wait_for: that of Python 3.11 swallows a cancellation that comes in the same
        # turn of the loop as the program's end, and whoever cancelled waits for ever.
        async with asyncio.timeout(seconds_max):
            out, err = await process.communicate()
    except TimeoutError:
        raise CommandFailed(
            f"{' '.join(command)} did not end within {seconds_max:.0f} s",
            "",
            next_step="Look at the host's load and at `xl dmesg` there.",
        ) from None
    finally:
        await end(process)
    if process.returncode != 0:
        lines = (err + out).decode(errors="replace").splitlines()[-LAST_LINES:]
        raise CommandFailed(
            f"{' '.join(command)} failed (status {process.returncode})", "\n".join(lines)
        )
    return out.decode(errors="replace")


async def start(*command: str) -> asyncio.subprocess.Process:
    """Start a program whose output is read through pipes, in a process group of its own."""
    program = find_program(command[0])
    if program is None:
        raise TestbedError(
            f"{command[0]} is not installed on this host",
            next_step="Install the Xen tools there (Debian: xen-utils-common and xen-utils-*).",
        )
    return await asyncio.create_subprocess_exec(
        program,
        *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a program that still runs, and what it started; wait for it."""
    if process.returncode is None:
        # It may have ended by itself in this moment.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def find_program(name: str) -> str | None:
    """The path of a program, on PATH or where Xen's tools are kept."""
    extra = [os.environ.get("PATH", os.defpath), *PROGRAM_FOLDERS]
    return shutil.which(name, path=":".join(extra))


async def list_domains() -> list[Domain]:
    """All domains, dom0 too."""
    return parse_list(await run("xl", "list"))


def parse_list(text: str) -> list[Domain]:
    """What `xl list` printed. Raises TestbedError when that is not its table (Xen 4.14 to 4.20)."""
    domains = []
    for line in text.splitlines()[1:]:
        # A name may hold spaces; the five columns behind it do not.
        parts = line.rsplit(maxsplit=5)
        if len(parts) != 6 or not all(part.isdigit() for part in parts[1:4]):
            raise TestbedError(f"`xl list` printed a line of another form: {line!r}")
        name, domid, memory, vcpus, letters, _ = parts
        state, scheduling = state_of(letters), scheduling_of(letters)
        domains.append(Domain(name, int(domid), int(memory), int(vcpus), state, scheduling))
    return domains


def state_of(letters: str) -> str:
    """The state that the letters of `xl list` tell ("rbpscd", each there or "-")."""
    for letter, state in (("d", "dying"), ("c", "crashed"), ("s", "shut down"), ("p", "paused")):
        if letter in letters:
            return state
    return "alive"


def scheduling_of(letters: str) -> str:
    """As `state_of`, and of a domain that is alive what Xen's scheduler has of it."""
    state = state_of(letters)
    if state != "alive":
        return state
    # Without a letter it could run, and another domain does.
    return "running" if "r" in letters else "blocked" if "b" in letters else "ready to run"


def parse_info(text: str) -> dict[str, str]:
    """What `xl info` printed: "name : value" a line."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
