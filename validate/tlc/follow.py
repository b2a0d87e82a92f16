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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.validate.lanes import (
    Candidate,
    EndState,
    FollowResult,
    Lanes,
    Position,
    SpecParams,
    Start,
    State,
    Value,
)
from vchan_testbed.validate.tlc.actions import ActionMap, load_action_map
from vchan_testbed.validate.tlc.columns import Columns, columns_of
from vchan_testbed.validate.tlc.indices import overlap
from vchan_testbed.validate.tlc.jar import follower_classes
from vchan_testbed.validate.tlc.module import (
    HERE,
    Search,
    config_text,
    fair_actions,
    hidden_actions,
    module_name,
    module_text,
)
from vchan_testbed.validate.tlc.rebase import settled, size, with_first, without_first
from vchan_testbed.validate.tlc.rows import AtStart, rows_of, write_rows
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, TlcOutput, run_tlc
from vchan_testbed.validate.tlc.values import parse_value
from vchan_testbed.validate.tlc.wakeups import as_intervals, as_numbers

BYTES_MAX = 2**30
"""Bytes of one direction that are followed in one go: positions have 32 bits in TLC."""

SHORT_STEPS = 400_000
"""Lanes with fewer steps are done before Java's optimising compiler pays (measured)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a search stops, undecided."""

    states_max: int = 50_000_000
    seconds_max: float = 1800.0
    heap_mib: int = 0
    """0: a quarter of the memory that is free, between 512 and 4096 MiB."""


@dataclass(frozen=True, slots=True)
class _Task:
    lanes: Lanes
    params: SpecParams
    starts: tuple[Start, ...] | None
    """Without the first `base` bytes of the stream."""
    base: int
    actions: ActionMap
    bounds: Bounds
    search: Search
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
) -> FollowResult:
    """Is some interleaving of `lanes` a behaviour of the spec, and where can it end?

    `starts` are the states in which the lanes are taken up, for example those in which the piece
    before has ended; None means the spec's initial states. Raises TestbedError when TLC fails and
    for a step that its lane cannot hold, ValueError for an empty `starts` and for a piece of longer
    lanes (a stop, or a start within) that lacks `goes_first`.
    """
    began = time.monotonic()
    if starts is not None and not starts:
        raise ValueError("no state to start from")
    actions = actions or load_action_map()
    search = search or Search()
    if search.reduce and _is_a_piece(lanes, starts) and lanes.sender.goes_first is None:
        raise ValueError("a piece of longer lanes needs to be told what goes first")
    base = min((settled(start.state, actions) for start in starts or ()), default=0)
    task = _Task(
        lanes=lanes,
        params=params,
        starts=None if starts is None else _rebased(starts, base, actions, search),
        base=base,
        actions=actions,
        bounds=bounds or Bounds(),
        search=search,
        progress=progress or Quiet(),
    )
    too_long = _bytes(lanes, actions) > BYTES_MAX
    result = _undecided(f"bytes, {BYTES_MAX} in one piece") if too_long else _followed(task)
    return replace(result, seconds=time.monotonic() - began)


def _followed(task: _Task) -> FollowResult:
    with tempfile.TemporaryDirectory(prefix="follow-") as name:
        folder = Path(name)
        rows = rows_of(task.lanes, task.actions, task.params.ring_bytes, _at_start(task))
        write_rows(folder / "lanes.csv", rows)
        output = _run(task, folder, task.search)
        ends = _ends(task, output.said)
        bound = output.bound
        if "BOUND 0" in output.said:
            bound = f"states, {task.bounds.states_max}"
        frontier: tuple[Position, ...] = ()
        if not ends and not bound:
            shutil.copy(folder / "reached.csv", folder / "wanted.csv")
            explained = _run(task, folder, replace(task.search, explain=True))
            frontier = _frontier(task, explained.said)
    return FollowResult(
        accepted=bool(ends),
        undecided=bound,
        ends=tuple(end for end, _ in ends),
        frontier=frontier,
        coverage=_coverage(task, ends, frontier),
        overlap=overlap(task.lanes, task.actions),
        states=output.distinct,
    )


def _is_a_piece(lanes: Lanes, starts: Sequence[Start] | None) -> bool:
    return lanes.stop is not None or any(start.sender or start.receiver for start in starts or ())


