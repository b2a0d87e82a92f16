"""`vchan-testbed record`: trace any program that uses libxenvchan."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import click

from vchan_testbed.bindings.under import own_domid
from vchan_testbed.errors import InputError
from vchan_testbed.tracer.reader import Trace, read_trace
from vchan_testbed.tracer.record import BYTES_MAX, Settings, record, traces_in

LOOPBACK_DOMID = "VCHAN_LOOPBACK_DOMID"


@click.command("record", context_settings={"ignore_unknown_options": True})
@click.option(
    "--level",
    type=click.Choice(["exact", "calls"]),
    default="exact",
    show_default=True,
    help="Every access to the shared page, or calls and events alone.",
)
@click.option(
    "--variant",
    type=click.Choice(["translation", "emulation"]),
    default="translation",
    show_default=True,
    help="How accesses are caught: a copy of the library's code, or a signal at each.",
)
@click.option(
    "--order",
    type=click.Choice(["kept", "full"]),
    help="Leave the order of accesses to the processor, or have time stamps around each. "
    "[default: kept; with emulation: full]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the traces go. [default: recorded/<date>-<program>]",
)
@click.option(
    "--bytes-max",
    type=click.IntRange(min=1 << 17),
    default=BYTES_MAX,
    show_default=True,
    help="The most that a trace file may grow to.",
)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM...")
@click.pass_context
def record_command(
    context: click.Context,
    level: Literal["exact", "calls"],
    variant: Literal["translation", "emulation"],
    order: Literal["kept", "full"] | None,
    out: Path | None,
    bytes_max: int,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM and trace each channel that it, or what it starts, opens.

    The program is any that uses libxenvchan, as it is. It ends with the program's own status. What
    was recorded at both ends is judged by `validate`.
    """
    folder = folder_for(out, program[0])
    before = set(traces_in(folder))
    settings = Settings(level, variant, order, bytes_max, domid=this_domain())
    status = record(program, folder, settings)
    made = [path for path in traces_in(folder) if path not in before]
    for path in made:
        click.echo(f"{path}: {described(read_trace(path))}", err=True)
    if made:
        click.echo(
            "Next: vchan-testbed validate with these and the traces of the other end.", err=True
        )
    context.exit(status)


def folder_for(out: Path | None, program: str) -> Path:
    """The folder for the traces, made if it is not there. Raises InputError."""
    day = time.strftime("%Y%m%d-%H%M%S")
    folder = out or Path("recorded") / f"{day}-{Path(program).name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be made: {error.strerror}",
            next_step="Name another one with --out.",
        ) from error
    return folder


def this_domain() -> int | None:
    """Its number; None where nobody can tell."""
    if LOOPBACK_DOMID in os.environ:
        return int(os.environ[LOOPBACK_DOMID])
    return own_domid()


def described(trace: Trace) -> str:
    """One line about a trace."""
    header = trace.header
    channels = "1 channel" if header.channels == 1 else f"{header.channels} channels"
    peer = f" with domain {header.peer_domid}" if header.channels else ""
    lost = f", {trace.dropped} records lost" if trace.dropped else ""
    return f"{header.role}, {channels}{peer}, {len(trace.records)} records, {trace.ending}{lost}"
