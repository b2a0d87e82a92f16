"""What an end's own index was where its records begin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.layout import ACCESS_KINDS, Cell
from vchan_testbed.validate.merge import Ints


def first_index(records: Records, rows: Ints, own: Cell, peer: Callable[[], int | None]) -> int:
    """An index that an end owns, as its records begin, modulo 2**32.

    An end that never touches it has left it as it was: then it is what `peer` last saw; 0 if nobody
    looked.
    """
    found = _accesses(records, rows, own)
    if len(found):
        return int(records["old"][found[0]])
    return peer() or 0


def last_seen(records: Records, rows: Ints, cell: Cell) -> int | None:
    """What an end last found in a cell; None if it never looked."""
    found = _accesses(records, rows, cell)
    return int(records["new"][found[-1]]) if len(found) else None


def _accesses(records: Records, rows: Ints, cell: Cell) -> Ints:
    wanted = np.isin(records["kind"][rows], list(ACCESS_KINDS)) & (records["offset"][rows] == cell)
    found: Ints = rows[wanted]
    return found
