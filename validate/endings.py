"""How each end's trace ends, and so how far its lanes reach.

A run that stood still was looked at and then killed by the test bed: what it recorded after the
last look is an effect of being killed, so its lanes end at the look. A process that was killed
while it ran may have made one access more than it recorded; then the kernel cleared its live byte
and raised the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, Call, Cell, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.evidence import Evidence

Ints = npt.NDArray[np.int64]
Death: TypeAlias = Literal["no", "may", "must", "domain"]
"""no: it lived; must: the kernel cleaned up after the process, so its live byte is cleared and an
event raised; domain: the domain went with it; may: it may have died, nothing is known of it."""
LIVE: Mapping[Role, Cell] = {"server": Cell.SRV_LIVE, "client": Cell.CLI_LIVE}
INITS = (Call.SERVER_INIT, Call.CLIENT_INIT)
HAS_THE_PAGE = (Kind.SHARE_PAGE, Kind.MAP_PAGE)


@dataclass(frozen=True, slots=True)
class Ending:
    """One end's trace, as far as it is judged."""

    role: Role
    rows: Ints
    """Rows of the channel's records, in program order."""
    looked: bool
    """It stood still at the last look: that is where its lanes end."""
    recorded: int
    """Records in the trace, of whatever kind, and those that were lost before a window."""
    left_out: int
    """Records after the last look."""
    unlogged: bool
    """One access more may have been made after the last record."""
    death: Death
    """How the process died, and so what was done behind its records."""
    live_left: int | None
    """Its domain went: its live byte as its peer saw it when the run stood still, if it did."""
    mapped: bool
    """It has had the shared page: when it dies, its live byte is cleared and an event raised."""
    closed: bool
    """The channel was closed by libxenvchan_close."""
    needs: tuple[str, ...]
    """What the spec has no steps for."""


def ending_of(trace: Trace, evidence: Evidence) -> Ending:
    """Where and how one end's trace ends."""
    role, records = trace.header.role, trace.records
    rows = _of_the_channel(records)
    count = evidence.records_at_last_look(role)
    lost = trace.window.lost_records if trace.window else 0
    looked = evidence.stands_still and evidence.alive(role) is True
    taken = rows
    if looked and count is not None and count - lost < len(records):
        before = np.zeros(len(records), bool)
        before[np.argsort(records["t0"], kind="stable")[: max(count - lost, 0)]] = True
        taken = rows[before[rows]]
    closed = bool(np.any(_closes(records[taken])))
    killed = not looked and not closed
    went_with_domain = killed and evidence.drained(role) == lost + len(records)
    return Ending(
        role=role,
        rows=taken,
        looked=looked,
        recorded=lost + len(records),
        left_out=len(rows) - len(taken),
        # Held at a step by the test bed, while its domain was ended, it made no other one.
        unlogged=killed and trace.ending == "cut" and not went_with_domain,
        death=_death(evidence.ended(role), went_with_domain) if killed else "no",
        live_left=_live_left(role, evidence) if went_with_domain else None,
        mapped=bool(np.any(np.isin(records["kind"][taken], HAS_THE_PAGE))),
        closed=closed,
        needs=_needs(trace, records[taken]),
    )


def _death(ended: str | None, went_with_domain: bool) -> Death:
    if went_with_domain:
        return "domain"
    # A domain that went before all records came leaves open what its process did before; and how
    # an end of which nothing is known ended is open too.
    return "must" if ended in ("killed", "died") else "may"


def _live_left(role: Role, evidence: Evidence) -> int | None:
    peer: Role = "client" if role == "server" else "server"
    page = evidence.page(peer) if evidence.stands_still else None
    return None if page is None else page[LIVE[role]]


def _of_the_channel(records: Records) -> Ints:
    """All rows but those of attempts to open the channel that failed: the client tries again."""
    exits = (records["kind"] == Kind.CALL_EXIT) & np.isin(records["call"], INITS)
    failed = exits & (records["new"] >> np.uint64(63) == 1)
    attempts = _call_key(records)
    return np.flatnonzero(~np.isin(attempts, attempts[failed])).astype(np.int64)


def _call_key(records: Records) -> Ints:
    inside = records["call_seq"].astype(np.int64)
    key: Ints = (records["thread"].astype(np.int64) << 32) | inside
    # Records outside of a call belong to no attempt.
    return np.where(inside == 0, -1, key)


def _closes(records: Records) -> npt.NDArray[np.bool_]:
    gives_back = np.isin(records["kind"], (Kind.UNSHARE_PAGE, Kind.UNMAP_PAGE))
    return np.asarray(gives_back & (records["call"] == Call.CLOSE))


def _needs(trace: Trace, records: Records) -> tuple[str, ...]:
    found = []
    acting = np.isin(records["kind"], (*ACCESS_KINDS, Kind.CALL_ENTER, Kind.PENDING_ENTER))
    if len(np.unique(records["thread"][acting])) > 1:
        found.append("several threads on one channel")
    if np.count_nonzero(records["kind"] == Kind.ATTACH) > 1:
        found.append("several channels in one trace")
    opened = (records["kind"] == Kind.CALL_ENTER) & np.isin(records["call"], INITS)
    begun = opened.any() or trace.begins_later
    if not begun and (records["kind"] == Kind.CALL_ENTER).any():
        found.append("a trace that begins after the channel was opened")
    return tuple(found)
