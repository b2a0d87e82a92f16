"""Follow the two lanes of one direction through the spec with TLC: the reference judge.

Every order of the lanes' steps that could matter is tried, so that *all* end states are known and
not only the one that was found first: what is said about progress has to hold for each of them.
Where no order gets to the end, the maximal positions are found, and a second run says what the
spec would have done there.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from vchan_testbed.errors import TestbedError
from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.validate.lanes import (
    EndState,
    FollowResult,
    Lanes,
    Position,
    SpecParams,
    Start,
    State,
)
from vchan_testbed.validate.tlc.actions import ActionMap, Side, load_action_map
from vchan_testbed.validate.tlc.columns import Columns, columns_of
from vchan_testbed.validate.tlc.indices import overlap
from vchan_testbed.validate.tlc.jar import follower_classes
from vchan_testbed.validate.tlc.module import (
    HERE,
    Search,
    config_text,
    hidden_actions,
    module_name,
    module_text,
)
from vchan_testbed.validate.tlc.rebase import Bases, settled, size, without_first
from vchan_testbed.validate.tlc.rows import AtStart, Rows, rings_of, rows_of, write_rows
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, TlcOutput, run_tlc
from vchan_testbed.validate.tlc.said import Reading
from vchan_testbed.validate.tlc.wakeups import as_intervals

BYTES_MAX = 2**30
"""Bytes of one direction that are followed in one go: positions have 32 bits in TLC."""

CONSOLE_LINES = 40

SHORT_STEPS = 400_000
"""Lanes with fewer steps are done before Java's optimising compiler pays (measured)."""

FREE_STATES = 200_000
FREE_STATES_A_STEP = 20
FREE_STATES_OF_CALLS = 3_000_000
"""How far all orders are searched: so many states at least, and so many for each step."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a search stops, undecided."""

    states_max: int = 50_000_000
    free_states_max: int = 0
    """Where the orders that the values tell have led nowhere, and all others are searched too. At
    this bound they are given up, and what the others gave counts. 0: by the number of steps."""
    seconds_max: float = 1800.0
    heap_mib: int = 0
    """0: a quarter of the memory that is free, between 512 and 4096 MiB."""


@dataclass(frozen=True, slots=True)
class Task:
    """Two lanes to be followed, and how."""

    lanes: Lanes
    params: SpecParams
    starts: tuple[Start, ...] | None
    """Without the first bytes of each stream."""
    bases: Bases
    actions: ActionMap
    bounds: Bounds
    search: Search
    explain: bool
    progress: Progress


def follow(
    lanes: Lanes,
    params: SpecParams,
    starts: Sequence[Start] | None = None,
    *,
    progress: Progress | None = None,
    actions: ActionMap | None = None,
    bounds: Bounds | None = None,
    search: Search | None = None,
    explain: bool = True,
) -> FollowResult:
    """Is some interleaving of `lanes` a behaviour of the spec, and where can it end?

    `starts` are the states in which the lanes are taken up, for example those in which the piece
    before has ended; None means the spec's initial states. `explain` False: where lanes that are
    rejected get stuck is not asked, and no orders are tried but those that the values tell.

    Raises TestbedError when TLC fails and for a step that its lane cannot hold, ValueError for an
    empty `starts` and for a piece of longer lanes (a stop, or a start within) that lacks
    `goes_first`.
    """
    began = time.monotonic()
    if starts is not None and not starts:
        raise ValueError("no state to start from")
    actions = actions or load_action_map()
    search = search or Search()
    if search.reduce and _is_a_piece(lanes, starts) and lanes.sender.goes_first is None:
        raise ValueError("a piece of longer lanes needs to be told what goes first")
    bases = settled((start.state for start in starts or ()), actions)
    task = Task(
        lanes=lanes,
        params=params,
        starts=None if starts is None else rebased(starts, bases, actions, search),
        bases=bases,
        actions=actions,
        bounds=bounds or Bounds(),
        search=search,
        explain=explain,
        progress=progress or Quiet(),
    )
    result = _undecided(f"bytes, {BYTES_MAX} in one piece") if too_long(task) else _followed(task)
    return replace(result, seconds=time.monotonic() - began)


def too_long(task: Task) -> bool:
    """Whether its lanes hand over more bytes than can be followed in one go."""
    return _bytes(task.lanes, task.actions) > BYTES_MAX


