"""Judge a run: from two traces to a verdict.

    read and merge -> what decides before (unfollowed.py) -> each direction through the spec, and
    its progress (followed.py) -> how far the verdict reaches

Nothing here touches Xen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.tracer.layout import Flag, Order
from vchan_testbed.validate.cuts import Size
from vchan_testbed.validate.evidence import ROLES
from vchan_testbed.validate.followed import followed
from vchan_testbed.validate.lost_tail import lost_tails
from vchan_testbed.validate.measure import measured
from vchan_testbed.validate.prepare import Case, Level, Prepared, Tables, prepare, read_run
from vchan_testbed.validate.replay import Follow
from vchan_testbed.validate.unfollowed import decided_before, decided_behind
from vchan_testbed.validate.verdict import Expectation, Kind, Verdict
from vchan_testbed.validate.wording import Words


@dataclass(frozen=True, slots=True)
class Options:
    """How to judge."""

    size: Size | None = None
    """Of a piece; None is the usual one."""
    judge: Follow | None = None
    """What follows a piece; None is TLC."""
    tables: Tables | None = None
    """The spec's tables, if they have been read already."""
    level: Level | None = None
    """"calls": as if calls and events alone had been recorded; None: by all that was."""
    ignore_injected: bool = False
    """Judge as if nobody had written down which faults were injected."""
    bounded: bool = False
    """Measure how long what was due waited, too: one more run of TLC."""


def judge_run(
    run: Path, *, progress: Progress | None = None, options: Options | None = None
) -> Verdict:
    """Judge a run directory.

    Raises InputError when it is none, TestbedError when a trace is missing or TLC fails,
    TraceDamaged when a trace is damaged.
    """
    paths, facts = read_run(run)
    return judge_traces(paths["server"], paths["client"], facts, progress=progress, options=options)


def judge_traces(
    server: Path,
    client: Path,
    run_facts: Mapping[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    options: Options | None = None,
) -> Verdict:
    """Judge two traces; `run_facts` is what run.json holds, None if there is no run directory.

    Raises what `judge_run` raises.
    """
    began = time.monotonic()
    progress = progress or Quiet()
    options = options or Options()
    with progress.step("Read and merge the traces"):
        case = prepared(server, client, run_facts, options)
    found = decided_before(case) or decided_behind(case, followed(case, options.judge, progress))
    verdict = replace(framed(found, case), seconds=time.monotonic() - began)
    if options.bounded and verdict.directions and verdict.conformance in ("ACCEPTED", "KNOWN"):
        bounded = measured(case, frozenset(verdict.switches), progress)
        verdict = replace(verdict, bounded=bounded)
    return verdict


def prepared(
    server: Path, client: Path, run_facts: Mapping[str, Any] | None, options: Options
) -> Case:
    """Two traces, read and merged as the options say. Raises what `prepare` raises."""
    return prepare(
        server,
        client,
        run_facts,
        options.size,
        options.tables,
        options.level,
        ignore_injected=options.ignore_injected,
    )


def framed(found: Verdict, case: Case) -> Verdict:
    """With what does not depend on the judgement."""
    facts = case.evidence.facts
    every = [trace.records for trace in case.traces.values()]
    dropped = sum(
        int(np.count_nonzero(records["flags"] & Flag.FAULT_INJECTED)) for records in every
    )
    cycles = list(_cycles(case)) if found.conformance == "REJECTED" else []
    return replace(
        found,
        kind=_kind(found, case, contradicted=bool(cycles)),
        expectation=Expectation.of(case.evidence.expect),
        level=case.level,
        spec=case.tables.module,
        spec_hash=case.tables.hash,
        host=dict(facts.get("host") or {}),
        domain_type=str(facts.get("domain_type") or "none"),
        outcome=case.evidence.outcome,
        records=sum(len(records) for records in every),
        faults_injected=dropped,
        schedule=facts.get("schedule"),
        notes=tuple(dict.fromkeys((*found.notes, *cycles, *_reach(found, case), *case.notes))),
    )


def _kind(found: Verdict, case: Case, *, contradicted: bool) -> Kind:
    """Where the order was kept, bits that do not add up are what a missing barrier looks like."""
    kept = all(trace.header.order == Order.KEPT for trace in case.traces.values())
    of_order = ("protocol", "record") if kept else ("protocol",)
    return "memory-order" if contradicted and found.kind in of_order else found.kind


def _reach(found: Verdict, case: Case) -> Iterator[str]:
    """How far the verdict reaches."""
    if case.level == "calls":
        yield (
            "Calls and events alone were judged: the accesses to the shared page in between were "
            "searched for, and what they really were is not known."
        )
    yield from _windows(case)
    lost = lost_tails(case.traces, case.endings, case.evidence)
    if case.evidence.facts.get("state") == "incomplete":
        yield "The run was not completed: its run.json says so."
    yield from (str(message) for message in case.evidence.facts.get("messages") or ())
    for role in ROLES:
        ending = case.endings[role]
        if ending.left_out:
            records = "record" if ending.left_out == 1 else "records"
            yield (
                f"{ending.left_out} {records} of the {role} came after the last look, when the "
                "test bed ended the run: checked, and not judged."
            )
        if role in lost:
            yield (
                f"The last records of the {role} are lost, and nobody knows how many: its peer is "
                "judged as far as it cannot have seen any of them."
            )
        elif ending.unlogged:
            yield (
                f"The {role} was cut off: one access more may have been made after its last "
                "record, and what it did after that is not judged."
            )
    if found.directions and not (found.overlap or lost or case.level == "calls"):
        yield "The two sides never overlapped: no call saw the other side move."


def _windows(case: Case) -> Iterator[str]:
    """Of flight recorders: from where on it was judged, and what each has kept."""
    if case.channel and case.channel.window:
        yield case.channel.window.told()
    kept = [(role, case.traces[role].window) for role in ROLES]
    if told := [f"{role}: {window.told()}" for role, window in kept if window]:
        yield ". ".join(told) + "."


def _cycles(case: Case) -> Iterator[str]:
    """Contradictions among values, each as its cycle."""
    for one in (case.channel,) if case.channel else case.directions:
        if one.cycle is None:
            continue
        sender, receiver = one.cycle
        words = Words(one.lanes, case.traces, one.order)
        yield (
            f"{one.lanes.direction}: by their values, {_link(words, one, 's', sender)} comes after "
            f"{_link(words, one, 'r', int(one.order.sender[sender]) - 1)}, which comes after "
            f"{_link(words, one, 'r', receiver)} in its program; that comes after "
            f"{_link(words, one, 's', int(one.order.receiver[receiver]) - 1)}, which comes after "
            "the first one in its program."
        )


def _link(words: Words, one: Prepared, side: Any, at: int) -> str:
    row = int(one.lanes.lane(side).rows[at])
    place = words.place(side, row)
    return f"{place.endpoint} record {place.record} ({place.what})"
