"""What there is to judge: two traces, their lanes in both directions, and where to cut them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace, from_first_calls, read_trace
from vchan_testbed.validate import window
from vchan_testbed.validate.calls import calls_alone, order_by_clock, order_by_results
from vchan_testbed.validate.channel import ChannelLanes, channel_lanes
from vchan_testbed.validate.channel_order import channel_order
from vchan_testbed.validate.channel_table import ChannelTable, load_channel_table
from vchan_testbed.validate.cuts import Cut, Size, cuts_of, with_early
from vchan_testbed.validate.direction import DirectionLanes, direction_lanes
from vchan_testbed.validate.endings import Ending, ending_of
from vchan_testbed.validate.evidence import ROLES, Evidence
from vchan_testbed.validate.injected import without_injected
from vchan_testbed.validate.order import Order, order_of, orders_together
from vchan_testbed.validate.settled import facts_of
from vchan_testbed.validate.table import DIRECTIONS, SIDES, TABLE, RecordTable, Side, load_table
from vchan_testbed.validate.tlc.actions import LIBRARY, ActionMap, load_action_map
from vchan_testbed.validate.tlc.columns import Ints
from vchan_testbed.validate.tlc.indices import overlap
from vchan_testbed.validate.tlc.rows import AtStart, goes_first, rings_of
from vchan_testbed.validate.two_lanes import TwoLanes

Level: TypeAlias = Literal["exact", "calls"]
LEVELS: tuple[Level, Level] = ("exact", "calls")
SpecName: TypeAlias = Literal["libxenvchan", "vchan"]
SPECS: tuple[SpecName, SpecName] = ("libxenvchan", "vchan")
"""What traces can be judged by: the whole library, or the protocol in each direction alone."""
VCHAN_FILES = (
    "Vchan.tla",
    "Stream.tla",
    "Intervals.tla",
    "vchan.actions.yaml",
    "vchan.records.yaml",
)
LIBRARY_FILES = ("Libxenvchan.tla", "libxenvchan.actions.yaml", "libxenvchan.records.yaml")
FORMAT = 1
WINDOW_OF_CALLS = "a window of calls alone: what the rings held when it began nobody knows"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Two lanes, ready to be followed: a whole channel's, or one direction's."""

    lanes: TwoLanes
    actions: ActionMap
    """Of the spec through which they are followed."""
    order: Order
    cycle: tuple[int, int] | None
    cuts: tuple[Cut, ...]
    window: window.Cut | None = None
    """Where a channel is taken up, of which a trace is a window."""

    @property
    def pieces(self) -> int:
        """How many pieces are followed; 0 when nothing is to be followed."""
        return len(self.cuts) + 1 if self.steps else 0

    @property
    def steps(self) -> int:
        """Of both lanes."""
        return len(self.lanes.sender) + len(self.lanes.receiver)


@dataclass(frozen=True, slots=True)
class Tables:
    """The spec as the judge needs it: which record shows what, and the action map."""

    records: RecordTable
    actions: ActionMap
    """These two are Vchan's."""
    hash: str
    """SHA-256 of the specs' texts, their action maps and tables of records."""
    library: Library | None = None
    """None: traces are judged by Vchan alone."""

    @property
    def module(self) -> str:
        """The spec by which traces are judged."""
        return self.library.actions.module if self.library else self.actions.module


@dataclass(frozen=True, slots=True)
class Library:
    """The tables of Libxenvchan."""

    records: ChannelTable
    actions: ActionMap


@dataclass(frozen=True, slots=True)
class Case:
    """Two traces and what is known of their run."""

    traces: Mapping[Role, Trace]
    endings: Mapping[Role, Ending]
    evidence: Evidence
    directions: tuple[Prepared, ...]
    """Each direction, for Vchan."""
    tables: Tables
    notes: tuple[str, ...] = field(default=())
    channel: Prepared | None = None
    """The whole channel, for Libxenvchan, if it is to be judged by that."""

    @property
    def level(self) -> Level:
        """What is judged."""
        return self.traces["server"].header.level


def read_run(run: Path) -> tuple[dict[Role, Path], dict[str, Any]]:
    """The traces of a run directory and what its run.json holds.

    Raises InputError when it is no run directory, TestbedError when a trace is not there.
    """
    try:
        facts = json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run} is not a run directory: {error}",
            next_step="Name the folder that `vchan-testbed run` wrote, or its two traces.",
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(
            f"{run / 'run.json'} has another format than {FORMAT}.",
            next_step="Judge this run with the version of vchan-testbed that made it.",
        )
    paths: dict[Role, Path] = {role: run / "traces" / f"{role}.vtrace" for role in ROLES}
    for role, path in paths.items():
        if not path.is_file():
            raise TestbedError(
                f"The run {run} has no trace of the {role}.",
                next_step="See its console folder for what went wrong, and run again.",
            )
    return paths, facts


def load_tables(spec: SpecName = "libxenvchan") -> Tables:
    """A spec with its tables. Raises InputError when one of them is not right."""
    whole = spec == "libxenvchan"
    digest = hashlib.sha256()
    for name in (*VCHAN_FILES, *(LIBRARY_FILES if whole else ())):
        digest.update((TABLE.parent / name).read_bytes())
    library = None
    if whole:
        actions = load_action_map(LIBRARY)
        library = Library(load_channel_table(), actions)
    return Tables(load_table(), load_action_map(), digest.hexdigest(), library)


