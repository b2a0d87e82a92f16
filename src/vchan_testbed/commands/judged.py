"""What `run` and `validate` share: judge a run directory, write what is said of it, print it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from vchan_testbed.progress import Progress
from vchan_testbed.rundir import RunDirectory, write_atomically
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.judge import judge_run
from vchan_testbed.validate.report import write_report
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
NO_XEN = "Loopback host: no Xen was involved."


def judge(run: RunDirectory, progress: Progress) -> Verdict:
    """Judge a run; verdict.json, report.html and junit.xml are written. Raises TestbedError."""
    with progress.step("Judge the traces"):
        verdict = judge_run(run.path, progress=progress)
    write_atomically(run.path / "verdict.json", json.dumps(verdict.to_json(), indent=2) + "\n")
    with progress.step("Write the report"):
        traces = [read_trace(run.trace(endpoint)) for endpoint in ("server", "client")]
        write_report(run.path, verdict, *traces)
    return verdict


def show(verdict: Verdict, run: RunDirectory) -> None:
    """Print a verdict for people."""
    for line in lines_of(verdict):
        click.echo(line)
    click.echo(f"Report: {run.path / 'report.html'}")


def lines_of(verdict: Verdict) -> Iterator[str]:
    """The verdict first, then why, then how far it reaches."""
    words = (verdict.conformance, verdict.progress)
    shown = " and ".join(click.style(word, fg=COLOURS[word], bold=True) for word in words)
    want = verdict.expectation
    yield shown + (
        ", as expected"
        if verdict.expected
        else f", but {want.conformance} and {want.progress} was expected"
    )
    for reason in (verdict.reason, verdict.progress_reason):
        if reason:
            yield f"  {reason}"
    if verdict.fault_of:
        due = f"; due was {verdict.due_action}" if verdict.due_action else ""
        yield f"  Fault of: {verdict.fault_of}{due}"
    for use in verdict.known:
        yield f"  Known deviation {use.id}, used {len(use.places)} times"
    if verdict.first_unexplained:
        place = verdict.first_unexplained
        yield f"  First unexplained: {place.endpoint}, record {place.record}: {place.what}"
    yield from (f"  {note}" for note in verdict.notes)
    yield f"  {verdict.records} records, {verdict.seconds:.1f} s, judge {verdict.judge}"
    if verdict.host.get("kind") == "loopback":
        yield NO_XEN
