"""Traces of mutants, and which mutants could have left a trace.

A trace is what records show of both sides, in the order in which it happened. `strayed` walks
through mutants until one makes a step that the original would not make, and a little further.
`followed` says which mutants can follow which traces in just that order, with any steps between
them that no record shows: who can, accepts the trace.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from library_walks import ACTIONS, PLAYERS, Kind, applications
from rules import Mutant, Spec
from schema import by_original, schema
from together import run_hunt, together

from vchan_testbed.validate.lanes import Lane, Lanes, Step
from vchan_testbed.validate.tlc.actions import SPECS, Action, Side
from vchan_testbed.validate.tlc.module import Search, config_text
from vchan_testbed.validate.tlc.runner import TlcOutput
from vchan_testbed.validate.tlc.values import parse_value

TRACES_MAX = 400
"""Traces in one run."""
FURTHER = 30
"""Steps of a walk behind the first that the original does not make."""
LANES: tuple[Side, Side] = ("s", "r")
CALLS = ("write", "send", "read", "recv", "wait", "data_ready", "buffer_space", "is_open", "close")

COMMON = """\
Numbers == {numbers}
(* What a mutant may run away with. *)
Small ==
    /\\ awakened <= SpuriousMax + 1
    /\\ \\A s \\in Sides : port[s].queued <= 4 /\\ live[s] <= 2
"""
WALKS = """\
VARIABLES log, strayed
Logs(lane, action, value) == log' = Appended(log, lane, action, value)
TheFirst == Init /\\ mutant \\in Numbers /\\ log = << >> /\\ strayed = 0
Act(as_it_was) == strayed' = IF strayed > 0 \\/ ~as_it_was THEN strayed + 1 ELSE 0
Rests == strayed > 0 /\\ strayed' = strayed + 1 /\\ UNCHANGED <<vars, log>>
TheNext ==
    /\\ strayed < {further} /\\ Small
    /\\ \\/ Rests
{steps}
    /\\ UNCHANGED mutant
Told == strayed = {further} => Say("WALK", <<mutant, log>>)
====
"""
FOLLOWS = """\
VARIABLES walk, done
Shown == {lanes}
Order == {order}
Dead == {dead}
TheFirst == Init /\\ done = <<0, 0>> /\\ {asked}
Left(lane) == Seqs!Len(Shown[walk][lane]) - done[lane]
TheNext ==
    /\\ UNCHANGED <<mutant, walk>>
    /\\ \\/ /\\ UNCHANGED done
          /\\ \\/ FALSE
{hidden}
       \\/ \\E lane \\in 1..2 :
          /\\ Left(lane) > 0
          /\\ {any_order} \\/ Order[walk][done[1] + done[2] + 1] = lane
          /\\ done' = [done EXCEPT ![lane] = @ + 1]
          /\\ LET named == Shown[walk][lane][done[lane] + 1][1]
                 shown == Shown[walk][lane][done[lane] + 1][2] IN
             CASE {steps}
Ended ==
    /\\ Left(1) = 0 /\\ Left(2) = 0
    /\\ \\A s \\in Dead[walk] : fate[s] # "alive"
