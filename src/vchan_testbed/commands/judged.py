"""What `run` and `validate` share: judge a run directory, write what is said of it, print it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace

import click

from vchan_testbed.errors import InputError
from vchan_testbed.progress import Progress
from vchan_testbed.rundir import RunDirectory, write_atomically
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.explain import explain
from vchan_testbed.validate.judge import Options, judge_run
from vchan_testbed.validate.report import write_report
from vchan_testbed.validate.together import judge_runs
from vchan_testbed.validate.verdict import Verdict

COLOURS = {
    "ACCEPTED": "green",
    "PROGRESS": "green",
    "KNOWN": "yellow",
    "UNDECIDED": "yellow",
    "INCONCLUSIVE": "yellow",
    "STALLED": "yellow",
    "REJECTED": "red",
    "VIOLATION": "red",
}


def judge(run: RunDirectory, progress: Progress, options: Options | None = None) -> Verdict:
    """Judge a run; verdict.json, report.html and junit.xml are written.

    Raises TestbedError.
    """
    _refuse_read_only(run)
    options = replace(options or Options(), bounded=True)
    with progress.step("Judge the traces"):
        verdict = judge_run(run.path, progress=progress, options=options)
    _write(run, verdict, progress)
    return verdict


def judge_all(
    runs: Sequence[RunDirectory], progress: Progress, options: Options | None = None
) -> list[Verdict]:
    """Judge several runs, as `judge` does each, with few runs of TLC. Raises TestbedError."""
    for run in runs:
        _refuse_read_only(run)
    with progress.step(f"Judge the traces of {len(runs)} runs"):
        verdicts = judge_runs([run.path for run in runs], progress=progress, options=options)
    for run, verdict in zip(runs, verdicts, strict=True):
        _write(run, verdict, progress)
    return verdicts


def _refuse_read_only(run: RunDirectory) -> None:
    if not os.access(run.path, os.W_OK | os.X_OK):
        raise InputError(
            f"{run.path} cannot be written to, and the verdict and the report go there",
            next_step="Copy it to a place that you may write to, or name its two traces instead.",
        )


def _write(run: RunDirectory, verdict: Verdict, progress: Progress) -> None:
    write_atomically(run.path / "verdict.json", json.dumps(verdict.to_json(), indent=2) + "\n")
    with progress.step("Write the report"):
        traces = [read_trace(run.trace(endpoint)) for endpoint in ("server", "client")]
        write_report(run.path, verdict, *traces)


def show(verdict: Verdict, run: RunDirectory | None = None) -> None:
    """Print a verdict for people; `run` has its report, if there is one."""
    first, *others = explain(verdict, run.path if run else None)
    for word in (verdict.conformance, verdict.progress):
        first = first.replace(word, click.style(word, fg=COLOURS[word], bold=True), 1)
    for line in (first, *others):
        click.echo(line)
