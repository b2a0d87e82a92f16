"""What can be seen of a run from outside: bytes, return codes, how it ended.

No trace is believed here but for what each call of the library returned, which is what the
application got. A call that moved nothing and is made again says only that it came too early, and
how often an end waited says only how often it was woken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vchan_testbed.guests.experiment import ENDPOINTS
from vchan_testbed.tracer.layout import Call, Kind
from vchan_testbed.tracer.reader import read_trace

MOVING = (Call.READ, Call.WRITE, Call.RECV, Call.SEND)


def observed(run: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Of both ends; equal for two runs of which nobody could tell one from the other."""
    seen: dict[str, Any] = {"outcome": facts.get("outcome") or "was not made"}
    blocking = facts["experiment"]["channel"]["blocking"]
    for end in ENDPOINTS:
        said = facts.get("endpoints", {}).get(end) or {"ended": None, "result": None}
        result = said["result"] or {}
        seen[end] = {
            "ended": said["ended"],
            **{
                key: result.get(key)
                for key in ("written_bytes", "read_bytes", "mismatches", "ended_early")
            },
            "returned": returned(run / "traces" / f"{end}.vtrace", blocking=blocking),
        }
    return seen


def returned(trace: Path, *, blocking: bool) -> list[tuple[str, int]]:
    """What each call returned, in order."""
    if not trace.exists():
        return []
    records = read_trace(trace).records
    exits = records[records["kind"] == Kind.CALL_EXIT]
    found = []
    for call, value in zip(exits["call"].tolist(), exits["new"].tolist(), strict=True):
        # 64 bits, signed.
        result = value - 2**64 if value >= 2**63 else value
        came_early = call in MOVING and result == 0 and not blocking
        if call != Call.WAIT and not came_early:
            found.append((Call(call).name.lower(), result))
    return found


def differences(free: dict[str, Any], faulty: dict[str, Any]) -> list[str]:
    """In what a run differs from the one without its fault; none: the fault had no effect."""
    found = [] if free["outcome"] == faulty["outcome"] else [f"it {faulty['outcome']}"]
    for end in ENDPOINTS:
        found += [f"{key} of the {end}" for key in free[end] if free[end][key] != faulty[end][key]]
    return found
