"""Run an experiment: two endpoints, both traced, and what they did judged."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import click

from vchan_testbed import __version__
from vchan_testbed.commands.judged import judge, show
from vchan_testbed.errors import ExitStatus, TestbedError, refused
from vchan_testbed.guests.experiment import Experiment, default_path, load_experiment
from vchan_testbed.guests.hosts.table import open_host
from vchan_testbed.guests.runner import run_experiment
from vchan_testbed.progress import Progress, for_terminal
from vchan_testbed.rundir import RunDirectory, create_run
from vchan_testbed.validate.report import write_failure

HOSTS_HELP = (
    "Where Xen is: auto (this machine's Xen where its owner allowed it, else qemu), local, qemu, "
    "loopback (no Xen), or ssh://USER@NAME."
)


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    experiment: Path | None
    host: str
    domain_type: str | None
    out: Path | None
    seed: int | None
    validate: bool
    xen_dump: bool = False

    def asked(self) -> dict[str, str | None]:
        """For `run.json`: what it takes, with the seed there, to do the same again."""
        return {
            "experiment": str(self.experiment) if self.experiment else None,
            "host": self.host,
            "domain_type": self.domain_type,
        }


@click.command()
@click.argument("experiment", required=False, type=click.Path(path_type=Path))
@click.option("--host", default="auto", show_default=True, metavar="HOST", help=HOSTS_HELP)
@click.option(
    "--domain-type",
    type=click.Choice(["pvh", "pv"]),
    help="Type of the domains; without it what the experiment says, else what suits the host.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run directory, new or empty. [default: runs/<date>-<name>-<id>]",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of random sizes. [default: a new one]"
)
@click.option(
    "--xen-dump",
    is_flag=True,
    help="Have Xen dump its event channels to its console when the run stands still.",
)
@click.option("--no-validate", is_flag=True, help="Collect the traces, but do not judge them.")
@click.pass_context
def run(
    context: click.Context,
    experiment: Path | None,
    host: str,
    domain_type: str | None,
    out: Path | None,
    seed: int | None,
    xen_dump: bool,
    no_validate: bool,
) -> None:
    """Run EXPERIMENT (a YAML file; without it the default one) and judge the traces.

    The run directory keeps the traces, the consoles, the verdict and the report. What fails keeps
    there what it had collected.
    """
    options = Options(experiment, host, domain_type, out, seed, not no_validate, xen_dump)
    context.exit(perform(options, for_terminal()))


def perform(options: Options, progress: Progress) -> int:
    """Do it; returns the exit status. Raises TestbedError."""
    return ran(options, progress)[0]


def ran(options: Options, progress: Progress) -> tuple[int, RunDirectory]:
    """Do it; the exit status, and where it is kept. Raises TestbedError."""
    began = time.monotonic()
    experiment = load_experiment(options.experiment)
    if options.domain_type:
        experiment = with_domain_type(experiment, options.domain_type)
    host = open_host(options.host, experiment, progress)
    seed = secrets.randbits(31) if options.seed is None else options.seed
    directory = create_run(
        options.out,
        experiment.name,
        run_id=secrets.token_hex(16),
        seed=seed,
        command=options.asked(),
        experiment=experiment.to_dict(),
        host={"kind": host.kind, "xen_version": None},
        versions={"vchan_testbed": __version__},
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        messages=[],
    )
    progress.note(f"Run directory: {directory.path}")
    try:
        # As it was written: what run.json holds of it cannot be run again.
        shutil.copyfile(options.experiment or default_path(), directory.experiment)
        with host:
            directory.update(host=host.facts())
            if host.kind == "loopback":
                progress.note("Loopback host: no Xen is involved.")
            run_experiment(host, experiment, directory, seed, progress, xen_dump=options.xen_dump)
        directory.update(state="complete")
        if not options.validate:
            return ExitStatus.EXPECTED, directory
        verdict = judge(directory, progress)
    except TestbedError as error:
        kept(directory, error)
        if experiment.expect.is_met_by(error.message):
            progress.say(f"No channel, as expected: {error.message}")
            return ExitStatus.EXPECTED, directory
        raise
    except (OSError, subprocess.SubprocessError) as error:
        write_traceback(directory)
        raise kept(directory, refused(error, directory.path)) from error
    except BaseException as error:
        progress.say(f"What was collected is in {directory.path}.")
        directory.update(error=f"ended before its end: {error!r}")
        raise
    progress.say(f"In all: {time.monotonic() - began:.0f} s")
    show(verdict, directory)
    return verdict.exit_status, directory


def kept(directory: RunDirectory, error: TestbedError) -> TestbedError:
    """The error, which says now where the rest is; the run directory says what failed."""
    # A disk that is full has no room for these two either: what is there stays.
    with contextlib.suppress(OSError):
        directory.update(error=error.message)
        write_failure(directory.path, error.message)
        if error.log and error.log.is_file():
            shutil.copyfile(error.log, directory.console(error.log.stem))
        elif error.console:
            directory.console("last-lines").write_text(error.console + "\n")
    parts = [error.next_step.rstrip(" ."), f"What was collected is in {directory.path}"]
    error.next_step = ". ".join(part for part in parts if part) + "."
    return error


def write_traceback(directory: RunDirectory) -> None:
    """Where in the program it failed, for whoever mends it: the user gets one message."""
    with contextlib.suppress(OSError):
        directory.console("vchan-testbed").write_text(traceback.format_exc())


def with_domain_type(experiment: Experiment, kind: str) -> Experiment:
    """The experiment with both domains of a type; dom0 stays dom0."""
    server, client = (
        domain if domain.type == "dom0" else replace(domain, type=kind)
        for domain in (experiment.server_domain, experiment.client_domain)
    )
    return replace(experiment, server_domain=server, client_domain=client)
