"""`vchan-testbed validate`: judge runs that were recorded before, without Xen."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vchan_testbed.commands.judged import judge, show
from vchan_testbed.errors import ExitStatus, InputError
from vchan_testbed.progress import Progress, Quiet, for_terminal
from vchan_testbed.rundir import RunDirectory
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.judge import judge_traces
from vchan_testbed.validate.prepare import prepare, read_run
from vchan_testbed.validate.tlc.follow import Bounds, job_in
from vchan_testbed.validate.tlc.runner import command_of
from vchan_testbed.validate.unfollowed import decided_before
from vchan_testbed.validate.verdict import Verdict

BADNESS = (
    ExitStatus.EXPECTED,
    ExitStatus.UNDECIDED,
    ExitStatus.UNEXPECTED,
)
"""Of several runs the worst status counts: a run that is rejected outweighs an undecided one."""


@dataclass(frozen=True)
class Subject:
    """One run: its directory, or two traces without one."""

    server: Path
    client: Path
    run: RunDirectory | None
    facts: dict[str, Any] | None

    @property
    def name(self) -> str:
        """As the user named it."""
        return str(self.run.path) if self.run else f"{self.server} {self.client}"


@click.command()
@click.argument("runs", metavar="RUN_OR_TRACES...", nargs=-1, required=True, type=Path)
@click.option("--json", "as_json", is_flag=True, help="Print what verdict.json holds.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be judged and with which command of TLC, and judge nothing.",
)
@click.pass_context
def validate(context: click.Context, runs: tuple[Path, ...], as_json: bool, dry_run: bool) -> None:
    """Judge run directories, or two .vtrace files (one of the server, one of the client).

    Of several runs the worst exit status counts.
    """
    subjects = subjects_of(runs)
    progress = Quiet() if as_json else for_terminal()
    if dry_run:
        for subject in subjects:
            describe(subject)
        return
    verdicts = [judged(subject, progress, as_json=as_json) for subject in subjects]
    if as_json:
        data = [verdict.to_json() for verdict in verdicts]
        click.echo(json.dumps(data[0] if len(data) == 1 else data, indent=2))
    context.exit(max((v.exit_status for v in verdicts), key=BADNESS.index))


def subjects_of(paths: tuple[Path, ...]) -> list[Subject]:
    """Run directories as they are, trace files in pairs. Raises InputError."""
    subjects = []
    traces = {}
    for path in paths:
        if path.is_dir():
            found, facts = read_run(path)
            subjects.append(Subject(found["server"], found["client"], RunDirectory(path), facts))
            continue
        role = read_trace(path).header.role
        if role in traces:
            raise InputError(
                f"{path} is a second trace of the {role}",
                next_step="Name one trace of the server and one of the client, or run directories.",
            )
        traces[role] = path
    if len(traces) == 1:
        (role,) = traces
        raise InputError(
            f"the {role}'s trace stands alone",
            next_step="Name the trace of the other end as well.",
        )
    if traces:
        subjects.append(Subject(traces["server"], traces["client"], None, None))
    return subjects


def judged(subject: Subject, progress: Progress, *, as_json: bool) -> Verdict:
    """Judge one; a run directory gets its verdict and report again."""
    if subject.run is not None:
        verdict = judge(subject.run, progress)
        if not as_json:
            show(verdict, subject.run)
        return verdict
    verdict = judge_traces(subject.server, subject.client, None, progress=progress)
    if not as_json:
        show(verdict)
    return verdict


def describe(subject: Subject) -> None:
    """Say what would be judged, and how. Raises what judging raises for traces that are no good."""
    case = prepare(subject.server, subject.client, subject.facts)
    click.echo(subject.name)
    for role, trace in case.traces.items():
        click.echo(f"  {role}: {len(trace.records)} records, {trace.ending}")
    for one in case.directions:
        lanes = one.lanes
        click.echo(
            f"  {lanes.direction}: {len(lanes.sender)} steps of the sender, "
            f"{len(lanes.receiver)} of the receiver, in {one.pieces} "
            f"piece{'s' if one.pieces != 1 else ''}"
        )
    if found := decided_before(case):
        click.echo(f"  TLC would not be run: {found.conformance}, {found.reason}")
        return
    steps = max(one.steps // max(one.pieces, 1) for one in case.directions)
    job = job_in(Path("FOLDER"), case.tables.actions, Bounds(), steps=steps)
    click.echo("  TLC, for each piece, in a temporary FOLDER with the module made for it:")
    click.echo(f"    {shlex.join(command_of(job))}")
