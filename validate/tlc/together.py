"""Many short traces in one run of TLC: to start it costs more than to follow fifty of them.

Each is asked what `follow` asks first: where the orders that its values tell can end. What they
lead to an end is answered; whatever needs more, a rejection above all, is left to `follow`, one by
one. The number of a trace is chosen in the first state and never changes, so that none of them
meets another one. The states of a trace are those that TLC generated for it: how many of them it
met before is told for all traces together alone.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.progress import Quiet
from vchan_testbed.validate.lanes import FollowResult, Lanes, SpecParams
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.follow import (
    Bounds,
    Searched,
    Task,
    job_in,
    reading_of,
    refuse_unfinished,
    result_of,
    rows_for,
    too_long,
)
from vchan_testbed.validate.tlc.module import Search, config_text, module_text
from vchan_testbed.validate.tlc.rebase import settled
from vchan_testbed.validate.tlc.rows import write_rows
from vchan_testbed.validate.tlc.runner import Limits, run_tlc

STATES_MAX = 200_000
"""Of one trace: what takes more is followed by itself."""
SAID = re.compile(r"(\w+) <<(\d+), (.*)>>")


@dataclass(frozen=True, slots=True)
class Question:
    """Two whole lanes, to be followed from the spec's initial states."""

    lanes: Lanes
    params: SpecParams
    actions: ActionMap


def answers(questions: Sequence[Question]) -> list[FollowResult | None]:
    """For each what `follow` gives; None for those that it has to be asked about.

    Raises TestbedError when there is no TLC.
    """
    found: list[FollowResult | None] = [None] * len(questions)
    for kind, numbers in _kinds(questions).items():
        tasks = [_task(questions[number]) for number in numbers]
        for number, answer in zip(numbers, _followed(kind, tasks), strict=True):
            found[number] = answer
    return found


_Kind = tuple[str, str]
"""The texts of the module and its configuration."""


def _kinds(questions: Sequence[Question]) -> dict[_Kind, list[int]]:
    """Those that can be asked together, by what is the same for them."""
    kinds: dict[_Kind, list[int]] = defaultdict(list)
    for number, one in enumerate(questions):
        task = _task(one)
        known = (one.lanes.sender.comes_after, one.lanes.receiver.comes_after)
        if any(order is None for order in known) or one.lanes.searched or too_long(task):
            continue
        text = module_text(one.actions, one.lanes, None, task.search)
        kinds[text, config_text(one.actions, one.params, task.search)].append(number)
    return kinds


def _task(one: Question) -> Task:
    return Task(
        lanes=one.lanes,
        params=one.params,
        starts=None,
        bases=settled((), one.actions),
        actions=one.actions,
        bounds=Bounds(states_max=STATES_MAX),
        search=Search(in_order=True, many=True),
        explain=True,
        progress=Quiet(),
    )


def _followed(kind: _Kind, tasks: Sequence[Task]) -> list[FollowResult | None]:
    with tempfile.TemporaryDirectory(prefix="together-") as name:
        folder = Path(name)
        write_rows(folder / "lanes.csv", *map(rows_for, tasks))
        steps = sum(len(one.lanes.sender.steps) + len(one.lanes.receiver.steps) for one in tasks)
        job = job_in(folder, tasks[0].actions, tasks[0].bounds, steps=steps)
        for path, text in zip((f"{job.module}.tla", job.config), kind, strict=True):
            (folder / path).write_text(text)
        counts = folder / "counts.csv"
        own = {"vchan.pairs": str(len(tasks)), "vchan.counts": str(counts)}
        job = replace(job, properties={**(job.properties or {}), **own})
        try:
            output = run_tlc(job, Limits(seconds_max=tasks[0].bounds.seconds_max))
            if output.bound:
                return [None] * len(tasks)
            refuse_unfinished(output)
        except TestbedError:
            # One of them that TLC cannot evaluate ends it for all: `follow` will say which.
            return [None] * len(tasks)
        states = [int(line.partition(",")[2]) for line in counts.read_text().splitlines()[1:]]
    said: dict[int, list[str]] = defaultdict(list)
    for line in output.said:
        if match := SAID.fullmatch(line):
            said[int(match[2]) - 1].append(f"{match[1]} {match[3]}")
    return [_answer(task, said[number], states[number]) for number, task in enumerate(tasks)]


def _answer(task: Task, said: Sequence[str], states: int) -> FollowResult | None:
    ends = reading_of(task).ends(said)
    if not ends or any(line.startswith("BOUND ") for line in said):
        return None
    return result_of(task, Searched(task.search, ends, "", states))
