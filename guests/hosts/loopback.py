"""The loopback host: two agents in two processes over stand-ins, no Xen.

For tests, fuzzing and laptops. The agent, the tracer and libxenvchan are the real ones; what is
below them is not, and everything that is printed about such a run says so.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.frames import (
    Frame,
    FrameCut,
    FrameError,
    Message,
    encode,
    message_frame,
    read_frame,
)
from vchan_testbed.guests.hosts.protocol import AgentLink, nothing_seen
from vchan_testbed.guests.loopback import LoopbackWorld

DOMIDS = {"server": 1, "client": 2}
AGENT = "vchan_testbed.guests.agent"
END_SECONDS_MAX = 10.0


class ProcessLink:
    """The link to an agent that is a child process: frames on its standard input and output.

    What it says on standard error is appended to the file `console`.
    """

    def __init__(self, domid: int, environment: dict[str, str], console: Path) -> None:
        self._domid = domid
        self._events: queue.Queue[Frame | None] = queue.Queue()
        self._lock = threading.Lock()
        with console.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", AGENT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                # Ctrl-C is for the command: the agents end when it hangs up.
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"agent {domid}")
        self._reader.start()

    @property
    def domid(self) -> int:
        """The domain that the agent believes to be in."""
        return self._domid

    @property
    def events(self) -> queue.Queue[Frame | None]:
        """What the agent said, None at the end."""
        return self._events

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the supervisor lives."""
        return self._process.poll() is None

    def send(self, message: Message) -> None:
        """Say something; an agent that is gone does not hear it."""
        assert self._process.stdin is not None
        # A dead agent is seen by the end of its events.
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(encode(message_frame(message)))
            self._process.stdin.flush()

    def close(self) -> None:
        """Hang up and wait until the agent has ended."""
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_SECONDS_MAX)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            try:
                while (frame := read_frame(stream)) is not None:
                    self._events.put(frame)
            except FrameCut:
                # Killed as it wrote. Its end says so; what was whole is here.
                pass
            except FrameError as error:
                self._events.put(
                    message_frame(
                        {"type": "error", "message": error.message, "next_step": error.next_step}
                    )
                )
        self._events.put(None)


class LoopbackHost:
    """Two agents over the stand-ins."""

    kind = "loopback"

    def __init__(self) -> None:
        self._exit = contextlib.ExitStack()
        self._links: dict[str, ProcessLink] = {}
        self._folder = Path()
        self._world: LoopbackWorld | None = None
        self._baseline: dict[str, int] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="vchan-loopback-", dir=_memory_folder())
                )
            )
            self._world = stack.enter_context(LoopbackWorld(self._folder / "host"))
            stack.callback(self._hang_up)
            self._baseline = self.counts()
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def facts(self) -> dict[str, Any]:
        """`xen_version` is None: this is never called real."""
        return {
            "kind": self.kind,
            "xen_version": None,
            "kernel": f"{platform.system()} {platform.release()}",
            "accelerator": None,
            "machine": platform.machine(),
        }

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        """Two new agents; earlier ones are ended."""
        self._hang_up()
        for endpoint in ENDPOINTS:
            self._links[endpoint] = self._new_link(endpoint)
        return dict(self._links)

    def act(self, domid: int, do: str) -> None:
        """Raises InputError: there are no domains."""
        raise InputError(
            f"There is no domain {domid} on the loopback host to {do}.",
            next_step="Run the experiment on Xen: --host qemu, local or ssh://USER@NAME.",
        )

    def look(self, domids: Sequence[int], *, dump: bool) -> dict[int, dict[str, Any]]:
        """There is nothing to look at."""
        return nothing_seen(domids, "there is no Xen on the loopback host", dump=dump)

    def lost_guests(self) -> list[str]:
        """There is no emulator that could lose one."""
        return []

    def selftest(self) -> dict[str, Any]:
        """There is no domain beside those of the agents."""
        return {"ok": None, "detail": "no self-test runs here"}

    def counts(self) -> dict[str, int]:
        """What the stand-ins have given out, and the agents that run."""
        agents = sum(link.running for link in self._links.values())
        return {**self._running().counts(), "processes": agents}

    def baseline(self) -> dict[str, int]:
        """The counts of a new world."""
        return dict(self._baseline)

    def give_back(self) -> dict[str, int]:
        """End the agents and count what they left in the world."""
        self._hang_up()
        return self.counts()

    def consoles(self) -> dict[str, str]:
        """What the agents said on standard error."""
        return {
            endpoint: self._console(endpoint).read_text(errors="replace")
            for endpoint in ENDPOINTS
            if self._console(endpoint).exists()
        }

    def _new_link(self, endpoint: str) -> ProcessLink:
        domid = DOMIDS[endpoint]
        environment = self._running().environment(domid)
        return ProcessLink(domid, environment, self._console(endpoint))

    def _console(self, endpoint: str) -> Path:
        return self._folder / f"{endpoint}.log"

    def _running(self) -> LoopbackWorld:
        if self._world is None:
            raise TestbedError(
                "the loopback host is not open", next_step="Use it in a `with` statement."
            )
        return self._world

    def _hang_up(self) -> None:
        for link in self._links.values():
            link.close()
        self._links = {}


def _memory_folder() -> str | None:
    # Shared pages in a file on a disk would be written back now and then, and stall the run.
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
