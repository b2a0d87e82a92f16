"""`vchan-testbed bundle`: what tells of a hang, in one file that can be sent."""

from __future__ import annotations

from pathlib import Path

import click

from vchan_testbed.errors import InputError
from vchan_testbed.guests.diagnose.bundle import Wish
from vchan_testbed.guests.diagnose.looking import Wanted
from vchan_testbed.guests.diagnose.main import SAMPLES_SECONDS
from vchan_testbed.guests.diagnose.main import bundle as made


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--show", is_flag=True, help="Print all that would be inside, and write nothing.")
@click.option("--pid", "pids", type=int, multiple=True, help="As of diagnose.")
@click.option("--domains", type=int, nargs=2, metavar="A B", help="As of diagnose.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=SAMPLES_SECONDS,
    show_default=True,
    help="Time between the two samples.",
)
@click.option(
    "--trace",
    "traces",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="A trace that goes in, too; may come again.",
)
@click.option("--names", is_flag=True, help="Leave the domains' names as they are.")
@click.option("--loopback", is_flag=True, help="The processes are over the loopback host.")
@click.pass_context
def bundle(
    context: click.Context,
    file: Path | None,
    show: bool,
    pids: tuple[int, ...],
    domains: tuple[int, int] | None,
    seconds: float,
    traces: tuple[Path, ...],
    names: bool,
    loopback: bool,
) -> None:
    """Write what tells of live channels to FILE, a .tar.gz, for somebody who is to explain a hang.

    It only reads. Bytes of the streams are left out, and names of domains are replaced.
    """
    if file is None and not show:
        raise InputError(
            "No file is named.", next_step="Name one, or look with --show at what would be in it."
        )
    wish = Wish(seconds, traces, names)
    context.exit(made(Wanted(pids, domains, loopback), wish, None if show else file))
