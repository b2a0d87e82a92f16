"""`vchan-testbed diagnose`: a look at live channels."""

from __future__ import annotations

from pathlib import Path

import click

from vchan_testbed.guests.diagnose.build import build_zipapp
from vchan_testbed.guests.diagnose.main import APART_SECONDS, Asked, perform


@click.command()
@click.option(
    "--pid",
    "pids",
    type=int,
    multiple=True,
    help="A process of this domain that has an end of a channel; may come again.",
)
@click.option(
    "--domains", type=int, nargs=2, metavar="A B", help="Channels between these two domains only."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=APART_SECONDS,
    show_default=True,
    help="Time between the two looks.",
)
@click.option("--watch", is_flag=True, help="Look again until it is interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one line a look.")
@click.option("--loopback", is_flag=True, help="The processes are over the loopback host.")
@click.option(
    "--write-zipapp",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Look at nothing: write it as one file, for a host where only Python is.",
)
@click.pass_context
def diagnose(
    context: click.Context,
    pids: tuple[int, ...],
    domains: tuple[int, int] | None,
    seconds: float,
    watch: bool,
    as_json: bool,
    loopback: bool,
    write_zipapp: Path | None,
) -> None:
    """Look at live channels: what hangs, and whose it is.

    In dom0 it finds them in xenstore; with --pid, in any domain, by the pages that a process maps.
    It looks twice, and only reads: no process is stopped or attached to, no domain is changed.
    Exit status 0: each is idle or moves. 1: something hangs, or it is not known.
    """
    if write_zipapp is not None:
        build_zipapp(write_zipapp)
        click.echo(f"Written: {write_zipapp}. Run it as root: python3 {write_zipapp.name} --help")
        return
    context.exit(perform(Asked(pids, domains, seconds, watch, as_json, loopback)))
