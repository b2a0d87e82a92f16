"""`vchan-testbed validate`: judge runs that were recorded before, without Xen."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from vchan_testbed.commands.judged import judge, judge_all, show
from vchan_testbed.errors import ExitStatus, InputError
from vchan_testbed.progress import Progress, Quiet, for_terminal
from vchan_testbed.rundir import RunDirectory
from vchan_testbed.tracer.channels import End, pairs, split
from vchan_testbed.tracer.format import write_trace
from vchan_testbed.tracer.layout import FILE_SUFFIX
from vchan_testbed.tracer.reader import Trace, read_trace
from vchan_testbed.validate.followed import parts_of
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.prepare import (
    LEVELS,
    SPECS,
    Level,
    SpecName,
    load_tables,
    prepare,
    read_run,
)
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
    names: tuple[str, ...] = ()
    """Of the ends, where the two traces are of one channel out of several."""

    @property
    def name(self) -> str:
        """As the user named it."""
        if self.run:
            return str(self.run.path)
        return " and ".join(self.names) or f"{self.server} {self.client}"


@click.command()
@click.argument("runs", metavar="RUN_OR_TRACES...", nargs=-1, required=True, type=Path)
@click.option(
    "--spec",
    type=click.Choice(SPECS),
    default=SPECS[0],
    show_default=True,
    help="Judge by the whole library, or by the protocol in each direction alone.",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    help="Judge by all that was recorded (without it), or as if calls and events alone had been.",
)
@click.option(
    "--ignore-injected",
    is_flag=True,
    help="Judge without a look at the records of faults that were injected. The verdict on what "
    "happened is the same; it does not say any more that the test bed had a hand in it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what verdict.json holds.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be judged and with which command of TLC, and judge nothing.",
)
@click.pass_context
def validate(
    context: click.Context,
    runs: tuple[Path, ...],
    spec: SpecName,
    level: Level | None,
    ignore_injected: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Judge run directories, or .vtrace files of both ends of one channel or several.

    Of several runs or channels the worst exit status counts.
    """
    work = context.with_resource(tempfile.TemporaryDirectory(prefix="vchan-channels-"))
    subjects = subjects_of(runs, Path(work))
    progress = Quiet() if as_json else for_terminal()
    options = Options(tables=load_tables(spec), level=level, ignore_injected=ignore_injected)
    if dry_run:
        for subject in subjects:
            describe(subject, options)
        return
    verdicts = judged(subjects, progress, options, as_json=as_json)
    if as_json:
        data = [verdict.to_json() for verdict in verdicts]
        click.echo(json.dumps(data[0] if len(data) == 1 else data, indent=2))
    context.exit(max((v.exit_status for v in verdicts), key=BADNESS.index))


def subjects_of(paths: tuple[Path, ...], work: Path) -> list[Subject]:
    """Run directories as they are, trace files by the channels that they are the two ends of.

    `work` is a folder for traces of one channel out of several. Raises InputError.
    """
    subjects, files = [], []
    for path in paths:
        if path.is_dir():
            found, facts = read_run(path)
            subjects.append(Subject(found["server"], found["client"], RunDirectory(path), facts))
        else:
            files.append(path)
    return [*subjects, *_of_traces(files, work)]


def _of_traces(files: list[Path], work: Path) -> list[Subject]:
    traces = {path: read_trace(path) for path in files}
    roles = {trace.header.role: path for path, trace in traces.items()}
    if len(files) > 1 and len(roles) == 1 and all(t.header.channels <= 1 for t in traces.values()):
        (role,) = roles
        raise InputError(
            f"All of these are traces of the {role}.",
            next_step="Name the traces of the other end as well.",
        )
    if len(files) == 1:
        (role,) = roles
        raise InputError(
            f"the {role}'s trace stands alone",
            next_step="Name the trace of the other end as well.",
        )
    if len(files) == len(roles) == 2 and all(t.header.channels <= 1 for t in traces.values()):
        return [Subject(roles["server"], roles["client"], None, None)]
    return _of_channels(traces, work) if files else []


