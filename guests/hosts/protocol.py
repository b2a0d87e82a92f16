"""What a run needs of the place where the domains are: a host, and a link to each agent."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.frames import Frame, Message

Facts = dict[str, Any]


def nothing_seen(domids: Sequence[int], why: str, *, dump: bool) -> dict[int, Facts]:
    """What a host that cannot look at domains has to say of them."""
    seen: Facts = {"domain": {"state": None, "why": why}}
    if dump:
        seen["event_channels"] = {"ports": None, "why": why}
    return {domid: dict(seen) for domid in domids}


class AgentLink(Protocol):
    """The way to one agent. Frames come from a thread of the host's own."""

    @property
    def domid(self) -> int:
        """The domain that the agent runs in."""

    @property
    def events(self) -> queue.Queue[Frame | None]:
        """What the agent said, in order; None when the link has ended, and nothing after it."""

    def send(self, message: Message) -> None:
        """Say something to the agent. What a dead link does not carry is dropped: see `events`."""

    def close(self) -> None:
        """Hang up: the agent ends, and what it had started with it."""


class Host(Protocol):
    """Where the domains are. Entering makes it ready, leaving gives back all that was taken."""

    @property
    def kind(self) -> str:
        """One of local, qemu, loopback, ssh."""

    def __enter__(self) -> Self:
        """Make it ready. Raises TestbedError."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give everything back."""

    def facts(self) -> Facts:
        """For `run.json`: `xen_version` (None without Xen), `kernel`, `accelerator`, `machine`."""

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        """Make what is needed and link to the agents of "server" and "client".

        Asked again, it makes the pair anew. Raises TestbedError.
        """

    def act(self, domid: int, do: str) -> None:
        """Pause, unpause or destroy (`do`) the domain of an endpoint, as anybody may.

        Raises TestbedError, and InputError where there are no domains.
        """

    def look(self, domids: Sequence[int], *, dump: bool) -> dict[int, Facts]:
        """What Xen has of domains, by domid: `domain`, and with `dump` also `event_channels`.

        `domain` has a `state` ("running", "blocked", "ready to run", "paused", "dying", "crashed",
        "shut down", "gone"), `event_channels` has `ports` (helper/evtchn_dump.py); each of them is
        None where it is not known, and `why` says so. Raises nothing: a look is no failure.
        """

    def lost_guests(self) -> list[str]:
        """The guests that the emulator, not the workload, has lost: one sentence for each."""

    def selftest(self) -> Facts:
        """What the self-test in the host's own domain says: `ok` (None where none runs), `detail`.

        Raises TestbedError when the host is gone.
        """

    def counts(self) -> dict[str, int]:
        """Domains, grants, ports, keys, vifs, bridges, processes: what is in use now."""

    def baseline(self) -> dict[str, int]:
        """The counts before anything was taken, idle domains of a saved state among it."""

    def give_back(self) -> dict[str, int]:
        """End the agents and the domains, and count again: the baseline, or something leaked."""

    def consoles(self) -> dict[str, str]:
        """What the consoles have said, by name."""
