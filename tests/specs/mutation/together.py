"""Run TLC on many mutants: some in one JVM, the others beside or behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rules import Mutant

from vchan_testbed.errors import TestbedError
from vchan_testbed.validate.tlc.jar import follower_classes
from vchan_testbed.validate.tlc.module import HERE
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, TlcOutput, run_tlc

TOGETHER = 30
"""Mutants in one run: one that TLC cannot evaluate makes the others of its run start again."""
JOBS = 2
LINES_MAX = 100_000
"""Of an error: whose it is stands above the places in the spec."""
LIMITS = Limits(seconds_max=3000.0, heap_mib=3000)
KNOWN_BY = re.compile(r"/\\ mutant = (\d+)")


class Unfinished(Exception):
    """TLC met a bound: what it has not found is not known not to be there."""


def together(
    chosen: Mapping[int, Mutant],
    run: Callable[[Mapping[int, Mutant]], TlcOutput],
    broken: Callable[[int], None] = lambda number: None,
) -> list[TlcOutput]:
    """All of them, some together; without those that TLC cannot evaluate."""
    numbers = list(chosen)
    parts = [numbers[first : first + TOGETHER] for first in range(0, len(numbers), TOGETHER)]

    def one(part: list[int]) -> list[TlcOutput]:
        if not part:
            return []
        try:
            return [run({number: chosen[number] for number in part})]
        except TestbedError as error:
            known = [int(number) for number in KNOWN_BY.findall(error.console or "")][-1:]
        if len(part) == 1:
            known = part
        if known and known[0] in part:
            broken(known[0])
            return one([number for number in part if number != known[0]])
        # TLC does not always tell the state that it could not go on from.
        half = len(part) // 2
        return [*one(part[:half]), *one(part[half:])]

    with ThreadPoolExecutor(JOBS) as pool:
        return [output for outputs in pool.map(one, parts) for output in outputs]


def run_hunt(
    folder: Path, config: str, library: Sequence[Path], options: Sequence[str]
) -> TlcOutput:
    """Run TLC on the module Hunt in the folder.

    Raises Unfinished at a bound, TestbedError when TLC cannot evaluate something.
    """
    (folder / "Hunt.cfg").write_text(config)
    (folder / "lanes.csv").write_text("lane,action,value,after,raises,comes_after\n")
    job = TlcJob(
        folder=folder,
        module="Hunt",
        config="Hunt.cfg",
        library=(*library, HERE),
        classes=follower_classes(),
        properties={
            "vchan.lanes": str(folder / "lanes.csv"),
            "vchan.reached": str(folder / "reached.csv"),
            "vchan.states": "100000000",
        },
        options=("-deadlock", *options),
        lines_kept=LINES_MAX,
    )
    output = run_tlc(job, LIMITS)
    if output.bound or output.exit_status or output.unexplored:
        raise Unfinished("\n".join([output.bound, *output.console[-20:]]))
    return output
