"""Changes made by hand to the records of a good trace: one after another, for every kind of record.

`WHOLE` is a small run with nearly every kind in it; the other bases have the rest. All have rings
of the same sizes: one run of TLC can then follow what becomes of them. A mutation
names a record by its endpoint, call, kind and cell, and the how many-th of those it is; and a
change: fields that get other values, or the record dropped, doubled or swapped with the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from library_model import Build, Run, Scenario, simulate

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Kind

WHOLE = Scenario(
    server=(("read", 1500), ("write", 100), ("is_open",), ("read_to_end", 64), ("close",)),
    client=(("write", 1500), ("read", 100), ("close",)),
    left_order=10,
    right_order=12,
    seed=3,
    client_build=Build(exchanges=False, adds_in_memory=False),
)
SLOW_READER = Scenario(
    # The first read finds two writes' bytes and asks for fewer than the first one brought.
    server=(("read", 50, 1), ("read_to_end", 500), ("close",)),
    client=(("write", 100), ("write", 100), ("close",)),
    right_order=12,
    seed=1,
    burst=0.97,
)
STUCK = Scenario(
    # The only event for 64 bytes is dropped; both wait.
    server=(("read", 1024), ("write", 8), ("read", 64), ("write", 8), ("close",)),
    client=(("write", 1024), ("read", 8), ("write", 64), ("read", 8), ("close",)),
    right_order=12,
    seed=0,
    drop=(("client", 2, 1),),
)
CONTENDED = Scenario(
    # Both sides change a notify byte at once, and one of them has to try again.
    server=(("read", 9000), ("close",)),
    client=(("write", 9000), ("close",)),
    right_order=12,
    seed=19,
    burst=0.0,
)
BASES = {"whole": WHOLE, "slow reader": SLOW_READER, "stuck": STUCK, "contended": CONTENDED}
MINUS_ONE = (1 << 64) - 1


@dataclass(frozen=True)
class Pick:
    """A record: the `nth` of this kind, call and cell in an endpoint's trace."""

    endpoint: Role
    kind: Kind
    call: Call | None = None
    cell: Cell | None = None
    nth: int = 1

    def row(self, records: Records) -> int:
        """Its row."""
        chosen = records["kind"] == self.kind
        if self.call is not None:
            chosen &= records["call"] == self.call
        if self.cell is not None:
            chosen &= records["offset"] == self.cell
        return int(np.flatnonzero(chosen)[self.nth - 1])

    def __str__(self) -> str:
        parts = [self.endpoint, self.call.name.lower() if self.call else "", self.kind.name]
        parts.append(self.cell.name.lower() if self.cell is not None else "")
        return " ".join(part for part in parts if part) + (f" {self.nth}" if self.nth > 1 else "")


Change = Callable[[Records, int], Records]


def sets(**values: int) -> Change:
    """Other values in some fields of the record."""

    def change(records: Records, row: int) -> Records:
        for name, value in values.items():
            records[name][row] = np.uint64(value) if name in ("old", "new") else value
        return records

    return change


def reads(value: int) -> Change:
    """A load of another value."""
    return sets(old=value, new=value)


def drop(records: Records, row: int) -> Records:
    """Without the record; the numbers close up, as if it had never been written."""
    return _numbered(np.delete(records, row))


def lose(records: Records, row: int) -> Records:
    """Without the record, its number left out."""
    return np.delete(records, row)


def double(records: Records, row: int) -> Records:
    """The record twice."""
    return _numbered(np.insert(records, row, records[row]))


def swap(records: Records, row: int) -> Records:
    """The record after the next one."""
    records[[row, row + 1]] = records[[row + 1, row]]
    return _numbered(records)


def puts(kind: Kind) -> Change:
    """Another record behind this one."""

    def change(records: Records, row: int) -> Records:
        records = np.insert(records, row + 1, records[row])
        records["kind"][row + 1] = kind
        return _numbered(records)

    return change


def cut_here(records: Records, row: int) -> Records:
    """Nothing from here on."""
    return records[:row]


def _numbered(records: Records) -> Records:
    records["seq"] = np.arange(1, len(records) + 1)
    return records


@dataclass(frozen=True)
class Mutation:
    """A change, and what is due for it: a verdict, and the record that is named.

    `at` is "here", another record (with `shift` rows between, where records were put in or taken
    out), or None where no single record is at fault.
    """

    pick: Pick
    change: Change
    why: str
    at: Pick | Literal["here"] | None = "here"
    shift: int = 0
    conformance: str = "REJECTED"
    progress: str = "INCONCLUSIVE"
    fault_of: str | None = None
    base: str = "whole"
    """Which good run is changed."""
    kind: Kind | None = None
    """The kind that the change is about, if not that of the record that was picked."""

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.pick}: {self.why}"


def legal(pick: Pick, change: Change, why: str, base: str = "whole") -> Mutation:
    """A change that makes another good trace of it."""
    return Mutation(pick, change, why, None, 0, "ACCEPTED", "PROGRESS", None, base)


def undecided(pick: Pick, change: Change, why: str) -> Mutation:
    """A change that the spec of one direction has no steps for."""
    return Mutation(pick, change, why, None, 0, "UNDECIDED")


def rejected_at(
    pick: Pick, change: Change, at: Pick, why: str, shift: int = 0, base: str = "whole"
) -> Mutation:
    """A change that is contradicted by another record."""
    return Mutation(pick, change, why, at, shift, base=base)


def apply(run: Run, mutation: Mutation) -> tuple[dict[Role, Records], int]:
    """The changed records of an endpoint, and the row of the record that was picked."""
    records = run.records(mutation.pick.endpoint)
    row = mutation.pick.row(records)
    return {mutation.pick.endpoint: mutation.change(records, row)}, row


def base_runs() -> dict[str, Run]:
    """The good runs by name."""
    return {name: simulate(scenario) for name, scenario in BASES.items()}
