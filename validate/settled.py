"""What flight recorders saw of a run that stood still, as run.json would tell it.

A recorder that is frozen by the settle time has looked twice, at the beginning of that time and at
its end: at its threads, at the shared page, at its event descriptor. Both ends have to have done
so, and nothing may have gone on at the one when the other one was frozen. An end whose process is
over need not have looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vchan_testbed.tracer.header import Role, TraceHeader
from vchan_testbed.tracer.layout import Call, FrozenBy, Look
from vchan_testbed.tracer.reader import Trace

STILL = Look.TAKEN | Look.ASLEEP | Look.SAME_PAGE | Look.ALONE


def facts_of(traces: Mapping[Role, Trace]) -> dict[str, Any]:
    """What is known of how a run ended that has no run.json; nothing if it did not stand still."""
    still = {role: trace for role, trace in traces.items() if _stood_still(trace.header)}
    over = {role for role, trace in traces.items() if role not in still and _is_over(trace)}
    if not still or len(still) + len(over) < len(traces) or not _at_one_time(still):
        return {}
    look = {"endpoints": {role: _look(trace) for role, trace in still.items()}}
    look["endpoints"] |= {role: {"alive": False} for role in over}
    return {
        "quiescence": {"looks": [look, look]},
        "endpoints": {role: {"ended": "finished"} for role in over},
    }


def _stood_still(header: TraceHeader) -> bool:
    return header.frozen == FrozenBy.SETTLE_TIME and header.look & STILL == STILL


def _is_over(trace: Trace) -> bool:
    return trace.ending == "complete"


def _at_one_time(still: Mapping[Role, Trace]) -> bool:
    """Whether each stood still until the last one was frozen, by one and the same counter."""
    frozen = max(trace.header.frozen_tsc for trace in still.values())
    return all(
        not trace.header.left_out or trace.header.left_out_tsc > frozen for trace in still.values()
    )


def _look(trace: Trace) -> dict[str, Any]:
    header = trace.header
    call = Call(header.in_call).name.lower() if header.in_call else None
    return {
        "alive": True,
        "records": len(trace.records) + (trace.window.lost_records if trace.window else 0),
        "page": header.page.hex(),
        "in_call": call,
        "event_fd_readable": bool(header.look & Look.READABLE),
        "threads": [{"in_call": call, "blocked_in_kernel": True}],
    }
