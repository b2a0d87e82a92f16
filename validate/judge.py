"""Judge a run: from two traces to a verdict.

    lost records? -> the traces' own contradictions -> missing records? -> the bytes ->
    what the spec cannot express -> records that the library does not make ->
    each direction through the spec -> progress

The first of these that has something to say decides. Nothing here touches Xen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.format import Role
from vchan_testbed.tracer.layout import Flag
from vchan_testbed.validate import verdict as words_of_verdict
from vchan_testbed.validate.cuts import Size
from vchan_testbed.validate.evidence import ROLES
from vchan_testbed.validate.handshake import handshake_problems
from vchan_testbed.validate.lanes import FollowResult, Lanes, SpecParams, State
from vchan_testbed.validate.liveness import progress_of
from vchan_testbed.validate.lost_tail import judged_up_to, lost_tails
from vchan_testbed.validate.payload import payload_problems
from vchan_testbed.validate.prepare import Case, Prepared, Tables, prepare, read_run
from vchan_testbed.validate.replay import Follow, Replay, Replayed
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.follow import follow
from vchan_testbed.validate.verdict import (
    DirectionVerdict,
    Expectation,
    Kind,
    KnownUse,
    Place,
    Verdict,
)
from vchan_testbed.validate.wording import Words, place_of

NEEDS = "needs the spec of the library: "
REPEAT = "repeat the run: what is missing in its traces does not come back"
STEPS_FOR_TWO = 40_000
"""Steps from which on both directions are followed at the same time."""
MAXIMAL_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Options:
    """How to judge."""

    size: Size | None = None
    """Of a piece; None is the usual one."""
    judge: Follow | None = None
    """What follows a piece; None is TLC."""
    tables: Tables | None = None
    """The spec's tables, if they have been read already."""


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
        case = prepare(server, client, run_facts, options.size, options.tables)
    found = _decide(case, options, progress)
    return replace(_framed(found, case), seconds=time.monotonic() - began)


def _decide(case: Case, options: Options, progress: Progress) -> Verdict:
    return decided_before(case) or _followed(case, options, progress)


def decided_before(case: Case) -> Verdict | None:
    """The verdict on what is not followed through the spec, for the first reason that there is."""
    for look in (_lost, _contradictions, _missing, _payload, _needs, _foreign_records):
        if found := look(case):
            return found
    return None


def _lost(case: Case) -> Verdict | None:
    for role in ROLES:
        if dropped := case.traces[role].dropped:
            return _open(
                f"records were lost by overflow ({dropped} of the {role})",
                "make the run shorter: its records did not fit into the trace",
            )
    return None


def _missing(case: Case) -> Verdict | None:
    for role in ROLES:
        count, seen = len(case.traces[role].records), case.evidence.records_at_last_look(role)
        if case.endings[role].looked and seen is not None and seen > count:
            return _open(
                f"records are missing: the last look counted {seen} of the {role}, the trace has "
                f"{count}",
                REPEAT,
            )
    return None


def _contradictions(case: Case) -> Verdict | None:
    problems = check_pair(case.traces["server"], case.traces["client"])
    # Of a channel that was not opened or closed as it should be the values say little.
    if not any(problem.is_hole for problem in problems) and (framed := _framing(case)):
        return framed
    if not problems:
        return None
    first = problems[0]
    kinds: dict[str, Kind] = {"log": "log", "order": "memory-order"}
    place = None
    if first.record >= 0:
        place = place_of(case.traces[first.endpoint], first.record, first.text)
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return _rejected(kinds.get(first.rule, "record"), f"{first.rule}: {first.text}{more}", place)


def _framing(case: Case) -> Verdict | None:
    if any(ending.needs for ending in case.endings.values()):
        return None
    for problem in handshake_problems(case.traces, case.endings):
        place = place_of(case.traces[problem.role], problem.row, problem.text)
        return _rejected("record", problem.text, place)
    return None


def _payload(case: Case) -> Verdict | None:
    for role in ROLES:
        trace = case.traces[role]
        for problem in payload_problems(role, trace.records, case.endings[role].rows):
            place = place_of(trace, problem.row, problem.text)
            return _rejected("payload", f"Integrity: {problem.text}", place)
    return None


def _needs(case: Case) -> Verdict | None:
    needs = dict.fromkeys(need for one in case.directions for need in one.lanes.needs)
    if not needs:
        return None
    advice = "keep to calls of read and write that block, or expect UNDECIDED in the experiment"
    return _open(NEEDS + "; ".join(needs), advice)


def _foreign_records(case: Case) -> Verdict | None:
    problems = [problem for one in case.directions for problem in one.lanes.problems]
    if not problems:
        return None
    first = min(problems, key=lambda problem: problem.row)
    place = place_of(case.traces[first.role], first.row, first.text)
    return _rejected("record", first.text, place)


def _open(reason: str, advice: str) -> Verdict:
    return Verdict(
        "UNDECIDED",
        "INCONCLUSIVE",
        reason,
        progress_reason="The traces were not judged.",
        advice=advice,
    )


