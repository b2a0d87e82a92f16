"""A long trace, taken to pieces and followed by TLC: good, and with a fault in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judging import TABLES
from library_model import Operation, Run, Scenario, simulate
from mutations import drop, sets

from vchan_testbed.progress import Progress, Quiet
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import Call, Cell, Kind
from vchan_testbed.validate.cuts import Size
from vchan_testbed.validate.judge import Options, judge_traces
from vchan_testbed.validate.lanes import FollowResult, Lanes, SpecParams, Start
from vchan_testbed.validate.prepare import Prepared, prepare
from vchan_testbed.validate.replay import Replay, Replayed
from vchan_testbed.validate.tlc.follow import Bounds, follow
from vchan_testbed.validate.two_lanes import TwoLanes
from vchan_testbed.validate.wording import Words

PIECE = Size(steps=6000)
ROUNDS = 3


def round_trip(count: int, size: int) -> tuple[list[Operation], list[Operation]]:
    """What the server and the client do: bytes there and back, with reads of other sizes."""
    server: list[Operation] = []
    client: list[Operation] = []
    for writer, reader in ((client, server), (server, client)):
        writer += [("write", size)] * count
        reader += [("read", size // 2)] * (2 * count)
    return server, client


def long_run() -> Run:
    """Rings of a page, which every write fills."""
    server: list[Operation] = []
    client: list[Operation] = []
    for _ in range(ROUNDS):
        there, back = round_trip(120, 6000)
        server, client = server + there, client + back
    return simulate(
        Scenario(
            (*server, ("read_to_end", 64), ("close",)), (*client, ("close",)), 12, 12, burst=0.8
        )
    )


@pytest.fixture(scope="module")
def run() -> Run:
    return long_run()


@dataclass
class Heard:
    """What a person would have seen."""

    lines: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step is a line."""
        self.lines.append(title)
        yield

    def note(self, text: str) -> None:
        """A note too."""
        self.lines.append(text)

    say = note


def tlc(
    lanes: Lanes,
    params: SpecParams,
    starts: Any,
    progress: Progress,
    *,
    explain: bool = True,
) -> FollowResult:
    """The judge."""
    return follow(lanes, params, starts, progress=progress, actions=TABLES.actions, explain=explain)


Changed = dict[Role, Records]


def left(run: Run, folder: Path, changed: Changed, size: Size) -> tuple[Words, Prepared]:
    """The direction from the client to the server."""
    paths = run.write(folder, changed)
    case = prepare(paths["server"], paths["client"], run.facts(), size, TABLES)
    one = case.directions[0]
    return Words(one.lanes, case.traces, one.order), one


def followed(one: Prepared) -> Replayed:
    # No deviation is asked for: each would be tried on every piece that is rejected.
    return Replay(one.lanes, one.cuts, tlc, Quiet(), ()).run()


def test_a_good_run_is_accepted_piece_by_piece_and_says_how_far_it_is(
    run: Run, tmp_path: Path
) -> None:
    paths, heard = run.write(tmp_path), Heard()
    verdict = judge_traces(
        paths["server"],
        paths["client"],
        run.facts(),
        progress=heard,
        options=Options(size=PIECE, tables=TABLES),
    )
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS"), verdict.reason
    for one in verdict.directions:
        assert one.steps > 10_000
        assert one.pieces >= 3
        titles = [f"{one.direction}: piece {n + 1} of {one.pieces}, " for n in range(one.pieces)]
        places = [[at for at, line in enumerate(heard.lines) if line.startswith(t)] for t in titles]
        firsts = [found[0] for found in places]
        assert firsts == sorted(firsts)
        assert all("from record " in heard.lines[at] for at in firsts)
        assert all(heard.lines[at].endswith(" s") for found in places for at in found)
        assert sum(one.coverage.values()) - one.unlogged_steps == one.steps


def test_a_cut_at_fixed_places_of_both_lanes_would_not_do(run: Run, tmp_path: Path) -> None:
    """Many events were lost in one that waited: of a wake-up nobody knows which one it needs."""
    _, one = left(run, tmp_path, {}, PIECE)
    raised = one.lanes.sender.where("s_raise", "r_spurious")
    taken = one.lanes.receiver.where("r_wait", "r_stolen")
    assert len(raised) > len(taken) + 20


