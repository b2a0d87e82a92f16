"""A record of a run, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass

from vchan_testbed.tracer.header import Role


@dataclass(frozen=True, slots=True)
class Place:
    """A record, for people and for programs."""

    endpoint: Role
    record: int
    """Its number in its thread, from 1 (`seq`)."""
    row: int
    """Its row in `Trace.records`, from 0."""
    time: float
    """Seconds since the start of its own trace, by its own clock."""
    what: str
    """The record in words."""
    reason: str = ""
