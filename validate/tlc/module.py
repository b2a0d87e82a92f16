"""The module with which TLC follows two lanes, and its configuration: made from the action map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2

from vchan_testbed.validate.lanes import Lanes, SpecParams, Start
from vchan_testbed.validate.tlc.actions import SIDES, Action, ActionMap, Side
from vchan_testbed.validate.tlc.values import format_value

HERE = Path(__file__).parent
TEMPLATE = "Follow.tla.j2"
SPEC_STATE = "vars"
"""The tuple of the spec's variables, as the translation of PlusCal names it."""
NO_THREADS = {"s": "", "r": ""}


@dataclass(frozen=True, slots=True)
class Search:
    """How the lanes are searched."""

    reduce: bool = True
    """One order is enough where others lead to the same state, and one state with an interval of
    wake-ups where others differ only in their number. False tries and keeps all: for tests."""
    in_order: bool = False
    """Only the orders of steps that all the trace's values tell (`Lane.comes_after`)."""
    many: bool = False
    """The lanes are those of many traces, each to be followed by itself."""
    along: bool = False
    """Say the states on the way to one end: of all orders that the values tell the one that is
    nearest to the lanes' times (`Lane.ranks`)."""
    explain: bool = False
    """Say the states at the wanted positions and what the spec would have done there."""


def module_name(actions: ActionMap) -> str:
    """Name of the module that follows traces of a spec."""
    return f"Trace{actions.module}"


def module_text(
    actions: ActionMap, lanes: Lanes, starts: Sequence[Start] | None, search: Search
) -> str:
    """The module; `starts` None means the spec's own initial states."""
    every = list(actions.actions.values())
    return _template().render(
        name=module_name(actions),
        module=actions.module,
        represented_by=actions.represented_by,
        choices=actions.choices,
        threads=actions.threads,
        thread={side: f"{name}, " for side, name in actions.threads.items()} or NO_THREADS,
        dispatch=_dispatch(
            [action for action in every if not action.hidden],
            "(t)" if actions.threads else "",
            "    ",
        ),
        spec_state=SPEC_STATE,
        sides=actions.sides,
        ports=actions.ports,
        unsplit=[name for name in actions.variables if name not in actions.ports.variables],
        lanes={"s": lanes.sender, "r": lanes.receiver},
        stop=lanes.stop,
        hidden=hidden_actions(actions),
        searched=searched_actions(actions) if lanes.searched else [],
        unlogged={
            side: [
                actions.text_of(action, side)
                for action in every
                if side in action.by and not (action.hidden or action.local or action.stutters)
            ]
            for side in SIDES
        },
        alternatives=_alternatives(actions),
        fair=fair_actions(actions),
        owed=list(actions.owed.values()),
        starts=[_conjuncts(start, actions) for start in starts] if starts is not None else None,
        reduce=search.reduce,
        in_order=search.in_order,
        many=search.many,
        along=search.along,
        calls=called_actions(actions) if search.along else {},
        explain=search.explain,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(TEMPLATE)


def config_text(actions: ActionMap, params: SpecParams, search: Search) -> str:
    """The configuration: constants, the representation of streams, what is run."""
    lines = ["CONSTANTS"]
    for constant, field in actions.constants.items():
        value = getattr(params, field)
        lines.append(f"  {constant} = {format_value(value)}")
    for constant, text in {**actions.fixed, **dict(params.given)}.items():
        lines.append(f"  {constant} {text}" if text.startswith("<-") else f"  {constant} = {text}")
    lines += [
        f"  {switch} = {format_value(switch in params.deviations)}" for switch in actions.switches
    ]
    representation = dict(actions.representation)
    if search.reduce:
        representation |= actions.ports.representation
    lines += [f"  {name} <- {other}" for name, other in representation.items()]
    root = "Many" if search.many else "Follow"
    lines += ["  Choice <- LoggedChoice", f"INIT {root}Init", f"NEXT {root}Next"]
    lines.append("CONSTRAINT Noted")
    if search.along:
        lines.append("VIEW Seen")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Alternative:
    """An action that the spec may have taken instead, as one side takes it."""

    side: Side
    name: str
    text: str
    shows: str


def _alternatives(actions: ActionMap) -> list[Alternative]:
    return [
        Alternative(
            side, action.name, actions.text_of(action, side), actions.shown_by(action, side)
        )
        for action in actions.actions.values()
        if action.fair or action.chooses
        for side in (action.by if actions.threads else action.by[:1])
    ]


def fair_actions(actions: ActionMap) -> dict[str, str]:
    """Actions with fairness, each with what is asked to be enabled.

    Where an action has a thread, its name has the thread's behind it.
    """
    every = [action for action in actions.actions.values() if action.fair]
    if not actions.threads:
        return {action.name: action.fair for action in every}
    return {
        actions.named(action.name, side): f"{action.fair}({actions.threads[side]})"
        for action in every
        for side in action.by
    }


def called_actions(actions: ActionMap) -> dict[Side, list[str]]:
    """Of each side the calls that its application can make, as the module writes them."""
    return {
        side: [
            actions.text_of(action, side)
            for action in actions.actions.values()
            if action.is_call and side in action.by
        ]
        for side in SIDES
    }


def hidden_actions(actions: ActionMap) -> list[str]:
    """Actions that no record shows, other than a side's death, as the module writes them."""
    deaths = {side.dies for side in actions.sides.values()}
    texts = [
        actions.text_of(action, side)
        for action in actions.actions.values()
        if action.hidden and not action.is_death
        for side in (action.by if actions.threads else action.by[:1])
    ]
    return [text for text in texts if text not in deaths]


def searched_actions(actions: ActionMap) -> list[str]:
    """The accesses of both sides, as steps of their own: of lanes that do not have them."""
    return [
        actions.text_of(action, side)
        for action in actions.actions.values()
        if action.is_access and not action.stutters
        for side in action.by
    ]


def _conjuncts(start: Start, actions: ActionMap) -> list[str]:
    values = start.state.as_dict()
    return [
        f"sDone = {start.sender}",
        f"rDone = {start.receiver}",
        *(f"{name} = {format_value(values[name])}" for name in actions.variables),
    ]


def _dispatch(actions: Sequence[Action], thread: str, indent: str) -> str:
    """A tree of comparisons: in a list of forty TLC would try twenty of them for each step."""
    if len(actions) == 1:
        return indent + _taken(actions[0], thread)
    middle = len(actions) // 2
    return (
        f"{indent}IF a < {actions[middle].number} THEN\n"
        f"{_dispatch(actions[:middle], thread, indent + ' ')}\n{indent}ELSE\n"
        f"{_dispatch(actions[middle:], thread, indent + ' ')}"
    )


def _taken(action: Action, thread: str) -> str:
    act = f"UNCHANGED {SPEC_STATE}" if action.stutters else action.name + thread
    shown = f"{action.shows} = v" if action.shows else ""
    if not shown:
        return f"/\\ a = {action.number} /\\ {act}"
    if "'" in shown:
        return f"/\\ a = {action.number} /\\ {act} /\\ {shown}"
    return f"/\\ a = {action.number} /\\ {shown} /\\ {act}"
