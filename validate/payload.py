"""Integrity: the bytes that came out are those that were handed in, each at its place.

Two ways lead there. The tracer gives every copy a digest of its bytes, and both ends' digests are
compared wherever both have come to the same position: that holds for any bytes. And the workload
codes each byte's position in its stream into it, and the agent records after every read what the
data said: that locates a byte that was lost, doubled or moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import COPY_IN, COPY_OUT, Call, Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.digest import Copied, compared
from vchan_testbed.validate.merge import Problem
from vchan_testbed.validate.table import Ring

Ints = npt.NDArray[np.int64]
MOVES = (Kind.STORE, Kind.RMW_LOCKED, Kind.RMW_PLAIN)


def payload_problems(
    role: Role, records: Records, rows: Ints, *, from_start: bool = True
) -> list[Problem]:
    """Reads of one end whose bytes are not the ones that were due, the first one alone.

    `rows` are the rows to look at, in program order. Of a window (not `from_start`) the first read
    says itself where in its stream it is. What comes after a byte that is out of place
    is out of place as well, so one finding is all that there is to say.
    """
    chosen = records[rows]
    payloads = np.flatnonzero(chosen["kind"] == Kind.PAYLOAD)
    told = chosen[payloads]
    positions, counts = told["old"].astype(np.int64), told["new"].astype(np.int64)
    due = np.cumsum(counts) - counts
    if not from_start and len(due):
        due += positions[0]
    wrong = (told["operand"] != 0) | (positions != due) | (counts != _read_before(chosen, payloads))
    if not wrong.any():
        return []
    first = int(np.argmax(wrong))
    row = int(rows[payloads[first]])
    result = int(_read_before(chosen, payloads)[first])
    return [
        Problem(
            role, row, _what(int(positions[first]), int(due[first]), int(counts[first]), result)
        )
    ]


@dataclass(frozen=True, slots=True)
class Digests:
    """What the digests of one direction say."""

    positions: int
    """Stream positions at which both ends' digests were compared and are the same."""
    problem: Problem | None


def digests_of(ring: Ring, traces: Mapping[Role, Trace], rows: Mapping[Role, Ints]) -> Digests:
    """Compare what the sender copied into the ring with what the receiver copied out of it.

    `rows` are each end's rows to look at, in program order. A library whose compiler copies without
    memcpy shows no copies, or some of them: then nothing can be compared.
    """
    ends = (
        (ring.sender, ring.cells["prod"], COPY_IN),
        (ring.receiver, ring.cells["cons"], COPY_OUT),
    )
    sent, taken = (_copies(traces[role].records[rows[role]], rows[role], *at) for role, *at in ends)
    if sent is None or taken is None:
        return Digests(0, None)
    found = compared(sent, taken)
    if found.difference is None:
        return Digests(found.positions, None)
    at = found.difference
    written = int(traces[ring.sender].records["seq"][at.written])
    text = (
        f"bytes {at.same_up_to} to {at.position - 1} of the {ring.direction} direction came out as "
        f"others than went in, the last of them in {ring.sender} record {written}; before byte "
        f"{at.same_up_to} both ends agree."
    )
    return Digests(found.positions, Problem(ring.receiver, at.read, text))


def _copies(chosen: Records, rows: Ints, cell: int, op: int) -> list[Copied] | None:
    """Copies one way by which the index moved; None if some of them left no record.

    Who is killed behind a copy has not moved the index yet: nobody else can see those bytes.
    """
    at = np.flatnonzero((chosen["kind"] == Kind.COPY) & (chosen["op"] == op))
    told = chosen[at]
    ends = np.cumsum(told["new"].astype(np.int64))
    moved = _moved(chosen, cell)
    shown = int(np.searchsorted(ends, moved, side="right"))
    if moved != (int(ends[shown - 1]) if shown else 0):
        return None
    # Behind one without a digest, whose end died, nothing can be compared any more.
    lacking = np.flatnonzero(told["flags"][:shown] & Flag.DIGEST_FOLLOWS)
    digested = int(lacking[0]) if len(lacking) else shown
    columns = (told["new"].tolist(), told["old"].tolist(), rows[at].tolist())
    return [Copied(*copy) for copy in zip(*(one[:digested] for one in columns), strict=True)]


def _moved(chosen: Records, cell: int) -> int:
    """Bytes by which an end moved its index."""
    moves = np.isin(chosen["kind"], MOVES) & (chosen["offset"] == cell)
    moves &= np.isin(chosen["call"], (Call.READ, Call.RECV, Call.WRITE, Call.SEND))
    told = chosen[moves]
    steps = (told["new"].astype(np.int64) - told["old"].astype(np.int64)) % (1 << 32)
    return int(steps.sum())


def _read_before(chosen: Records, payloads: Ints) -> Ints:
    """For each payload record what the last call of read before it returned."""
    exits = np.flatnonzero(
        (chosen["kind"] == Kind.CALL_EXIT) & np.isin(chosen["call"], (Call.READ, Call.RECV))
    )
    if not len(exits):
        return np.full(len(payloads), -1, np.int64)
    at = np.searchsorted(exits, payloads) - 1
    results = chosen["new"][exits[np.maximum(at, 0)]].astype(np.int64)
    return np.where(at < 0, -1, results)


def _what(position: int, due: int, count: int, result: int) -> str:
    if count != result:
        return f"{count} bytes were checked, the read before returned {result}"
    if position > due:
        return f"bytes {due} to {position - 1} of the stream are missing: {position} came instead"
    if position < due:
        return f"bytes from {position} on of the stream came again where byte {due} was due"
    return f"the {count} bytes from position {due} on are not those that were written"
