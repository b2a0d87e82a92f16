"""The follower written by hand says what TLC says: acceptance, maximal positions, end states.

It stands in for TLC in the other tests of this folder, so it is held against TLC here, on lanes of
all kinds: good runs, every change of the table of mutations, runs that were cut off, runs that only
a known deviation explains. TLC is asked as a run is judged, and once more with every order of the
steps: then what it says rests on nothing but the two lanes.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played
from judging import TABLES
from library_model import Build, Run, Scenario, simulate
from mutation_table import TABLE
from mutations import apply, base_runs
from one_jvm import follow_all
from spec_model import follow_by_hand

from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.header import Role
from vchan_testbed.validate.lanes import (
    EndState,
    FollowResult,
    Lane,
    Lanes,
    Position,
    SpecParams,
    State,
    Step,
)
from vchan_testbed.validate.prepare import prepare
from vchan_testbed.validate.table import SIDES, Side
from vchan_testbed.validate.tlc.module import Search
from vchan_testbed.validate.tlc.rebase import size


def steps_of(text: str) -> tuple[Step, ...]:
    """`"s_call 3, s_raise"`: actions with their values, 0 if there is none."""
    words = [part.split() for part in text.split(",")]
    return tuple(Step(word[0], int([*word, "0"][1]), at) for at, word in enumerate(words))


ECHO = Scenario(
    server=(("read", 1500), ("write", 700), ("read_to_end", 64), ("close",)),
    client=(("write", 1500), ("read", 700), ("close",)),
    right_order=12,
)
STREAM = Scenario(
    server=(("read_to_end", 900), ("close",)),
    client=(("write", 2500), ("write", 30), ("close",)),
    right_order=12,
)
BACK = Scenario(
    server=(("write", 9000), ("close",)),
    client=(("read_to_end", 3000), ("close",)),
    right_order=12,
    burst=0.3,
)
PLAIN = Build(hoists=False, exchanges=False, cons_first=True, adds_in_memory=False)
GOOD = {
    "an echo": ECHO,
    "an echo, other scheduling": replace(ECHO, seed=5, burst=0.2),
    "an echo, another compiler": replace(ECHO, server_build=PLAIN, seed=2),
    "a stream": STREAM,
    "a stream, other scheduling": replace(STREAM, seed=3, burst=0.4, client_build=PLAIN),
    "back": BACK,
}
LOST_TAIL = {
    "a lost tail": "S.r64:5 C.w30 C.close S.. S.close",
    "a lost tail after a good read": "C.w30 S.r30 S.r64:5 C.w30 C.close S.. S.close",
}
"""The reader looks into the ring, then bytes come and the writer closes, then the reader looks
whether the writer is there (L1)."""
CUT = {
    "killed in a write": replace(STREAM, kill=("client", 40), seed=1),
    "killed in a write, one access more": replace(STREAM, kill=("client", 45), unlogged=True),
    "killed in a read": replace(STREAM, kill=("server", 50), seed=4),
    "killed in a read, one access more": replace(STREAM, kill=("server", 61), unlogged=True),
    "killed in an answer": replace(ECHO, kill=("client", 80), seed=7),
    "stopped while both move": replace(STREAM, stop_after=70, seed=2),
    "stopped soon": replace(STREAM, stop_after=33),
}
LEFT = SpecParams(ring_bytes=1024)
TWO_WAYS = Lanes(
    Lane(steps_of("s_call 3, s_live 1, s_space 4096, s_put 3, s_test 0, s_raise")),
    Lane(steps_of("r_connect, r_call 5, r_have 0, r_arm 1, r_have_again 0, r_live 1, r_wait")),
)
"""Either the sender tests the bit before the receiver sets it, or the receiver looks into the ring
before there is anything in it: two positions at which nothing goes on."""


@dataclass(frozen=True)
class Case:
    """Lanes to be followed."""

    name: str
    lanes: Lanes
    params: SpecParams

    @property
    def cut(self) -> bool:
        """Whether an end was killed."""
        return self.lanes.sender.unlogged or self.lanes.receiver.unlogged


@dataclass(frozen=True)
class Said:
    """What a judge says, in numbers that both have."""

    accepted: bool
    undecided: str
    ends: frozenset[EndState]
    frontier: frozenset[Position]

    @staticmethod
    def of(result: FollowResult) -> Said:
        """From a result."""
        return Said(
            result.accepted,
            result.undecided,
            frozenset(replace(end, state=plain(end.state)) for end in result.ends),
            frozenset(replace(at, state=plain(at.state)) for at in result.frontier),
        )


def plain(state: State) -> State:
    """A state with sizes for streams, and without the environment's control."""
    values = state.as_dict()
    for name in TABLES.actions.streams["stream"].positions:
        found = values[name]
        values[name] = found if isinstance(found, int) else size(found)
    control = values["pc"]
    assert isinstance(control, frozenset)
    values["pc"] = frozenset(pair for pair in control if pair[0] in ("s", "r"))
    return State.of(values)


def cases_of(
    name: str, run: Run, folder: Path, changed: dict[Role, Records] | None = None
) -> Iterator[Case]:
    """Both directions of a run, as the judge would follow them in one piece."""
    paths = run.write(folder, changed)
    case = prepare(paths["server"], paths["client"], run.facts(), tables=TABLES)
    for one in case.directions:
        lanes = one.lanes
        whole = lanes.whole()
        yield Case(f"{name}, {lanes.direction}", whole, lanes.params)