def _rebased(
    starts: Sequence[Start], base: int, actions: ActionMap, search: Search
) -> tuple[Start, ...]:
    places: dict[tuple[int, int], list[State]] = defaultdict(list)
    for start in starts:
        shorter = without_first(start.state, base, actions)
        places[start.sender, start.receiver].append(shorter)
    return tuple(
        Start(state, *place)
        for place, states in places.items()
        for state in (as_intervals(states, actions) if search.reduce else states)
    )


def _at_start(task: _Task) -> AtStart:
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


def _run(task: _Task, folder: Path, search: Search) -> TlcOutput:
    job = job_in(folder, task.actions, task.bounds, steps=_steps(task.lanes))
    text = module_text(task.actions, task.lanes, task.starts, search)
    (folder / f"{job.module}.tla").write_text(text)
    (folder / job.config).write_text(config_text(task.actions, task.params, search))
    if search.explain:
        wanted = {"vchan.wanted": str(folder / "wanted.csv")}
        job = replace(job, properties={**(job.properties or {}), **wanted})
    limits = Limits(seconds_max=task.bounds.seconds_max, heap_mib=task.bounds.heap_mib)
    return run_tlc(job, limits, lambda line: _show(task, line))


def _show(task: _Task, line: str) -> None:
    word, *numbers = line.split(" ")
    if word == "AT":
        done, states = map(int, numbers)
        task.progress.note(f"{done:,} of {_steps(task.lanes):,} steps, {states:,} states")


def _steps(lanes: Lanes) -> int:
    return len(lanes.sender.steps) + len(lanes.receiver.steps)


def _said(lines: Iterable[str], word: str) -> Iterable[tuple[Value, ...]]:
    for line in lines:
        if line.startswith(word + " "):
            yield cast(tuple[Value, ...], parse_value(line[len(word) + 1 :]))


def _state(task: _Task, values: Value) -> State:
    named = zip(task.actions.variables, cast(tuple[Value, ...], values), strict=True)
    return as_numbers(with_first(State.of(dict(named)), task.base, task.actions), task.actions)


def _ends(task: _Task, said: Sequence[str]) -> list[tuple[EndState, int]]:
    """Each end state once, with the fewest hidden steps that lead to it."""
    fewest: dict[EndState, int] = {}
    sender, receiver = len(task.lanes.sender.steps), len(task.lanes.receiver.steps)
    for senders, receivers, values, hidden, enabled, owed in _said(said, "END"):
        end = EndState(
            state=_state(task, values),
            enabled=_chosen(fair_actions(task.actions), enabled),
            owed=frozenset(_chosen(task.actions.owed, owed)),
            left=(sender - cast(int, senders), receiver - cast(int, receivers)),
        )
        fewest[end] = min(cast(int, hidden), fewest.get(end, cast(int, hidden)))
    return list(fewest.items())


def _chosen(names: Iterable[str], flags: Value) -> tuple[str, ...]:
    pairs = zip(names, cast(tuple[bool, ...], flags), strict=True)
    return tuple(name for name, flag in pairs if flag)


def _frontier(task: _Task, said: Sequence[str]) -> tuple[Position, ...]:
    candidates: dict[tuple[int, int, State], set[Candidate]] = defaultdict(set)
    for sender, receiver, values in _said(said, "STATE"):
        candidates[cast(int, sender), cast(int, receiver), _state(task, values)] = set()
    for sender, receiver, values, name, shown in _said(said, "MAY"):
        action = task.actions.actions[cast(str, name)]
        value = None if action.chooses or not action.shows else cast(int, shown)
        place = (cast(int, sender), cast(int, receiver), _state(task, values))
        candidates[place].add(Candidate(action.by[0], action.name, value))
    positions = [
        Position(sender, receiver, state, tuple(sorted(found, key=_by_name)))
        for (sender, receiver, state), found in candidates.items()
    ]
    return tuple(sorted(positions, key=lambda at: (-at.sender - at.receiver, at.sender)))


def _by_name(candidate: Candidate) -> str:
    return candidate.action


def _coverage(
    task: _Task, ends: Sequence[tuple[EndState, int]], frontier: Sequence[Position]
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
    sender, _ = _columns(lanes, actions)
    calls = sender.where(lambda action: bool(action.chooses))
    # One that is too large is enough, and no sum of them must wrap around.
    return int(np.minimum(sender.values[calls], BYTES_MAX + 1).sum())


def _undecided(bound: str) -> FollowResult:
    return FollowResult(accepted=False, undecided=bound, ends=())
