"""The sections of the page that come from the verdict: why, how far, and how much was checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate import explain
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.report import units
from vchan_testbed.validate.report.actions import Actions, actions_near
from vchan_testbed.validate.report.blocks import (
    Badge,
    Beside,
    Block,
    LaneRow,
    Lanes,
    Points,
    Section,
    Table,
    Text,
    Tone,
)
from vchan_testbed.validate.report.indices import DIRECTIONS
from vchan_testbed.validate.report.measured import Measured
from vchan_testbed.validate.tlc.actions import LIBRARY, load_action_map
from vchan_testbed.validate.verdict import DirectionVerdict, Maximal, Verdict
from vchan_testbed.validate.wording import describe

ROWS_BEFORE = 8
ROWS_AFTER = 3
POSITIONS_MAX = 3
CANDIDATES_MAX = 8
PLACES_MAX = 10

_TONES: dict[str, Tone] = {
    "ACCEPTED": "good",
    "PROGRESS": "good",
    "REJECTED": "bad",
    "VIOLATION": "bad",
    "STALLED": "bad",
}


def badges_of(verdict: Verdict) -> tuple[Badge, ...]:
    """The words of the verdict; the first one is the one that a tab's title shows."""
    known = ", ".join(use.id for use in verdict.known) or "none"
    want = verdict.expectation
    xen = str(verdict.host.get("xen_version") or "none")
    return (
        Badge("Conformance", verdict.conformance, _TONES.get(verdict.conformance, "open")),
        Badge("Progress", verdict.progress, _TONES.get(verdict.progress, "open")),
        Badge("Known deviations used", known, "plain" if known == "none" else "open"),
        Badge(
            f"Expected {want.conformance}, {want.progress}",
            "yes, as expected" if verdict.expected else "no, not as expected",
            "good" if verdict.expected else "bad",
        ),
        Badge("Xen", xen, "open" if verdict.no_xen else "plain"),
        Badge("Records", units.count(verdict.records), "plain"),
        Badge("Judged in", units.duration(verdict.seconds), "plain"),
    )


def tone_of(verdict: Verdict) -> Tone:
    """One colour for the whole: what was expected is good, whatever it is."""
    if verdict.expected:
        return "good"
    return "open" if verdict.exit_status == 3 else "bad"


def sections_of(
    verdict: Verdict, measured: Measured, facts: Mapping[str, Any]
) -> tuple[tuple[Section, ...], Section]:
    """What explains the verdict (if anything has to be), and how much was checked.

    `facts` is what run.json holds.
    """
    explained = []
    if verdict.maximal or verdict.first_unexplained is not None:
        actions = actions_near(
            verdict.maximal[:POSITIONS_MAX], measured.traces, facts, ROWS_BEFORE + 1
        )
        blocks = tuple(_rejection(verdict, measured, actions))
        explained.append(Section("rejection", "Where no behaviour goes on", blocks))
    if verdict.known:
        explained.append(Section("known", "Known deviations", tuple(_known(verdict))))
    if verdict.progress != "PROGRESS" and (verdict.due_action or _open_ends(verdict)):
        explained.append(Section("progress", "Progress", tuple(_progress(verdict))))
    return tuple(explained), Section("checked", "How much was checked", tuple(_checked(verdict)))


def _open_ends(verdict: Verdict) -> list[DirectionVerdict]:
    """Directions whose end states have something to say; none of what is no behaviour."""
    if verdict.conformance == "REJECTED":
        return []
    return [one for one in verdict.directions if one.candidates and one.progress != "PROGRESS"]


def _rejection(verdict: Verdict, measured: Measured, actions: Actions) -> Iterator[Block]:
    if not verdict.maximal and verdict.first_unexplained is not None:
        place = verdict.first_unexplained
        yield Text(f"First record that cannot be: {explain.place_words(place)}")
        places = {place.endpoint: place}
        yield _lanes(measured, places, place, "client", "The records around it", actions)
    shown = verdict.maximal[:POSITIONS_MAX]
    for number, position in enumerate(shown, 1):
        yield from _position(position, number, verdict, measured, actions)
    hidden = len(verdict.maximal) - len(shown)
    if hidden > 0:
        yield Text(f"{hidden} more positions are in verdict.json.")


