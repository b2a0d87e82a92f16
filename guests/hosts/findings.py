"""What a host can do and what it lacks: the lines that `vchan-testbed doctor` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What was looked at, in a few words."""
    ok: bool
    """Whether it is as a run needs it."""
    detail: str
    """What was seen."""
    how_to_get: str = ""
    """What to do where `ok` is false: a command, where there is one."""
