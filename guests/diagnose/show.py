"""What is said of a channel: a few lines for people, plain data for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from vchan_testbed.guests.diagnose.judge import Diagnosis
from vchan_testbed.guests.diagnose.page import Ring
from vchan_testbed.guests.diagnose.places import ASLEEP, SIDES
from vchan_testbed.guests.diagnose.sight import End, Sight

WORDS = {"app": "between calls", "gone": "through with it", "call": "within a call"} | {
    name: f"asleep in {name}" for name in ASLEEP
}
LIVE = {0: "0 (closed)", 1: "1", 2: "2 (not connected yet)"}
NOTIFY = {0: "nothing", 1: "writes", 2: "reads", 3: "writes and reads"}


def lines(sight: Sight, diagnosis: Diagnosis) -> Iterator[str]:
    """A channel and its verdict."""
    page = sight.page
    yield f"channel {sight.name}"
    yield f"  left   client to server  {_ring(page.left)}"
    yield f"  right  server to client  {_ring(page.right)}"
    for side in SIDES:
        told = NOTIFY[page.notify[side]]
        yield f"  {side}: live {LIVE[page.live[side]]}; has to tell its peer of {told}"
        yield from (f"    {line}" for line in _end(sight.ends[side]))
        if diagnosis.may_be.get(side):
            places = " or ".join(WORDS[word] for word in diagnosis.may_be[side])
            yield f"    by the spec: {places}"
    yield f"  {diagnosis.word}: {diagnosis.why}"
    yield from (f"  would tell: {what}" for what in diagnosis.would_tell)


def _ring(ring: Ring) -> str:
    return (
        f"prod {ring.prod}, cons {ring.cons}: {ring.held_bytes} of {ring.ring_bytes} bytes"
        f" ({ring.filled if ring.can_be else 'cannot be'})"
    )


def _end(end: End) -> Iterator[str]:
    if end.domid is not None:
        yield f"domain {end.domid}: {end.domain}"
    if end.port is not None:
        bits = {None: "unknown", True: "yes", False: "no"}
        yield (
            f"port {end.port.port}: {end.port.status}; pending {bits[end.port.pending]}, "
            f"masked {bits[end.port.masked]}"
        )
    process = end.process
    if process is None:
        yield "process: not seen from here"
        return
    doing = (
        "asleep in a call"
        if process.asleep
        else (
            "polls its event descriptor" if process.polls else "in no call that waits for an event"
        )
    )
    readable = {None: "unknown", True: "yes", False: "no"}[process.readable]
    counted = "unknown" if process.interrupts is None else str(process.interrupts)
    yield (
        f"process {process.pid} ({process.name}), state {process.state}: {doing}; "
        f"event to be read: {readable}; events counted by the kernel: {counted}"
    )


def plain(sight: Sight, diagnosis: Diagnosis) -> dict[str, Any]:
    """The same as data, for JSON."""
    page = asdict(sight.page)
    for name in ("left", "right"):
        ring: Ring = getattr(sight.page, name)
        page[name] |= {"held_bytes": ring.held_bytes, "filled": ring.filled, "can_be": ring.can_be}
    return {
        "channel": sight.name,
        "page": page,
        "ends": {side: asdict(end) for side, end in sight.ends.items()},
        "verdict": asdict(diagnosis),
    }
