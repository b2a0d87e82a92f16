"""What the tracer costs: a 64-byte ping-pong on the loopback host, traced and not, in turn.

    python benchmarks/tracer_cost.py [--rounds N] [--pairs N] [--json FILE]

No Xen is involved. Both sides of the ratio come from one run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.layout import ACCESS_KINDS
from vchan_testbed.tracer.reader import read_trace

END = Path(__file__).with_name("ping_end.py")


def play(rounds: int, traces: Path | None) -> float:
    """Seconds that the client needed for `rounds` round trips."""
    with tempfile.TemporaryDirectory() as folder, LoopbackWorld(Path(folder) / "host") as world:
        environments = {"server": world.environment(1), "client": world.environment(2)}
        ends: dict[str, subprocess.Popen[str]] = {}
        for role in ("server", "client"):
            path = str(traces / f"{role}.vtrace") if traces else "-"
            ends[role] = subprocess.Popen(
                [sys.executable, str(END), role, str(rounds), path],
                env={**os.environ, **environments[role]},
                stdout=subprocess.PIPE,
                text=True,
            )
            out = ends[role].stdout
            assert out is not None
            line = out.readline()
        for end in ends.values():
            end.communicate()
        return float(line)


@click.command()
@click.option("--rounds", default=2000, show_default=True)
@click.option("--pairs", default=5, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(rounds: int, pairs: int, file: Path | None) -> None:
    """Measure, print, and write FILE."""
    plain, traced, accesses = [], [], 0
    for _ in range(pairs):
        plain.append(play(rounds, None) / rounds)
        with tempfile.TemporaryDirectory() as folder:
            traced.append(play(rounds, Path(folder)) / rounds)
            kinds = [
                int(kind)
                for role in ("server", "client")
                for kind in read_trace(Path(folder) / f"{role}.vtrace").records["kind"]
            ]
            accesses = sum(kind in ACCESS_KINDS for kind in kinds)
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "rounds": rounds,
        "round_trip_plain_us": 1e6 * statistics.median(plain),
        "round_trip_traced_us": 1e6 * statistics.median(traced),
        "ratio": statistics.median(b / a for a, b in zip(plain, traced, strict=True)),
        "accesses_per_round": accesses / rounds,
        "us_per_access": 1e6
        * statistics.median(b - a for a, b in zip(plain, traced, strict=True))
        / (accesses / rounds),
    }
    for name, value in figures.items():
        print(f"{name:24} {value:.3g}" if isinstance(value, float) else f"{name:24} {value}")
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
