"""What an endpoint's trace tells of its port, as far as it has come: number and events read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vchan_testbed.errors import TestbedError
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.tracer.reader import read_trace

BINDS = (Kind.BIND_UNBOUND, Kind.BIND_INTERDOMAIN)
FAILED = 63
"""The bit of a result that is below 0."""


def port_seen(path: Path) -> dict[str, Any]:
    """`port`, the local one, `events_read` from it, and `records` in all; None: not known."""
    try:
        records = read_trace(path).records
    except (TestbedError, OSError):
        return {"port": None, "events_read": None, "records": None}
    good = records["new"] >> np.uint64(FAILED) == 0
    bound = records["new"][good & np.isin(records["kind"], BINDS)]
    port = int(bound[-1]) if len(bound) else None
    read = good & (records["kind"] == Kind.PENDING_EXIT)
    return {"port": port, "events_read": int(np.count_nonzero(read)), "records": len(records)}
