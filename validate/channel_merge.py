"""Merge for the spec of the library: each end's records as one lane with both directions' steps.

Which record shows which step, and with what value, says the table `specs/libxenvchan.records.yaml`.
Nothing is put into one order here. Indices are followed in 64 bits along each end's program order,
so that a wrap of the 32-bit index is nothing special, and a step by more than a ring is seen.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, COPY_IN, Call, Flag, Kind
from vchan_testbed.validate.channel_table import ChannelTable, Row
from vchan_testbed.validate.merge import (
    IMPOSSIBLE,
    INDEX_MASK,
    Ints,
    LaneSteps,
    Problem,
    numbers,
    plain_records,
    signed,
)
from vchan_testbed.validate.reads import Looks, Reads, loads_of

WRITING = frozenset((Call.WRITE, Call.SEND, Call.BUFFER_SPACE))
READING = frozenset((Call.READ, Call.RECV, Call.DATA_READY))
OPENING = frozenset((Call.SERVER_INIT, Call.CLIENT_INIT))
MOVES = frozenset((Call.WRITE, Call.SEND, Call.READ, Call.RECV))
EVENTS = frozenset((Kind.NOTIFY, Kind.PENDING_EXIT, Kind.UNMASK))
PREPARED_CELLS = ("out_prod", "out_cons", "in_prod", "in_cons")
SLEEPS = "sleeps"
BITS = {"arms_writes": (1, True), "arms_reads": (2, True), "tests_writes": (1, False)}
BITS |= {"tests_reads": (2, False)}
"""By rule: the bit of a notify byte, and whether it is set."""


@dataclass(frozen=True, slots=True)
class Rings:
    """Bytes of the ring that a side writes, and of the one that it reads."""

    out: int
    into: int


@dataclass(frozen=True, slots=True)
class ChannelLane:
    """One end's lane, with its two indices after each step."""

    steps: LaneSteps
    """`indices` counts the bytes that the side has moved, both ways together."""
    out: Ints
    """prod of the ring that it writes."""
    into: Ints
    """cons of the ring that it reads."""
    first_out: int
    """Both indices of a ring at the start, unwrapped."""
    first_into: int
    ring_out: int
    """Bytes of the ring that it writes."""
    problems: tuple[Problem, ...]
    needs: Mapping[str, int]
    """What the spec has no steps for, with the first row that shows it."""


@dataclass
class _Index:
    """One of the side's own indices, and what was copied since it moved."""

    at: int = 0
    first: int = 0
    copied: int = 0
    copies: bool = False


def lane_of(
    table: ChannelTable,
    role: Role,
    records: Records,
    rows: Ints,
    rings: Rings,
    first: tuple[int, int] = (0, 0),
    *,
    of_calls: bool = False,
    tells_sleep: bool = False,
) -> ChannelLane:
    """The lane of one end; `of_calls`: its records are of calls and events alone.

    `tells_sleep`: if it ends where the thread has come to a wait, that is a step as well. It tells
    that the call blocks, where nobody else does.

    `rows` are the rows of `records` to use, in program order; `first` are the indices at the start
    of the ring that the side writes and of the one that it reads.
    """
    cells = table.cells[role]
    reads = {
        "out_cons": loads_of(
            Looks(WRITING, cells["out_cons"], cells["peer_live"], brings_forward=True),
            records,
            rows,
        ),
        "in_prod": loads_of(
            Looks(READING, cells["in_prod"], cells["peer_live"], brings_forward=False),
            records,
            rows,
        ),
    }
    projector = _Projector(table, role, rings, reads, of_calls=of_calls)
    projector.out, projector.into = (_Index(at, at) for at in first)
    for chunk in plain_records(records, _concerned(table, list(cells.values()), records, rows)):
        for record in chunk:
            projector.take(*record)
    if tells_sleep and not of_calls and len(rows):
        projector.sleep(int(rows[-1]), int(records["kind"][rows[-1]]))
    return projector.result(_threads(records, rows))


def _concerned(table: ChannelTable, cells: Sequence[int], records: Records, rows: Ints) -> Ints:
    """Those of `rows` that can say something."""
    kind, call = records["kind"][rows], records["call"][rows]
    touches = np.isin(kind, list(ACCESS_KINDS))
    known = np.array(
        [at[0] << 8 | at[1] for at in (*table.rows, *table.rows_of_calls) if not at[2]]
    )
    says = np.isin(call.astype(np.int64) << 8 | kind, known) | np.isin(kind, list(EVENTS))
    says |= (kind == Kind.CALL_EXIT) & (call == Call.SERVER_INIT)
    mine = np.isin(records["offset"][rows], cells)
    return rows[np.where(touches, mine, says)]


