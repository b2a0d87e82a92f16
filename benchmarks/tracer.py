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
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
from cost_picture import picture

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.record import Settings, environment

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SECONDS_MAX = 300
MANNERS: Mapping[str, Settings | None] = {
    "untraced": None,
    "calls": Settings(level="calls"),
    "kept": Settings(),
    "full": Settings(order="full"),
    "emulation": Settings(variant="emulation"),
}
"""Ways to run it."""
SIZES = (1, 64, 1024, 4096, 65536)
RINGS = (1024, 4096, 65536, 1 << 20)
EXACT = ("kept", "full", "emulation")
BYTES_OF_A_STREAM = 1 << 24
MESSAGES_MAX = {"ping": 2000, "stream": 20000, "ask": 500_000}
MESSAGES_MIN = 100
EMULATED_SHARE = 10
"""An emulated access costs some thirty times more: fewer of them are enough."""
ACCESSES_OF_A_QUESTION = 3
RECORDS_OF_A_CALL = 2
NS_PER_US = 1000


@dataclass(frozen=True)
class Cell:
    """What is measured."""

    mode: str
    """ping, stream or ask, as `moving.c` has them."""
    size_bytes: int
    ring_bytes: int
    is_pinned: bool = True
    """Each end to one processor, the thread that makes its log's pages ready as well."""

    def count(self, manner: str) -> int:
        """Messages to be moved."""
        count = min(MESSAGES_MAX[self.mode], BYTES_OF_A_STREAM // self.size_bytes)
        return max(count // (EMULATED_SHARE if manner == "emulation" else 1), MESSAGES_MIN)


ASK = Cell("ask", 1, 4096, is_pinned=False)
ASK_PINNED = Cell("ask", 1, 4096)


def cells() -> Iterator[Cell]:
    """All of them."""
    yield ASK
    yield ASK_PINNED
    for mode, size, ring in itertools.product(("ping", "stream"), SIZES, RINGS):
        yield Cell(mode, size, ring)


def on_processor(number: int) -> list[str]:
    """Each end has its own, as a domain has: the scheduler puts both on one in some runs, where a
    round trip is two switches and takes a tenth of the time.
    """
    mine = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(mine[number % len(mine)])]


def play(program: Path, cell: Cell, manner: str) -> float:
    """Nanoseconds of one message, round trip or question."""
    settings = MANNERS[manner]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        with LoopbackWorld(folder / "host") as world:
            ends = []
            for domid, role in enumerate(("server", "client"), start=1):
                around = {**os.environ, **world.environment(domid)}
                if settings is not None:
                    (folder / role).mkdir()
                    around = environment(folder / role, settings, around)
                arguments = [cell.size_bytes, cell.count(manner), cell.ring_bytes]
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


def ratio(figures: Mapping[str, list[float]], manner: str) -> float:
    """How many times as long as untraced it takes."""
    pairs = zip(figures[manner], figures["untraced"], strict=True)
    return median(traced / plain for traced, plain in pairs)


def each(figures: Mapping[str, list[float]], manner: str, beside: str, count: int) -> float:
    """Nanoseconds of each of `count` things that `manner` does and `beside` does not."""
    pairs = zip(figures[manner], figures[beside], strict=True)
    return median((one - other) / count for one, other in pairs)


def table(rows: list[list[str]]) -> str:
    """Rows of Markdown, the first one its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(found: Mapping[Cell, Mapping[str, list[float]]], about: Mapping[str, Any]) -> str:
    """docs/tracer-cost.md."""
    rows = [["", "a record of a call or an event, ns", *(f"{m}, ns" for m in EXACT)]]
    for name, cell in (("on another processor", ASK), ("on the same one", ASK_PINNED)):
        ask = found[cell]
        record = each(ask, "calls", "untraced", RECORDS_OF_A_CALL)
        accesses = [each(ask, manner, "calls", ACCESSES_OF_A_QUESTION) for manner in EXACT]
        rows.append([name, *(f"{ns:.0f}" for ns in (record, *accesses))])
    text = f"""# What tracing costs

Written by `benchmarks/tracer.py --docs`, on the loopback host: a program in C that knows nothing of
the tracer, with it and without it in turn, {about["rounds"]} rounds, medians.
Seen on {about["machine"]}; load {about["load"]}.

A record of level calls, and an access to the shared page with its record in level exact. A thread
of the tracer makes the log's pages present; it has another processor than the library or the same:

{table(rows)}
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
        program = Path(folder) / "moving"
        options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        command = ["cc", *options, str(HERE / "moving.c"), "-o", str(program), "-lxenvchan"]
        subprocess.run(command, check=True)
        found = measured(program, rounds)
    text = page(found, about)
    click.echo(text)
    if file:
        rows = [
            {
                "mode": cell.mode,
                "size": cell.size_bytes,
                "ring": cell.ring_bytes,
                "pinned": cell.is_pinned,
                "ns": figures,
            }
            for cell, figures in found.items()
        ]
        file.write_text(json.dumps({**about, "cells": rows}, indent=1) + "\n")
    if docs:
        (DOCS / "tracer-cost.md").write_text(text)
        by_cell = {
            (cell.mode, cell.size_bytes, cell.ring_bytes): {m: ratio(f, m) for m in MANNERS}
            for cell, f in found.items()
        }
        (DOCS / "tracer-cost.svg").write_text(picture(by_cell))


if __name__ == "__main__":
    main()
