"""One behaviour that explains two lanes, state by state: what could have been taken all along it.

Of all behaviours TLC looks for the one that is nearest to the lanes' times (`Lane.ranks`), depth
first, in the orders that the values tell, and stops at the first end. Before it takes a step from a
state it says which fair actions could be taken there (`ENABLED`) and which calls, and from which
state it was found: so the way is known from its end backwards.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vchan_testbed.progress import Quiet
from vchan_testbed.validate.lanes import Lanes, SpecParams, Start
from vchan_testbed.validate.tlc.actions import SIDES, ActionMap, Side
from vchan_testbed.validate.tlc.follow import Bounds, Task, job_in, rebased, rows_for
from vchan_testbed.validate.tlc.module import Search, config_text, fair_actions, module_text
from vchan_testbed.validate.tlc.rebase import settled
from vchan_testbed.validate.tlc.rows import write_rows
from vchan_testbed.validate.tlc.runner import Limits, TlcOutput, run_tlc

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

STATES_A_STEP = 20
STATES_AT_LEAST = 200_000
SECONDS_MAX = 300.0
_WORDS = re.compile(r"\d+|TRUE|FALSE")


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """The states of one behaviour, the first one first."""

    done: dict[Side, Ints]
    """Steps of each lane that were done in a state."""
    least: dict[Side, Ints]
    """Wake-ups that are to come on a side's port, at the least."""
    enabled: dict[str, Flags]
    """By fair action: in which states it could be taken. What takes a wake-up may only perhaps: see
    `least`."""
    callable: dict[Side, Flags]
    """In which states the side's application could call the library."""
    states: int
    """States that TLC visited."""
    seconds: float

    def __len__(self) -> int:
        return len(self.done["s"])


def way(
    lanes: Lanes,
    params: SpecParams,
    starts: Sequence[Start] | None,
    actions: ActionMap,
    bounds: Bounds | None = None,
) -> Way | str:
    """The behaviour, or why there is none to be had.

    `lanes` have the order that their values tell (`Lane.comes_after`) and ranks by time. Raises
    TestbedError when TLC fails.
    """
    steps = len(lanes.sender.steps) + len(lanes.receiver.steps)
    bounds = bounds or Bounds(
        states_max=max(STATES_AT_LEAST, STATES_A_STEP * steps), seconds_max=SECONDS_MAX
    )
    bases = settled((start.state for start in starts or ()), actions)
    search = Search(in_order=True, along=True)
    task = Task(
        lanes=lanes,
        params=params,
        starts=None if starts is None else rebased(starts, bases, actions, search),
        bases=bases,
        actions=actions,
        bounds=bounds,
        search=search,
        explain=False,
        progress=Quiet(),
    )
    with tempfile.TemporaryDirectory(prefix="along-") as name:
        output = _run(task, Path(name), steps)
    if "BOUND 0" in output.said or output.bound:
        return f"no end was found within {output.bound or f'{bounds.states_max} states'}"
    met = next((int(line[4:]) for line in output.said if line.startswith("MET ")), None)
    if met is None:
        return "in the orders that the values tell no behaviour gets to the end"
    return _read(output, met, actions)


def _run(task: Task, folder: Path, steps: int) -> TlcOutput:
    write_rows(folder / "lanes.csv", rows_for(task))
    job = job_in(folder, task.actions, task.bounds, steps=steps)
    text = module_text(task.actions, task.lanes, task.starts, task.search)
    (folder / f"{job.module}.tla").write_text(text)
    (folder / job.config).write_text(config_text(task.actions, task.params, task.search))
    return run_tlc(job, Limits(task.bounds.seconds_max, task.bounds.heap_mib))


def _read(output: TlcOutput, met: int, actions: ActionMap) -> Way:
    said: dict[int, list[str]] = {}
    for line in output.said:
        if line.startswith("WAY "):
            # Numbers and truth values alone: values are parsed a hundred times slower.
            words = _WORDS.findall(line)
            said[int(words[1])] = words
    found = []
    while met:
        words = said[met]
        found.append(words)
        met = int(words[0])
    found.reverse()
    table = np.array(found)
    numbers, flags = table[:, :6].astype(np.int64), table[:, 6:] == "TRUE"
    fair = fair_actions(actions)
    return Way(
        done={side: numbers[:, 2 + at] for at, side in enumerate(SIDES)},
        least={side: numbers[:, 4 + at] for at, side in enumerate(SIDES)},
        enabled={name: flags[:, at] for at, name in enumerate(fair)},
        callable={side: flags[:, len(fair) + at] for at, side in enumerate(SIDES)},
        states=output.distinct,
        seconds=output.seconds,
    )
