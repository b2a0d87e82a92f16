"""Two ends of a talk (tests/tracer/talker.c), each under `vchan-testbed record`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.header import TraceHeader
from vchan_testbed.tracer.layout import HEADER_BYTES, MAGIC, FrozenBy, Look

RECORD = (str(Path(sys.executable).with_name("vchan-testbed")), "record", "--out")
SECONDS_MAX = 120


@dataclass(frozen=True)
class End:
    """One end's `record`, and where its trace is."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def path(self) -> Path:
        """Of its trace."""
        (path,) = self.folder.glob("*.vtrace")
        return path

    @property
    def pid(self) -> int:
        """Of the program itself: its trace is named after it."""
        return int(self.path.stem.split("-")[1])

    def line(self) -> str:
        """The next line that the program says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> tuple[int, str]:
        """Status and what it said on standard error, when it has ended."""
        _, errors = self.process.communicate(timeout=SECONDS_MAX)
        return self.process.returncode, errors

    def kill(self) -> None:
        """The program, not its `record`."""
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def frozen_by(self) -> FrozenBy:
        """What its trace is frozen by, as soon as it is; by the settle time, looked at as well."""
        while True:
            header = self._header()
            by = FrozenBy(header.frozen) if header else FrozenBy.NOTHING
            if by and (by != FrozenBy.SETTLE_TIME or (header and header.look & Look.TAKEN)):
                return by
            assert self.process.poll() is None
            os.sched_yield()

    def _header(self) -> TraceHeader | None:
        """As it is now; None before there is one."""
        for path in self.folder.glob("*.vtrace"):
            with path.open("rb") as file:
                page = file.read(HEADER_BYTES)
            return TraceHeader.unpack(page, "trace") if page.startswith(MAGIC) else None
        return None


def started(
    stack: ExitStack,
    world: LoopbackWorld,
    folder: Path,
    command: Sequence[str],
    options: Mapping[str, Sequence[str]],
) -> dict[str, End]:
    """Both ends, the server first; `options` are those of each end's `record`."""
    ends = {}
    for domid, role in enumerate(("server", "client"), start=1):
        process = subprocess.Popen(
            [*RECORD, str(folder / role), *options[role], "--", *command, role],
            env={**os.environ, **world.environment(domid)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(_stop, process)
        ends[role] = End(process, folder / role)
        if role == "server":
            assert ends[role].line() == "up\n"
    return ends


def _stop(process: subprocess.Popen[str]) -> None:
    """Whatever it does."""
    process.terminate()
    process.communicate(timeout=SECONDS_MAX)
