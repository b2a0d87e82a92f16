"""A record of a trace in words."""

from __future__ import annotations

from dataclasses import dataclass

from vchan_testbed.tracer.layout import ACCESS_KINDS, COPY_OUT, NO_OFFSET, Call, Cell, Flag, Kind
from vchan_testbed.tracer.reader import Trace

_SHOWS_BOTH = ACCESS_KINDS - {Kind.LOAD}
_PORT_IN_OLD = {Kind.NOTIFY, Kind.UNMASK, Kind.UNBIND}
_CELL_NAMES = {
    Cell.LEFT_CONS: "left.cons",
    Cell.LEFT_PROD: "left.prod",
    Cell.RIGHT_CONS: "right.cons",
    Cell.RIGHT_PROD: "right.prod",
}


@dataclass(frozen=True)
class Worded:
    """One record: what was done, to which cell, what it changed, in which call."""

    kind: str
    cell: str
    change: str
    call: str
    marks: str
    """What the tracer noted about it: that the test bed dropped its effect, for instance."""


def worded(trace: Trace, row: int) -> Worded:
    """The record in row `row` of a trace, counted from 0."""
    record = trace.records[row]
    kind = int(record["kind"])
    call = _named(Call, int(record["call"]))
    return Worded(
        _named(Kind, kind),
        _cell(int(record["offset"])),
        _change(kind, int(record["old"]), int(record["new"]), int(record["op"])),
        "" if int(record["call"]) == Call.NONE else f"{call} {int(record['call_seq'])}",
        ", ".join(_named(Flag, bit) for bit in Flag if int(record["flags"]) & bit),
    )


def _named(numbers: type[Kind] | type[Call] | type[Flag], value: int) -> str:
    """The name of a number; a trace that was tampered with may hold one that has none."""
    try:
        name = numbers(value).name or ""
    except ValueError:
        return f"{numbers.__name__.lower()} {value}"
    return name.lower().replace("_", " ")


def _cell(offset: int) -> str:
    if offset == NO_OFFSET:
        return ""
    try:
        cell = Cell(offset)
    except ValueError:
        return f"page + {offset}"
    return _CELL_NAMES.get(cell, cell.name.lower())


def _change(kind: int, old: int, new: int, op: int) -> str:
    if kind == Kind.LOAD:
        return f"= {new}"
    if kind in _SHOWS_BOTH:
        return f"{old} → {new}"
    if kind == Kind.CALL_ENTER:
        return f"size {old}"
    if kind in _PORT_IN_OLD:
        return f"port {old}, result {_signed(new)}"
    if kind == Kind.PENDING_EXIT:
        return f"port {_signed(new)}" if _signed(new) >= 0 else f"failed, errno {old}"
    if kind == Kind.CALL_EXIT:
        return f"result {_signed(new)}" + (f", errno {old}" if _signed(new) < 0 else "")
    if kind == Kind.COPY:
        return f"{new} bytes {'out of' if op == COPY_OUT else 'into'} the ring at {old}"
    if kind == Kind.PAYLOAD:
        return f"{new} bytes from stream position {old}"
    return f"{old} → {_signed(new)}" if old or new else ""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
