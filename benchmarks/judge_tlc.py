"""What TLC needs to judge a long trace: seconds, memory, states, pieces.

    python benchmarks/judge_tlc.py [--records N] [--ring ORDER] [--one-way] [--compare]
                                   [--run DIR] [--keep DIR] [--json FILE]

The traces are those of the tests' model of the library (tests/validate/library_model.py), so that
the figures do not depend on a host: both ends take turns at writing and reading 64 KiB in mixed
sizes over small rings, which is hard on the judge, because every write fills the ring. With
`--one-way` all bytes go one way. `--run` judges the traces of a run directory instead.

`--compare` judges the same traces in other ways too, so that ratios have both sides in one run.
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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "validate"))

from library_model import Operation, Scenario, simulate

from vchan_testbed.progress import Progress, for_terminal
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.cuts import Size
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.lanes import FollowResult, Lanes, SpecParams, Start
from vchan_testbed.validate.prepare import read_run
from vchan_testbed.validate.tlc.follow import follow

ROUND_BYTES = 65536
RECORDS_A_ROUND = 4200
"""About as many as a round there and back gives with rings of 4 KiB."""


@click.command()
@click.option("--records", default=1_000_000, show_default=True, help="How many, about.")
@click.option("--ring", default=12, show_default=True, help="Order of both rings.")
@click.option("--one-way", is_flag=True, help="All bytes go from the client to the server.")
@click.option("--seed", default=1, show_default=True)
@click.option("--run", "run_directory", type=Path, help="Judge the traces of this run directory.")
@click.option("--compare", is_flag=True, help="In one piece, and in all orders, as well.")
@click.option("--keep", type=Path, help="Keep the traces in this folder.")
@click.option("--json", "json_path", type=Path, help="Write the figures into this file.")
def main(
    records: int,
    ring: int,
    one_way: bool,
    seed: int,
    run_directory: Path | None,
    compare: bool,
    keep: Path | None,
    json_path: Path | None,
) -> None:
    """Make traces, judge them, print the figures."""
    progress = for_terminal()
    with tempfile.TemporaryDirectory() as scratch:
        if run_directory:
            paths, facts = read_run(run_directory)
        else:
            with progress.step("Make the traces"):
                work = scenario(records, ring, seed, one_way=one_way)
                paths, facts = made(work, keep or Path(scratch))
        ways = WAYS if compare else {"as_it_is": Options()}
        figures: dict[str, Any] = {"records": counted(paths)}
        for way, options in ways.items():
            figures[way] = judged(paths, facts, options, progress)
    figures["largest_process_mib"] = largest()
    figures["machine"] = machine()
    click.echo(json.dumps(figures, indent=2))
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


def in_all_orders(
    lanes: Lanes,
    params: SpecParams,
    starts: Sequence[Start] | None,
    progress: Progress,
    *,
    explain: bool = True,
) -> FollowResult:
    """TLC, without what the values tell of the order."""
    blind = replace(
        lanes,
        sender=replace(lanes.sender, comes_after=None),
        receiver=replace(lanes.receiver, comes_after=None),
    )
    return follow(blind, params, starts, progress=progress, explain=explain)


WAYS = {
    "as_it_is": Options(),
    "in_one_piece": Options(size=Size(steps=1 << 40)),
    "in_all_orders": Options(judge=in_all_orders),
}
"""Ways to judge the same traces."""


def made(work: Scenario, folder: Path) -> tuple[dict[Role, Path], dict[str, Any]]:
    """Traces of the model, and what is known of its run."""
    run = simulate(work)
    return run.write(folder), run.facts()


def counted(paths: Mapping[Role, Path]) -> int:
    """Records of both traces."""
    return sum(len(read_trace(path).records) for path in paths.values())


def scenario(records: int, ring: int, seed: int, *, one_way: bool = False) -> Scenario:
    """As many rounds as give that many records."""
    rng = random.Random(seed)
    server: list[Operation] = []
    client: list[Operation] = []
    for _ in range(max(1, records // RECORDS_A_ROUND)):
        for writer, reader in ((client, server), (client, server) if one_way else (server, client)):
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


def judged(
    paths: Mapping[Role, Path], facts: dict[str, Any], options: Options, progress: Progress
) -> dict[str, Any]:
    """Judge once, and say what it took."""
    began, spent = time.monotonic(), processor_seconds()
    verdict = judge_traces(
        paths["server"], paths["client"], facts, progress=progress, options=options
    )
    seconds = time.monotonic() - began
    each = verdict.directions
    return {
        "conformance": verdict.conformance,
        "progress": verdict.progress,
        "seconds": round(seconds, 1),
        "records_a_second": round(verdict.records / seconds),
        "processor_seconds": {
            name: round(now - spent[name], 1) for name, now in processor_seconds().items()
        },
        "steps": {one.direction: one.steps for one in each},
        "states": {one.direction: one.states for one in each},
        "pieces": {one.direction: one.pieces for one in each},
        "overlap": verdict.overlap,
        "stuttering_records": verdict.stuttering_records,
    }


def processor_seconds() -> dict[str, float]:
    """Of this process and of those that it has started and awaited."""
    who = {"python": resource.RUSAGE_SELF, "java": resource.RUSAGE_CHILDREN}
    used = {name: resource.getrusage(which) for name, which in who.items()}
    return {name: one.ru_utime + one.ru_stime for name, one in used.items()}


def largest() -> dict[str, int]:
    """Memory of the largest process of a kind, MiB; that of Python has the model's run in it."""
    who = {"python": resource.RUSAGE_SELF, "java": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(which).ru_maxrss // 1024 for name, which in who.items()}


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