@dataclass(frozen=True, slots=True)
class Searched:
    """What one search gave."""

    search: Search
    ends: list[tuple[EndState, int]]
    bound: str
    states: int

    @property
    def rejected(self) -> bool:
        """There is no end, for sure."""
        return not (self.ends or self.bound)


def _followed(task: Task) -> FollowResult:
    with tempfile.TemporaryDirectory(prefix="follow-") as name:
        folder = Path(name)
        write_rows(folder / "lanes.csv", rows_for(task))
        found = _found(task, folder)
        bound = found.bound
        frontier: tuple[Position, ...] = ()
        if found.rejected and task.explain:
            bound, frontier = _explained(task, folder, found.search)
    return result_of(task, found, bound, frontier)


def rows_for(task: Task) -> dict[Side, Rows]:
    """Its lanes as rows for TLC. Raises TestbedError for a step that its lane cannot hold."""
    return rows_of(task.lanes, task.actions, task.params.ring_bytes, _at_start(task))


def result_of(
    task: Task, found: Searched, bound: str = "", frontier: tuple[Position, ...] = ()
) -> FollowResult:
    """What came of following it."""
    return FollowResult(
        accepted=bool(found.ends),
        undecided=bound,
        ends=tuple(end for end, _ in found.ends),
        frontier=frontier,
        coverage=_coverage(task, found.ends, frontier),
        overlap=overlap(task.lanes, task.actions),
        states=found.states,
    )


def _found(task: Task, folder: Path) -> Searched:
    """Search the orders that the values tell, if they are known, and all if those lead nowhere.

    They are few, and one that was real is among them. Only what is no behaviour, in this direction
    or in the other one, needs the others: to say how far it can be followed by itself. There can be
    too many of them; then it goes no further than the orders that the values tell.
    """
    states_max = task.bounds.states_max
    if task.lanes.sender.comes_after is None or task.lanes.receiver.comes_after is None:
        return _searched(task, folder, task.search, states_max)
    in_order = _searched(task, folder, replace(task.search, in_order=True), states_max)
    if not (in_order.rejected and task.explain):
        return in_order
    shutil.move(folder / "reached.csv", folder / "reached_in_order.csv")
    states_max = task.bounds.free_states_max or _free_states_max(task.lanes)
    free = _searched(task, folder, task.search, states_max)
    states = in_order.states + free.states
    if free.bound and not task.lanes.searched:
        shutil.move(folder / "reached_in_order.csv", folder / "reached.csv")
        return replace(in_order, states=states)
    return replace(free, states=states)


def _free_states_max(lanes: Lanes) -> int:
    if lanes.searched:
        return FREE_STATES_OF_CALLS
    return max(FREE_STATES, FREE_STATES_A_STEP * _steps(lanes))


def _searched(task: Task, folder: Path, search: Search, states_max: int) -> Searched:
    output = _run(replace(task, bounds=replace(task.bounds, states_max=states_max)), folder, search)
    bound = f"states, {states_max}" if "BOUND 0" in output.said else output.bound
    if not bound:
        refuse_unfinished(output)
    return Searched(search, reading_of(task).ends(output.said), bound, output.distinct)


def refuse_unfinished(output: TlcOutput) -> None:
    """Raises TestbedError: else what was never followed would pass for what nobody can follow."""
    if output.exit_status or output.unexplored or not output.distinct:
        raise TestbedError(
            f"TLC ended before it had tried all orders (exit status {output.exit_status}, "
            f"{output.unexplored} states left).",
            next_step="Read TLC's last lines; an assumption of the spec may not hold.",
            console="\n".join(output.console[-CONSOLE_LINES:]),
        )


def _explained(task: Task, folder: Path, search: Search) -> tuple[str, tuple[Position, ...]]:
    """The bound that was met, if one was, and the maximal positions of what was rejected."""
    shutil.copy(folder / "reached.csv", folder / "wanted.csv")
    output = _run(task, folder, replace(search, explain=True))
    return (output.bound, ()) if output.bound else ("", reading_of(task).frontier(output.said))


def _is_a_piece(lanes: Lanes, starts: Sequence[Start] | None) -> bool:
    return lanes.stop is not None or any(start.sender or start.receiver for start in starts or ())


def rebased(
    starts: Sequence[Start], bases: Bases, actions: ActionMap, search: Search
) -> tuple[Start, ...]:
    """Starts without the first bytes of each stream, as few as the search needs."""
    places: dict[tuple[int, int], list[State]] = defaultdict(list)
    for start in starts:
        shorter = without_first(start.state, bases, actions)
        places[start.sender, start.receiver].append(shorter)
    return tuple(
        Start(state, *place)
        for place, states in places.items()
        for state in (as_intervals(states, actions) if search.reduce else states)
    )


