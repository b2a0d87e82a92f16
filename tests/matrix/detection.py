"""The detection matrix: every action of the spec with every fault that applies: `make matrix`.

Each cell is a run on the loopback host, beside the run of the same workload and seed without the
fault. It is judged without a look at what was injected, and again as if calls alone had been
recorded. What is due is pinned in cells.json. The sweep goes on where it was stopped; its folder
has the table as matrix.html and matrix.json. `--pin` writes what came of the cells into cells.json.
`--host qemu` makes the runs on real Xen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from batch import Planned
from batches import NO_RUN, Batch, Clock, Judging, Ran, keep_only, performed
from cells import Cell, cells, experiment_of
from observed import differences, observed
from plays import experiments
from sources import source_key
from table import write_table

from vchan_testbed.guests.experiment import load_experiment
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import write_atomically
from vchan_testbed.validate.prepare import load_tables

PINS = Path(__file__).with_name("cells.json")
FOLDER = Path("build/matrix")
SECONDS = 540.0
SEED = 7
TOGETHER = 12
"""Cells of one batch."""
FREE = "without a fault"
PINNED = ("effect", "outcome", "conformance", "progress", "kind", "by_calls")
UNSEEN = (
    "By calls alone nothing is wrong: the fault shows in what accesses found or left, and each "
    "call returned what it returns without the fault."
)
HAPPENED = ("done", "held", "in vain")


def batches(chosen: Sequence[Cell]) -> Iterator[tuple[Batch, list[Cell]]]:
    """Cells of one workload, with its run without a fault."""
    workloads = experiments()
    by_workload: dict[str, list[Cell]] = defaultdict(list)
    for cell in chosen:
        by_workload[cell.workload].append(cell)
    for workload, those in by_workload.items():
        for first in range(0, len(those), TOGETHER):
            part = those[first : first + TOGETHER]
            free = Planned(FREE, workloads[workload], SEED)
            runs = [Planned(c.name, experiment_of(c, workloads), SEED) for c in part]
            name = f"{workload} {part[0].name}".replace(",", "").replace(" ", "-")
            yield Batch(name, [free, *runs]), part


def row_of(cell: Cell, free: Ran, ran: Ran, folder: Path) -> dict[str, Any]:
    """What came of a cell."""
    differs = differences(
        observed(folder / free.name, free.facts), observed(folder / ran.name, ran.facts)
    )
    verdict = ran.verdict
    row = {
        "cell": cell.name,
        "workload": cell.workload,
        "nth": cell.fault.nth,
        "became": (ran.facts.get("faults") or [{"became": "not yet"}])[-1]["became"],
        "effect": bool(differs),
        "differs": differs,
        "outcome": ran.facts.get("outcome") or "not made",
        "conformance": ran.said[0],
        "progress": ran.said[1],
        "kind": verdict.kind if verdict else "",
        "reason": ran.reason,
        "by_calls": said_by_calls(ran),
    }
    if not free.is_good:
        row["free"] = ", ".join(free.said)
    if ran.leaked:
        row["leaked"] = ran.facts["counts"]
    return row


def said_by_calls(ran: Ran) -> str:
    """The verdict by calls alone."""
    if ran.by_calls is None:
        return ", ".join(NO_RUN)
    return f"{ran.by_calls.conformance}, {ran.by_calls.progress}"


def called(row: Mapping[str, Any]) -> str:
    """One word for what came of a cell."""
    good = (row["conformance"], row["progress"]) == ("ACCEPTED", "PROGRESS")
    if row["effect"]:
        return "missed" if good else "detected"
    return "harmless" if good else "seen"


def why_by_calls(row: Mapping[str, Any]) -> str:
    """Why the verdict by calls is another one; empty if it is the same, or nothing explains it.

    Less is seen of it, so that more fits: a fault at an access, rejected by what accesses found, of
    which no call returned anything else. Any other difference is a defect of one of the judges.
    """
    library = load_tables().library
    assert library is not None
    more_fits = row["conformance"] == "REJECTED" and row["by_calls"] == "ACCEPTED, PROGRESS"
    _, action, _ = row["cell"].split()
    at_an_access = library.actions.actions[action].is_access
    return UNSEEN if more_fits and at_an_access and not row["effect"] else ""


def wrong(row: Mapping[str, Any], pins: Mapping[str, Any]) -> list[str]:
    """What is not as it has to be, in words."""
    found = []
    if row["became"] not in HAPPENED:
        found.append(f"the fault did not happen: {row['became']}")
    if called(row) == "missed":
        found.append("the fault had an effect, and the run is ACCEPTED with PROGRESS")
    differs = row["by_calls"] != f"{row['conformance']}, {row['progress']}"
    if differs and not why_by_calls(row):
        found.append(f"by calls it is {row['by_calls']}, and nothing says why")
    if "free" in row:
        found.append(f"the run without the fault is {row['free']}")
    if "leaked" in row:
        found.append(f"something leaked: {row['leaked']}")
    due = pins.get(row["cell"])
    came = {key: row[key] for key in PINNED}
    if due is None:
        found.append("nothing is pinned for it")
    elif came not in due:
        found.append(f"it is {came}, and pinned is {' or '.join(map(str, due))}")
    return found


class Kept:
    """The folder of a sweep: a file for each cell that was judged, by this code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cells = folder / "cells" / source_key()
        self._cells.mkdir(parents=True, exist_ok=True)

    def rows(self) -> dict[str, dict[str, Any]]:
        """By the cells' names, in the order of the spec."""
        found = {}
        for cell in cells():
            path = self._path(cell)
            if path.exists():
                found[cell.name] = json.loads(path.read_text())
        return found

    def add(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """What came of a cell."""
        write_atomically(self._path(cell), json.dumps(row, indent=1) + "\n")

    def _path(self, cell: Cell) -> Path:
        return self._cells / f"{cell.name.replace(' ', '-')}.json"


def sweep(
    chosen: Sequence[Cell], kept: Kept, clock: Clock, host: AbstractContextManager[Host] | None
) -> Iterator[dict[str, Any]]:
    """Each cell that was judged while there was time."""
    planned = list(batches(chosen))
    of = {batch.name: part for batch, part in planned}
    judging = Judging(ignore_injected=True, by_calls=True)
    every = [batch for batch, _ in planned]
    for batch, runs in performed(every, kept.folder, clock, judging, host):
        free, *others = runs
        folder = kept.folder / batch.name
        for cell, ran in zip(of[batch.name], others, strict=True):
            row = row_of(cell, free, ran, folder)
            kept.add(cell, row)
            yield row
        keep_only(folder, [])


def load_pins() -> dict[str, Any]:
    """What may come of each cell: one outcome, or several where it is a race."""
    return dict(json.loads(PINS.read_text())) if PINS.exists() else {}


def pin(rows: Mapping[str, Mapping[str, Any]], *, more: bool) -> None:
    """Write what came of them; `more`: beside what is pinned already."""
    pins = load_pins()
    for name, row in rows.items():
        came = {key: row[key] for key in PINNED}
        before = pins.get(name, []) if more else []
        pins[name] = [*before, *([] if came in before else [came])]
    lines = [
        f" {json.dumps(c.name)}: {json.dumps(pins[c.name])}" for c in cells() if c.name in pins
    ]
    PINS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def host_called(name: str) -> AbstractContextManager[Host] | None:
    """Real Xen, or None for the usual one."""
    return QemuHost(load_experiment(None), Quiet()) if name == "qemu" else None


def main() -> int:
    """Exit status: 0 all as pinned, 1 something is not, 3 there are more to come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", help="of those alone whose name has one of these words")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of this piece")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--again", action="store_true", help="also those that are there")
    parser.add_argument("--pin", action="store_true", help="write cells.json")
    parser.add_argument("--pin-more", action="store_true", help="add to cells.json")
    parser.add_argument("--host", choices=("loopback", "qemu"), default="loopback")
    given = parser.parse_args()
    kept = Kept(given.folder)
    chosen = [c for c in cells() if not given.cells or any(w in c.name for w in given.cells)]
    left = [cell for cell in chosen if given.again or cell.name not in kept.rows()]
    for row in sweep(left, kept, Clock(given.seconds), host_called(given.host)):
        verdict = f"{row['conformance']}, {row['progress']}"
        print(f"{row['cell']}: {called(row)}; {row['outcome']}; {verdict}", flush=True)
    found = kept.rows()
    rows = {
        cell.name: {**found[cell.name], "why_by_calls": why_by_calls(found[cell.name])}
        for cell in chosen
        if cell.name in found
    }
    if given.pin or given.pin_more:
        pin(rows, more=given.pin_more)
    pins = load_pins()
    faults = {name: wrong(row, pins) for name, row in rows.items()}
    for name, texts in faults.items():
        for text in texts:
            print(f"WRONG {name}: {text}")
    words = {name: called(row) for name, row in rows.items()}
    write_table(given.folder, rows, words, faults)
    print(f"{len(rows)} of {len(chosen)} cells; the table is {given.folder}/matrix.html")
    if any(faults.values()):
        return 1
    return 3 if len(rows) < len(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
