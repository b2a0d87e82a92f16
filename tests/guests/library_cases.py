"""The experiments that the spec of the library judges, and what it is to say of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """An experiment, the verdict that is due, and which ends stop before the end of their list."""

    name: str
    progress: str = "PROGRESS"
    known: tuple[str, ...] = ()
    early: tuple[str, ...] = ()

    @property
    def conformance(self) -> str:
        """KNOWN with deviations, ACCEPTED without."""
        return "KNOWN" if self.known else "ACCEPTED"

    @property
    def ends(self) -> bool:
        """Whether both ends come to their end."""
        return self.progress == "PROGRESS"


CASES = (
    Case("duplex"),
    Case("packets"),
    Case("packets-polling"),
    Case("polling"),
    Case("connect-first"),
    Case("first-write"),
    Case("index-wrap"),
    Case("ping-pong"),
    Case("close-by-server"),
    Case("close-by-both"),
    Case("close-unused"),
    Case("close-during-read"),
    Case("close-during-write", early=("client",)),
    Case("hangs/close-race", known=("L1",)),
    Case("hangs/packets-stand-off", progress="STALLED"),
    Case("hangs/mutual-writes", progress="STALLED"),
)
