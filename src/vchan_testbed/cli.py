"""The command `vchan-testbed`: its subcommands, and the one place where errors end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from vchan_testbed import __version__
from vchan_testbed.commands.bundle import bundle
from vchan_testbed.commands.diagnose import diagnose
from vchan_testbed.commands.doctor import doctor
from vchan_testbed.commands.image import image
from vchan_testbed.commands.record import record_command
from vchan_testbed.commands.reproduce import reproduce
from vchan_testbed.commands.run import run
from vchan_testbed.commands.specs import specs
from vchan_testbed.commands.validate import validate
from vchan_testbed.errors import TestbedError, refused

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read the output has gone."""

EPILOG = """\b
Exit status:
  0  the verdict is the one that the experiment expects
     (default: ACCEPTED and PROGRESS)
  1  there is a verdict, and it is not the expected one
  2  bad arguments or bad input
  3  undecided or inconclusive
  4  the test bed failed: no verdict
"""


@contextmanager
def terminable() -> Iterator[None]:
    """A polite request to end (SIGTERM) gives back what was taken, as Ctrl-C does."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """What fails while things are given back behind Ctrl-C does not hide that it was Ctrl-C."""
    try:
        yield
    except Exception as error:
        before: BaseException | None = error
        while before is not None:
            before = before.__context__
            if isinstance(before, KeyboardInterrupt):
                click.echo(f"While giving back what was taken: {error}", err=True)
                raise KeyboardInterrupt from error
        raise


class Commands(click.Group):
    """A group that turns errors into a message and an exit status, and never into a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. What the test bed raises is caught here and nowhere else."""
        try:
            with terminable(), interruptible():
                result = super().invoke(ctx)
                sys.stdout.flush()
        except TestbedError as error:
            fail(ctx, error)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except SystemExit:
            click.echo("Ended by SIGTERM.", err=True)
            raise
        except BrokenPipeError:
            # Python flushes once more at exit: that must not meet the broken pipe again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        except (OSError, subprocess.SubprocessError) as error:
            # Nobody on its way had more to say of it. A fault of our own keeps its traceback.
            fail(ctx, refused(error))
        return result


def fail(ctx: click.Context, error: TestbedError) -> NoReturn:
    """Say what failed, and end with the status of it."""
    click.echo(f"Error: {error}", err=True)
    ctx.exit(int(error.exit_status))


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="vchan-testbed")
def main() -> None:
    """Run workloads over the unmodified libxenvchan between Xen domains, trace both ends, and
    judge the traces: a behaviour of the spec or not, and did it make progress."""


main.add_command(run)
main.add_command(reproduce)
main.add_command(diagnose)
main.add_command(bundle)
main.add_command(record_command)
main.add_command(validate)
main.add_command(specs)
main.add_command(image)
main.add_command(doctor)