def _rejected(kind: Kind, reason: str, place: Place | None) -> Verdict:
    return Verdict(
        "REJECTED",
        "INCONCLUSIVE",
        reason,
        kind=kind,
        progress_reason="No end state is known of what is no behaviour.",
        first_unexplained=place,
    )


def _followed(case: Case, options: Options, progress: Progress) -> Verdict:
    actions = case.tables.actions
    judge = options.judge or _tlc(actions)
    steps = sum(len(one.lanes.sender) + len(one.lanes.receiver) for one in case.directions)
    with progress.step(f"Follow {steps} steps through the spec {actions.module}"):
        shared = [_Shared(progress, one.lanes.direction) for one in case.directions]
        with ThreadPoolExecutor(2 if steps >= STEPS_FOR_TWO else 1) as pool:
            each = zip(case.directions, shared, strict=True)
            running = [
                pool.submit(_one_direction, one, case, actions, judge, shown) for one, shown in each
            ]
            found = [one.result() for one in running]
    return _combined(
        [one for one, _, _ in found],
        [use for _, _, uses in found for use in uses],
        [place for _, place, _ in found if place],
    )


def _tlc(actions: ActionMap) -> Follow:
    def judged(
        lanes: Lanes, params: SpecParams, starts: Sequence[State] | None, progress: Progress
    ) -> FollowResult:
        return follow(lanes, params, starts, progress=progress, actions=actions)

    return judged


_Found = tuple[DirectionVerdict, Place | None, list[KnownUse]]


def _one_direction(
    one: Prepared, case: Case, actions: ActionMap, judge: Follow, progress: Progress
) -> _Found:
    words = Words(one.lanes, case.traces, one.order)
    replay = Replay(one.lanes, list(one.cuts), judge, progress, actions.switches)
    replayed = replay.run()
    base = _counted(one, replayed, actions)
    if replayed.undecided:
        undecided = replace(
            base,
            conformance="UNDECIDED",
            reason=f"the search stopped at its bound: {replayed.undecided}",
            progress_reason="It was not followed to its end.",
            advice="make the run shorter, or judge it on a machine that has more of what ran out",
        )
        return undecided, None, []
    lost = lost_tails(case.traces, case.endings, case.evidence)
    at = judged_up_to(replayed.frontier, one.lanes, lost, actions)
    if not replayed.accepted and at is not None:
        place = words.unexplained(at)
        reason = _cannot_tell(place, lost)
        return replace(base, reason=reason, progress_reason=_LOST, advice=REPEAT), None, []
    if not replayed.accepted:
        place = words.unexplained(replayed.frontier[0])
        maximal = tuple(words.maximal(at) for at in replayed.frontier[:MAXIMAL_SHOWN])
        return (
            replace(base, conformance="REJECTED", reason=place.reason, maximal=maximal),
            place,
            [],
        )
    uses = [
        KnownUse(switch, (words.unexplained(use.position),))
        for use in replayed.uses
        for switch in use.switches
    ]
    if lost:
        known = replace(base, conformance="KNOWN" if uses else "ACCEPTED", reason=_known(uses))
        ids = tuple(dict.fromkeys(use.id for use in uses))
        return replace(known, progress_reason=_LOST, switches=ids, advice=REPEAT), None, uses
    owner_of = actions.owner_of
    judged = progress_of(replayed.ends, one.lanes.ring, case.evidence, owner_of)
    if judged.word != "PROGRESS":
        judged = progress_of(replay.widened(), one.lanes.ring, case.evidence, owner_of)
    return (
        replace(
            base,
            conformance="KNOWN" if uses else "ACCEPTED",
            progress=judged.word,
            reason=_known(uses),
            progress_reason=judged.reason,
            switches=tuple(dict.fromkeys(use.id for use in uses)),
            fault_of=judged.fault_of,
            due_action=judged.due_action,
            candidates=judged.candidates,
        ),
        None,
        uses,
    )


_LOST = "The last records of an end are lost: in which state it ended is not known."


def _cannot_tell(place: Place, lost: Sequence[Role]) -> str:
    ends = " and ".join(lost)
    return (
        f"judged up to record {place.record - 1} of the {place.endpoint}: its next one"
        f" ({place.what}) may follow from records of the {ends} that are lost"
    )


def _known(uses: Sequence[KnownUse]) -> str:
    if not uses:
        return ""
    ids = ", ".join(dict.fromkeys(use.id for use in uses))
    return f"explained only with the known deviation {ids} of libxenvchan"


def _counted(one: Prepared, replayed: Replayed, actions: ActionMap) -> DirectionVerdict:
    shown = {name for name, action in actions.actions.items() if not action.hidden}
    unlogged = sum(count for name, count in replayed.coverage.items() if name not in shown)
    return DirectionVerdict(
        direction=one.lanes.direction,
        conformance="ACCEPTED",
        progress="INCONCLUSIVE",
        progress_reason="No end state is known of what is no behaviour.",
        coverage=replayed.coverage,
        overlap=replayed.overlap,
        unlogged_steps=unlogged,
        stuttering_records=one.lanes.sender.stutters + one.lanes.receiver.stutters,
        steps=len(one.lanes.sender) + len(one.lanes.receiver),
        pieces=replayed.pieces,
        states=replayed.states,
    )


