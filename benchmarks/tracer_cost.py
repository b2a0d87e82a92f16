"""What the tracer costs: a 64-byte ping-pong on the loopback host, traced and not, in turn.

    python benchmarks/tracer_cost.py [--rounds N] [--pairs N] [--json FILE]

No Xen is involved. Both sides of the ratio come from one run. The cost of an access is processor
time, so that a machine with other work to do does not spoil it, and what the kernel's delivery of a
signal takes of it stands beside it. So does what the digests of copies take, by their sizes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.layout import ACCESS_KINDS
from vchan_testbed.tracer.reader import read_trace

END = Path(__file__).with_name("ping_end.py")
SIGNAL_ALONE = Path(__file__).with_name("signal_alone.c")
DIGEST_ALONE = Path(__file__).with_name("digest_alone.c")
CORE = Path(__file__).parents[1] / "tracer" / "core"


@dataclass(frozen=True)
class Played:
    """Seconds of a round trip: by the client's clock, and of both ends' processor time."""

    clock: float
    processor: float


def play(rounds: int, traces: Path | None) -> Played:
    """Play `rounds` round trips."""
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
            if role == "server":
                out = ends[role].stdout
                assert out is not None
                out.readline()
        said = {role: end.communicate()[0].split() for role, end in ends.items()}
    processor = sum(float(words[1]) for words in said.values())
    return Played(float(said["client"][0]) / rounds, processor / rounds)


def signal_alone_us() -> float:
    """Processor time of a fault and its signal with nothing done about them."""
    return float(said_by(SIGNAL_ALONE))


def digest_alone_ns() -> dict[int, float]:
    """Processor time of a digest, by the bytes of the copy."""
    lines = (line.split() for line in said_by(DIGEST_ALONE, CORE / "digest.c").splitlines())
    return {int(count): float(took) for count, took in lines}


def said_by(*sources: Path) -> str:
    """What a program says that is made of these sources."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        subprocess.run(["cc", "-O2", f"-I{CORE}", "-o", program, *sources], check=True)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout


@click.command()
@click.option("--rounds", default=2000, show_default=True)
@click.option("--pairs", default=5, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(rounds: int, pairs: int, file: Path | None) -> None:
    """Measure, print, and write FILE."""
    plain, traced, alone, accesses = [], [], [], 0
    for _ in range(pairs):
        plain.append(play(rounds, None))
        alone.append(signal_alone_us())
        with tempfile.TemporaryDirectory() as folder:
            traced.append(play(rounds, Path(folder)))
            kinds = [
                int(kind)
                for role in ("server", "client")
                for kind in read_trace(Path(folder) / f"{role}.vtrace").records["kind"]
            ]
            accesses = sum(kind in ACCESS_KINDS for kind in kinds)
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "rounds": rounds,
        "round_trip_plain_us": 1e6 * median(one.clock for one in plain),
        "round_trip_traced_us": 1e6 * median(one.clock for one in traced),
        "ratio": median(b.clock / a.clock for a, b in zip(plain, traced, strict=True)),
        "accesses_per_round": accesses / rounds,
        "processor_us_per_access": 1e6
        * median(b.processor - a.processor for a, b in zip(plain, traced, strict=True))
        / (accesses / rounds),
        "processor_us_of_a_signal_alone": median(alone),
        **{f"processor_ns_of_{n}_digested": took for n, took in digest_alone_ns().items()},
    }
    for name, value in figures.items():
        print(f"{name:32} {value:.3g}" if isinstance(value, float) else f"{name:32} {value}")
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
