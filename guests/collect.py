"""What comes from one endpoint during a run: its trace, its state, its looks, its last word."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vchan_testbed.guests.frames import Frame, Kind, Message
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.rundir import RunDirectory
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.reader import read_trace


@dataclass
class Side:
    """One endpoint of a run, fed with the frames of its agent.

    `moved_at` is when something new was last heard of its work (time.monotonic).
    """

    endpoint: str
    link: AgentLink
    run: RunDirectory
    versions: dict[str, Any] = field(default_factory=dict)
    guest_type: str | None = None
    """As the domain's own kernel has it: pv, pvh; None without Xen."""
    selftest: dict[str, Any] | None = None
    ready: bool = False
    """Listening, or connected."""
    operation: int = 0
    result: dict[str, Any] | None = None
    signal: int | None = None
    status: int | None = None
    trace_ended: bool = False
    told: list[Message] = field(default_factory=list)
    """Faults that hold it, steps that were to be told of, and how it follows a schedule, which
    nobody has taken up yet."""
    farewell: bool = False
    """Its peer knows that it is over."""
    stopped: bool = False
    killed: bool = False
    gone: bool = False
    lost: str = ""
    """Why its domain is gone, as far as its host knows."""
    error: Message | None = None
    look: Message | None = None
    looks_asked: int = 0
    trace_bytes: int = 0
    moved_at: float = field(default_factory=time.monotonic)

    def take(self, frame: Frame | None) -> None:
        """Deal with one frame; None is the end of the link. Raises FrameError."""
        if frame is None or frame.kind is Kind.END:
            self.gone = True
        elif frame.kind is Kind.DATA:
            self._write(*frame.data())
            self.moved_at = time.monotonic()
        elif frame.kind is Kind.LOG:
            with self.run.console(f"agent-{self.endpoint}").open("ab") as log:
                log.write(frame.payload)
        else:
            self._hear(frame.message())

    @property
    def over(self) -> bool:
        """Whether nothing more of the workload comes from here."""
        return self.trace_ended or self.gone

    @property
    def ended(self) -> str:
        """How it ended, as `run.json` has it."""
        if not self.trace_ended:
            return "lost" if self.gone else "running"
        if self.result is not None:
            return "finished"
        return "killed" if self.killed else "died"

    @property
    def obituary(self) -> str:
        """How it came to an end that was not its own; empty if it did not."""
        if self.ended == "died":
            by = signal.Signals(self.signal).name if self.signal else "itself"
            return f"The {self.endpoint}'s process was ended by {by} in the middle of the run."
        if self.ended == "lost":
            return self.lost or f"The {self.endpoint}'s agent is gone."
        return self.lost

    def start(self, message: Message) -> None:
        """Tell the agent to begin."""
        self.moved_at = time.monotonic()
        self.link.send({**message, "type": "start"})

    def stop(self) -> None:
        """Have the worker stopped; `stopped` tells when it is."""
        if not self.over:
            self.link.send({"type": "stop"})

    def kill(self) -> None:
        """Have the worker killed, if it still runs."""
        if not self.over:
            self.killed = True
            self.link.send({"type": "kill"})

    def ask_for_look(self) -> None:
        """The answer will be in `look`; one to an earlier question does not count."""
        self.look = None
        self.looks_asked += 1
        if not self.over:
            self.link.send({"type": "look", "number": self.looks_asked})

    def summary(self) -> dict[str, Any]:
        """This endpoint's entry in `run.json`."""
        return {
            "domid": self.link.domid,
            "trace": f"traces/{self.endpoint}.vtrace" if self.trace_bytes else None,
            "ended": self.ended,
            "signal": self.signal,
            "result": self.result,
        }

    def _hear(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("listening", "connected", "progress", "done"):
            self.moved_at = time.monotonic()
        if kind == "hello":
            self.versions, self.selftest = message["versions"], message["selftest"]
            self.guest_type = message["guest_type"]
        elif kind in ("listening", "connected"):
            self.ready = True
        elif kind == "progress":
            self.operation = message["operation"]
        elif kind == "look":
            # A domain that was not run for a while answers two questions at once: the first
            # answer is then no older than the second, and both together show nothing.
            if message["number"] == self.looks_asked:
                self.look = message
        elif kind in ("held", "told", "turns", "refused"):
            self.told.append(message)
            self.moved_at = time.monotonic()
        elif kind == "stopped":
            self.stopped = True
        elif kind == "done":
            self.result = message["result"]
        elif kind == "died":
            self.signal = message["signal"]
        elif kind == "trace_end":
            self.trace_ended, self.status = True, message["status"]
        elif kind == "bye":
            self.selftest = message["selftest"]
        elif kind == "lost":
            self.lost = message["message"]
        elif kind == "error":
            self.error = message

    def _write(self, offset: int, data: bytes) -> None:
        descriptor = os.open(self.run.trace(self.endpoint), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)
        self.trace_bytes = max(self.trace_bytes, offset + len(data))


def mark_of(path: Path, number: int) -> int | None:
    """How many records a trace that still grows has up to that of fault `number`; None: not yet."""
    records = read_trace(path).records
    marks = np.flatnonzero((records["kind"] == layout.Kind.FAULT) & (records["old"] == number))
    return int(marks[-1]) + 1 if len(marks) else None
