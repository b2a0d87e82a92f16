"""A trace of which some records are left out, as if they had never been written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.endings import Ending


def kept_only(trace: Trace, ending: Ending, keep: npt.NDArray[np.bool_]) -> tuple[Records, Ending]:
    """Copies of the records that are kept, numbered anew, and where the trace ends among them.

    A number that was missing is missing still.
    """
    records = trace.records
    place = np.cumsum(keep) - 1
    left = records[keep].copy()
    for thread in np.unique(left["thread"]):
        gone = np.cumsum(~keep & (records["thread"] == thread))[keep]
        own = left["thread"] == thread
        left["seq"][own] -= gone[own].astype(np.uint32)
    rows = ending.rows[keep[ending.rows]]
    return left, replace(ending, rows=place[rows].astype(np.int64))
