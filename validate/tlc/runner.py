"""Run TLC as a process of its own, within bounds, and read what it prints.

TLC's exit status says little: a trace that it could not follow ends with 0 and "No error has been
found". So a caller looks for the lines that its spec prints (they begin with @) and never for the
absence of an error.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.validate.tlc import jar

OUT_OF_MEMORY = 3
"""Exit status of a JVM started with -XX:+ExitOnOutOfMemoryError."""

VIOLATIONS = {10: "assumption", 11: "deadlock", 12: "safety", 13: "liveness"}
"""TLC's exit statuses that are results; 0 is "nothing found"."""

_COUNTS = re.compile(r"^(\d+) states generated, (\d+) distinct states found, (\d+) states left")
_DEPTH = re.compile(r"^The depth of the complete state graph search is (\d+)")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run of TLC."""

    seconds_max: float = 1800.0
    heap_mib: int = 0
    """0: a quarter of the memory that is free, between 512 and 4096 MiB."""


@dataclass(frozen=True, slots=True)
class TlcOutput:
    """What a run of TLC gave."""

    said: tuple[str, ...]
    """Lines that the spec printed, without their @."""
    console: tuple[str, ...]
    """TLC's own lines."""
    exit_status: int
    bound: str
    """Empty, or the bound that ended the run early: nothing can be concluded."""
    generated: int
    distinct: int
    depth: int
    unexplored: int
    """States that were found and whose successors were not looked for."""
    seconds: float


@dataclass(frozen=True, slots=True)
class TlcJob:
    """One run: a module with its configuration, and where TLC finds the rest."""

    folder: Path
    """Holds the root module and the configuration; TLC works here."""
    module: str
    config: str
    """File name in `folder`: TLC does not take a path here."""
    library: Sequence[Path] = ()
    """Folders with further modules."""
    classes: Path | None = None
    """Our own classes, before the jar."""
    properties: Mapping[str, str] | None = None
    """Java system properties."""
    options: Sequence[str] = ("-deadlock",)
    """-deadlock: do NOT look for deadlocks."""
    workers: int = 1
    short: bool = False
    """Seconds at most: Java's optimising compiler would cost more than it gives."""
    lines_kept: int = 40
    """Of TLC's last lines, those that an error tells."""


def run_tlc(
    job: TlcJob, limits: Limits | None = None, on_said: Callable[[str], None] | None = None
) -> TlcOutput:
    """Run TLC; `on_said` gets each line that the spec prints, while it runs.

    Raises TestbedError when TLC itself fails (a module that does not parse, an evaluation error).
    """
    limits = limits or Limits()
    heap_mib = limits.heap_mib or _heap_mib()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tlc-") as scratch:
        command = command_of(job, heap_mib, scratch)
        said, console, status, timed_out = _run(command, job.folder, limits.seconds_max, on_said)
    if timed_out:
        bound = f"time, {limits.seconds_max:g} s"
    elif status == OUT_OF_MEMORY:
        bound = f"memory, a heap of {heap_mib} MiB"
    elif status == 0 or status in VIOLATIONS:
        bound = ""
    else:
        raise TestbedError(
            f"TLC failed on the module {job.module} (exit status {status}).",
            next_step="Read TLC's last lines; a module or an action map may be at fault.",
            console="\n".join(console[-job.lines_kept :]),
        )
    generated, distinct, unexplored, depth = _counts(console)
    return TlcOutput(
        said=tuple(said),
        console=tuple(console),
        exit_status=status,
        bound=bound,
        generated=generated,
        distinct=distinct,
        depth=depth,
        unexplored=unexplored,
        seconds=time.monotonic() - began,
    )


def command_of(job: TlcJob, heap_mib: int = 0, scratch: str = "SCRATCH") -> list[str]:
    """The command that `run_tlc` runs in the job's folder. Raises TestbedError without Java."""
    heap_mib = heap_mib or _heap_mib()
    class_path = [str(job.classes)] if job.classes else []
    class_path.append(str(jar.tla2tools()))
    properties = {
        # TLC unpacks its standard modules there: two runs in one folder delete each other's.
        "java.io.tmpdir": scratch,
        "TLA-Library": ":".join(str(folder) for folder in job.library),
        **(job.properties or {}),
    }
    return [
        jar.java(),
        f"-Xmx{heap_mib}m",
        "-XX:+UseSerialGC" if job.workers == 1 else "-XX:+UseParallelGC",
        "-XX:+ExitOnOutOfMemoryError",
        *(["-XX:TieredStopAtLevel=1"] if job.short else []),
        *(f"-D{name}={value}" for name, value in properties.items()),
        "-cp",
        ":".join(class_path),
        "tlc2.TLC",
        *("-workers", str(job.workers)),
        *("-metadir", scratch),
        *("-checkpoint", "0"),
        *("-config", job.config),
        *job.options,
        job.module,
    ]


def _run(
    command: list[str], folder: Path, seconds_max: float, on_said: Callable[[str], None] | None
) -> tuple[list[str], list[str], int, bool]:
    said: list[str] = []
    console: list[str] = []
    timed_out = threading.Event()
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:

        def stop() -> None:
            timed_out.set()
            process.kill()

        watchdog = threading.Timer(seconds_max, stop)
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.startswith("@"):
                    console.append(line.rstrip("\n"))
                    continue
                said.append(line[1:].rstrip("\n"))
                if on_said:
                    on_said(said[-1])
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()
    return said, console, process.returncode, timed_out.is_set()


def _counts(console: Sequence[str]) -> tuple[int, int, int, int]:
    generated = distinct = unexplored = depth = 0
    for line in console:
        if match := _COUNTS.match(line):
            generated, distinct, unexplored = (int(number) for number in match.groups())
        elif match := _DEPTH.match(line):
            depth = int(match[1])
    return generated, distinct, unexplored, depth


def _heap_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return max(512, min(4096, int(line.split()[1]) // 1024 // 4))
    return 512
