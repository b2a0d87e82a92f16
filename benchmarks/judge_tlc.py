"""What TLC needs to judge a long trace: records a second, memory, pieces.

    python benchmarks/judge_tlc.py [--records N] [--ring ORDER] [--keep DIR] [--json FILE]

The traces are those of the tests' model of the library (tests/validate/library_model.py), so that
the figures do not depend on a host: both ends take turns at writing and reading 64 KiB in mixed
sizes over small rings, which is hard on the judge, because every write fills the ring.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "validate"))

from library_model import Operation, Run, Scenario, simulate

from vchan_testbed.progress import for_terminal
from vchan_testbed.validate.judge import judge_traces
from vchan_testbed.validate.verdict import Verdict

ROUND_BYTES = 65536
RECORDS_A_ROUND = 5200
"""About as many as a round there and back gives with rings of 4 KiB."""


@click.command()
@click.option("--records", default=1_000_000, show_default=True, help="How many, about.")
@click.option("--ring", default=12, show_default=True, help="Order of both rings.")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", type=Path, help="Keep the traces in this folder.")
@click.option("--json", "json_path", type=Path, help="Write the figures into this file.")
def main(records: int, ring: int, seed: int, keep: Path | None, json_path: Path | None) -> None:
    """Make a trace, judge it, print the figures."""
    progress = for_terminal()
    with tempfile.TemporaryDirectory() as scratch:
        with progress.step("Make the traces"):
            run = simulate(scenario(records, ring, seed))
            paths = run.write(keep or Path(scratch))
        facts = run.facts()
        counted = sum(len(process.rows) for process in run.processes.values())
        for process in run.processes.values():
            # The model's rows are Python's numbers: they would be the larger part of the memory.
            process.rows.clear()
        began = time.monotonic()
        verdict = judge_traces(paths["server"], paths["client"], facts, progress=progress)
        seconds = time.monotonic() - began
    figures = figures_of(run, verdict, counted, seconds, ring)
    for name, value in figures.items():
        click.echo(f"{name}: {value}")
    if json_path:
        json_path.write_text(json.dumps({**figures, "machine": machine()}, indent=2) + "\n")


def scenario(records: int, ring: int, seed: int) -> Scenario:
    """As many rounds as give that many records."""
    rng = random.Random(seed)
    server: list[Operation] = []
    client: list[Operation] = []
    for _ in range(max(1, records // RECORDS_A_ROUND)):
        for writer, reader in ((client, server), (server, client)):
            writer.extend(("write", size) for size in sizes(rng))
            reader.extend(("read", size) for size in sizes(rng))
    server += [("read_to_end", 64), ("close",)]
    client += [("close",)]
    return Scenario(tuple(server), tuple(client), ring, ring, seed, burst=0.8)


def sizes(rng: random.Random) -> list[int]:
    """Sizes of the calls of one round."""
    left, found = ROUND_BYTES, []
    while left:
        found.append(min(left, rng.randint(1, 2048)))
        left -= found[-1]
    return found


def figures_of(
    run: Run, verdict: Verdict, records: int, seconds: float, ring: int
) -> dict[str, Any]:
    """What was measured. Memory is the largest of one process."""
    largest = {
        name: resource.getrusage(who).ru_maxrss // 1024
        for name, who in (
            ("python", resource.RUSAGE_SELF),
            ("java", resource.RUSAGE_CHILDREN),
        )
    }
    return {
        "records": records,
        "ring_bytes": 1 << ring,
        "outcome": run.outcome,
        "conformance": verdict.conformance,
        "progress": verdict.progress,
        "seconds": round(seconds, 1),
        "records_a_second": round(records / seconds),
        "steps": sum(one.steps for one in verdict.directions),
        "states": sum(one.states for one in verdict.directions),
        "pieces": sum(one.pieces for one in verdict.directions),
        "overlap": verdict.overlap,
        "stuttering_records": verdict.stuttering_records,
        "largest_process_mib": largest,
    }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "processors": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


if __name__ == "__main__":
    main()