def _threads(records: Records, rows: Ints) -> int:
    """How many threads made calls."""
    enters = rows[records["kind"][rows] == Kind.CALL_ENTER]
    # Whoever opens the channel may leave it to another thread: at any time there is one.
    used = enters[~np.isin(records["call"][enters], list(OPENING))]
    return len(np.unique(records["thread"][used]))


@dataclass
class _Projector:
    """Walks along one end's records."""

    table: ChannelTable
    role: Role
    rings: Rings
    reads: Mapping[str, Reads]
    of_calls: bool = False
    last: str = ""
    moved: int = 0
    stutters: int = 0
    opened: bool = False
    problems: list[Problem] = field(default_factory=list)
    needs: dict[str, int] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)
    brought_forward: set[int] = field(default_factory=set)
    page: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What server_init stored: value and row."""

    def __post_init__(self) -> None:
        self.cells = {int(cell): name for name, cell in self.table.cells[self.role].items()}
        self.names = tuple(sorted(self.table.actions()))
        self.row_of = {**self.table.rows, **(self.table.rows_of_calls if self.of_calls else {})}
        self.code_of = {name: code for code, name in enumerate(self.names)}
        self.codes = array("B")
        self.values, self.rows, self.indices = array("q"), array("q"), array("q")
        self.outs, self.intos = array("q"), array("q")
        self.out, self.into = _Index(), _Index()

    def take(
        self, row: int, kind: int, call: int, offset: int, old: int, new: int, flags: int, op: int
    ) -> None:
        """Take in one record."""
        access = kind in ACCESS_KINDS
        cell = self.cells.get(offset, "") if access else ""
        if (access and not cell) or row in self.brought_forward:
            return
        rows = self.row_of.get((call, kind, cell))
        if rows is None:
            self._without_a_row(row, kind, call, cell, new, flags)
        else:
            rule = self._choose(rows, row, kind, cell, new)
            self._apply(rule, row, cell, old, new, op)
        if kind == Kind.CALL_EXIT and self.of_calls:
            self._has_moved(call, new)
        elif kind == Kind.CALL_EXIT and call == Call.SERVER_INIT and new == 0:
            self._check_page(row)

    def sleep(self, row: int, kind: int) -> None:
        """The last record, if the thread has come to a wait with it."""
        if kind == Kind.PENDING_ENTER:
            self._emit(SLEEPS, 0, row)

    def result(self, threads: int) -> ChannelLane:
        """What was gathered."""
        if threads > 1:
            self.needs.setdefault("calls of more than one thread", 0)
        steps = LaneSteps(
            role=self.role,
            names=self.names,
            codes=np.frombuffer(self.codes, np.uint8) if self.codes else np.empty(0, np.uint8),
            values=numbers(self.values),
            rows=numbers(self.rows),
            indices=numbers(self.indices),
            remarks=self.remarks,
            stutters=self.stutters,
        )
        return ChannelLane(
            steps=steps,
            out=numbers(self.outs),
            into=numbers(self.intos),
            first_out=self.out.first,
            first_into=self.into.first,
            ring_out=self.rings.out,
            problems=tuple(self.problems),
            needs=self.needs,
        )

    def _without_a_row(
        self, row: int, kind: int, call: int, cell: str, new: int, flags: int
    ) -> None:
        if flags & Flag.BY_APPLICATION:
            if kind == Kind.STORE and cell in PREPARED_CELLS and not self.opened:
                self._prepare(cell, new)
            else:
                self.needs.setdefault("the application touches the channel by itself", row)
        elif cell or kind in EVENTS:
            what = f"touches {cell}" if cell else "uses the event channel"
            name = Call(call).name.lower() if call else "no call of it"
            self._problem(row, f"libxenvchan never {what} in this way here (in {name})")

    def _prepare(self, cell: str, new: int) -> None:
        """The test bed sets the indices of a ring before anybody uses them."""
        index = self.out if cell.startswith("out") else self.into
        index.at = index.first = new

    def _choose(self, rows: tuple[Row, ...], row: int, kind: int, cell: str, new: int) -> Row:
        failed = signed(new) < 0 if kind == Kind.PENDING_EXIT else kind in EVENTS and new != 0
        if failed and kind == Kind.UNMASK:
            self.needs.setdefault("an unmask that fails", row)
        fitting = [one for one in rows if one.fails == failed] or list(rows)
        reads = self.reads.get(cell)
        for one in fitting:
            if one.after and self.last not in one.after:
                continue
            if one.decides and reads is not None and not reads.deciding[row]:
                continue
            if self.last in one.first and reads is not None and not self._brings(one, row, reads):
                continue
            return one
        return fitting[-1]

    def _brings(self, one: Row, row: int, reads: Reads) -> bool:
        """Take the load of the live byte that stands for one before this step; False: none does."""
        if row not in reads.live_after:
            return row != reads.pending
        live_row, live = reads.live_after[row]
        if not live:
            return False
        self._emit(one.first[self.last], live, live_row)
        self.brought_forward.add(live_row)
        return True

    def _apply(self, rule: Row, row: int, cell: str, old: int, new: int, op: int) -> None:
        if rule.copies:
            self._copy(rule.copies, row, old, new, op)
        if rule.must == "own":
            self._must_be_own(row, cell, old)
        elif rule.must is not None and new != rule.must:
            self._problem(row, f"stores {new}, and {rule.must} was due")
        if rule.do:
            self._emit(rule.do, self._value(rule.value, row, cell, old, new), row)
        elif cell:
            self.page[cell] = (new, row)

    def _emit(self, action: str, value: int, row: int) -> None:
        self.codes.append(self.code_of[action])
        self.values.append(value)
        self.rows.append(row)
        self.indices.append(self.moved)
        self.outs.append(self.out.at)
        self.intos.append(self.into.at)
        self.opened = self.opened or not action.startswith("i_")
        if action.endswith("_look") or action == SLEEPS:
            self.stutters += 1
        else:
            self.last = action

    def _value(self, rule: str, row: int, cell: str, old: int, new: int) -> int:
        if rule == "size":
            return old
        if rule == "result":
            return signed(new)
        if rule == "byte":
            return old
        if rule in ("free", "held"):
            return self._in_the_ring(rule, row, old)
        if rule in ("put", "taken"):
            return self._moved(self.out if rule == "put" else self.into, row, old, new)
        if rule in BITS:
            return self._bit(rule, row, cell, old, new)
        return 0

    def _in_the_ring(self, rule: str, row: int, theirs: int) -> int:
        own, size = self.into.at, self.rings.into
        if rule == "free":
            own, size = self.out.at, self.rings.out
        used = (own - theirs if rule == "free" else theirs - own) & INDEX_MASK
        if used > size:
            return self._impossible(
                row,
                f"the peer's index {theirs} is not within a ring ({size} bytes) of the own one, "
                f"{own & INDEX_MASK}",
            )
        return size - used if rule == "free" else used

    def _moved(self, index: _Index, row: int, old: int, new: int) -> int:
        if old != index.at & INDEX_MASK:
            left = index.at & INDEX_MASK
            self._problem(row, f"the own index was {old}, and had been left at {left}")
        step = (new - old) & INDEX_MASK
        index.at += step
        self.moved += step
        if index.copies and step != index.copied:
            self._problem(row, f"the index moves by {step} bytes, {index.copied} were copied")
        index.copied = 0
        return step

    def _has_moved(self, call: int, result: int) -> None:
        """Of a call without its accesses: what it says that it has moved."""
        if call in MOVES and signed(result) > 0:
            self.moved += result

    def _bit(self, rule: str, row: int, cell: str, old: int, new: int) -> int:
        bit, is_set = BITS[rule]
        due = old | bit if is_set else old & ~bit
        if new != due:
            return self._impossible(row, f"{cell} {old} becomes {new}, and {due} was due")
        return old

    def _must_be_own(self, row: int, cell: str, old: int) -> None:
        index = self.out if cell.startswith("out") else self.into
        own = index.at & INDEX_MASK
        if old != own:
            self._problem(row, f"reads {old} from its own index, which it had left at {own}")

    def _copy(self, way: str, row: int, old: int, new: int, op: int) -> None:
        index, size = (self.out, self.rings.out) if way == "in" else (self.into, self.rings.into)
        due = (index.at + index.copied) % size
        if (op == COPY_IN) != (way == "in"):
            self._problem(row, "copies in the wrong direction")
        elif old != due or old + new > size:
            text = f"copies {new} bytes at {old} in the ring, the index stands at {due}"
            self._problem(row, text)
        index.copies = True
        index.copied += new

    def _check_page(self, row: int) -> None:
        for cell, due in self.table.after_server_init.items():
            value, at = self.page.get(cell, (None, row))
            if value != due:
                self._problem(at, f"server_init leaves {value} in {cell}, and {due} was due")

    def _impossible(self, row: int, why: str) -> int:
        self.remarks.setdefault(row, why)
        return IMPOSSIBLE

    def _problem(self, row: int, text: str) -> None:
        self.problems.append(Problem(self.role, row, text))