Told == IF Ended THEN Say("ENDED", <<mutant, walk>>) /\\ FALSE ELSE Small
====
"""


@dataclass(frozen=True, slots=True, order=True)
class Trace:
    """What records show of one run of both sides."""

    kind: str
    steps: tuple[tuple[str, str, int], ...]
    """Lane, action, value; in the order in which they happened."""
    dead: tuple[str, ...] = ()
    """Lanes of the sides that have died."""

    def lanes(self) -> Lanes:
        """Without the order between the sides."""
        made = []
        for lane in LANES:
            steps = tuple(
                Step(action, value, number)
                for number, (by, action, value) in enumerate(self.steps)
                if by == lane
            )
            made.append(Lane(steps, death="must" if lane in self.dead else "no"))
        return Lanes(*made)

    def text(self) -> str:
        """One line."""
        words = [f"{lane}:{action}={value}" for lane, action, value in self.steps]
        return " ".join([self.kind, "".join(self.dead) or "-", *words])


def trace_of(line: str) -> Trace:
    """The trace that `text` wrote."""
    kind, dead, *words = line.split()
    steps = []
    for word in words:
        lane, _, rest = word.partition(":")
        action, _, value = rest.partition("=")
        steps.append((lane, action, int(value)))
    return Trace(kind, tuple(steps), tuple(dead.strip("-")))


KINDS: Mapping[str, Kind] = {
    "calls": Kind(calls=CALLS, close_one_in=6, peek_one_in=20),
    "streams": Kind(calls=("write", "read", "close"), ring_bytes=(1, 2), size_max=2),
    "packets": Kind(calls=("send", "recv", "wait", "close"), ring_bytes=(2, 1)),
    "spurious": Kind(calls=("write", "read", "wait"), spurious_max=1),
    "deaths": Kind(calls=CALLS, deaths=("dies", "domain_dies"), close_one_in=20),
    "deviations": Kind(
        calls=CALLS,
        deviations=frozenset({"L1", "L2", "L4", "L5", "L8", "L9"}),
        deaths=("domain_dies",),
        close_one_in=8,
    ),
    "dies": Kind(calls=("write", "read", "close"), ring_bytes=(1, 2), deaths=("dies",)),
    "domain": Kind(calls=("write", "read", "close"), ring_bytes=(1, 2), deaths=("domain_dies",)),
    "silent": Kind(
        calls=("write", "read"),
        ring_bytes=(1, 2),
        deaths=("domain_dies",),
        deviations=frozenset({"L9"}),
    ),
    "waits": Kind(calls=("write", "read", "wait"), ring_bytes=(1, 1), size_max=2),
    "closes": Kind(calls=("write", "wait", "is_open", "close"), ring_bytes=(1, 1), close_one_in=2),
    "ends": Kind(
        calls=("write", "read", "close"),
        blocking="NeverBlocking",
        ring_bytes=(2, 2),
        size_max=1,
        close_one_in=1,
    ),
    "opens": Kind(calls=("write", "wait", "read"), blocking="NeverBlocking", ring_bytes=(4, 4)),
    "free_packets": Kind(
        calls=("send", "recv"), blocking="NeverBlocking", ring_bytes=(1, 1), size_max=2
    ),
    "packet_failures": Kind(
        calls=("send", "recv"),
        blocking="AlwaysBlocking",
        ring_bytes=(2, 2),
        size_max=2,
        deviations=frozenset({"L2", "L4"}),
    ),
    "free_failures": Kind(
        calls=("write", "read"),
        blocking="NeverBlocking",
        ring_bytes=(2, 2),
        deviations=frozenset({"L2"}),
    ),
    "nowhere": Kind(calls=("wait", "is_open"), spurious_max=1),
    "dies_twice": Kind(calls=("wait", "is_open"), deaths=("dies",)),
    "domain_twice": Kind(calls=("wait", "is_open"), deaths=("domain_dies",)),
    "blocking_failures": Kind(
        calls=("write", "read"),
        blocking="AlwaysBlocking",
        ring_bytes=(1, 1),
        size_max=3,
        deviations=frozenset({"L2", "L4"}),
    ),
    "failures": Kind(
        calls=("write", "read", "send", "recv", "close"),
        ring_bytes=(1, 1),
        size_max=2,
        deviations=frozenset({"L1", "L2", "L4", "L5", "L8"}),
    ),
}
"""What the applications of some traces do, and what may happen to them."""

_CONNECT = (
    "s:i_bind=0 s:i_share=0 r:k_bind=0 r:k_unmask=0 r:k_map=0 r:k_live=0 r:k_notify=0 r:k_raise=0"
)
_WAIT = "r:call_wait=0 r:wait=0 r:unmask=0 r:return=0"
_CLOSE = "s:call_close=0 s:c_close=0 s:c_give_back=0 s:c_raise=0 s:return=0"
_PUT = "s:call_write=1 s:w_live=1 s:w_space=4 s:w_put=1"
_TAKE = "r:call_read=1 r:r_have=1 r:r_take=1 r:r_test=1 r:return=1"


def seldom() -> list[Trace]:
    """Behaviours of the spec that chance hardly finds.

    A close wakes its peer twice, behind the event of the bind: three waits come back. And before
    the client's first wait the server raises twice, which the client knows by the byte that it
    reads behind: three waits again, as the bind's event was in the queue, and its port unmasked.
    """
    closes = f"closes - {_CONNECT} {_CLOSE}"
    opens = (
        f"opens - {_CONNECT} {_PUT} s:w_test=1 s:w_raise=0 s:return=1"
        " r:call_read=2 r:r_have=1 r:r_arm=0 r:r_have_again=1 r:r_take=1 r:r_test=1 r:return=1"
        f" {_PUT} s:w_test=1 s:w_raise=0 s:return=1 {_TAKE} {_PUT} s:w_test=0 s:return=1 {_TAKE}"
    )
    return [trace_of(" ".join([begins, _WAIT, _WAIT, _WAIT])) for begins in (closes, opens)]


def strayed(
    spec: Spec, chosen: Mapping[int, Mutant], kind: str, walks: int, seed: int
) -> dict[int, list[Trace]]:
    """Traces of walks in which a mutant made a step that the original does not make.

    `walks` are begun in each run of TOGETHER mutants, each as one of them by chance.
    """

    def walk(numbers: Mapping[int, Mutant]) -> TlcOutput:
        simulating = ("-simulate", f"num={walks}", "-depth", "120", "-seed", str(seed))
        text = WALKS.format(steps=_walking(spec, KINDS[kind]), further=FURTHER)
        return _run(spec, numbers, kind, text, "INVARIANT Told", simulating)

    found: dict[int, list[Trace]] = {}
    for output in together(chosen, walk):
        for line in output.said:
            number, log = cast(
                tuple[int, tuple[tuple[str, str, int], ...]],
                parse_value(line.removeprefix("WALK ")),
            )
            steps = tuple(step for step in log if step[0])
            dead = {step[1] for step in log if not step[0]}
            found.setdefault(number, []).append(Trace(kind, steps, tuple(sorted(dead))))
    return found


def followed(
    spec: Spec,
    chosen: Mapping[int, Mutant],
    traces: Sequence[Trace],
    of: Mapping[int, Iterable[int]] | None = None,
    broken: Callable[[int], None] = lambda number: None,
    *,
    any_order: bool = False,
) -> dict[int, set[int]]:
    """Which of the traces, by their places, each mutant can follow to the end.

    `of` says for each mutant which are asked of it; all, if it is not given. `broken` is told the
    mutants that TLC cannot evaluate; they follow nothing. `any_order`: also where the two sides'
    steps came in another order than they did.
    """
    found: dict[int, set[int]] = {number: set() for number in chosen}
    for places in _alike(traces):
        kind = traces[places[0]].kind
        asked = {n: sorted(set(places) & set(of[n])) if of else places for n in chosen}

        def follow(numbers: Mapping[int, Mutant]) -> TlcOutput:
            these = {n: asked[n] for n in numbers}  # noqa: B023
            body = _following(spec, traces, places, these, any_order)  # noqa: B023
            return _run(spec, numbers, kind, body, "CONSTRAINT Told", ())  # noqa: B023

        for output in together({n: chosen[n] for n in chosen if asked[n]}, follow, broken):
            for line in output.said:
                number, place = line.removeprefix("ENDED <<").removesuffix(">>").split(", ")
                found[int(number)].add(places[int(place) - 1])
    return found


def _alike(traces: Sequence[Trace]) -> Iterator[list[int]]:
    """Places of traces of one kind, not too many at a time."""
    for kind in dict.fromkeys(trace.kind for trace in traces):
        places = [place for place, trace in enumerate(traces) if trace.kind == kind]
        for first in range(0, len(places), TRACES_MAX):
            yield places[first : first + TRACES_MAX]


def _run(
    spec: Spec,
    numbers: Mapping[int, Mutant],
    kind: str,
    body: str,
    told: str,
    options: tuple[str, ...],
) -> TlcOutput:
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        (folder / "Libxenvchan.tla").write_text(schema(spec, numbers))
        head = applications("Hunt", KINDS[kind]) + COMMON.format(numbers=_set(map(str, numbers)))
        (folder / "Hunt.tla").write_text(head + body)
        config = config_text(ACTIONS, KINDS[kind].params(), Search(reduce=False))
        for old, new in (
            ("LoggedChoice", "Sizes"),
            ("FollowInit", "TheFirst"),
            ("FollowNext", "TheNext"),
            ("CONSTRAINT Noted", told),
        ):
            assert old in config
            config = config.replace(old, new)
        return run_hunt(folder, config, (SPECS,), options)


def _each(deaths: tuple[str, ...]) -> list[tuple[Action, Side]]:
    return [
        (action, side)
        for action in ACTIONS.actions.values()
        if not action.is_death or action.name in deaths
        for side in action.by
    ]


def _walking(spec: Spec, kind: Kind) -> str:
    lines = []
    for action, side in _each(kind.deaths):
        act = "UNCHANGED vars" if action.stutters else ACTIONS.text_of(action, side)
        was = "TRUE" if action.stutters else by_original(act, spec)
        guards = []
        if action.stutters:
            guards += [f"OneIn({kind.peek_one_in})", f'fate["{PLAYERS[side]}"] = "alive"']
        if action.name == "call_close":
            guards.append(f"OneIn({kind.close_one_in})")
        if action.is_death:
            guards.append("OneIn(30)")
        if action.is_death:
            logs = f'Logs("", "{side}", 0)'
        elif action.hidden:
            logs = "UNCHANGED log"
        else:
            logs = f'Logs("{side}", "{action.name}", {_shown(spec, action, side)})'
        lines.append("       \\/ " + " /\\ ".join([*guards, act, f"Act({was})", logs]))
    return "\n".join(lines)


def _following(
    spec: Spec,
    traces: Sequence[Trace],
    places: Sequence[int],
    asked: Mapping[int, Sequence[int]],
    any_order: bool,
) -> str:
    hidden, steps = [], []
    for action, side in _each(KINDS[traces[places[0]].kind].deaths):
        act = "UNCHANGED vars" if action.stutters else ACTIONS.text_of(action, side)
        if action.is_death:
            may = f'"{PLAYERS[side]}" \\in Dead[walk] /\\ Left({LANES.index(side) + 1}) = 0'
            hidden.append(f"             \\/ {may} /\\ {act}")
        elif action.hidden:
            hidden.append(f"             \\/ {act}")
        else:
            shown = _shown(spec, action, side)
            steps.append(
                f'lane = {LANES.index(side) + 1} /\\ named = "{action.name}"'
                f" -> {act} /\\ shown = {shown}"
            )
    used = [place for place in places if any(place in those for those in asked.values())]
    number_of = {place: places.index(place) + 1 for place in used}
    pairs = [f"<<{n}, {number_of[place]}>>" for n, those in asked.items() for place in those]
    told = [traces[place] if place in number_of else Trace("", ()) for place in places]
    return FOLLOWS.format(
        asked=f"\\E pair \\in {_set(pairs)} : mutant = pair[1] /\\ walk = pair[2]",
        lanes=_tuple(map(_lanes, told)),
        order=_tuple(_tuple(str(LANES.index(lane) + 1) for lane, _, _ in t.steps) for t in told),
        any_order=str(any_order).upper(),
        dead=_tuple(_set(f'"{PLAYERS[_side(d)]}"' for d in trace.dead) for trace in told),
        hidden="\n".join(hidden),
        steps="\n               [] ".join(steps),
    )


def _side(lane: str) -> Side:
    return cast(Side, lane)


def _shown(spec: Spec, action: Action, side: Side) -> str:
    return by_original(ACTIONS.shown_by(action, side) or "0", spec)


def _lanes(trace: Trace) -> str:
    return _tuple(
        _tuple(f'<<"{action}", {value}>>' for by, action, value in trace.steps if by == lane)
        for lane in LANES
    )


def _set(items: Iterable[str]) -> str:
    return "{" + ", ".join(items) + "}"


def _tuple(items: Iterable[str]) -> str:
    return f"<<{', '.join(items)}>>"