def _of_channels(traces: dict[Path, Trace], work: Path) -> list[Subject]:
    found, alone = pairs(end for path, trace in traces.items() for end in split(trace, str(path)))
    lost = next((path for path, trace in traces.items() if trace.begins_later), None)
    if not found and lost:
        raise InputError(
            f"{lost} is a window, and its channels were opened before it: whose other end each of "
            "them is nobody knows.",
            next_step="Give the two windows of one channel alone, of programs that open one each.",
        )
    if not found:
        raise InputError(
            "No two of these traces are ends of one channel.",
            next_step="Name traces of both ends: of a server, and of the client that met its port "
            "and grant.",
        )
    for end in alone:
        click.echo(f"{end.name}: its other end is not among these traces.", err=True)
    subjects = []
    for number, ends in enumerate(found):
        server, client = (_alone(end, work, number) for end in ends)
        names = tuple(end.name for end in ends)
        subjects.append(Subject(server, client, None, None, names))
    return subjects


def _alone(end: End, work: Path, number: int) -> Path:
    """A file with the trace of this end."""
    place = work / f"{number}-{end.trace.header.role}{FILE_SUFFIX}"
    complete = end.trace.ending == "complete"
    lost = end.trace.window.lost if end.trace.window else {}
    write_trace(place, end.trace.header, end.trace.records, complete=complete, lost=lost)
    return place


def judged(
    subjects: Sequence[Subject], progress: Progress, options: Options, *, as_json: bool
) -> list[Verdict]:
    """Judge all of them; run directories get their verdicts and reports again."""
    runs = [subject.run for subject in subjects if subject.run]
    verdicts = (
        judge_all(runs, progress, options)
        if len(runs) > 1
        else [judge(run, progress, options) for run in runs]
    )
    if not as_json:
        for run, verdict in zip(runs, verdicts, strict=True):
            show(verdict, run)
    others = [subject for subject in subjects if not subject.run]
    return [*verdicts, *(_judged(one, progress, options, as_json=as_json) for one in others)]


def _judged(subject: Subject, progress: Progress, options: Options, *, as_json: bool) -> Verdict:
    """Of two traces."""
    if subject.names and not as_json:
        click.echo(f"{subject.name}:")
    options = replace(options, bounded=True)
    verdict = judge_traces(subject.server, subject.client, None, progress=progress, options=options)
    if not as_json:
        show(verdict)
    return verdict


def describe(subject: Subject, options: Options) -> None:
    """Say what would be judged, and how. Raises what judging raises for traces that are no good."""
    traces = subject.server, subject.client
    case = prepare(
        *traces,
        subject.facts,
        tables=options.tables,
        level=options.level,
        ignore_injected=options.ignore_injected,
    )
    click.echo(subject.name)
    for role, trace in case.traces.items():
        click.echo(f"  {role}: {len(trace.records)} records, {trace.ending}")
    parts = parts_of(case)
    for one in parts:
        lanes = one.lanes
        click.echo(
            f"  {lanes.direction}, by {one.actions.module}: {len(lanes.sender)} steps of the "
            f"{lanes.role('s')}, {len(lanes.receiver)} of the {lanes.role('r')}, in {one.pieces} "
            f"piece{'s' if one.pieces != 1 else ''}"
        )
    if found := decided_before(case):
        click.echo(f"  TLC would not be run: {found.conformance}, {found.reason}")
        return
    steps = max(one.steps // max(one.pieces, 1) for one in parts)
    job = job_in(Path("FOLDER"), parts[0].actions, Bounds(), steps=steps)
    click.echo("  TLC, for each piece, in a temporary FOLDER with the module made for it:")
    click.echo(f"    {shlex.join(command_of(job))}")
