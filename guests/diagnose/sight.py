"""What a look at a channel gives: plain data, each part of it None where it could not be had."""

from __future__ import annotations

from dataclasses import dataclass

from vchan_testbed.guests.diagnose.page import ControlPage

STOPPED = ("T", "t")
"""States of a process that a signal or a debugger holds (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class Process:
    """One end's process: what its threads do, and its event descriptor.

    `asleep`: a thread reads the event channel's file, and no event is there: it sleeps in a call.
    `polls`: a thread polls some descriptors by itself. `readable`: an event waits to be read.
    """

    pid: int
    name: str
    state: str
    asleep: bool
    polls: bool
    runs: bool
    readable: bool | None
    interrupts: int | None = None

    @property
    def stopped(self) -> bool:
        """Whether a signal or a debugger holds it."""
        return self.state in STOPPED


@dataclass(frozen=True, slots=True)
class Port:
    """A port as Xen knows it: "unbound", "interdomain", "closed", and its pending and mask bits."""

    domid: int
    port: int
    status: str
    pending: bool | None = None
    masked: bool | None = None


@dataclass(frozen=True, slots=True)
class End:
    """One end of a channel. `domain`: "alive", "paused", "crashed", "dying", "gone" or None."""

    domid: int | None
    domain: str | None
    process: Process | None
    port: Port | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at one channel."""

    name: str
    at_seconds: float
    page: ControlPage
    ends: dict[str, End]
