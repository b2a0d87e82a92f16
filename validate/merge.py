"""Merge: the records of both ends, direction by direction, as the two lanes of the spec's steps.

Nothing is put into one order here; that is the judge's to find. Which record shows which step, and
with what value, says the table `specs/vchan.records.yaml`. Indices are followed in 64 bits along
each end's program order: a wrap of the 32-bit index is nothing special, and a step by more than a
ring is seen whatever it is a multiple of.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, COPY_IN, Call, Flag, Kind
from vchan_testbed.validate.lanes import Step
from vchan_testbed.validate.reads import Reads, reads_of
from vchan_testbed.validate.table import Rule, SideTable

IMPOSSIBLE = -1
"""Value of a step that no state of the spec shows."""
INDEX_MASK = 0xFFFFFFFF
CHUNK = 1 << 16
INDICES = ("prod", "cons")
BY_APPLICATION = int(Flag.BY_APPLICATION)
EVENTS = frozenset((Kind.NOTIFY, Kind.PENDING_EXIT))
CAN_FAIL = EVENTS | {Kind.UNMASK}
TRANSFERS = frozenset((Call.READ, Call.WRITE))
LIVE = {0: 0, 1: 1, 2: 1}
"""A live byte of 2 is that of a client that has not connected yet."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that no trace of the library has."""

    role: Role
    row: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class LaneSteps(Sequence[Step]):
    """One side's steps, in columns: a long trace has a million of them."""

    role: Role
    names: tuple[str, ...]
    """Actions by their code."""
    codes: npt.NDArray[np.uint8]
    values: Ints
    rows: Ints
    """The trace's row that shows the step."""
    indices: Ints
    """The own index after the step, counted from what it was at the start of the trace."""
    remarks: Mapping[int, str]
    """By row: why its value is none that the spec could show."""
    stutters: int
    """Records of this direction that decide nothing."""

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, at: int) -> Step: ...

    @overload
    def __getitem__(self, at: slice) -> LaneSteps: ...

    def __getitem__(self, at: int | slice) -> Step | LaneSteps:
        """One step; a part shares the columns."""
        if isinstance(at, slice):
            codes, values, rows = self.codes[at], self.values[at], self.rows[at]
            return replace(self, codes=codes, values=values, rows=rows, indices=self.indices[at])
        return Step(self.names[self.codes[at]], int(self.values[at]), int(self.rows[at]))

    def __iter__(self) -> Iterator[Step]:
        columns = (self.codes.tolist(), self.values.tolist(), self.rows.tolist())
        return (Step(self.names[at], *rest) for at, *rest in zip(*columns, strict=True))

    def steps(self, first: int, last: int) -> tuple[Step, ...]:
        """The steps from `first` up to, without, `last`."""
        return tuple(self[first:last])

    def counts(self) -> dict[str, int]:
        """How often each action is among the steps."""
        counted = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return {name: n for name, n in zip(self.names, counted, strict=True) if n}

    def where(self, *actions: str) -> Ints:
        """Positions of the steps with one of these actions."""
        wanted = np.array([name in actions for name in self.names], np.bool_)
        return np.flatnonzero(wanted[self.codes]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Projection:
    """What one side's records give."""

    lane: LaneSteps
    problems: tuple[Problem, ...]
    needs: Mapping[str, int]
    """What the spec has no steps for, with the first row that shows it."""
    first: int = 0
    """Both indices of the ring at the start, as far as this side's records tell."""


def project(
    table: SideTable,
    records: Records,
    rows: Ints,
    ring_bytes: int,
    needs: Mapping[int, str],
    first: int = 0,
) -> Projection:
    """One side's lane of one direction.

    `rows` are the rows of `records` to use, in program order; `needs` names the calls that the
    spec has no steps for; `first` is what both indices of the ring are at the start.
    """
    projector = _Projector(table, ring_bytes, needs, reads_of(table, records, rows), first, first)
    for chunk in plain_records(records, _concerned(table, records, rows, needs)):
        for record in chunk:
            projector.take(*record)
    return projector.result()


def _concerned(table: SideTable, records: Records, rows: Ints, needs: Mapping[int, str]) -> Ints:
    """Those of `rows` that can say something: about half of them touch other cells, or nothing."""
    kind, call = records["kind"][rows], records["call"][rows]
    touches = np.isin(kind, list(ACCESS_KINDS))
    known = np.array([at[0] << 8 | at[1] for at in table.rules if not at[2]])
    says = np.isin(call.astype(np.int64) << 8 | kind, known) | np.isin(kind, list(EVENTS))
    says |= records["flags"][rows] & Flag.BY_APPLICATION != 0
    says |= (kind == Kind.CALL_ENTER) & np.isin(call, list(needs))
    says |= (kind == Kind.CALL_EXIT) & (call == Call.SERVER_INIT)
    says |= (kind == Kind.UNMASK) & (records["new"][rows] != 0)
    mine = np.isin(records["offset"][rows], list(table.ring.cells.values()))
    return rows[np.where(touches, mine, says)]


PlainRecord = tuple[int, int, int, int, int, int, int, int]


def plain_records(records: Records, rows: Ints) -> Iterator[Iterator[PlainRecord]]:
    """Rows as plain numbers, some thousands at a time: as numpy scalars they would be slow."""
    fields = ("kind", "call", "offset", "old", "new", "flags", "op")
    for at in range(0, len(rows), CHUNK):
        part = rows[at : at + CHUNK]
        chosen = records[part]
        columns = {name: chosen[name] for name in fields}
        # Where a copy is in the ring; what it copied is looked at elsewhere (payload.py).
        columns["old"] = np.where(chosen["kind"] == Kind.COPY, chosen["operand"], chosen["old"])
        yield zip(part.tolist(), *(one.tolist() for one in columns.values()), strict=True)


def signed(value: int) -> int:
    """The 64 bits of a result as the signed number that they are."""
    return value - (1 << 64) if value >> 63 else value


@dataclass
class _Projector:
    """Walks along one side's records."""

    table: SideTable
    ring_bytes: int
    not_in_the_spec: Mapping[int, str]
    reads: Reads
    index: int = 0
    first: int = 0
    copied: int = 0
    copies: bool = False
    last: str = ""
    live: int | None = None
    """The peer's live byte as last loaded."""
    away_row: int = -1
    stutters: int = 0
    problems: list[Problem] = field(default_factory=list)
    needs: dict[str, int] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)
    brought_forward: set[int] = field(default_factory=set)
    """Loads of the live byte that were taken before their turn."""
    page: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What server_init stored: value and row."""

    def __post_init__(self) -> None:
        ring, side = self.table.ring, self.table.side
        self.role: Role = ring.role(side)
        self.cells = {int(cell): name for name, cell in ring.cells.items()}
        self.names = tuple(sorted(self.table.actions()))
        self.code_of = {name: code for code, name in enumerate(self.names)}
        self.codes = array("B")
        self.values, self.rows, self.indices = array("q"), array("q"), array("q")

    def take(
        self, row: int, kind: int, call: int, offset: int, old: int, new: int, flags: int, op: int
    ) -> None:
        """Take in one record."""
        access = kind in ACCESS_KINDS
        cell = self.cells.get(offset, "") if access else ""
        if access and not cell:
            return
        if row in self.brought_forward:
            return
        rules = self.table.rules.get((call, kind, cell))
        if rules is None:
            self._without_a_rule(row, kind, call, cell, new, flags)
        else:
            rule = self._choose(rules, row)
            self._apply(rule, row, cell, old, new, op)
            if not rule.do and call == self.table.transfer:
                self.stutters += 1
        if kind == Kind.CALL_EXIT and call == Call.SERVER_INIT and new == 0:
            self._check_page(row)
        if kind in CAN_FAIL and call in TRANSFERS:
            self._note_failure(kind, row, new)

    def result(self) -> Projection:
        """What was gathered."""
        if self.away_row >= 0:
            self._emit(f"{self.table.side}_away", 0, self.away_row)
        lane = LaneSteps(
            role=self.role,
            names=self.names,
            codes=np.frombuffer(self.codes, np.uint8) if self.codes else np.empty(0, np.uint8),
            values=numbers(self.values),
            rows=numbers(self.rows),
            indices=numbers(self.indices),
            remarks=self.remarks,
            stutters=self.stutters,
        )
        return Projection(lane, tuple(self.problems), self.needs, self.first)

    def _without_a_rule(
        self, row: int, kind: int, call: int, cell: str, new: int, flags: int
    ) -> None:
        if kind == Kind.CALL_ENTER and call in self.not_in_the_spec:
            self.needs.setdefault(self.not_in_the_spec[call], row)
        elif call in self.not_in_the_spec:
            return
        elif flags & BY_APPLICATION and kind == Kind.STORE and cell in INDICES and not self.codes:
            # The test bed sets the indices of a ring before anybody uses them.
            self.index = self.first = new
        elif flags & BY_APPLICATION:
            self.needs.setdefault("the application touches the channel by itself", row)
        elif cell or kind in EVENTS:
            what = f"touches {cell}" if cell else "uses the event channel"
            name = Call(call).name.lower() if call else "no call of it"
            self._problem(row, f"libxenvchan never {what} in this way here (in {name})")

    def _choose(self, rules: tuple[Rule, ...], row: int) -> Rule:
        for rule in rules:
            if rule.after and self.last not in rule.after:
                continue
            if rule.decides and not self.reads.deciding[row]:
                continue
            if self.last in rule.first and row not in self.reads.live_after:
                if row == self.reads.pending:
                    continue
            elif self.last in rule.first:
                live_row, live = self.reads.live_after[row]
                if not live:
                    continue
                self._emit(rule.first[self.last], 1, live_row)
                self.brought_forward.add(live_row)
            return rule
        return rules[-1]

    def _apply(self, rule: Rule, row: int, cell: str, old: int, new: int, op: int) -> None:
        if rule.copies:
            self._copy(rule, row, old, new, op)
        if rule.must is not None:
            self._must(rule, row, cell, old, new)
        if not rule.do:
            if cell:
                self.page[cell] = (new, row)
            return
        value = self._value(rule.value, row, cell, old, new)
        if rule.value == "live":
            self.live = old
        if not (rule.trip and self._is_idle_trip(rule, row)):
            self._emit(rule.do, value, row)

    def _is_idle_trip(self, rule: Rule, row: int) -> bool:
        """Leave out a call of the other direction in which this direction lost no event.

        Nobody can tell then whether the thread was away; and a run that goes one way for a long
        time would have as many of these steps as of all others.
        """
        if rule.trip == "away":
            self.away_row = row
            return True
        if self.away_row < 0:
            return False
        if rule.trip in ("stolen", "asks"):
            self._emit(f"{self.table.side}_away", 0, self.away_row)
        self.away_row = -1
        return rule.trip == "back"

    def _emit(self, action: str, value: int, row: int) -> None:
        self.codes.append(self.code_of[action])
        self.values.append(value)
        self.rows.append(row)
        self.indices.append(self.index - self.first)
        if "_peek" in action:
            self.stutters += 1
        else:
            self.last = action

    def _value(self, rule: str, row: int, cell: str, old: int, new: int) -> int:
        if rule == "size":
            return old
        if rule == "result":
            return signed(new)
        if rule == "live":
            if old not in LIVE:
                return self._impossible(row, f"{old} is no value of a live byte")
            return LIVE[old]
        if rule in ("free", "held"):
            return self._in_the_ring(rule, row, old)
        if rule == "moved":
            return self._moved(row, old, new)
        if rule in ("set", "clear"):
            return self._bit(rule, row, cell, old, new)
        return 0

    def _in_the_ring(self, rule: str, row: int, theirs: int) -> int:
        ahead = self.index - theirs if rule == "free" else theirs - self.index
        used = ahead & INDEX_MASK
        if used > self.ring_bytes:
            return self._impossible(
                row,
                f"the peer's index {theirs} is not within a ring ({self.ring_bytes} bytes) of the "
                f"own one, {self.index & INDEX_MASK}",
            )
        return self.ring_bytes - used if rule == "free" else used

    def _moved(self, row: int, old: int, new: int) -> int:
        if old != self.index & INDEX_MASK:
            self._problem(
                row, f"the own index was {old}, and had been left at {self.index & INDEX_MASK}"
            )
        step = (new - old) & INDEX_MASK
        self.index += step
        if self.copies and step != self.copied:
            self._problem(row, f"the index moves by {step} bytes, {self.copied} were copied")
        self.copied = 0
        return step

    def _bit(self, rule: str, row: int, cell: str, old: int, new: int) -> int:
        bit = self.table.ring.bits[cell]
        due = old | bit if rule == "set" else old & ~bit
        if new != due:
            return self._impossible(row, f"{old} becomes {new}, and {due} was due")
        return int(bool(old & bit))

    def _must(self, rule: Rule, row: int, cell: str, old: int, new: int) -> None:
        if rule.must == "own":
            if old != self.index & INDEX_MASK:
                own = self.index & INDEX_MASK
                self._problem(row, f"reads {old} from its own index, which it had left at {own}")
        elif rule.must == "keeps":
            bit = self.table.ring.bits[cell]
            if (old ^ new) & bit:
                self._problem(row, f"changes bit {bit} of {cell}, which is the other direction's")
        elif rule.must == "live":
            if self.live is not None and new != self.live:
                self._problem(row, f"returns {new}, and the live byte was {self.live}")
        elif new != rule.must:
            self._problem(row, f"stores {new}, and {rule.must} was due")

    def _copy(self, rule: Rule, row: int, old: int, new: int, op: int) -> None:
        due = (self.index + self.copied) % self.ring_bytes
        inwards = op == COPY_IN
        if inwards != (rule.copies == "in"):
            self._problem(row, "copies in the wrong direction")
        elif old != due or old + new > self.ring_bytes:
            self._problem(
                row, f"copies {new} bytes at {old} in the ring, the index stands at {due}"
            )
        self.copies = True
        self.copied += new

    def _check_page(self, row: int) -> None:
        ring = self.table.ring
        for cell, due in ring.after_server_init.items():
            value, at = self.page.get(cell, (None, row))
            shown = (
                value
                if value is None or cell not in ring.bits
                else int(bool(value & ring.bits[cell]))
            )
            if shown != due:
                self._problem(at, f"server_init leaves {shown} in {cell}, and {due} was due")

    def _note_failure(self, kind: int, row: int, new: int) -> None:
        if kind == Kind.UNMASK and new:
            self.needs.setdefault("an unmask that fails", row)
        elif kind == Kind.NOTIFY and new:
            self.needs.setdefault("a notify that fails (L2, L4)", row)
        elif kind == Kind.PENDING_EXIT and signed(new) < 0:
            self.needs.setdefault("a wait that ends with an error (L8)", row)

    def _impossible(self, row: int, why: str) -> int:
        self.remarks.setdefault(row, why)
        return IMPOSSIBLE

    def _problem(self, row: int, text: str) -> None:
        self.problems.append(Problem(self.role, row, text))


def numbers(column: array[int]) -> Ints:
    """A column that was gathered, as numpy has it; nothing is copied."""
    return np.frombuffer(column, np.int64) if column else np.empty(0, np.int64)