def _position(
    position: Maximal, number: int, verdict: Verdict, measured: Measured, actions: Actions
) -> Iterator[Block]:
    sender = next((d.sender for d in DIRECTIONS if d.name == position.direction), None)
    first, second = ("sender", "receiver") if sender else ("server", "client")
    where = f"direction {position.direction}" if sender else "the whole channel"
    places = {p.endpoint: p for p in (position.sender, position.receiver) if p is not None}
    yield Text(
        f"Position {number} of {len(verdict.maximal)}, {where}: a behaviour explains "
        f"{units.count(position.sender_done)} steps of the {first} and "
        f"{units.count(position.receiver_done)} of the {second}, and goes no further."
    )
    if position.instead:
        yield Text("The spec would have gone on with:")
        yield Points(position.instead)
    caption = f"Records around position {number}"
    yield _lanes(measured, places, verdict.first_unexplained, sender, caption, actions)
    yield _state(f"The spec's state at position {number}", position.state)


def _state(caption: str, state: Mapping[str, Any]) -> Table:
    rows = tuple((name, value_words(value)) for name, value in sorted(state.items()))
    return Table(caption, ("Variable", "Value"), rows, numeric=False)


def value_words(value: object) -> str:
    """A variable's value in a state of the spec: stream positions as intervals, control by side."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        parts = [
            "–".join(units.count(end) for end in part)
            if isinstance(part, list | tuple) and all(isinstance(end, int) for end in part)
            else value_words(part)
            for part in value
        ]
        return ", ".join(parts) or "none"
    if isinstance(value, Mapping):
        # Where the two sides are; the environment's processes are always where they begin.
        shown = {key: value[key] for key in ("s", "r") if key in value} or value
        return ", ".join(f"{key}: {value_words(each)}" for key, each in shown.items())
    return str(value)


def _lanes(
    measured: Measured,
    places: Mapping[Role, Place],
    culprit: Place | None,
    sender: Role | None,
    caption: str,
    actions: Actions,
) -> Lanes:
    """The records around a place in both traces, in the order of their times.

    `places` are the next records of the lanes, `culprit` the one that no behaviour explains.
    """
    first: Role = sender or "server"
    second: Role = "server" if first == "client" else "client"
    middle = max((_ticks(measured, each.endpoint, each.row) for each in places.values()), default=0)
    found: list[tuple[int, LaneRow]] = []
    for role in (first, second):
        place = places.get(role)
        centre = place.row if place else _newest_row(measured, role, middle)
        last = len(measured.traces[role].records) - 1
        for row in range(max(0, centre - ROWS_BEFORE), min(last, centre + ROWS_AFTER) + 1):
            shown = _lane_row(
                measured,
                role,
                row,
                actions.get((role, row), ""),
                sends=role == first,
                note=_note(place, culprit) if place is not None and row == place.row else "",
            )
            found.append((_ticks(measured, role, row), shown))
    found.sort(key=lambda pair: pair[0])
    return Lanes(
        f"{caption}, by the inferred time; shown is the time since each end's trace began",
        f"Sender: {first}" if sender else first,
        f"Receiver: {second}" if sender else second,
        tuple(row for _, row in found),
    )


def _note(place: Place, culprit: Place | None) -> str:
    here = culprit is not None and (place.endpoint, place.row) == (culprit.endpoint, culprit.row)
    return "cannot follow" if here else "next here"


def _lane_row(
    measured: Measured, role: Role, row: int, action: str, *, sends: bool, note: str
) -> LaneRow:
    trace = measured.traces[role]
    ticks = int(trace.records["t0"][row]) - trace.header.start_tsc
    return LaneRow(
        side="sender" if sends else "receiver",
        record=units.count(int(trace.records["seq"][row])),
        time=units.instant(ticks / measured.hz),
        action=action,
        what=describe(trace.records[row : row + 1]),
        note=note,
    )


def _ticks(measured: Measured, role: Role, row: int) -> int:
    """When a record was made, on the server's clock as far as the offset is known."""
    records = measured.traces[role].records
    return int(records["t0"][row]) - (measured.offset.ticks if role == "client" else 0)


def _newest_row(measured: Measured, role: Role, ticks: int) -> int:
    """The last row of an end that was made by a time; the first if there is none."""
    shift = measured.offset.ticks if role == "client" else 0
    times = measured.traces[role].records["t0"].astype(np.int64) - shift
    earlier = np.flatnonzero(times <= ticks)
    return int(earlier[-1]) if len(earlier) else 0


def _known(verdict: Verdict) -> Iterator[Block]:
    for use in verdict.known:
        yield Text(f"{use.id} was used {units.times(len(use.places))}:")
        yield Points(tuple(explain.place_words(place) for place in use.places[:PLACES_MAX]))
        if len(use.places) > PLACES_MAX:
            yield Text(f"{len(use.places) - PLACES_MAX} more are in verdict.json.")


