"""Traces of calls and events alone: what is said of them, beside what the accesses tell."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played
from judging import LIBRARY
from library_model import Run

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import ACCESS_KINDS, Kind
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.calls import calls_alone, order_by_clock
from vchan_testbed.validate.channel import ChannelLanes
from vchan_testbed.validate.channel_order import channel_order
from vchan_testbed.validate.endings import ending_of
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.prepare import prepare
from vchan_testbed.validate.verdict import Verdict

FOLDER = Path(__file__).parent / "histories"
SAME = {
    "a_record_is_missing": ("REJECTED", "INCONCLUSIVE"),
    "both_write_past_each_other": ("ACCEPTED", "STALLED"),
    "bytes_are_lost": ("REJECTED", "INCONCLUSIVE"),
    "calls_of_packets": ("ACCEPTED", "PROGRESS"),
    "nobody_reads_what_came": ("ACCEPTED", "STALLED"),
    "the_event_of_a_write_is_lost": ("ACCEPTED", "VIOLATION"),
    "the_reader_is_killed_in_its_sleep": ("ACCEPTED", "PROGRESS"),
    "the_writer_closes_between_two_looks": ("KNOWN", "PROGRESS"),
    "the_writer_says_that_it_failed": ("REJECTED", "INCONCLUSIVE"),
}
"""Where calls and events tell as much as the accesses do."""
UNSEEN = {
    "the_reader_does_not_look_again": "in which order a call looks and arms is not seen",
    "other_bytes_arrive": "what was copied is not seen, and neither end checked it",
    "a_bit_is_seen_before_it_was_set": "what a notify byte held is not seen",
}
"""What accesses alone show, so that calls and events are those of a library that does it right."""


def history(name: str) -> tuple[Run, dict[Role, Records], dict[str, object]]:
    """A history, played, with what is known of its run."""
    text = (FOLDER / f"{name}.history").read_text().partition("----\n")[0]
    found = History.of(text)
    run, changed = played(found)
    return run, changed, run.facts(**found.expect)


def verdict_on(name: str, folder: Path) -> Verdict:
    run, changed, facts = history(name)
    paths = run.write(folder, changed)
    options = Options(tables=LIBRARY, level="calls")
    return judge_traces(paths["server"], paths["client"], facts, options=options)


@pytest.mark.parametrize("name", SAME)
def test_calls_tell_what_the_accesses_tell(name: str, tmp_path: Path) -> None:
    verdict = verdict_on(name, tmp_path)
    assert (verdict.conformance, verdict.progress) == SAME[name]
    assert verdict.level == "calls"
    assert any("Calls and events alone were judged" in note for note in verdict.notes)
    if name == "the_event_of_a_write_is_lost":
        assert (verdict.due_action, verdict.fault_of) == ("wait server", "event channel")
    if name == "the_writer_closes_between_two_looks":
        assert [use.id for use in verdict.known] == ["L1"]


@pytest.mark.parametrize("name", UNSEEN)
def test_what_accesses_alone_show_is_not_seen(name: str, tmp_path: Path) -> None:
    verdict = verdict_on(name, tmp_path)
    assert verdict.conformance == "ACCEPTED", UNSEEN[name]


def test_nothing_but_accesses_and_copies_is_left_out(tmp_path: Path) -> None:
    run, changed, facts = history("there_and_back")
    for path in run.write(tmp_path, changed).values():
        trace = read_trace(path)
        left, ending = calls_alone(trace, ending_of(trace, Evidence(facts)))
        inside = np.isin(trace.records["kind"], (*ACCESS_KINDS, Kind.COPY))
        assert inside.any()
        assert list(left.records["kind"]) == list(trace.records["kind"][~inside])
        assert list(left.records["seq"]) == list(range(1, len(left.records) + 1))
        assert len(ending.rows) == len(left.records)


@dataclass(frozen=True)
class Clocked:
    """The lanes of a run whose client's counter has begun so many ticks later."""

    lanes: ChannelLanes
    needs: tuple[list[int], list[int]]

    @staticmethod
    def of(folder: Path, later: int) -> Clocked:
        run, changed, facts = history("there_and_back")
        paths = run.write(folder, changed)
        case = prepare(paths["server"], paths["client"], facts, tables=LIBRARY, level="calls")
        assert case.channel is not None
        lanes = case.channel.lanes
        assert isinstance(lanes, ChannelLanes)
        client = case.traces["client"].records
        client["t0"] += np.uint64(later)
        client["t1"] += np.uint64(later)
        known = channel_order(lanes).running()
        order = order_by_clock(lanes, case.traces, known)
        assert (order.sender >= known.sender).all()
        assert (order.receiver >= known.receiver).all()
        return Clocked(lanes, (order.sender.tolist(), order.receiver.tolist()))


def test_one_counter_orders_what_does_not_overlap(tmp_path: Path) -> None:
    one = Clocked.of(tmp_path, 0)
    assert sum(one.needs[0]) + sum(one.needs[1]) > 0
    assert sorted(one.needs[0]) == one.needs[0]


def test_a_counter_that_began_elsewhere_orders_no_more_than_one_and_the_same(
    tmp_path: Path,
) -> None:
    same = Clocked.of(tmp_path / "same", 0)
    other = Clocked.of(tmp_path / "other", 1 << 40)
    for mine, theirs in zip(same.needs, other.needs, strict=True):
        assert all(a >= b for a, b in zip(mine, theirs, strict=True))
        assert sum(theirs) > 0
