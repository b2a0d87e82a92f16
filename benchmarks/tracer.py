"""What tracing costs a program that knows nothing of it, untraced and in every manner in turn.

    python benchmarks/tracer.py [--rounds N] [--json FILE] [--docs]

No Xen is involved: both ends run on the loopback host. In each round every cell (what is measured,
message size, ring size) is played untraced, with calls alone, and with every access, one right
after the other, so that what else the machine does hits all of them. Ratios are medians over the
rounds of one round's figures.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import click
from cost import (
    COSTS,
    DOCS,
    EXACT,
    LIMITS,
    MANNERS,
    NS_PER_US,
    ON_XEN,
    Cell,
    Limit,
    compiled,
    costs,
    ratio,
    table,
)
from cost_picture import picture

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.record import environment

SECONDS_MAX = 300
SIZES = (1, 64, 1024, 4096, 65536)
RINGS = (1024, 4096, 65536, 1 << 20)
BYTES_OF_A_STREAM = 1 << 27
BYTES_OF_A_SLOW_STREAM = 1 << 24
"""Where a ring does not hold a message, each takes many turns."""
MESSAGES_MAX = {"ping": 2000, "stream": 20000}
QUESTIONS = 500_000
SMALL_BYTES = 64
ASK = Cell("ask", 1, 4096, QUESTIONS)
ASKED = {
    "by a thread on another processor": replace(ASK, is_pinned=False),
    "by one on the same processor": ASK,
    "before (a flight recorder's)": replace(ASK, flight_bytes=1 << 20),
}
"""Questions, by who makes the pages of the log."""


def cells() -> Iterator[Cell]:
    """All of them."""
    yield from ASKED.values()
    for mode, size, ring in itertools.product(("ping", "stream"), SIZES, RINGS):
        whole = BYTES_OF_A_STREAM if ring >= size else BYTES_OF_A_SLOW_STREAM
        yield Cell(mode, size, ring, min(MESSAGES_MAX[mode], whole // size))


def on_processor(number: int) -> list[str]:
    """Each end has its own, as a domain has: the scheduler puts both on one in some runs, where a
    round trip is two switches and takes a tenth of the time.
    """
    mine = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(mine[number % len(mine)])]


def play(program: Path, cell: Cell, manner: str) -> float:
    """Nanoseconds of one message, round trip or question."""
    settings = cell.settings_in(manner)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        with LoopbackWorld(folder / "host") as world:
            ends = []
            for domid, role in enumerate(("server", "client"), start=1):
                around = {**os.environ, **world.environment(domid)}
                if settings is not None:
                    (folder / role).mkdir()
                    around = environment(folder / role, settings, around)
                arguments = [cell.size_bytes, cell.count_in(manner), cell.ring_bytes]
                pinned = on_processor(domid) if cell.is_pinned else []
                command = [*pinned, str(program), cell.mode, role]
                command += map(str, arguments)
                ends.append(
                    subprocess.Popen(command, env=around, stdout=subprocess.PIPE, text=True)
                )
                if role == "server":
                    assert ends[0].stdout is not None
                    assert ends[0].stdout.readline() == "up\n"
            said = [end.communicate(timeout=SECONDS_MAX)[0] for end in reversed(ends)]
        if any(end.returncode for end in ends):
            raise click.ClickException(f"{cell} {manner}: an end failed")
        if settings is not None and len(list(folder.glob("*/*.vtrace"))) != len(ends):
            raise click.ClickException(f"{cell} {manner}: it was not traced")
    return float(said[0])


def measured(program: Path, rounds: int) -> dict[Cell, dict[str, list[float]]]:
    """By cell and manner the figure of each round."""
    found: dict[Cell, dict[str, list[float]]] = {
        cell: {manner: [] for manner in MANNERS} for cell in cells()
    }
    for number in range(rounds):
        for cell, figures in found.items():
            for manner in MANNERS:
                figures[manner].append(play(program, cell, manner))
        click.echo(f"round {number + 1} of {rounds}", err=True)
    return found


def limits(found: Mapping[Cell, Mapping[str, list[float]]]) -> list[Limit]:
    """What was asked for, and what came: the worst of the cells that are meant."""
    by_another, *_ = (found[cell] for cell in ASKED.values())
    pings = {cell: figures for cell, figures in found.items() if cell.mode == "ping"}
    stream = next(
        figures
        for cell, figures in found.items()
        if (cell.mode, cell.size_bytes, cell.ring_bytes) == ("stream", 1 << 16, 1 << 16)
    )
    small = [figures for cell, figures in pings.items() if cell.size_bytes == SMALL_BYTES]
    return [
        Limit("calls: a record, ns", 60, float(costs(by_another)[0])),
        Limit("exact: an access, ns", 200, max(map(float, costs(by_another)[1:3]))),
        Limit(
            "calls: a round trip, times untraced",
            1.1,
            max(ratio(figures, "calls") for figures in pings.values()),
        ),
        Limit(
            f"exact: a round trip of {SMALL_BYTES} bytes, times untraced",
            3,
            max(ratio(figures, manner) for figures in small for manner in EXACT[:2]),
        ),
        Limit(
            "exact, kept: 64 KiB in a stream over as large a ring, times untraced",
            round(1 / 0.9, 3),
            ratio(stream, "kept"),
        ),
    ]


def page(found: Mapping[Cell, Mapping[str, list[float]]], about: Mapping[str, Any]) -> str:
    """docs/tracer-cost.md."""
    rows = [COSTS, *([name, *costs(found[cell])] for name, cell in ASKED.items())]
    text = f"""# What tracing costs

