"""What can go wrong with the test bed itself, and the exit status of every outcome.

A verdict is never an exception: REJECTED or VIOLATION are results. These classes are for the
cases in which there is no verdict, and each says what the user does next.
"""

from __future__ import annotations

import errno
import os
import subprocess
from enum import IntEnum
from pathlib import Path


class ExitStatus(IntEnum):
    """Exit status of every command."""

    EXPECTED = 0
    """The verdict is the one that the experiment expects (default ACCEPTED and PROGRESS)."""
    UNEXPECTED = 1
    """There is a verdict, and it is not the expected one."""
    USAGE = 2
    """Bad arguments or bad input: a broken experiment file, not a trace, another version."""
    UNDECIDED = 3
    """Undecided or inconclusive."""
    TESTBED_FAILED = 4
    """The test bed failed: no verdict on the channel can be had from this run."""


class TestbedError(Exception):
    """The test bed failed.

    `message` says what happened, `next_step` what the user does about it, `console` holds the
    last lines of a console, or of a program that failed, where they help; `log` is the file with
    all of them, where there is one: it goes into the run directory.
    """

    exit_status = ExitStatus.TESTBED_FAILED
    # Its name begins like a test's: pytest would try to collect it.
    __test__ = False

    def __init__(
        self, message: str, *, next_step: str = "", console: str = "", log: Path | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        # Xen ends its lines with two carriage returns.
        self.console = "\n".join(line for line in console.splitlines() if line.strip())
        self.log = log

    def __str__(self) -> str:
        parts = [self.message if self.message.endswith((".", "?", "!")) else f"{self.message}."]
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        if self.console:
            parts.append(f"Last lines:\n{self.console}")
        return "\n".join(parts)


class InputError(TestbedError):
    """What the user handed in cannot be used (exit status 2)."""

    exit_status = ExitStatus.USAGE


ELSEWHERE = "--out for runs, VCHAN_TESTBED_CACHE for the cache, TMPDIR for what is temporary"
NO_ROOM = f"Make room there, or name another place ({ELSEWHERE})."
NO_RIGHT = f"Name a place that you may write to ({ELSEWHERE})."
LOOK = "`vchan-testbed doctor` says what this machine lacks."
NEXT_STEPS = {
    errno.ENOSPC: NO_ROOM,
    errno.EDQUOT: NO_ROOM,
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: NO_RIGHT,
    errno.ENOMEM: "End something large, or run on a machine with more memory.",
}


def refused(error: OSError | subprocess.SubprocessError, where: object = "") -> TestbedError:
    """What the system refused, as an error with a next step.

    `where` is the place at work, for errors that name none: a write to a full disk does not.
    """
    if not isinstance(error, OSError):
        return TestbedError(str(error), next_step=LOOK)
    place = error.filename or where
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    said = error.strerror or str(error)
    return TestbedError(
        f"{place}: {said}" if place != "" else said,
        next_step=NEXT_STEPS.get(error.errno or 0, LOOK),
    )
