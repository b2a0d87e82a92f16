"""Windows cut out of whole traces, as a flight recorder would have left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from library_model import Run

from vchan_testbed.tracer.format import Records, write_trace
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import FrozenBy
from vchan_testbed.tracer.reader import read_trace


def written(
    run: Run,
    folder: Path,
    begins: Mapping[Role, int],
    changed: dict[Role, Records] | None = None,
) -> dict[Role, Path]:
    """Both traces, each from the record at its place in `begins` on; 0: all of it is kept."""
    paths = run.write(folder, changed)
    for role, path in paths.items():
        keep_from(path, begins.get(role, 0))
    return paths


def keep_from(path: Path, first: int, channels: int = 1) -> None:
    """Make a trace of one thread a window that begins with the record at place `first`.

    `channels`: so many has its process opened.
    """
    trace = read_trace(path)
    write_trace(
        path,
        replace(trace.header, ring_blocks=1, frozen=FrozenBy.NOTHING, channels=channels),
        trace.records[first:],
        complete=trace.header.complete,
        lost={0: first},
    )
