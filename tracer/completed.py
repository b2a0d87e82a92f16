"""What a trace does not hold, as far as the rest of it tells.

Where the order of accesses is kept there are time stamps only at calls, and a plain store does not
know what it overwrote. Between two stamps of a thread an access can have come at any time, so these
two are its bounds. A cell that only this end stores to held what this end left there. The digest of
a long copy is put off until the peer has its event.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer import layout
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import TraceHeader
from vchan_testbed.tracer.layout import ACCESS_KINDS, Flag, Kind

_CELL_BITS = 16

Places = npt.NDArray[np.int64]


def completed(header: TraceHeader, records: Records) -> Records:
    """The records of one trace, by thread and number, with bounds for stamps and old values.

    A copy has its digest, and is no longer marked as one whose digest follows.
    """
    if not len(records):
        return records
    whole = records.copy()
    _fill_digests(whole)
    if header.order == layout.Order.KEPT:
        _bound_times(whole, header.start_tsc)
        _fill_old_values(whole)
    return whole


def copies_of_digests(records: Records) -> tuple[Places, Places]:
    """Places of DIGEST records, and for each that of the copy that it is about; -1 for none."""
    digests = np.flatnonzero(records["kind"] == Kind.DIGEST)
    copies = np.flatnonzero(records["kind"] == Kind.COPY)
    if not len(copies):
        return digests, np.full(len(digests), -1)
    names = _names(records["thread"][copies], records["seq"][copies])
    by_name = np.argsort(names)
    wanted = _names(records["thread"][digests], records["operand"][digests])
    found = by_name[np.minimum(np.searchsorted(names[by_name], wanted), len(copies) - 1)]
    return digests, np.where(names[found] == wanted, copies[found], -1)


def _names(threads: npt.NDArray[np.uint16], numbers: npt.NDArray[np.uint32]) -> Places:
    return threads.astype(np.int64) << 32 | numbers


def _fill_digests(records: Records) -> None:
    digests, copies = copies_of_digests(records)
    told = copies >= 0
    records["old"][copies[told]] = records["old"][digests[told]]
    records["flags"][copies[told]] &= ~np.uint16(Flag.DIGEST_FOLLOWS)


def _bound_times(records: Records, start: int) -> None:
    stamped = records["t0"] != 0
    if not stamped.any():
        records["t0"] = records["t1"] = start
        return
    threads = records["thread"]
    places = np.arange(len(records))
    before = np.maximum.accumulate(np.where(stamped, places, -1))
    behind = _next(stamped, places)
    has_before = (before >= 0) & (threads[before] == threads)
    has_behind = (behind < len(records)) & (
        threads[np.minimum(behind, len(records) - 1)] == threads
    )
    end = records["t1"].max()
    earliest = np.where(has_before, records["t1"][before], start)
    latest = np.where(has_behind, records["t0"][np.minimum(behind, len(records) - 1)], end)
    records["t0"] = np.where(stamped, records["t0"], earliest)
    records["t1"] = np.where(stamped, records["t1"], np.maximum(latest, earliest))


def _next(stamped: npt.NDArray[np.bool_], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each place the first stamped one at or behind it; their number where there is none."""
    backwards = np.where(stamped, places, len(places))[::-1]
    found: npt.NDArray[np.int64] = np.minimum.accumulate(backwards)[::-1]
    return found


def _fill_old_values(records: Records) -> None:
    """From the access to the same cell before it, where one thread alone comes to that cell.

    What is found then is no longer marked as unknown.
    """
    accesses = np.flatnonzero(np.isin(records["kind"], list(ACCESS_KINDS)))
    rows = records[accesses]
    cells = rows["channel"].astype(np.int64) << _CELL_BITS | rows["offset"]
    by_cell = np.lexsort((rows["thread"], cells))
    before, this = by_cell[:-1], by_cell[1:]
    follows = cells[this] == cells[before]
    shared = cells[this][follows & (rows["thread"][this] != rows["thread"][before])]
    told = follows & (rows["flags"][this] & Flag.OLD_UNKNOWN != 0) & ~np.isin(cells[this], shared)
    records["old"][accesses[this[told]]] = rows["new"][before[told]]
    records["flags"][accesses[this[told]]] &= ~np.uint16(Flag.OLD_UNKNOWN)
