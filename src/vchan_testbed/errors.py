"""What can go wrong with the test bed itself, and the exit status of every outcome.

A verdict is never an exception: REJECTED or VIOLATION are results. These classes are for the
cases in which there is no verdict, and each says what the user does next.
"""

from __future__ import annotations

from enum import IntEnum


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
    last lines of a guest's or of Xen's console where they help.
    """

    exit_status = ExitStatus.TESTBED_FAILED
    # Its name begins like a test's: pytest would try to collect it.
    __test__ = False

    def __init__(self, message: str, *, next_step: str = "", console: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.console = console

    def __str__(self) -> str:
        parts = [self.message]
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        if self.console:
            parts.append("Last console lines:\n" + self.console.rstrip())
        return "\n".join(parts)


class InputError(TestbedError):
    """What the user handed in cannot be used (exit status 2)."""

    exit_status = ExitStatus.USAGE