def second_look(lanes: TwoLanes, share: float) -> int:
    """Of the receiver's second looks that see bytes, the one behind this share of them."""
    looks = lanes.receiver.where("r_have_again")
    looks = looks[lanes.receiver.values[looks] > 0]
    return int(looks[int(share * len(looks))])


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_fault_is_found_at_its_record(share: float, run: Run, tmp_path: Path) -> None:
    _, good = left(run, tmp_path, {}, PIECE)
    at = second_look(good.lanes, share)
    look, take = good.lanes.receiver[at : at + 2]
    assert take.action == "r_take"
    changed = drop(run.records("server"), look.record)
    words, one = left(run, tmp_path, {"server": changed}, PIECE)
    replayed = followed(one)
    assert not replayed.accepted
    assert not replayed.undecided
    place = words.unexplained(replayed.frontier[0])
    assert (place.endpoint, place.row) == ("server", take.record - 1)
    assert "r_have_again" in place.reason


SOME: list[Operation] = [("write", 300)] * 10
SMALL = Scenario(
    server=(("read", 3000), ("write", 200), ("read", 3000), ("write", 200), ("close",)),
    client=(*SOME, ("read", 200), *SOME, ("read", 200), ("close",)),
    burst=0.3,
)


def whole(lanes: TwoLanes) -> Lanes:
    """All of it, with the order that the values tell."""
    return lanes.piece((0, 0), (len(lanes.sender), len(lanes.receiver)))


def test_pieces_end_as_the_whole_does(tmp_path: Path) -> None:
    """Also in which states: nothing is lost at a cut, and nothing put in."""
    run = simulate(SMALL)
    _, one = left(run, tmp_path, {}, Size(steps=100))
    assert len(one.cuts) >= 2
    at_once = tlc(whole(one.lanes), one.lanes.params, None, Quiet())
    replayed = followed(one)
    assert replayed.accepted
    assert set(replayed.ends) == set(at_once.ends)
    assert replayed.coverage == at_once.coverage


def test_the_orders_that_the_values_tell_are_few_and_end_as_all_of_them_do(tmp_path: Path) -> None:
    one_way = Scenario(
        server=(*[("read", 64)] * 60, ("write", 1), ("read_to_end", 8), ("close",)),
        client=(*[("write", 40)] * 96, ("read", 1), ("close",)),
        left_order=9,
        burst=0.97,
    )
    paths = simulate(one_way).write(tmp_path)
    right = prepare(paths["server"], paths["client"], None, tables=TABLES).directions[1].lanes
    few = tlc(whole(right), right.params, None, Quiet())
    every = tlc(right.whole(), right.params, None, Quiet())
    assert few.accepted
    assert set(few.ends) <= set(every.ends)
    assert few.states < 1.2 * (len(right.sender) + len(right.receiver))
    assert few.states < every.states / 2


def newer(run: Run) -> Changed:
    """The client's first look at what the server wrote sees what was written after it had left."""
    records = run.records("client")
    loads = (records["kind"] == Kind.LOAD) & (records["offset"] == Cell.RIGHT_PROD)
    row = int(np.flatnonzero(loads & (records["call"] == Call.READ))[0])
    return {"client": sets(old=400, new=400)(records, row)}


def test_who_contradicts_the_other_direction_only_is_followed_by_itself(tmp_path: Path) -> None:
    run = simulate(SMALL)
    _, one = left(run, tmp_path, newer(run), Size())
    lanes, params = whole(one.lanes), one.lanes.params
    assert not tlc(lanes, params, None, Quiet(), explain=False).accepted
    assert tlc(lanes, params, None, Quiet()).accepted


def test_where_all_orders_are_too_many_those_that_the_values_tell_count(tmp_path: Path) -> None:
    run = simulate(SMALL)
    _, good = left(run, tmp_path, {}, Size())
    at = second_look(good.lanes, 0.5)
    look, take = good.lanes.receiver[at : at + 2]
    words, one = left(run, tmp_path, {"server": drop(run.records("server"), look.record)}, Size())
    lanes, params = whole(one.lanes), one.lanes.params
    every = follow(lanes, params, actions=TABLES.actions)
    few = follow(lanes, params, actions=TABLES.actions, bounds=Bounds(free_states_max=1))
    assert not few.accepted
    assert not few.undecided
    named = [words.unexplained(result.frontier[0]).row for result in (few, every)]
    assert named == [take.record - 1] * 2
    farthest = [result.frontier[0].sender + result.frontier[0].receiver for result in (few, every)]
    assert farthest[0] <= farthest[1]


def test_a_piece_that_is_not_told_what_goes_first_is_refused(tmp_path: Path) -> None:
    _, one = left(simulate(SMALL), tmp_path, {}, Size())
    bare = one.lanes.whole()
    with pytest.raises(ValueError, match="what goes first"):
        tlc(replace(bare, stop="s"), one.lanes.params, None, Quiet())
    end = tlc(bare, one.lanes.params, None, Quiet()).ends[0]
    with pytest.raises(ValueError, match="what goes first"):
        tlc(bare, one.lanes.params, [Start(end.state, 1, 0)], Quiet())
