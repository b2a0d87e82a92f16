"""Many small lanes through TLC with few JVMs: a start costs more than following forty of them.

`follow_all` calls `validate.tlc.follow.follow` for each of them, in a thread each, as it is. Only
where `follow` would start TLC, the jobs of all threads are gathered, and those with the same module
and configuration become one run: the number of the lanes is chosen in the first state and never
changes. The module is the one that `follow` wrote. The lanes themselves come from a module Lanes in
plain TLA+ instead of the one with operators in Java: so this also holds those two together.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import pytest

from vchan_testbed.validate.lanes import FollowResult, Lanes, SpecParams
from vchan_testbed.validate.tlc import follow as production
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.module import Search
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, TlcOutput, run_tlc

LANES = """\
---- MODULE ManyLanes ----
EXTENDS Integers, Lanes
LOCAL INSTANCE Sequences  \\* the specs have a Len and an Append of their own
VARIABLE number  \\* of the two lanes that are followed
First == {first}
Length == {length}
Asked == {asked}
Numbers == 1..Len(Length)
Inside(lane, done, cell, beyond) == IF done < Length[number][lane] THEN cell ELSE beyond
At(lane, done) == First[number][lane] + done
ManyLength(lane) == Length[number][lane]
ManyAction(lane, done) == Inside(lane, done, LaneAction(lane, At(lane, done)), 0)
ManyValue(lane, done) == Inside(lane, done, LaneValue(lane, At(lane, done)), 1)
ManyAfter(lane, done) == Inside(lane, done, LaneAfter(lane, At(lane, done)), 2147483647)
ManyRaises(lane, done) == Inside(lane, done, LaneRaises(lane, At(lane, done)), 0)
ManySay(word, value) == Say("OF", <<number, word, value>>)
ManyReached(sender, receiver) == ManySay("REACHED", <<sender, receiver>>)
ManyWanted(sender, receiver) == <<sender, receiver>> \\in Asked[number]
====
"""
MANY = """\
---- MODULE Many ----
EXTENDS {module}
ManyInit == number \\in Numbers /\\ FollowInit
ManyNext == FollowNext /\\ UNCHANGED number
====
"""
IN_LANES = re.compile(
    r"\b(?:Lane(?=Length|Action|Value|After|Raises)|(?=(?:Say|Reached|Wanted)\())"
)
"""Before the names of the operators of Lanes, as a module that follows two lanes uses them."""
SAID = re.compile(r'OF <<(\d+), "(\w+)", (.*)>>')


@dataclass
class _Waiting:
    """A job of one thread, and what TLC said of it."""

    job: TlcJob
    on_said: Callable[[str], None] | None
    done: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)
    reached: list[tuple[int, int]] = field(default_factory=list)
    output: TlcOutput | None = None
    failed: BaseException | None = None


class Gathering:
    """Jobs that wait until every thread has one, or has ended."""

    def __init__(self, threads: int) -> None:
        self.starts = 0
        """JVMs that were started."""
        self._busy = threads
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    def run(
        self, job: TlcJob, limits: Limits, on_said: Callable[[str], None] | None = None
    ) -> TlcOutput:
        """In the place of `run_tlc`."""
        mine = _Waiting(job, on_said)
        with self._lock:
            self._waiting.append(mine)
            self._step_back()
        mine.done.wait()
        if mine.output is None:
            raise RuntimeError("TLC failed; it was run for all of them") from mine.failed
        return mine.output

    @contextmanager
    def thread(self) -> Iterator[None]:
        """The life of one of the threads."""
        try:
            yield
        finally:
            with self._lock:
                self._step_back()

    def _step_back(self) -> None:
        self._busy -= 1
        if self._busy:
            return
        ready, self._waiting = self._waiting, []
        self._busy = len(ready)
        kinds = defaultdict(list)
        for one in ready:
            kinds[_kind(one.job)].append(one)
        for alike in kinds.values():
            self.starts += 1
            try:
                _run_together(alike)
            except BaseException as error:
                for one in alike:
                    one.failed = error
            for one in alike:
                one.done.set()


def follow_all(
    cases: Sequence[tuple[Lanes, SpecParams]],
    search: Search | None = None,
    *,
    actions: ActionMap | None = None,
    explain: bool = True,
) -> tuple[list[FollowResult], int]:
    """As `follow`, for each of them; and how many JVMs that took."""
    gathering = Gathering(len(cases))

    def one(case: tuple[Lanes, SpecParams]) -> FollowResult:
        with gathering.thread():
            return production.follow(*case, search=search, actions=actions, explain=explain)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(production, "run_tlc", gathering.run)
        with ThreadPoolExecutor(len(cases)) as pool:
            found = list(pool.map(one, cases))
    return found, gathering.starts


def _kind(job: TlcJob) -> tuple[str, str]:
    return (
        (job.folder / f"{job.module}.tla").read_text(),
        (job.folder / job.config).read_text(),
    )


def _run_together(alike: Sequence[_Waiting]) -> None:
    with tempfile.TemporaryDirectory(prefix="many-") as name:
        folder = Path(name)
        text, config = _kind(alike[0].job)
        job = alike[0].job
        text = text.replace(", Lanes,", ", ManyLanes,")
        (folder / f"{job.module}.tla").write_text(IN_LANES.sub("Many", text))
        (folder / "Many.tla").write_text(MANY.format(module=job.module))
        rows = [_rows(one.job) for one in alike]
        _write_lanes(folder / "lanes.csv", rows)
        lengths = [[len(lane) for lane in each] for each in rows]
        (folder / "ManyLanes.tla").write_text(
            LANES.format(
                first=_tuples(_before(lengths)),
                length=_tuples(lengths),
                asked=_tuple(_wanted(one.job) for one in alike),
            )
        )
        own = config.replace("INIT FollowInit", "INIT ManyInit")
        (folder / "Many.cfg").write_text(own.replace("NEXT FollowNext", "NEXT ManyNext"))
        properties = {"vchan.lanes": "lanes.csv", "vchan.reached": "reached.csv"}
        many = replace(
            job, folder=folder, module="Many", config="Many.cfg", properties=properties, short=True
        )
        output = run_tlc(many)
    for line in output.said:
        match = SAID.fullmatch(line)
        assert match, line
        _hear(alike[int(match[1]) - 1], match[2], match[3])
    for one in alike:
        one.output = replace(output, said=tuple(one.said), distinct=len(one.reached))
        _write_reached(one)


def _hear(one: _Waiting, word: str, value: str) -> None:
    if word == "REACHED":
        sender, receiver = value.strip("<>").split(",")
        one.reached.append((int(sender), int(receiver)))
    else:
        one.said.append(f"{word} {value}")


def _write_reached(one: _Waiting) -> None:
    """What the Java class writes when TLC ends: positions with none beyond them in both lanes."""
    places = set(one.reached)
    best = sorted(
        at
        for at in places
        if not any(at != on and at[0] <= on[0] and at[1] <= on[1] for on in places)
    )
    lines = ["sender,receiver", *(f"{sender},{receiver}" for sender, receiver in best)]
    (one.job.folder / "reached.csv").write_text("\n".join(lines) + "\n")


def _rows(job: TlcJob) -> list[list[str]]:
    """The lines of each lane, without its number."""
    _, *lines = (job.folder / "lanes.csv").read_text().splitlines()
    return [[line[2:] for line in lines if line.startswith(lane)] for lane in ("1,", "2,")]


def _write_lanes(path: Path, rows: Sequence[list[list[str]]]) -> None:
    """All senders' lanes as one, and all receivers'."""
    lines = [f"{lane + 1},{row}" for lane in (0, 1) for each in rows for row in each[lane]]
    path.write_text("\n".join(["lane,action,value,after,raises", *lines]) + "\n")


def _before(lengths: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each pair of lanes: rows of those before it."""
    ends = [accumulate(column, initial=0) for column in zip(*lengths, strict=True)]
    return [list(pair) for pair in zip(*ends, strict=True)][:-1]


def _wanted(job: TlcJob) -> str:
    path = (job.properties or {}).get("vchan.wanted")
    if path is None:
        return "{}"
    _, *places = Path(path).read_text().splitlines()
    return "{" + ", ".join(f"<<{place}>>" for place in places) + "}"


def _tuples(rows: Iterable[Iterable[int]]) -> str:
    return _tuple(_tuple(map(str, row)) for row in rows)


def _tuple(parts: Iterable[str]) -> str:
    return f"<<{', '.join(parts)}>>"