Written by `benchmarks/tracer.py --docs`, on the loopback host: a program in C that knows nothing of
the tracer, with it and without it in turn, {about["rounds"]} rounds, medians.
Seen on {about["machine"]}; load {about["load"]}.

A record of level calls, and an access to the shared page with its record in level exact, by how the
log's pages are made:

{table(rows)}
What was asked for, the worst of the cells that are meant:

{table([LIMITS, *(limit.row() for limit in limits(found))])}
`kept` and `full` are the orders of the translation. Round trips and streams are between two ends
that have a processor each, as a domain has. How many times as long as untraced it takes:

![Round trips and streams](tracer-cost.svg)
"""
    for mode, title in (("ping", "A round trip"), ("stream", "A message of a stream")):
        manners = [manner for manner in MANNERS if manner != "untraced"]
        rows = [["bytes", "ring", "untraced, us", *manners]]
        rows += [
            [
                f"{cell.size_bytes:,}",
                f"{cell.ring_bytes:,}",
                f"{median(figures['untraced']) / NS_PER_US:.1f}",
                *(f"{ratio(figures, manner):.2f}" for manner in manners),
            ]
            for cell, figures in found.items()
            if cell.mode == mode
        ]
        text += f"\n## {title}\n\n{table(rows)}"
    return text


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
@click.option("--docs", is_flag=True, help="Write docs/tracer-cost.md and its picture.")
def main(rounds: int, file: Path | None, docs: bool) -> None:
    """Measure, print, and write."""
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}",
        "rounds": rounds,
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    with tempfile.TemporaryDirectory() as folder:
        found = measured(compiled(Path(folder)), rounds)
    text = page(found, about)
    click.echo(text)
    if file:
        rows = [
            {
                "mode": cell.mode,
                "size": cell.size_bytes,
                "ring": cell.ring_bytes,
                "pinned": cell.is_pinned,
                "flight": cell.flight_bytes,
                "ns": figures,
            }
            for cell, figures in found.items()
        ]
        file.write_text(json.dumps({**about, "cells": rows}, indent=1) + "\n")
    if docs:
        kept = (DOCS / "tracer-cost.md").read_text().partition(f"\n{ON_XEN}")
        (DOCS / "tracer-cost.md").write_text(text + "".join(kept[1:]))
        by_cell = {
            (cell.mode, cell.size_bytes, cell.ring_bytes): {m: ratio(f, m) for m in MANNERS}
            for cell, f in found.items()
        }
        (DOCS / "tracer-cost.svg").write_text(picture(by_cell))


if __name__ == "__main__":
    main()
