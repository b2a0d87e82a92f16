"""Random behaviours of Libxenvchan itself, and the lanes that a trace of them would show.

TLC walks through the spec, with ports as they are; each step that a record shows is written down,
with its value. The walk's order is kept: so it is known what really came before what.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from vchan_testbed.validate.endings import Death
from vchan_testbed.validate.lanes import Lane, Lanes, SpecParams, Step
from vchan_testbed.validate.tlc.actions import SPECS, Action, Side, load_action_map
from vchan_testbed.validate.tlc.follow import Bounds, job_in
from vchan_testbed.validate.tlc.module import Search, config_text
from vchan_testbed.validate.tlc.runner import run_tlc
from vchan_testbed.validate.tlc.values import parse_value

ACTIONS = load_action_map(SPECS / "libxenvchan.actions.yaml")
PLAYERS: dict[Side, str] = {"s": "server", "r": "client"}

APPLICATIONS = """\
---- MODULE {name} ----
EXTENDS Libxenvchan, {represented_by}, Lanes, Integers, TLC
LOCAL Seqs == INSTANCE Sequences
Appended(log, lane, action, value) == Seqs!Append(log, <<lane, action, value>>)
OneIn(n) == RandomElement(1..n) = 1
ThreadSide(t) == t
AlwaysBlocking(side) == {{TRUE}}
NeverBlocking(side) == {{FALSE}}
EitherBlocking(side) == BOOLEAN
Sizes(t, name) ==
    IF name \\notin {calls} THEN {{}}
    ELSE IF name \\in {{"write", "send", "read", "recv"}} THEN 0..{size_max} ELSE {{0}}
"""
"""The head of a module in which applications call by chance."""

WALK = """\
VARIABLE log  \\* of each step: the lane (none: it is hidden), the action, the value
Logs(lane, action, value) == log' = Appended(log, lane, action, value)
WalkInit == Init /\\ log = << >>
WalkNext ==
{steps}
(* A walk is told where it is long enough, and where it ends before. *)
Told ==
    TLCGet("level") >= {depth} \\/ ~ENABLED Next => Say("WALK", log)
