"""What tracing costs in two domains of real Xen, under QEMU's own emulation.

    python benchmarks/tracer_xen.py [--rounds N] [--json FILE] [--docs]

The same program as in `tracer.py`, in two PV domains of one virtual processor each: the thread that
makes the log's pages ready has the same one. Each cell is played untraced and in every manner, one
right after the other.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
from cost import (
    COSTS,
    DOCS,
    HERE,
    MANNERS,
    NS_PER_US,
    ON_XEN,
    Cell,
    compiled,
    costs,
    ratio,
    table,
)

sys.path.insert(0, str(HERE.parent / "tests" / "guests" / "proxied"))
sys.path.insert(0, str(HERE.parent / "tests" / "library"))

from archive import guest_with
from dom0 import ssh_config
from own_guests import hear, host_with, roomy

from vchan_testbed.guests.hosts import ssh
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.guests.images.builder import build, kept_root
from vchan_testbed.progress import Quiet

SECONDS_MAX = 600
LIMIT_NS = "1,000"
MEMORY_MIB = 320
PROGRAM = "usr/bin/moving"
MANNER = ("level", "variant", "order")
# Few: what is recorded stays in the guest's memory.
ASKED = {
    "by a thread on the same processor": Cell("ask", 1, 4096, 20_000),
    "before (a flight recorder's)": Cell("ask", 1, 4096, 20_000, flight_bytes=1 << 20),
}
CELLS = (
    *ASKED.values(),
    Cell("ping", 64, 4096, 300),
    Cell("stream", 65536, 65536, 60),
)


class End:
    """The program in one of the domains."""

    def __init__(self, link: AgentLink, role: str, peer: int, path: str) -> None:
        self._link = link
        self._role = role
        self._last = [str(peer), path]
        hear(link, "hello")

    def start(self, cell: Cell, manner: str) -> None:
        """Run it."""
        settings = cell.settings_in(manner)
        numbers = [cell.size_bytes, cell.count_in(manner), cell.ring_bytes]
        self._link.send(
            {
                "type": "run",
                "is_server": self._role == "server",
                "settings": settings and {name: getattr(settings, name) for name in MANNER},
                "flight_bytes": cell.flight_bytes,
                "command": [
                    *(f"/{PROGRAM}", cell.mode, self._role),
                    *(map(str, numbers)),
                    *self._last,
                ],
            }
        )

    def is_up(self) -> None:
        """Wait until a client can meet it."""
        hear(self._link, "up")

    def took(self, *, is_traced: bool) -> str:
        """What it said in the end."""
        told = hear(self._link, "took")
        if told["status"] or told["traces"] != is_traced:
            raise click.ClickException(f"The {self._role} failed: {told}.")
        return str(told["said"])


@contextmanager
def two_domains(folder: Path) -> Iterator[dict[str, End]]:
    """Both ends, in domains of their own with the program in them."""
    experiment = roomy(MEMORY_MIB)
    with QemuHost(experiment, Quiet()) as machine:
        images, root = build(Quiet()), kept_root()
        assert root is not None
        image = guest_with(
            images.domu,
            root,
            compiled(folder),
            PROGRAM,
            HERE / "moving_end.py",
            folder / "initramfs",
        )
        config = folder / "ssh_config"
        access = machine.ssh()
        config.write_text(ssh_config(access, folder))
        os.environ[ssh.CONFIG] = str(config)
        with host_with(image, f"ssh://root@127.0.0.1:{access.port}") as host:
            links = host.endpoints(experiment)
            server, client = links["server"], links["client"]
            path = f"/local/domain/{server.domid}/data/moving"
            yield {
                "server": End(server, "server", client.domid, "data/moving"),
                "client": End(client, "client", server.domid, path),
            }


def play(ends: Mapping[str, End], cell: Cell, manner: str) -> float:
    """Nanoseconds of one message, round trip or question."""
    ends["server"].start(cell, manner)
    ends["server"].is_up()
    ends["client"].start(cell, manner)
    said = ends["client"].took(is_traced=manner != "untraced")
    ends["server"].took(is_traced=manner != "untraced")
    return float(said)


def section(found: Mapping[Cell, Mapping[str, list[float]]], rounds: int) -> str:
    """Of docs/tracer-cost.md."""
    rows = [COSTS, *([name, *costs(found[cell])] for name, cell in ASKED.items())]
    manners = [manner for manner in MANNERS if manner != "untraced"]
    ratios = [["", "bytes", "ring", "untraced, us", *manners]]
    for cell in CELLS[len(ASKED) :]:
        untraced = median(found[cell]["untraced"]) / NS_PER_US
        row = [cell.mode, f"{cell.size_bytes:,}", f"{cell.ring_bytes:,}", f"{untraced:.1f}"]
        ratios.append([*row, *(f"{ratio(found[cell], manner):.2f}" for manner in manners)])
    return f"""{ON_XEN}

Written by `benchmarks/tracer_xen.py --docs`: two PV domains of Xen in QEMU's own
emulation, one virtual processor each, {rounds} rounds, medians; load {os.getloadavg()[0]:.1f}.

{table(rows)}
An access is to take {LIMIT_NS} ns at most: so it does where the log's pages are there. Where a
thread has to make them on the same processor, each is a hypercall of an emulated kernel, and its
share is in the first row. Emulated, the digest of a copy costs much beside the copy itself: so the
stream.

{table(ratios)}"""


def write_section(text: str) -> None:
    """In place of the one that is there, at the end of the page."""
    page = DOCS / "tracer-cost.md"
    page.write_text(page.read_text().partition(f"\n{ON_XEN}")[0] + "\n" + text)


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
@click.option("--docs", is_flag=True, help="Write its part of docs/tracer-cost.md.")
def main(rounds: int, file: Path | None, docs: bool) -> None:
    """Measure, print, and write."""
    found: dict[Cell, dict[str, list[float]]] = {c: {m: [] for m in MANNERS} for c in CELLS}
    with tempfile.TemporaryDirectory() as name, two_domains(Path(name)) as ends:
        for number in range(rounds):
            for cell, figures in found.items():
                for manner in MANNERS:
                    figures[manner].append(play(ends, cell, manner))
            click.echo(f"round {number + 1} of {rounds}", err=True)
    text = section(found, rounds)
    click.echo(text)
    if file:
        rows: list[dict[str, Any]] = [
            {
                "mode": cell.mode,
                "size": cell.size_bytes,
                "ring": cell.ring_bytes,
                "flight": cell.flight_bytes,
                "ns": figures,
            }
            for cell, figures in found.items()
        ]
        file.write_text(json.dumps({"rounds": rounds, "cells": rows}, indent=1) + "\n")
    if docs:
        write_section(text)


if __name__ == "__main__":
    main()
