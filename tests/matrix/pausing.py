"""Random runs that conform, and pause: `make pausing`. None may be taken for one that hangs.

The runs of `make conforming`, but that the applications pause for longer than a run may stand still
before it is looked at, and that their processes are stopped and let go on from outside, at any
moment, as a busy machine does not run them for a while. Each has to be ACCEPTED and PROGRESS. What
came of them goes into pausing.json (`--pin`).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

sys.path.insert(0, str(Path(__file__).parent))

from conforming import Kind, main
from lasting import LastingLoopbackHost
from workloads import workload_of

from vchan_testbed.guests.experiment_model import Experiment, Operation, Timeouts

PINS = Path(__file__).with_name("pausing.json")
FOLDER = Path("build/pausing")
RUNS = 2_000
SETTLE_SECONDS = 0.03
PAUSE_SECONDS = (0.02, 0.12)
"""Some are looked at once, some twice, some not at all."""
PAUSES_MAX = 2
STOPPED_SECONDS = (0.001, 0.08)
BETWEEN_SECONDS = (0.001, 0.15)


def pausing_workload_of(seed: int, number: int) -> Experiment:
    """The experiment of a run: that of the conforming sweep, with pauses."""
    experiment = workload_of(seed, number)
    source = random.Random(f"pauses {seed} {number}")
    one = experiment.channel.threads == "one"
    pausing = _pausing_between if one else _pausing_within
    return replace(
        experiment,
        name=f"pausing-{number}",
        server=pausing(source, experiment.server),
        client=pausing(source, experiment.client),
        timeouts=Timeouts(settle_seconds=SETTLE_SECONDS, run_seconds_max=60),
    )


def _pausing_between(
    source: random.Random, operations: tuple[Operation, ...]
) -> tuple[Operation, ...]:
    """With a pause before some operations; the close stays the last one."""
    found = list(operations)
    for _ in range(source.randint(1, PAUSES_MAX)):
        pause = Operation("pause", pause_seconds=round(source.uniform(*PAUSE_SECONDS), 4))
        found.insert(source.randrange(len(found)), pause)
    return tuple(found)


def _pausing_within(
    source: random.Random, operations: tuple[Operation, ...]
) -> tuple[Operation, ...]:
    """Where both directions go at once, with a pause behind each call of an operation."""
    at = [number for number, operation in enumerate(operations) if operation.bytes]
    chosen = source.choice(at)
    pause = round(source.uniform(*PAUSE_SECONDS) / 2, 4)
    return tuple(
        replace(operation, pause_seconds=pause) if number == chosen else operation
        for number, operation in enumerate(operations)
    )


class PausingHost(LastingLoopbackHost):
    """The loopback host, on which somebody stops the workers and lets them go on all the time."""

    def __init__(self) -> None:
        super().__init__()
        self._over = threading.Event()
        self._scheduler = threading.Thread(target=self._schedule, daemon=True)
        self.stops = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self._scheduler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._scheduler.join()
        super().__exit__(kind, error, trace)

    def _schedule(self) -> None:
        source = random.Random(os.getpid())
        while not self._over.wait(source.uniform(*BETWEEN_SECONDS)):
            links = [link.pid for link in list(self._links.values())]
            workers = [child for pid in links for child in _children(pid)]
            if workers:
                self._stop_for(source.choice(workers), source.uniform(*STOPPED_SECONDS))

    def _stop_for(self, worker: int, seconds: float) -> None:
        # It may end at any moment: then nobody else gets the signal that was meant for it.
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(worker)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
                self.stops += 1
                self._over.wait(seconds)
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            finally:
                os.close(pidfd)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


PAUSING = Kind(PINS, FOLDER, RUNS, pausing_workload_of, PausingHost)

if __name__ == "__main__":
    sys.exit(main(PAUSING, __doc__))
