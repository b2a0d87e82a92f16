"""Integrity: the bytes that came out are those that were handed in, each at its place.

The workload codes each byte's position in its stream into it, and the agent records after every
read what the data said. A byte that was lost, doubled or moved is located here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records, Role
from vchan_testbed.tracer.layout import Call, Kind
from vchan_testbed.validate.merge import Problem

Ints = npt.NDArray[np.int64]


def payload_problems(role: Role, records: Records, rows: Ints) -> list[Problem]:
    """Reads of one end whose bytes are not the ones that were due, the first one alone.

    `rows` are the rows to look at, in program order. What comes after a byte that is out of place
    is out of place as well, so one finding is all that there is to say.
    """
    chosen = records[rows]
    payloads = np.flatnonzero(chosen["kind"] == Kind.PAYLOAD)
    told = chosen[payloads]
    positions, counts = told["old"].astype(np.int64), told["new"].astype(np.int64)
    due = np.cumsum(counts) - counts
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
