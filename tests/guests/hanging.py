"""Experiments that hang, under way, and a look at them from outside."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.diagnose.main import main
from vchan_testbed.guests.experiment import Experiment, default_path
from vchan_testbed.guests.hosts.loopback import LoopbackHost, ProcessLink
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.runner import run_experiment
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import create_run

HANGS = default_path().parent / "hangs"
SECONDS_MAX = 120.0
ENDS = ("server", "client")
SETTLE_SECONDS = 20.0
"""Longer than it takes to look: the run goes on until then."""


class Seen(LoopbackHost):
    """A loopback host that tells its agents' processes."""

    def __init__(self) -> None:
        super().__init__()
        self.agents: dict[str, int] = {}

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        links = super().endpoints(experiment)
        for end, link in links.items():
            assert isinstance(link, ProcessLink)
            self.agents[end] = link.pid
        return links

    def workers(self) -> dict[str, int]:
        """The processes that use the library, as far as they are there."""
        found = {}
        for end, agent in self.agents.items():
            with contextlib.suppress(OSError, IndexError):
                path = Path(f"/proc/{agent}/task/{agent}/children")
                found[end] = int(path.read_text().split()[0])
        return found


class Hanging:
    """An experiment under way, in a thread."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        timeouts = replace(experiment.timeouts, settle_seconds=SETTLE_SECONDS)
        self._experiment = replace(experiment, timeouts=timeouts)
        self._folder = folder
        self.host = Seen()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Hanging:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for pid in self.host.workers().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._thread.join()

    def _run(self) -> None:
        run = create_run(self._folder / "run", "test", run_id="ab" * 16, messages=[])
        with self.host as host, contextlib.suppress(TestbedError):
            run_experiment(host, self._experiment, run, 1, Quiet())

    def look(self, passing: tuple[str, ...] = ("moving",)) -> list[dict[str, Any]]:
        """What `diagnose` says of both processes, as soon as it is none of `passing`."""
        while (said := self.look_once())[0]["verdict"]["word"] in passing:
            pass
        return said

    def look_once(self) -> list[dict[str, Any]]:
        """What it says as soon as both have a channel."""
        deadline = time.monotonic() + SECONDS_MAX
        while self._thread.is_alive() and time.monotonic() < deadline:
            workers = self.host.workers()
            if len(workers) == len(ENDS) and (said := diagnosed(*workers.values())):
                return said
        raise AssertionError("there is no channel")


def diagnosed(*pids: int) -> list[dict[str, Any]]:
    """What `diagnose --json` prints of these processes; nothing if one has no channel yet."""
    out = io.StringIO()
    options = [word for pid in pids for word in ("--pid", str(pid))]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(["--loopback", "--json", "--seconds", "0.5", *options])
    text = out.getvalue()
    return json.loads(text) if text else []
