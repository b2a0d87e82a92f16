"""Random runs that conform, by the thousand: `make conforming`.

None of them may be anything but ACCEPTED and PROGRESS. A run is told by the seed and its number;
`--only NUMBER` makes it again and keeps it. The sweep goes on where it was stopped: its folder has
a file for each group of runs that was judged. With `--pin` and all runs there, what came of them
goes into conforming.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from batch import Planned
from batches import Batch, Clock, Ran, keep_only, performed
from lasting import LastingLoopbackHost
from sources import source_key
from workloads import GROUP, numbers_of, workload_of

from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.rundir import write_atomically
from vchan_testbed.validate.prepare import load_tables

PINS = Path(__file__).with_name("conforming.json")
FOLDER = Path("build/conforming")
SECONDS = 540.0
"""Of one piece of the sweep."""


@dataclass(frozen=True)
class Kind:
    """A kind of sweep: what its runs are, and where they are made."""

    pins: Path
    folder: Path
    runs: int
    workload: Callable[[int, int], Experiment]
    """Of a seed and the run's number."""
    host: Callable[[], AbstractContextManager[Host]]

    def planned(self, seed: int, number: int) -> Planned:
        """A run of the sweep."""
        return Planned(f"{number:05}", self.workload(seed, number), seed * 1_000_000 + number)


CONFORMING = Kind(PINS, FOLDER, 10_000, workload_of, LastingLoopbackHost)


def row_of(ran: Ran) -> dict[str, Any]:
    """What is kept of a run."""
    verdict, facts = ran.verdict, ran.facts
    row: dict[str, Any] = {
        "number": int(ran.name),
        "conformance": ran.said[0],
        "progress": ran.said[1],
        "outcome": facts.get("outcome") or "not made",
        "delays": dict(Counter(fault["became"] for fault in facts.get("faults", []))),
        "looked at": facts.get("times_looked_at", 0),
        "layout": _layout_of(facts["experiment"]),
    }
    if verdict is not None:
        row |= {
            "records": verdict.records,
            "overlap": verdict.overlap,
            "spurious": verdict.spurious,
            "actions": dict(verdict.directions[0].coverage) if verdict.directions else {},
        }
    if not ran.is_good:
        row["reason"] = ran.reason
    if ran.leaked:
        row["leaked"] = facts["counts"]
    return row


def _layout_of(experiment: dict[str, Any]) -> list[str]:
    """The kinds of workload that a run is one of."""
    channel = experiment["channel"]
    does = {o["do"] for end in ("server", "client") for o in experiment[end]}
    firsts = (channel["left_first_index"], channel["right_first_index"])
    both = all(
        any(o["do"] in ("write", "send") for o in experiment[e]) for e in ("server", "client")
    )
    server_last = experiment["server"][-2]["do"] == "read_to_end"
    kinds = {
        "blocking": channel["blocking"],
        "polling": not channel["blocking"],
        "both directions at once": channel["threads"] == "duplex",
        "both directions": both,
        "one direction": not both,
        "packets": "send" in does,
        "stream": "write" in does,
        "indices from 0": not any(firsts),
        "indices from elsewhere": any(firsts),
        "client closes first": server_last,
        "server closes first": not server_last,
    }
    return [kind for kind, holds in kinds.items() if holds]


class Kept:
    """The folder of a sweep: a file for each group that this code judged, a line for each run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder / f"seed-{seed}" / source_key()
        self.folder.mkdir(parents=True, exist_ok=True)

    def rows(self) -> list[dict[str, Any]]:
        """The runs so far."""
        texts = [path.read_text() for path in sorted(self.folder.glob("group-*.jsonl"))]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def has(self, group: int) -> bool:
        """Whether the runs of a group are there."""
        return self._path(group).exists()

    def add(self, group: int, rows: list[dict[str, Any]]) -> None:
        """A group's runs, all or none."""
        write_atomically(self._path(group), "".join(json.dumps(row) + "\n" for row in rows))

    def _path(self, group: int) -> Path:
        return self.folder / f"group-{group:04}.jsonl"


