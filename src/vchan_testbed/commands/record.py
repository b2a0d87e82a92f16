"""`vchan-testbed record`: trace any program that uses libxenvchan."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Literal

import click

from vchan_testbed.bindings.under import own_domid
from vchan_testbed.errors import InputError
from vchan_testbed.tracer.reader import Trace, read_trace
from vchan_testbed.tracer.record import (
    BYTES_MAX,
    FREEZE_SIGNAL,
    Flight,
    Settings,
    record,
    traces_in,
)

SIZE_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30}
NOT_TO_BE_HAD = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)
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
@click.option(
    "--flight-recorder",
    "ring_bytes",
    metavar="SIZE",
    callback=lambda _context, _option, text: text if text is None else bytes_of(text),
    help="Keep the last records alone, of each thread in a ring of so many bytes (4M, 256K), until "
    "they are frozen.",
)
@click.option(
    "--settle",
    "settle_seconds",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Freeze the flight recorder when a channel is open and no record has come for so long. "
    "[default: never]",
)
@click.option(
    "--freeze-signal",
    metavar="NAME",
    callback=lambda _context, _option, text: text if text is None else signal_of(text),
    help="The signal that freezes the flight recorder. [default: USR2]",
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
    ring_bytes: int | None,
    settle_seconds: float | None,
    freeze_signal: signal.Signals | None,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM and trace each channel that it, or what it starts, opens.

    The program is any that uses libxenvchan, as it is. It ends with the program's own status. What
    was recorded at both ends is judged by `validate`.
    """
    flight = flight_of(ring_bytes, settle_seconds, freeze_signal)
    folder = folder_for(out, program[0])
    before = set(traces_in(folder))
    settings = Settings(level, variant, order, bytes_max, domid=this_domain(), flight=flight)
    status = record(program, folder, settings)
    made = [path for path in traces_in(folder) if path not in before]
    for path in made:
        click.echo(f"{path}: {described(read_trace(path))}", err=True)
    if made:
        click.echo(
            "Next: vchan-testbed validate with these and the traces of the other end.", err=True
        )
    context.exit(status)


def bytes_of(text: str) -> int:
    """A size like 4M, 256K, 65536. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.strip().upper())
    if not found or not int(found[1]):
        raise InputError(
            f"{text!r} is no size.", next_step="Give bytes, or a number with K, M or G behind it."
        )
    return int(found[1]) << SIZE_SHIFTS[found[2]]


def signal_of(text: str) -> signal.Signals:
    """A signal by its name or number. Raises InputError for none, and for one that is taken."""
    name = text.strip().upper().removeprefix("SIG")
    try:
        found = signal.Signals(int(name)) if name.isdecimal() else signal.Signals[f"SIG{name}"]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{text!r} is no signal.", next_step="Name one as `kill -l` does, for example USR1."
        ) from error
    if found in NOT_TO_BE_HAD:
        raise InputError(
            f"{found.name} cannot freeze anything: nobody can handle it, or the tracer needs it.",
            next_step="Name another one, for example USR1.",
        )
    return found


def flight_of(
    ring_bytes: int | None, settle_seconds: float | None, freeze_signal: signal.Signals | None
) -> Flight | None:
    """The flight recorder that is asked for. Raises InputError."""
    if ring_bytes is not None:
        return Flight(ring_bytes, settle_seconds or 0.0, freeze_signal or FREEZE_SIGNAL)
    if settle_seconds is not None or freeze_signal is not None:
        raise InputError(
            "There is nothing to be frozen: all records are kept.",
            next_step="Say how many bytes a thread keeps: --flight-recorder SIZE.",
        )
    return None


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
    missed = f", {trace.missed} accesses caught by signals" if trace.missed else ""
    window = f", {trace.window.told()}" if trace.window else ""
    return (
        f"{header.role}, {channels}{peer}, {len(trace.records)} records, {trace.ending}{lost}"
        f"{missed}{window}"
    )