====
"""
QUERIES = ("wait", "data_ready", "buffer_space", "is_open", "close")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the applications of some walks do."""

    calls: tuple[str, ...] = ("write", "read", *QUERIES)
    blocking: str = "EitherBlocking"
    size_max: int = 3
    ring_bytes: tuple[int, int] = (2, 4)
    first: tuple[int, int] = (6, 1)
    """The indices of both rings at the start; they count modulo 8."""
    deviations: frozenset[str] = frozenset()
    deaths: tuple[str, ...] = ()
    """dies, domain_dies"""
    spurious_max: int = 0
    close_one_in: int = 4
    """How seldom a call that could be a close is one."""
    peek_one_in: int = 10

    def params(self) -> SpecParams:
        """For those who follow them."""
        left, right = self.ring_bytes
        given = {
            "SideOf": "<- ThreadSide",
            "LeftBytes": str(left),
            "RightBytes": str(right),
            "IndexSpan": "8",
            "FirstLeft": str(self.first[0]),
            "FirstRight": str(self.first[1]),
            "Blocking": f"<- {self.blocking}",
        }
        return SpecParams(
            max(left, right),
            deviations=self.deviations,
            spurious_max=self.spurious_max,
            given=tuple(given.items()),
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """One behaviour of the spec, as far as records show it."""

    kind: Kind
    lanes: Lanes
    order: tuple[Side, ...]
    """Whose step came when, hidden ones left out."""
    hidden: tuple[str, ...] = field(default=())
    """Its hidden steps."""

    def done_before(self) -> dict[Side, list[int]]:
        """For each step of a lane: the other lane's steps that were done before it."""
        counts: dict[Side, int] = {"s": 0, "r": 0}
        found: dict[Side, list[int]] = {"s": [], "r": []}
        for side in self.order:
            found[side].append(counts["r" if side == "s" else "s"])
            counts[side] += 1
        return found


def walks(kind: Kind, count: int, depth: int, seed: int) -> list[Walk]:
    """`count` walks of `depth` steps, or of fewer if nothing more can happen.

    The same seed gives the same walks.
    """
    with tempfile.TemporaryDirectory(prefix="walk-") as name:
        folder = Path(name)
        (folder / "lanes.csv").write_text("lane,action,value,after,raises,comes_after\n")
        job = job_in(folder, ACTIONS, Bounds(), steps=0)
        text = applications(job.module, kind)
        text += WALK.format(steps="\n".join(_steps(kind)), depth=depth)
        (folder / f"{job.module}.tla").write_text(text)
        config = config_text(ACTIONS, kind.params(), Search(reduce=False))
        for old, new in (
            ("LoggedChoice", "Sizes"),
            ("FollowInit", "WalkInit"),
            ("FollowNext", "WalkNext"),
            ("CONSTRAINT Noted", "INVARIANT Told"),
        ):
            assert old in config
            config = config.replace(old, new)
        (folder / job.config).write_text(config)
        # Some walks come to where chance allows nothing, and are not told.
        walking = ("-simulate", f"num={4 * count}", "-depth", str(depth), "-seed", str(seed))
        output = run_tlc(replace(job, options=("-deadlock", *walking)))
    found: dict[str, Walk] = {}
    for line in output.said:
        word, _, value = line.partition(" ")
        assert word == "WALK", line
        found.setdefault(value, _walk(kind, value))
    assert len(found) >= count, "choose another seed"
    return list(found.values())[:count]


def applications(module: str, kind: Kind) -> str:
    """The head of a module in which such applications call."""
    return APPLICATIONS.format(
        name=module,
        represented_by=ACTIONS.represented_by,
        calls="{" + ", ".join(f'"{call}"' for call in kind.calls) + "}",
        size_max=kind.size_max,
    )


def _steps(kind: Kind) -> list[str]:
    lines = []
    for action in ACTIONS.actions.values():
        if action.is_death and action.name not in kind.deaths:
            continue
        for side in action.by:
            lines.append("    \\/ " + " /\\ ".join(_conjuncts(kind, action, side)))
    return lines


def _conjuncts(kind: Kind, action: Action, side: Side) -> list[str]:
    act = "UNCHANGED vars" if action.stutters else ACTIONS.text_of(action, side)
    guards = []
    if action.stutters:
        guards += [f"OneIn({kind.peek_one_in})", f'fate["{PLAYERS[side]}"] = "alive"']
    if action.name == "call_close":
        guards.append(f"OneIn({kind.close_one_in})")
    if action.is_death:
        guards.append("OneIn(30)")
    if action.hidden:
        return [*guards, act, f'Logs("", "{action.name} {PLAYERS[side]}", 0)']
    shown = ACTIONS.shown_by(action, side) or "0"
    return [*guards, act, f'Logs("{side}", "{action.name}", {shown})']


def _walk(kind: Kind, text: str) -> Walk:
    logged: dict[Side, list[Step]] = {"s": [], "r": []}
    order: list[Side] = []
    hidden: list[str] = []
    for number, step in enumerate(cast(tuple[tuple[str, str, int], ...], parse_value(text))):
        lane, action, value = step
        if not lane:
            hidden.append(action)
            continue
        side = cast(Side, lane)
        logged[side].append(Step(action, value, number))
        order.append(side)
    server, client = (
        Lane(tuple(logged[side]), death=_death(PLAYERS[side], hidden)) for side in ("s", "r")
    )
    return Walk(kind, Lanes(server, client), tuple(order), tuple(hidden))


def _death(player: str, hidden: list[str]) -> Death:
    if f"domain_dies {player}" in hidden:
        return "domain"
    return "must" if f"dies {player}" in hidden else "no"