def _combined(
    found: Sequence[DirectionVerdict], uses: Sequence[KnownUse], places: Sequence[Place]
) -> Verdict:
    """Both directions: the worst wins."""
    conformance = words_of_verdict.worst_conformance(one.conformance for one in found)
    progress = words_of_verdict.worst_progress(one.progress for one in found)
    worst = next(one for one in found if one.conformance == conformance)
    stuck = next(one for one in found if one.progress == progress)
    coverage: Counter[str] = Counter()
    for one in found:
        coverage.update(one.coverage)
    return Verdict(
        conformance=conformance,
        progress=progress,
        reason=f"{worst.direction}: {worst.reason}" if worst.reason else "",
        kind="protocol" if conformance == "REJECTED" else "",
        progress_reason=_progress_reason(found, stuck),
        known=_by_id(uses),
        fault_of=stuck.fault_of,
        due_action=stuck.due_action,
        advice=_advice(worst, stuck),
        first_unexplained=places[0] if places else None,
        maximal=tuple(at for one in found for at in one.maximal),
        directions=tuple(found),
        coverage=dict(coverage),
        overlap=sum(one.overlap for one in found),
        unlogged_steps=sum(one.unlogged_steps for one in found),
        stuttering_records=sum(one.stuttering_records for one in found),
        switches=tuple(dict.fromkeys(switch for one in found for switch in one.switches)),
    )


def _progress_reason(found: Sequence[DirectionVerdict], stuck: DirectionVerdict) -> str:
    """With the directions that it holds for."""
    reason = stuck.progress_reason
    same = [one.direction for one in found if one.progress_reason == reason]
    return f"{' and '.join(same)}: {reason}" if reason else ""


def _advice(worst: DirectionVerdict, stuck: DirectionVerdict) -> str:
    """The one of what the whole verdict rests on."""
    bad = worst.conformance in ("REJECTED", "KNOWN") or stuck.progress in ("STALLED", "VIOLATION")
    return "" if bad else worst.advice or stuck.advice


def _by_id(uses: Sequence[KnownUse]) -> tuple[KnownUse, ...]:
    places: dict[str, tuple[Place, ...]] = {}
    for use in uses:
        places[use.id] = (*places.get(use.id, ()), *use.places)
    return tuple(KnownUse(name, found) for name, found in places.items())


def _framed(found: Verdict, case: Case) -> Verdict:
    """With what does not depend on the judgement."""
    facts = case.evidence.facts
    every = [trace.records for trace in case.traces.values()]
    dropped = sum(
        int(np.count_nonzero(records["flags"] & Flag.FAULT_INJECTED)) for records in every
    )
    cycles = list(_cycles(case)) if found.conformance == "REJECTED" else []
    kind: Kind = "memory-order" if cycles and found.kind == "protocol" else found.kind
    return replace(
        found,
        kind=kind,
        expectation=Expectation.of(case.evidence.expect),
        spec=case.tables.actions.module,
        spec_hash=case.tables.hash,
        host=dict(facts.get("host") or {}),
        domain_type=str(facts.get("domain_type") or "none"),
        records=sum(len(records) for records in every),
        faults_injected=dropped,
        notes=tuple(dict.fromkeys((*found.notes, *cycles, *_reach(found, case), *case.notes))),
    )


def _reach(found: Verdict, case: Case) -> Iterator[str]:
    """How far the verdict reaches."""
    lost = lost_tails(case.traces, case.endings, case.evidence)
    if case.evidence.facts.get("state") == "incomplete":
        yield "The run was not completed: its run.json says so."
    for role in ROLES:
        ending = case.endings[role]
        if ending.left_out:
            yield (
                f"{ending.left_out} records of the {role} came after the last look, when the test "
                "bed ended the run; they are checked and not judged."
            )
        if role in lost:
            yield (
                f"The last records of the {role} are lost, and how many they are: its peer is "
                "judged up to where it may have seen something of them."
            )
        elif ending.unlogged:
            yield (
                f"The {role} was cut off: one access more may have been made after its last "
                "record, and what it did after that is not judged."
            )
    if found.directions and not found.overlap and not lost:
        yield "The two sides never overlapped: no call saw the other side move."


def _cycles(case: Case) -> Iterator[str]:
    """Contradictions among values, each as its cycle."""
    for one in case.directions:
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


class _Shared:
    """One direction's share of a progress line."""

    _lock = threading.Lock()

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Shown as a note: two directions may be under way."""
        self.note(title)
        yield

    def note(self, text: str) -> None:
        """One line, by one direction at a time."""
        with self._lock:
            self._progress.note(f"{self._name}: {text}")

    def say(self, text: str) -> None:
        """One line that stays."""
        with self._lock:
            self._progress.say(f"{self._name}: {text}")