def good(folder: Path) -> Iterator[Case]:
    """What the library does."""
    for name, scenario in GOOD.items():
        yield from cases_of(name, simulate(scenario), folder)
    for name, run in base_runs().items():
        yield from cases_of(f"base {name}", run, folder)


def mutants(folder: Path) -> Iterator[Case]:
    """Every change of the table that leads to other lanes."""
    bases = base_runs()
    for mutation in TABLE:
        run = bases[mutation.base]
        changed, _ = apply(run, mutation)
        yield from cases_of(mutation.name, run, folder, changed)


def cut_off(folder: Path) -> Iterator[Case]:
    """Traces that end early, in the direction in which something moved."""
    for name, scenario in CUT.items():
        left, right = cases_of(name, simulate(scenario), folder)
        yield right if "answer" in name else left


def with_l1(folder: Path) -> Iterator[Case]:
    """Lost tails, with and without the deviation that explains them."""
    for name, text in LOST_TAIL.items():
        run, _ = played(History.of(f"rings 10 12\n{text}"))
        left, _ = cases_of(name, run, folder)
        yield left
        allowed = replace(left.params, deviations=frozenset({"L1"}))
        yield replace(left, name=f"{name}, allowed", params=allowed)


def stuck_elsewhere(folder: Path) -> Iterator[Case]:
    """Lanes of which two steps were changed, one in each; lanes that are stuck in two places."""
    params = SpecParams(ring_bytes=4096, notify_at_start=0, connects=True)
    yield Case("two ways", TWO_WAYS, params)
    whole = list(good(folder))
    for seed in range(16):
        rng = random.Random(seed)
        case = rng.choice(whole)
        lanes = Lanes(twisted(case.lanes.sender, rng), twisted(case.lanes.receiver, rng))
        yield Case(f"{case.name}, changed by seed {seed}", lanes, case.params)


def twisted(lane: Lane, rng: random.Random) -> Lane:
    """One step with another value, dropped, doubled, or after the next one."""
    found = list(lane.steps)
    at = rng.randrange(len(found) - 1)
    how = rng.choice(["value", "drop", "double", "swap"])
    if how == "value":
        old = found[at].value
        found[at] = replace(found[at], value=1 - old if old < 2 else old + rng.choice([-1, 1]))
    else:
        pair = found[at : at + 2]
        found[at : at + 2] = {"drop": pair[1:], "double": pair[:1] + pair, "swap": pair[::-1]}[how]
    return replace(lane, steps=tuple(found))


def different(cases: Iterator[Case]) -> list[Case]:
    """Without lanes that are there already: most changes concern one direction only."""
    return list({(repr(case.lanes), case.params): case for case in cases}.values())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """All of them."""
    folder = tmp_path_factory.mktemp("lanes")
    kinds = (good, mutants, cut_off, with_l1, stuck_elsewhere)
    return different(case for kind in kinds for case in kind(folder))


def disagreements(cases: Sequence[Case], search: Search) -> dict[str, tuple[Said, Said]]:
    """Where the two say different things: by hand, TLC."""
    found, starts = follow_all([(case.lanes, case.params) for case in cases], search)
    assert starts < len(cases) / 8
    said = [Said.of(follow_by_hand(case.lanes, case.params)) for case in cases]
    both = zip(cases, said, map(Said.of, found), strict=True)
    return {case.name: (mine, tlcs) for case, mine, tlcs in both if mine != tlcs}


def test_as_a_run_is_judged(cases: list[Case]) -> None:
    assert disagreements(cases, Search()) == {}


def test_with_every_order_of_the_steps(cases: list[Case]) -> None:
    """In one direction, of runs that came to their end: one module of TLC for them all."""
    alike = [case for case in cases if case.params == LEFT and not case.cut]
    assert len(alike) > 50
    assert disagreements(alike, Search(reduce=False)) == {}


def test_where_a_piece_ends(tmp_path: Path) -> None:
    """One lane is done; the other one can be in many places, and each of them is found."""
    cases = [part(case, side) for case in good(tmp_path) for side in SIDES if case.params == LEFT]
    assert disagreements(cases, Search(reduce=False)) == {}
    ends = [Said.of(follow_by_hand(case.lanes, case.params)).ends for case in cases]
    assert all(ends)
    assert max(len({end.left for end in each}) for each in ends) > 5


def part(case: Case, side: Side) -> Case:
    """The first half of one side's lane, and all of the other's."""
    lanes = {"s": case.lanes.sender, "r": case.lanes.receiver}
    lanes[side] = Lane(tuple(lanes[side].steps)[: len(lanes[side].steps) // 2])
    stopped = Lanes(lanes["s"], lanes["r"], stop=side)
    return replace(case, name=f"{case.name}, to half of {side}", lanes=stopped)


def test_the_cases_differ(cases: list[Case]) -> None:
    """Both answers, several places, several ends: else agreement would say little."""
    said = [Said.of(follow_by_hand(case.lanes, case.params)) for case in cases]
    assert min(Counter(one.accepted for one in said).values()) > 50
    assert max(len(one.ends) for one in said) > 3
    assert len({(at.sender, at.receiver) for one in said for at in one.frontier}) > 30
    assert max(len({(at.sender, at.receiver) for at in one.frontier}) for one in said) > 1
    assert {case.lanes.sender.death for case in cases} == {"no", "may", "must"}
    assert {case.lanes.receiver.death for case in cases} >= {"no", "must"}
    pairs = zip(said, cases, strict=True)
    allowed = [one.accepted for one, case in pairs if case.params.deviations]
    assert allowed == [True] * len(LOST_TAIL)
