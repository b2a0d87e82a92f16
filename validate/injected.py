"""Traces without a word of the faults that the test bed injected.

What judges them knows no more than of a run in which the library, the kernel or the machine did by
itself what the test bed has done to it. The records are what the library saw; what reached the page
instead, and that something was injected at all, is told by the records that are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vchan_testbed.tracer.layout import Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.endings import Ending
from vchan_testbed.validate.kept import kept_only

MARKS = Flag.FAULT_INJECTED | Flag.HELD | Flag.HELD_IN_VAIN


def without_injected(trace: Trace, ending: Ending) -> tuple[Trace, Ending]:
    """The trace without records of faults and without their marks on others, and how it ends."""
    records, ends = kept_only(trace, ending, trace.records["kind"] != Kind.FAULT)
    records["flags"] &= np.uint16(~int(MARKS) & 0xFFFF)
    return replace(trace, records=records), ends