def _at_start(task: Task) -> AtStart:
    if task.actions.channel:
        return AtStart(None, {}, rings_of(task.params) if task.starts is None else {})
    if task.starts is None:
        bits = {name: bit.at_start(task.params) for name, bit in task.actions.bits.items()}
        return AtStart(0, bits)
    states = [start.state for start in task.starts]
    rings = {size(state[task.actions.ring]) for state in states}
    found = {name: {cast(int, state[name]) for state in states} for name in task.actions.bits}
    return AtStart(
        rings.pop() if len(rings) == 1 else None,
        {name: values.pop() for name, values in found.items() if len(values) == 1},
    )


def job_in(folder: Path, actions: ActionMap, bounds: Bounds, *, steps: int) -> TlcJob:
    """TLC's job on the module that follows `steps` steps, its files being in `folder`."""
    module = module_name(actions)
    return TlcJob(
        folder=folder,
        module=module,
        config=f"{module}.cfg",
        library=(actions.spec.parent, HERE),
        classes=follower_classes(),
        properties={
            "vchan.lanes": str(folder / "lanes.csv"),
            "vchan.reached": str(folder / "reached.csv"),
            "vchan.states": str(bounds.states_max),
        },
        short=steps < SHORT_STEPS,
    )


def _run(task: Task, folder: Path, search: Search) -> TlcOutput:
    job = job_in(folder, task.actions, task.bounds, steps=_steps(task.lanes))
    text = module_text(task.actions, task.lanes, task.starts, search)
    (folder / f"{job.module}.tla").write_text(text)
    (folder / job.config).write_text(config_text(task.actions, task.params, search))
    if search.explain:
        wanted = {"vchan.wanted": str(folder / "wanted.csv")}
        job = replace(job, properties={**(job.properties or {}), **wanted})
    limits = Limits(seconds_max=task.bounds.seconds_max, heap_mib=task.bounds.heap_mib)
    return run_tlc(job, limits, lambda line: _show(task, line))


def _show(task: Task, line: str) -> None:
    word, *numbers = line.split(" ")
    if word == "AT":
        done, states = map(int, numbers)
        task.progress.note(f"{done:,} of {_steps(task.lanes):,} steps, {states:,} states")


def _steps(lanes: Lanes) -> int:
    return len(lanes.sender.steps) + len(lanes.receiver.steps)


def reading_of(task: Task) -> Reading:
    """How to read what TLC says of its lanes."""
    lanes = task.lanes
    return Reading(task.actions, task.bases, len(lanes.sender.steps), len(lanes.receiver.steps))


def _coverage(
    task: Task, ends: Sequence[tuple[EndState, int]], frontier: Sequence[Position]
) -> dict[str, int]:
    """Actions of the lanes as far as they were followed, and the hidden ones."""
    sender, receiver = len(task.lanes.sender.steps), len(task.lanes.receiver.steps)
    if frontier:
        sender, receiver = frontier[0].sender, frontier[0].receiver
    elif ends:
        sender -= min(end.left[0] for end, _ in ends)
        receiver -= min(end.left[1] for end, _ in ends)
    counts: Counter[str] = Counter()
    for columns, done in zip(_columns(task.lanes, task.actions), (sender, receiver), strict=True):
        counts.update(columns.counts(done))
    hidden = min((count for _, count in ends), default=0)
    if hidden:
        counts[" or ".join(hidden_actions(task.actions))] = hidden
    return dict(counts)


def _columns(lanes: Lanes, actions: ActionMap) -> tuple[Columns, Columns]:
    sender = columns_of(lanes.sender.steps, "s", actions)
    return sender, columns_of(lanes.receiver.steps, "r", actions)


def _bytes(lanes: Lanes, actions: ActionMap) -> int:
    """Bytes that the lanes hand over: what makes positions grow."""
    handed = [
        columns.values[columns.where(lambda action: action.chooses in actions.hands_in)]
        for columns in _columns(lanes, actions)
    ]
    # One that is too large is enough, and no sum of them must wrap around.
    return int(np.minimum(np.concatenate(handed), BYTES_MAX + 1).sum())


def _undecided(bound: str) -> FollowResult:
    return FollowResult(accepted=False, undecided=bound, ends=())