def summary(seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of all of them, without dates."""
    actions: Counter[str] = Counter()
    delays: Counter[str] = Counter()
    for row in rows:
        actions.update(row.get("actions", {}))
        delays.update(row["delays"])
    every = load_tables().library
    assert every is not None
    return {
        "seed": seed,
        "runs": len(rows),
        "verdicts": _counted(f"{row['conformance']}, {row['progress']}" for row in rows),
        "outcomes": _counted(row["outcome"] for row in rows),
        "not ACCEPTED and PROGRESS": [row["number"] for row in rows if "reason" in row],
        "leaked": [row["number"] for row in rows if "leaked" in row],
        "workloads": _counted(kind for row in rows for kind in row["layout"]),
        "delays": dict(sorted(delays.items())),
        "records": sum(row.get("records", 0) for row in rows),
        "runs that were looked at": sum(row["looked at"] > 0 for row in rows),
        "times that they were": sum(row["looked at"] for row in rows),
        "runs in which both sides overlapped": sum(row.get("overlap", 0) > 0 for row in rows),
        "runs with a wake-up out of nowhere": sum(row.get("spurious", 0) > 0 for row in rows),
        "actions": dict(sorted(actions.items())),
        "actions not taken": sorted(set(every.actions.actions) - set(actions)),
    }


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def batches(kind: Kind, seed: int, groups: Iterable[int], runs: int) -> Iterator[Batch]:
    """The groups, of so many runs in all."""
    for group in groups:
        numbers = numbers_of(group, runs)
        yield Batch(f"group-{group:04}", [kind.planned(seed, number) for number in numbers])


def sweep(
    kind: Kind, seed: int, runs: int, part: tuple[int, int], kept: Kept, clock: Clock
) -> None:
    """Go on with a part of the sweep as long as there is time."""
    groups = range(part[0] - 1, -(-runs // GROUP), part[1])
    left = [group for group in groups if not kept.has(group)]
    for batch, ran in performed(
        batches(kind, seed, left, runs), kept.folder, clock, host=kind.host()
    ):
        rows = [row_of(one) for one in ran]
        kept.add(int(batch.name.removeprefix("group-")), rows)
        keep_only(kept.folder / batch.name, [one.name for one in ran if not one.is_good])
        for row in rows:
            if "reason" in row or "leaked" in row:
                told = {key: row[key] for key in row if key not in ("actions", "layout")}
                print(told, flush=True)
        print(f"{batch.name}: {len(rows)} runs; {clock.passed:.0f} s", flush=True)


def _part(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: expected 1/2 or 2/2, for example")
    return int(number), int(of)


def main(kind: Kind = CONFORMING, about: str | None = __doc__) -> int:
    """Exit status: 0 all good, 1 something is not, 3 there are more to come."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=kind.runs)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of this piece")
    parser.add_argument("--part", type=_part, default=(1, 1), help="as 1/2, to run two at once")
    parser.add_argument("--folder", type=Path, default=kind.folder)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make one run, and keep it")
    parser.add_argument("--pin", action="store_true", help=f"write {kind.pins.name}")
    given = parser.parse_args()
    if given.only is not None:
        batch = Batch("only", [kind.planned(given.seed, given.only)])
        clock = Clock(given.seconds)
        ((_, (ran,)),) = performed([batch], given.folder, clock, host=kind.host())
        print(json.dumps(row_of(ran), indent=1))
        return int(not ran.is_good)
    kept = Kept(given.folder, given.seed)
    sweep(kind, given.seed, given.runs, given.part, kept, Clock(given.seconds))
    rows = [row for row in kept.rows() if row["number"] < given.runs]
    found = summary(given.seed, rows)
    print(json.dumps({key: found[key] for key in ("runs", "verdicts", "outcomes", "leaked")}))
    if found["not ACCEPTED and PROGRESS"] or found["leaked"]:
        return 1
    if len(rows) < given.runs:
        print(f"{given.runs - len(rows)} runs are to come: start it again, and it goes on.")
        return 3
    if given.pin:
        kind.pins.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
