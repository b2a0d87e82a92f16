"""Trace a program that knows nothing of it: the preloaded recorder, its settings, what it wrote.

The recorder (`preload/recorder.c`) is loaded into the program and into all that it starts. Each
process that opens a channel writes one trace file, with a header like every other; it needs nothing
of this module, and can be used without: `LD_PRELOAD=_preload.abi3.so VCHAN_TRACER_DIR=. PROGRAM`.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer.header import TraceHeader
from vchan_testbed.tracer.layout import BLOCK_BYTES, FILE_SUFFIX, HEADER_BYTES, REQUEST_OFFSET

PRELOAD = Path(__file__).with_name("_preload.abi3.so")
XEN_VERSION = Path("/sys/hypervisor/version")
BYTES_MAX = 1 << 30
REFUSED = 4
"""The status with which a program ends that the recorder does not let run."""
FREEZE_SIGNAL = signal.SIGUSR2
RING_BYTES_MIN = BLOCK_BYTES
SIGNALLED = 128
"""What shells add to a signal's number."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to record, as `vchan_testbed.tracer.attach` explains it; None: the default."""

    level: Literal["exact", "calls"] = "exact"
    variant: Literal["translation", "emulation"] = "translation"
    order: Literal["kept", "full"] | None = None
    bytes_max: int = BYTES_MAX
    run_id: bytes = bytes(16)
    domid: int | None = None
    """Of this domain; None: nobody knows."""
    flight: Flight | None = None
    """Keep each thread's last records alone."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A flight recorder, and what freezes it besides a request in the file's header."""

    ring_bytes: int
    """For each thread; it gets as many whole blocks as these take."""
    settle_seconds: float = 0.0
    """Frozen when no record has come for so long; 0: never."""
    signal: signal.Signals | None = FREEZE_SIGNAL


def environment(folder: Path, settings: Settings, before: Mapping[str, str]) -> dict[str, str]:
    """`before` with what makes the recorder write into `folder`.

    Raises TestbedError when the recorder was not built, InputError for settings that make no sense.
    """
    if not PRELOAD.exists():
        raise TestbedError(
            f"The recorder {PRELOAD} is not there.",
            next_step="Build it: make setup, or python3 tracer/build_preload.py.",
        )
    if (settings.variant, settings.order) == ("emulation", "kept"):
        raise InputError(
            "The order of accesses cannot be kept by emulation: each takes a signal.",
            next_step="Use the translation, or the order full.",
        )
    others = before.get("LD_PRELOAD", "")
    return {
        **before,
        "LD_PRELOAD": f"{PRELOAD}:{others}" if others else str(PRELOAD),
        "VCHAN_TRACER_DIR": str(folder.absolute()),
        "VCHAN_TRACER_LEVEL": settings.level,
        "VCHAN_TRACER_VARIANT": settings.variant,
        "VCHAN_TRACER_ORDER": settings.order or "",
        "VCHAN_TRACER_BYTES": str(settings.bytes_max),
        **_of_flight(settings),
        "VCHAN_TRACER_RUN": settings.run_id.hex(),
        "VCHAN_TRACER_DOMID": str(-1 if settings.domid is None else settings.domid),
        "VCHAN_TRACER_XEN": xen_version(),
    }


def _of_flight(settings: Settings) -> dict[str, str]:
    flight = settings.flight or Flight(0, signal=None)
    if not settings.flight:
        pass
    elif flight.ring_bytes < RING_BYTES_MIN:
        raise InputError(
            f"A flight recorder of {flight.ring_bytes} bytes a thread is too small.",
            next_step=f"Give it {RING_BYTES_MIN >> 10}K or more: that is a block of records.",
        )
    elif flight.ring_bytes > settings.bytes_max - HEADER_BYTES:
        raise InputError(
            f"A ring of {flight.ring_bytes} bytes does not fit into a file of at most "
            f"{settings.bytes_max}.",
            next_step="Make it smaller, or let the file grow larger (--bytes-max).",
        )
    return {
        "VCHAN_TRACER_RING": str(flight.ring_bytes),
        "VCHAN_TRACER_SETTLE": str(round(flight.settle_seconds * 1000)),
        "VCHAN_TRACER_SIGNAL": str(int(flight.signal or 0)),
    }


def freeze(path: Path) -> None:
    """Ask whoever records into the trace file to freeze it, if it is a flight recorder.

    It does so a moment later; the header's `frozen` tells. Raises InputError when the file cannot
    be written to or is no such file.
    """
    try:
        with path.open("r+b") as file:
            header = TraceHeader.unpack(file.read(HEADER_BYTES), str(path))
            if not header.ring_blocks:
                raise InputError(
                    f"{path} is a trace in which all is kept: there is nothing to freeze.",
                    next_step="Record with --flight-recorder SIZE.",
                )
            os.pwrite(file.fileno(), (1).to_bytes(4, "little"), REQUEST_OFFSET)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written to: {error.strerror}.",
            next_step="Name the trace file of a process that is recording, as its owner.",
        ) from error


def xen_version() -> str:
    """Of the Xen that this runs on, empty without one."""
    try:
        major, minor, extra = (
            (XEN_VERSION / name).read_text().strip() for name in ("major", "minor", "extra")
        )
    except OSError:
        return ""
    return f"{major}.{minor}{extra}"


def record(program: Sequence[str], folder: Path, settings: Settings) -> int:
    """Run the program to its end, traced into the folder; its exit status, as a shell has it.

    Ctrl-C is the program's, which has it from the terminal too; SIGTERM is passed on to it. Raises
    InputError when it cannot be started, TestbedError when no trace came of it.
    """
    made = environment(folder, settings, os.environ)
    before = set(traces_in(folder))
    try:
        process = subprocess.Popen(program, env=made)
    except OSError as error:
        raise InputError(
            f"{program[0]} cannot be started: {error.strerror}",
            next_step="Name a program behind `--`, as in: record -- PROGRAM ARGS",
        ) from error
    status = _wait(process)
    if status != REFUSED and not set(traces_in(folder)) - before:
        raise TestbedError(
            f"No trace came of {program[0]}, which ended with status {status}.",
            next_step="It opened no channel of libxenvchan; or nothing can be loaded into it: it is"
            " linked statically, or runs with another user's rights (setuid).",
        )
    return status


def traces_in(folder: Path) -> list[Path]:
    """The trace files in a folder, the oldest first."""
    return sorted(folder.glob(f"*{FILE_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            continue
        except SystemExit:
            process.send_signal(signal.SIGTERM)
            continue
        return SIGNALLED - status if status < 0 else status