def prepare(
    server: Path,
    client: Path,
    facts: Mapping[str, Any] | None,
    size: Size | None = None,
    tables: Tables | None = None,
    level: Level | None = None,
    *,
    ignore_injected: bool = False,
) -> Case:
    """Read two traces and lay out their lanes.

    `level` "calls": as if calls and events alone had been recorded; None: by all that was.
    `ignore_injected`: as if nobody had written down which faults were injected.

    Raises InputError for what is no trace or no pair, TraceDamaged for a damaged one.
    """
    traces: dict[Role, Trace] = {}
    for path in (server, client):
        trace = from_first_calls(read_trace(path))
        if trace.header.role in traces:
            raise InputError(
                f"{server} and {client} are both traces of the {trace.header.role}.",
                next_step="Name the two traces of one run: one of the server, one of the client.",
            )
        traces[trace.header.role] = trace
    evidence = Evidence(facts or facts_of(traces))
    endings = {role: ending_of(trace, evidence) for role, trace in traces.items()}
    if ignore_injected:
        for role in ROLES:
            traces[role], endings[role] = without_injected(traces[role], endings[role])
    if level == "calls" or any(trace.header.level == "calls" for trace in traces.values()):
        for role in ROLES:
            traces[role], endings[role] = calls_alone(traces[role], endings[role])
    tables = tables or load_tables()
    # The protocol's spec follows a direction from its start alone.
    lanes = [
        direction_lanes(tables.records, direction, traces, endings, evidence)
        for direction in DIRECTIONS
        if not any(trace.begins_later for trace in traces.values())
    ]
    size = size or Size()
    channel = None
    if tables.library:
        whole = channel_lanes(tables.library.records, traces, endings, evidence)
        if any(trace.begins_later for trace in traces.values()):
            channel = _prepared_window(whole, traces, evidence, tables.library.actions, size)
        else:
            channel = _prepared_channel(whole, traces, tables.library.actions, size)
    return Case(
        traces=traces,
        endings=endings,
        evidence=evidence,
        directions=tuple(_prepared(lanes, tables.actions, size)),
        tables=tables,
        notes=_pairing(traces, endings),
        channel=channel,
    )


def _prepared_channel(
    lanes: ChannelLanes, traces: Mapping[Role, Trace], actions: ActionMap, size: Size
) -> Prepared:
    order = channel_order(lanes)
    if lanes.searched:
        order = order_by_results(lanes, order)
    running = order.running()
    if lanes.searched:
        running = order_by_clock(lanes, traces, running)
    known = AtStart(None, {}, rings_of(lanes.params))
    told = replace(
        lanes,
        goes_first=goes_first(lanes.sender, lanes.receiver, actions, 0, known),
        comes_after={"s": running.sender, "r": running.receiver},
    )
    return Prepared(told, actions, order, order.cycle(), _cuts(told, order, size))


def _prepared_window(
    lanes: ChannelLanes,
    traces: Mapping[Role, Trace],
    evidence: Evidence,
    actions: ActionMap,
    size: Size,
) -> Prepared:
    if lanes.searched:
        nothing = Order(*(np.zeros(len(lanes.lane(side)), np.int64) for side in SIDES))
        lanes = replace(lanes, needs=(*lanes.needs, WINDOW_OF_CALLS))
        return Prepared(lanes, actions, nothing, None, ())
    taken = window.taken_up(lanes, traces, evidence, actions)
    cuts = _cuts_of_window(taken.lanes, taken.order, size) if taken.cut else ()
    return Prepared(taken.lanes, actions, taken.order, None, cuts, taken.cut)


def _prepared(
    directions: Sequence[DirectionLanes], actions: ActionMap, size: Size
) -> Iterator[Prepared]:
    orders = [order_of(one.sender, one.receiver, one.params) for one in directions]
    together = orders_together(
        [(one.sender, one.receiver, own) for one, own in zip(directions, orders, strict=True)]
    )
    for lanes, own, of_all in zip(directions, orders, together, strict=True):
        told = replace(
            lanes,
            goes_first=_goes_first(lanes, actions),
            comes_after={"s": of_all.sender, "r": of_all.receiver},
            overlap=overlap(lanes.whole(), actions),
        )
        yield Prepared(told, actions, own, own.cycle(), _cuts(lanes, own, size))


def _goes_first(lanes: DirectionLanes, actions: ActionMap) -> Mapping[Side, Ints]:
    at_start = {name: bit.at_start(lanes.params) for name, bit in actions.bits.items()}
    known = AtStart(0, at_start)
    return goes_first(lanes.sender, lanes.receiver, actions, lanes.params.ring_bytes, known)


def _cuts(lanes: TwoLanes, order: Order, size: Size) -> tuple[Cut, ...]:
    return cuts_of(lanes.sender, lanes.receiver, order.running(), size, _cut_off(lanes))


def _cuts_of_window(lanes: TwoLanes, order: Order, size: Size) -> tuple[Cut, ...]:
    ends = (lanes.sender, lanes.receiver, order.running(), _cut_off(lanes))
    return with_early(_cuts(lanes, order, size), *ends)


def _cut_off(lanes: TwoLanes) -> frozenset[Side]:
    ended = lanes.endings.items()
    return frozenset(side for side, end in ended if end.unlogged or end.death != "no")


def _pairing(traces: Mapping[Role, Trace], endings: Mapping[Role, Ending]) -> tuple[str, ...]:
    """What is to be said of the trace files. Raises InputError when they are no pair."""
    server, client = traces["server"].header, traces["client"].header
    if server.run_id != client.run_id:
        raise InputError(
            "The two traces are of different runs.",
            next_step="Name the two traces of one run, or its run directory.",
        )
    # Of what stood still nobody expects that it ended its trace: the test bed ended it.
    odd = [role for role in ROLES if not endings[role].looked]
    return tuple(f"{role}: {note}" for role in odd for note in traces[role].notes)
