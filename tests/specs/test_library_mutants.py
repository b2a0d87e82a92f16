"""Libxenvchan.tla: changes that take a step, a look or an event away, or add one, are noticed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vchan_testbed.validate.models import SPECS, Holds, Model, Violates, check, load_models

SPEC = "Libxenvchan.tla"


@dataclass(frozen=True)
class Mutant:
    """A change of the spec's text, and the property that must notice it."""

    violated: str
    changes: tuple[tuple[str, str], ...]


def mutant(violated: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(violated, changes)


RAISES = (
    "    /\\ Raise(Other(t))\n    /\\ Goto(t, {})\n",
    "    /\\ UNCHANGED port\n    /\\ Goto(t, {})\n",
)


def without_event(step: str) -> tuple[str, str]:
    """The action that goes on with this step raises nothing."""
    return RAISES[0].format(step), RAISES[1].format(step)


MUTANTS = {
    "a writer does not look again": mutant(
        "NoDeadlock", ('    /\\ Goto(t, "w_space_again")\n', '    /\\ Goto(t, "wait")\n')
    ),
    "a reader does not look again": mutant(
        "NoDeadlock", ('    /\\ Goto(t, "r_have_again")\n', '    /\\ Goto(t, "r_live")\n')
    ),
    "a writer does not arm": mutant(
        "NoDeadlock",
        (
            "notify' = Set(notify, Other(t), With(notify[Other(t)], TellOfReads))",
            "UNCHANGED notify",
        ),
    ),
    "a reader does not arm": mutant(
        "NoDeadlock",
        (
            "notify' = Set(notify, Other(t), With(notify[Other(t)], TellOfWrites))",
            "UNCHANGED notify",
        ),
    ),
    "a writer arms its own byte": mutant(
        "NoDeadlock",
        (
            "notify' = Set(notify, Other(t), With(notify[Other(t)], TellOfReads))",
            "notify' = Set(notify, SideOf(t), With(notify[SideOf(t)], TellOfReads))",
        ),
    ),
    "a writer clears the bit and raises nothing": mutant(
        "NoDeadlock",
        (
            'Goto(t, IF Has(notify[SideOf(t)], TellOfWrites) THEN "w_raise" ELSE Put(t))',
            "Goto(t, Put(t))",
        ),
    ),
    "a reader clears the bit and raises nothing": mutant(
        "NoDeadlock",
        (
            'Goto(t, IF Has(notify[SideOf(t)], TellOfReads) THEN "r_raise" ELSE "return")',
            'Goto(t, "return")',
        ),
    ),
    "a writer's event gets lost": mutant("NoDeadlock", without_event("Put(t)")),
    "a close raises nothing": mutant(
        "NoDeadlock",
        without_event('IF L6 THEN "c_raise" ELSE "return"'),
        (
            '    /\\ At(t, "c_raise")\n    /\\ Raise(Other(t))\n',
            '    /\\ At(t, "c_raise")\n    /\\ UNCHANGED port\n',
        ),
    ),
    "a reader does not see the close": mutant(
        "NoDeadlock",
        (
            "    /\\ IF live[Other(t)] # 0\n       THEN GoOnEmpty(t)",
            "    /\\ IF TRUE\n       THEN GoOnEmpty(t)",
        ),
    ),
    "a taken port stays masked": mutant(
        "NoDeadlock",
        ("PortUnmasked(port[SideOf(t)]))", "port[SideOf(t)])"),
    ),
    "the kernel loses what is pending": mutant(
        "NoDeadlock",
        ("queued |-> p.queued + 1]", "queued |-> p.queued]"),
    ),
    "a writer puts more than is free": mutant(
        "IndicesOK", ("LET n == Min(seen[t], Len(todo[t])) IN", "LET n == Len(todo[t]) IN")
    ),
    "an index does not wrap": mutant(
        "TypeOK", ("(prod[Out(t)] + n) % IndexSpan", "prod[Out(t)] + n")
    ),
    "a reader leaves what it took": mutant(
        "IndicesOK", ("ring' = Set(ring, In(t), Drop(ring[In(t)], n))", "UNCHANGED ring")
    ),
    "a reader loses what it took": mutant(
        "LeftIsVchan",
        (
            "Got' = Set(Got, In(t), Append(Got[In(t)], Take(ring[In(t)], n)))",
            "Got' = Set(Got, In(t), Append(Got[In(t)], Drop(ring[In(t)], n)))",
        ),
    ),
    "the end is reported without a last look": mutant(
        "EndIsTheEnd",
        (
            '    /\\ IF Enough(t, Held(In(t)))\n       THEN Goto(t, "r_have")',
            '    /\\ IF FALSE\n       THEN Goto(t, "r_have")',
        ),
    ),
    "a wait returns without an event": mutant(
        "LeftIsVchan",
        ("    /\\ PortReady(port[SideOf(t)])\n", ""),
        ("PortTaken(p) == [p EXCEPT !.queued = p.queued - 1]", "PortTaken(p) == p"),
    ),
    "a write that was closed on goes on": mutant(
        "LeftIsVchan",
        (
            '    /\\ IF live[Other(t)] # 0\n       THEN Goto(t, "w_space")',
            '    /\\ IF TRUE\n       THEN Goto(t, "w_space")',
        ),
    ),
    "a step is not part of a call": mutant(
        "LeftIsVchan", ('    /\\ At(t, "w_test")\n', '    /\\ at[t] \\in {"w_test", "w_space"}\n')
    ),
}


def small(violated: str) -> Model:
    """A model in which nothing but a mutant fails, with as little in it as the mutant needs."""
    model = load_models()["library_left"]
    refined = violated == "LeftIsVchan"
    constants = (
        {**model.constants, "LeftTotal": "1", "SizeMax": "1"} if refined else model.constants
    )
    return replace(
        model,
        name="small",
        constants=constants,
        properties=("LeftIsVchan",) if refined else (),
        quick=True,
        seconds=0.0,
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name: str, tmp_path: Path) -> None:
    due = MUTANTS[name]
    shutil.copytree(SPECS, tmp_path, dirs_exist_ok=True)
    text = (SPECS / SPEC).read_text()
    for old, new in due.changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / SPEC).write_text(text)
    found = check(small(due.violated), tmp_path).result
    assert isinstance(found, Violates)
    assert found.property == due.violated


@pytest.mark.parametrize("violated", ["NoDeadlock", "LeftIsVchan"])
def test_without_a_mutation_the_model_holds(violated: str) -> None:
    assert isinstance(check(small(violated)).result, Holds)
