"""The order that values tell, held against the order in which the model's scheduler did it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judging import TABLES
from library_model import Build, Operation, Run, Scenario, simulate

from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.cuts import Size, cuts_of
from vchan_testbed.validate.merge import LaneSteps
from vchan_testbed.validate.order import Ints
from vchan_testbed.validate.prepare import Prepared, prepare
from vchan_testbed.validate.table import Side

BUILDS = (
    Build(),
    Build(hoists=False, exchanges=False),
    Build(index_before_live=True, cons_first=True),
)


def rounds(rng: random.Random, count: int) -> tuple[list[Operation], list[Operation]]:
    """What the server and the client do: bytes there and back."""
    server: list[Operation] = []
    client: list[Operation] = []
    for _ in range(count):
        for writer, reader in ((client, server), (server, client)):
            size = rng.randint(1, 40)
            for operation, end in (("write", writer), ("read", reader)):
                first = rng.randint(0, size - 1)
                end.extend((operation, part) for part in (first, size - first) if part)
    return server, client


def scenario(seed: int) -> Scenario:
    """Some rounds over small rings; some are killed, some stopped."""
    rng = random.Random(seed)
    server, client = rounds(rng, 4)
    whole = Scenario(
        (*server, ("read_to_end", 7), ("close",)),
        (*client, ("close",)),
        left_order=rng.choice((0, 2, 4)),
        right_order=rng.choice((1, 3)),
        seed=seed,
        burst=rng.choice((0.1, 0.5, 0.9)),
        server_build=rng.choice(BUILDS),
        client_build=rng.choice(BUILDS),
    )
    killed: tuple[Role, int] = (rng.choice(("server", "client")), rng.randint(30, 200))
    if seed % 4 == 0:
        return replace(whole, kill=killed, unlogged=seed % 8 == 0)
    return replace(whole, stop_after=150) if seed % 8 == 1 else whole


def prepared(run: Run, folder: Path) -> tuple[Prepared, ...]:
    paths = run.write(folder)
    return prepare(paths["server"], paths["client"], run.facts(), tables=TABLES).directions


def sides(one: Prepared) -> Iterator[tuple[LaneSteps, LaneSteps, Ints, Ints]]:
    """Each lane, the other one, the order by its direction's values and by all of them."""
    lanes, own = one.lanes, one.order.running()
    yield lanes.sender, lanes.receiver, own.sender, lanes.comes_after["s"]
    yield lanes.receiver, lanes.sender, own.receiver, lanes.comes_after["r"]


def times(run: Run, lane: LaneSteps) -> Ints:
    """When each step was done."""
    return run.records(lane.role)["t0"][lane.rows].astype(np.int64)


@pytest.mark.parametrize("seed", range(64))
def test_what_comes_before_was_done_before(seed: int, tmp_path: Path) -> None:
    run = simulate(scenario(seed))
    asked = 0
    for one in prepared(run, tmp_path):
        for lane, other, by_own, by_all in sides(one):
            # A load of the live byte that was brought forward is done later than its place says.
            done = np.minimum.accumulate(times(run, lane)[::-1])[::-1]
            for needs in (by_own, by_all):
                some = needs > 0
                needed = times(run, other)[needs[some] - 1]
                asked += int(np.count_nonzero(some))
                assert (needed < times(run, lane)[some]).all()
            latest = np.searchsorted(np.maximum.accumulate(times(run, other)), done)
            assert (by_all <= latest).all()
    assert asked > 30


def test_the_other_directions_values_tell_more(tmp_path: Path) -> None:
    """All bytes go one way: the other way there is nothing but events."""
    one_way = Scenario(
        server=(*[("read", 64)] * 200, ("write", 1), ("read_to_end", 8), ("close",)),
        client=(*[("write", 40)] * 320, ("read", 1), ("close",)),
        left_order=9,
        burst=0.97,
    )
    run = simulate(one_way)
    right = prepared(run, tmp_path)[1]
    apart = {"own": 0, "all": 0}
    for lane, other, by_own, by_all in sides(right):
        assert len(lane) > 60
        latest = np.searchsorted(times(run, other), times(run, lane))
        apart["own"] += int((latest - by_own).sum())
        apart["all"] += int((latest - by_all).sum())
    assert apart["own"] > 4 * apart["all"]


@pytest.mark.parametrize("steps", [5, 23, 100])
@pytest.mark.parametrize("seed", [2, 3, 5, 6, 7, 10, 11, 13])
def test_no_step_beyond_the_horizon_was_done_at_a_cut(
    seed: int, steps: int, tmp_path: Path
) -> None:
    run = simulate(scenario(seed))
    found = 0
    for one in prepared(run, tmp_path):
        lanes = one.lanes
        cuts = cuts_of(lanes.sender, lanes.receiver, one.order.running(), Size(steps=steps))
        for before, cut in zip((None, *cuts), cuts, strict=False):
            mine, other = lanes.lane(cut.side), lanes.lane("r" if cut.side == "s" else "s")
            # The cut is passed when the next step of its side is done.
            passed = times(run, mine)[cut.steps]
            assert np.searchsorted(times(run, other), passed) <= cut.horizon
            # Whoever starts at the one before has not passed this one yet.
            assert before is None or before.places[cut.side == "r"] < cut.steps
            found += 1
    assert found or steps == 100


def test_an_end_that_was_cut_off_is_in_the_last_piece(tmp_path: Path) -> None:
    """What it may have done after its last step may belong anywhere behind that."""
    run = simulate(replace(scenario(9), kill=("server", 120)))
    for one in prepared(run, tmp_path):
        lanes = one.lanes
        killed: Side = "s" if lanes.sender.role == "server" else "r"
        cuts = cuts_of(
            lanes.sender, lanes.receiver, one.order.running(), Size(steps=5), frozenset({killed})
        )
        assert cuts
        for cut in cuts:
            assert cut.side == killed or cut.horizon < len(lanes.lane(killed))
