"""The reproducers in experiments/hangs, each run many times: `make hangs`.

Each says what is to come of it; here it is counted how often that came. Those that need Xen are run
where there is one (`--host qemu`), and passed over on the loopback host. Without names all are run.
With `--pin` the counts go into hangs.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from batch import Planned
from batches import Batch, Clock, Ran, keep_only, performed

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment import default_path, load_experiment
from vchan_testbed.guests.experiment_model import Expect, Experiment
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.guests.hosts.table import open_host
from vchan_testbed.progress import Quiet

HANGS = default_path().parent / "hangs"
PINS = Path(__file__).with_name("hangs.json")
FOLDER = Path("build/hangs")
SECONDS = 3 * 3600.0
JOBS = 4
"""Reproducers at once on the loopback host: most of a run is waiting for nothing to move."""


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    host: str
    times: int
    folder: Path
    seconds: float


@dataclass(frozen=True)
class Counted:
    """How often a reproducer came out as it is meant."""

    name: str
    times: int
    as_expected: int
    others: tuple[str, ...] = ()
    """What came instead."""

    def __str__(self) -> str:
        told = "".join(f"\n    {other}" for other in self.others)
        return f"{self.name}: {self.as_expected} of {self.times} as expected{told}"


def reproducers(names: Sequence[str], host: str) -> Iterator[Experiment]:
    """The experiments to run; those that the host cannot run are left out, unless named.

    Raises InputError for a name that there is not.
    """
    every = {path.stem: path for path in sorted(HANGS.glob("*.yaml"))}
    for name in names or every:
        if name not in every:
            raise InputError(
                f"There is no reproducer {name!r}.", next_step=f"Name one of: {', '.join(every)}."
            )
        experiment = load_experiment(every[name])
        if names or host != "loopback" or experiment.needs is None:
            yield experiment


def counted(experiment: Experiment, asked: Asked) -> Counted:
    """Run one so often, each time with a pair of its own, and judge all of them."""
    runs = [Planned(f"{number:03}", experiment, number) for number in range(1, asked.times + 1)]
    batch = Batch(f"{asked.host}-{experiment.name}", runs)
    clock = Clock(asked.seconds)
    found = performed([batch], asked.folder, clock, host=_host(asked.host, experiment))
    ran = [one for _, of_batch in found for one in of_batch]
    other = [one for one in ran if not _is_as_meant(one, experiment.expect)]
    keep_only(asked.folder / batch.name, [one.name for one in other])
    told = tuple(f"{one.name}: {_told(one)}" for one in other)
    return Counted(experiment.name, len(ran), len(ran) - len(other), told)


def _is_as_meant(ran: Ran, expect: Expect) -> bool:
    if ran.verdict is None:
        return expect.is_met_by(ran.reason) and not ran.leaked
    return ran.verdict.expected and not ran.leaked


def _told(ran: Ran) -> str:
    leaked = f", {ran.facts['counts']} in use before and after" if ran.leaked else ""
    return f"{', '.join(ran.said)}: {ran.reason}{leaked}"


def _host(name: str, experiment: Experiment) -> AbstractContextManager[Host] | None:
    """None is the loopback host of the batches."""
    return None if name == "loopback" else open_host(name, experiment, Quiet())


def pinned(host: str, rows: Sequence[Counted]) -> dict[str, Any]:
    """What hangs.json is to hold: the counts of this host's reproducers that were run, anew."""
    kept: dict[str, Any] = json.loads(PINS.read_text()) if PINS.exists() else {}
    mine = {row.name: {"times": row.times, "as expected": row.as_expected} for row in rows}
    return {**kept, host: dict(sorted({**kept.get(host, {}), **mine}.items()))}


def main() -> int:
    """Exit status: 0 all as expected, 1 something is not, 2 a name that there is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="reproducers; without it all")
    parser.add_argument("--host", default="loopback")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--pin", action="store_true", help="write hangs.json")
    given = parser.parse_args()
    asked = Asked(given.host, given.times, given.folder, given.seconds)
    try:
        chosen = list(reproducers(given.names, given.host))
    except InputError as error:
        print(f"{error.message}\n{error.next_step}")
        return 2
    rows = []
    with ThreadPoolExecutor(JOBS if given.host == "loopback" else 1) as pool:
        for row in pool.map(lambda one: counted(one, asked), chosen):
            print(row, flush=True)
            rows.append(row)
    if given.pin:
        PINS.write_text(json.dumps(pinned(given.host, rows), indent=1) + "\n")
    return int(any(row.as_expected < row.times for row in rows))


if __name__ == "__main__":
    sys.exit(main())
