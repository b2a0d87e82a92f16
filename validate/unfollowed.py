"""What decides before anything is followed through the spec.

    lost records? -> the traces' own contradictions -> missing records? -> the bytes ->
    what the spec cannot express -> records that the library does not make -> the page at the end

The first of these that has something to say decides. What was followed and accepted has to fit to
the page that each end gave back, too.
"""

from __future__ import annotations

from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.validate.evidence import ROLES
from vchan_testbed.validate.final_page import given_back_problems, page_problems
from vchan_testbed.validate.handshake import handshake_problems
from vchan_testbed.validate.payload import digests_of, payload_problems
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.prepare import WINDOW_OF_CALLS, Case
from vchan_testbed.validate.verdict import Kind, Verdict
from vchan_testbed.validate.window import ADVICE, APART, NO_CUT
from vchan_testbed.validate.wording import place_of

NEEDS = "needs the spec of the library: "
BEYOND = "the spec of the library has no steps for this: "
REPEAT = "repeat the run: what is missing in its traces does not come back"


def decided_before(case: Case) -> Verdict | None:
    """The verdict on what is not followed through the spec, for the first reason that there is."""
    for look in (_lost, _contradictions, _missing, _payload, _needs, _foreign_records, _page):
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
        count, seen = case.endings[role].recorded, case.evidence.records_at_last_look(role)
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
        rows, whole = case.endings[role].rows, not trace.begins_later
        for problem in payload_problems(role, trace.records, rows, from_start=whole):
            place = place_of(trace, problem.row, problem.text)
            return _rejected("payload", f"Integrity: {problem.text}", place)
    if any(trace.begins_later for trace in case.traces.values()):
        # Both ends' copies are compared from the first byte on.
        return None
    rows_of = {role: case.endings[role].rows for role in ROLES}
    for ring in case.tables.records.rings.values():
        if (differs := digests_of(ring, case.traces, rows_of).problem) is not None:
            place = place_of(case.traces[differs.role], differs.row, differs.text)
            return _rejected("payload", f"Integrity: {differs.text}", place)
    return None


def _needs(case: Case) -> Verdict | None:
    if not case.channel and not case.directions:
        return _open(
            "the protocol's spec follows a direction from its start, and this is a window",
            "judge it by the spec of the library (--spec libxenvchan)",
        )
    parts = (case.channel,) if case.channel else case.directions
    needs = dict.fromkeys(need for one in parts for need in one.lanes.needs)
    if not needs:
        return None
    if case.channel and WINDOW_OF_CALLS in needs:
        return _open(WINDOW_OF_CALLS, "record at the level exact, or keep all of a shorter run")
    if case.channel and needs.keys() & {APART, NO_CUT}:
        return _open("; ".join(needs), ADVICE)
    if case.channel:
        return _open(f"{BEYOND}{'; '.join(needs)}", "leave it out, or expect UNDECIDED")
    advice = (
        "judge it by the spec of the library (--spec libxenvchan), keep to calls of read and "
        "write, or expect UNDECIDED in the experiment"
    )
    return _open(NEEDS + "; ".join(needs), advice)


def _foreign_records(case: Case) -> Verdict | None:
    parts = case.directions
    if case.channel:
        # A direction that Vchan cannot express has records that only look foreign.
        parts = (case.channel, *(one for one in case.directions if not one.lanes.needs))
    problems = [problem for one in parts for problem in one.lanes.problems]
    if not problems:
        return None
    first = min(problems, key=lambda problem: problem.row)
    place = place_of(case.traces[first.role], first.row, first.text)
    return _rejected("record", first.text, place)


def _page(case: Case) -> Verdict | None:
    if case.level == "calls":
        return None
    records = {role: case.traces[role].records for role in ROLES}
    windows = [role for role in ROLES if case.traces[role].begins_later]
    for problem in page_problems(records, case.endings, case.evidence, windows):
        place = place_of(case.traces[problem.role], problem.row, problem.text)
        return _rejected("record", problem.text, place)
    return None


def decided_behind(case: Case, found: Verdict) -> Verdict:
    """`found`, unless its behaviour is not what the page had when an end gave it back."""
    if found.conformance in ("REJECTED", "UNDECIDED") or case.level == "calls":
        return found
    records = {role: case.traces[role].records for role in ROLES}
    for problem in given_back_problems(records, case.endings):
        place = place_of(case.traces[problem.role], problem.row, problem.text)
        return _rejected("record", problem.text, place)
    return found


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