def _progress(verdict: Verdict) -> Iterator[Block]:
    if verdict.due_action:
        yield Text(
            f"Due and never taken: {verdict.due_action}. At fault: {verdict.fault_of}. What was "
            "seen of the run when it stood still is below, under how it ended."
        )
    for direction in _open_ends(verdict):
        yield from _end_states(direction)


def _end_states(direction: DirectionVerdict) -> Iterator[Block]:
    """What the end states have in common once, and where they differ in columns."""
    states = [one.state for one in direction.candidates]
    names = sorted({name for state in states for name in state})
    differing = [name for name in names if any(each[name] != states[0][name] for each in states)]
    shown = direction.candidates[:CANDIDATES_MAX]
    yield Table(
        f"End states that fit, direction {direction.direction} "
        f"({len(shown)} of {len(direction.candidates)})",
        ("There", "Promised and open", "Fair actions due", *differing),
        tuple(
            (
                one.says,
                "; ".join(one.owed) or "nothing",
                ", ".join(one.due) or "none",
                *(value_words(one.state[name]) for name in differing),
            )
            for one in shown
        ),
        numeric=False,
    )
    same = (f"{name} = {value_words(states[0][name])}" for name in names if name not in differing)
    where = "In all of them" if len(states) > 1 else "In it"
    yield Text(f"{where}: {'; '.join(same)}.")


def _checked(verdict: Verdict) -> Iterator[Block]:
    if verdict.notes:
        yield Points(verdict.notes)
    yield Text(
        f"Judge: {verdict.judge}, with {verdict.spec or 'no spec'}. An acceptance is worth as much "
        "as the run exercised: a run in which the sides never overlap, or whose actions are few, "
        "would be accepted from a wrong implementation too."
    )
    yield Table("Each direction", *_by_direction(verdict))
    yield from _coverage(verdict)
    for direction in verdict.directions:
        if direction.candidates and direction not in _open_ends(verdict):
            yield from _end_states(direction)


def _coverage(verdict: Verdict) -> Iterator[Block]:
    """Every action of the spec, those that were never taken too: nothing was checked of those."""
    parts = [each for each in verdict.directions if not each.spec or each.spec == verdict.spec]
    counts = [each.coverage for each in parts]
    if not any(counts):
        return
    names = {name for each in counts for name in each}
    for spec in (load_action_map(), load_action_map(LIBRARY)):
        if verdict.spec == spec.module:
            names |= set(spec.actions)
    taken = {name for name in names if any(each.get(name) for each in counts)}
    yield Text(
        f"Of the spec's {len(names)} actions {len(taken)} were taken. What each of them is says the"
        f" table at the head of {verdict.spec or spec.module}.tla."
    )
    if left := sorted(names - taken):
        yield Text(f"Never taken, so nothing was checked of them: {', '.join(left)}.")
    heads = ("Action", *(each.direction for each in parts))
    kinds = {"sender's": "s_", "receiver's": "r_"}
    if [each.direction for each in parts] == ["both"]:
        kinds = {"writing": "w_", "reading": "r_", "other": ""}
    yield Beside(
        tuple(
            Table(
                f"How often the {whose} actions were taken",
                heads,
                tuple(
                    (name, *(units.count(each.get(name, 0)) for each in counts))
                    for name in sorted(taken)
                    if _is_of(name, begins, kinds.values())
                ),
            )
            for whose, begins in kinds.items()
        )
    )


def _is_of(name: str, begins: str, every: Iterable[str]) -> bool:
    """Whether an action belongs to the table of those whose names begin so."""
    if begins:
        return name.startswith(begins)
    return not any(other and name.startswith(other) for other in every)


def _by_direction(verdict: Verdict) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    each = verdict.directions
    lines: list[tuple[str, list[str]]] = [
        ("Spec", [d.spec or "Vchan" for d in each]),
        ("Conformance", [d.conformance for d in each]),
        ("Progress", [d.progress for d in each]),
        ("Deviations allowed", [", ".join(d.switches) or "none" for d in each]),
        ("Steps that records show", [units.count(d.steps) for d in each]),
        ("Calls in which one side saw the other move", [units.count(d.overlap) for d in each]),
        ("Steps that no record shows", [units.count(d.unlogged_steps) for d in each]),
        ("Records taken as stuttering", [units.count(d.stuttering_records) for d in each]),
        ("Pieces", [units.count(d.pieces) for d in each]),
        ("States that the judge visited", [units.count(d.states) for d in each]),
    ]
    return ("What", *(d.direction for d in each)), tuple((name, *cells) for name, cells in lines)
