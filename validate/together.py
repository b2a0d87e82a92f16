"""Judge many short runs: the verdicts that `judge_run` gives one by one, with few runs of TLC.

Nothing is left out. The runs are prepared and looked at as always; only the first question to TLC
about each of their lanes is asked for all of them together. What has no answer there is followed as
always.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.validate.followed import followed, parts_of, tlc_judge
from vchan_testbed.validate.judge import Options, framed, prepared
from vchan_testbed.validate.lanes import FollowResult, Lanes, SpecParams, Start
from vchan_testbed.validate.prepare import Case, Prepared, load_tables, read_run
from vchan_testbed.validate.replay import Follow
from vchan_testbed.validate.tlc.together import Question, answers
from vchan_testbed.validate.unfollowed import decided_before, decided_behind
from vchan_testbed.validate.verdict import Verdict


@dataclass
class _Run:
    """A run under judgement."""

    case: Case
    seconds: float
    found: Verdict | None
    """The verdict, if it was decided before anything is followed."""
    answers: dict[str, tuple[SpecParams, FollowResult]] = field(default_factory=dict)
    """By direction: what following its whole lanes gave, and with which parameters."""

    def judge(self, one: Prepared) -> Follow:
        """Gives the answer that is there to the question that it belongs to, and asks TLC else."""
        ask = tlc_judge(one)
        asked, answer = self.answers.get(one.lanes.direction, (None, None))

        def judged(
            lanes: Lanes,
            params: SpecParams,
            starts: Sequence[Start] | None,
            progress: Progress,
            *,
            explain: bool = True,
        ) -> FollowResult:
            if answer is not None and starts is None and params == asked:
                return answer
            return ask(lanes, params, starts, progress, explain=explain)

        return judged


def judge_runs(
    runs: Sequence[Path], *, progress: Progress | None = None, options: Options | None = None
) -> list[Verdict]:
    """Judge run directories. Raises what `judge_run` raises, for the first of them that does."""
    progress = progress or Quiet()
    options = options or Options()
    options = replace(options, tables=options.tables or load_tables())
    with progress.step(f"Read and merge the traces of {len(runs)} runs"):
        every = [_read(run, options) for run in runs]
    open_runs = [run for run in every if run.found is None]
    asked = [
        (run, one) for run in open_runs for one in parts_of(run.case) if one.steps and not one.cuts
    ]
    questions = [_question(one) for _, one in asked]
    with progress.step(f"Follow {len(questions)} pairs of lanes together"):
        found = answers(questions)
    for (run, one), question, answer in zip(asked, questions, found, strict=True):
        if answer is not None:
            run.answers[one.lanes.direction] = (question.params, answer)
    return [_verdict(run, options, progress) for run in every]


def _read(run: Path, options: Options) -> _Run:
    began = time.monotonic()
    paths, facts = read_run(run)
    case = prepared(paths["server"], paths["client"], facts, options)
    return _Run(case, time.monotonic() - began, decided_before(case))


def _question(one: Prepared) -> Question:
    ends = (len(one.lanes.sender), len(one.lanes.receiver))
    return Question(one.lanes.piece((0, 0), ends), one.lanes.params, one.actions)


def _verdict(run: _Run, options: Options, progress: Progress) -> Verdict:
    began = time.monotonic()
    found = run.found or decided_behind(
        run.case, followed(run.case, options.judge, progress, run.judge)
    )
    seconds = run.seconds + time.monotonic() - began
    return replace(framed(found, run.case), seconds=seconds)
