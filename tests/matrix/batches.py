"""Batches of runs, each made while the one before is judged by another process."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from batch import Planned, make_run
from lasting import LastingLoopbackHost

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import RunDirectory
from vchan_testbed.validate.judge import Options
from vchan_testbed.validate.together import judge_runs
from vchan_testbed.validate.verdict import Verdict

GOOD = ("ACCEPTED", "PROGRESS")
NO_RUN = ("no run", "no run")


@dataclass(frozen=True)
class Ran:
    """One run: what `run.json` says, and the verdict; None if it could not be made."""

    name: str
    facts: dict[str, Any]
    verdict: Verdict | None
    by_calls: Verdict | None = None
    """The verdict as if calls alone had been recorded, where it was asked for."""

    @property
    def is_good(self) -> bool:
        """ACCEPTED, and PROGRESS."""
        return self.said == GOOD

    @property
    def said(self) -> tuple[str, str]:
        """Conformance and progress."""
        return (self.verdict.conformance, self.verdict.progress) if self.verdict else NO_RUN

    @property
    def reason(self) -> str:
        """Why it is not good."""
        if self.verdict is None:
            return str(self.facts["error"])
        return self.verdict.reason or self.verdict.progress_reason

    @property
    def leaked(self) -> bool:
        """Something was in use behind the run that was not before it."""
        counts = self.facts["counts"]
        return bool(counts["before"] != counts["after"])


@dataclass(frozen=True)
class Batch:
    """Runs that are judged together."""

    name: str
    planned: Sequence[Planned]


@dataclass(frozen=True)
class Judging:
    """How the runs are judged."""

    ignore_injected: bool = False
    by_calls: bool = False
    """Once more, as if calls alone had been recorded."""

    @property
    def options(self) -> list[Options]:
        """Of each time."""
        exact = Options(ignore_injected=self.ignore_injected)
        return [exact, *([replace(exact, level="calls")] if self.by_calls else [])]


@dataclass
class Clock:
    """When to begin no more batches."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        return self.passed > self.seconds


Verdicts = list[list[Verdict]]
"""Of each run, by the options."""


def judged(folders: Sequence[Path], judging: Judging) -> Verdicts:
    """Their verdicts; in a process of its own."""
    each = [judge_runs(folders, options=options) for options in judging.options]
    return [list(of_run) for of_run in zip(*each, strict=True)]


def performed(
    batches: Iterable[Batch],
    folder: Path,
    clock: Clock,
    judging: Judging | None = None,
    host: AbstractContextManager[Host] | None = None,
) -> Iterator[tuple[Batch, list[Ran]]]:
    """Each batch with its runs, as long as there is time; run directories are in `folder`.

    Without a `host` they are made on the loopback host. A run that cannot be made has no verdict.
    Raises TestbedError when one cannot be judged.
    """
    judging = judging or Judging()
    waiting: tuple[Batch, list[Path], Future[Verdicts]] | None = None
    with (
        host or LastingLoopbackHost() as opened,
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
    ):
        for batch in batches:
            if clock.is_up:
                break
            # What a stop in the middle has left behind is made anew.
            shutil.rmtree(folder / batch.name, ignore_errors=True)
            runs = [_made(opened, one, folder / batch.name) for one in batch.planned]
            if waiting:
                yield _ran(*waiting)
            made = [run for run in runs if "error" not in RunDirectory(run).facts()]
            job = pool.submit(judged, made, judging)
            waiting = (batch, runs, job)
        if waiting:
            yield _ran(*waiting)


def _made(host: Host, planned: Planned, folder: Path) -> Path:
    """Its run directory; one that could not be made says so in its run.json."""
    with contextlib.suppress(TestbedError):
        make_run(host, planned, folder, Quiet())
    return folder / planned.name


def _ran(batch: Batch, runs: Sequence[Path], job: Future[Verdicts]) -> tuple[Batch, list[Ran]]:
    try:
        verdicts = job.result()
    except TestbedError as error:
        raise TestbedError(
            f"The batch {batch.name} cannot be judged: {error.message}", next_step=error.next_step
        ) from error
    found = []
    of_made = iter(verdicts)
    for path in runs:
        facts = RunDirectory(path).facts()
        own = [None] if "error" in facts else next(of_made)
        found.append(Ran(path.name, facts, *own))
    return batch, found


def keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove the run directories in a batch's folder, all but those."""
    kept = set(names)
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path)
    if not kept:
        folder.rmdir()
