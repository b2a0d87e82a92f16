"""What mutants do in a model: which property fails, and whether their steps are the original's.

One JVM explores a model for many mutants, breadth first; a mutant's part of the search ends with
the first state in which a property fails, or the first step that is not allowed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rules import Mutant, Spec
from schema import by_original, schema
from together import run_hunt, together

from vchan_testbed.validate.models import SPECS, Holds, Model, check
from vchan_testbed.validate.tlc.runner import TlcOutput

Question = Literal["fails", "adds", "takes away"]
"""Which property fails in what the mutant does; which step of the mutant is none of the original;
which step of the original is none of the mutant."""

HUNT = """\
---- MODULE Hunt ----
EXTENDS {module}, Lanes
ASSUME \\A k \\in {numbers} : TLCSet(k, 0) /\\ TLCSet(200000 + k, 0)
Ends(word, value) == TLCSet(mutant, 1) /\\ Say(word, <<mutant, value>>)
OriginalInit ==
{original_init}
OriginalNext ==
{original_next}
MutantNext ==
{mutant_next}
HuntInit == {init} /\\ mutant \\in {numbers} /\\ (OriginalInit \\/ Ends("FAILS", "step"))
HuntNext == TLCGet(mutant) = 0 /\\ {goes} /\\ UNCHANGED mutant
Failed == {failed}
Judge ==
    \\/ TLCGet(mutant) # 0
    \\/ LET failed == Failed IN
       IF failed # "" THEN Ends("FAILS", failed)
       ELSE /\\ TLCSet(200000 + mutant, TLCGet(200000 + mutant) + 1)
            /\\ TLCGet(200000 + mutant) <= {states_max} \\/ Ends("LARGE", 0)
StepFailed == {step_failed}
JudgeStep ==
    \\/ TLCGet(mutant) # 0
    \\/ LET failed == StepFailed IN IF failed # "" THEN Ends("FAILS", failed) ELSE TRUE
Alive ==
    /\\ TLCGet(mutant) = 0
    /\\ \\A d \\in Directions : Len(Sent[d]) <= {bytes_max}
    /\\ \\A t \\in Threads : Len(todo[t]) <= {bytes_max}
====
"""
REFINED = {
    "LeftIsVchan": "Left!Next \\/ UNCHANGED Left!vars",
    "RightIsVchan": "Right!Next \\/ UNCHANGED Right!vars",
    "DeadPortsRest": '\\A s \\in Sides : fate[s] # "alive" => port\'[s].queued = port[s].queued',
    "ClosesAlone": '\\A t, u \\in Threads : at[t] = "app" /\\ at\'[t] = "c_close"'
    ' /\\ SideOf(t) = SideOf(u) => at[u] = "app"',
}
"""Properties of steps. Those of whole behaviours need a run for each mutant."""
TOTAL = {
    "SenderAt": '"nowhere"',
    "ReceiverAt": '"nowhere"',
    "ClosesAt": '"nowhere"',
    "MaySleep": "FALSE",
}
"""What a property's CASE without a fitting arm is: of a state in which only a mutant can be."""
STATES_MAX = 4
"""Times the states of the original: so many of a mutant are looked at."""
BYTES_MAX = 16
"""More than any model sends: a mutant may write the same ones again and again."""
STATES_UNTIL_VIOLATED = 1_000_000
"""Where a property is due to fail: enough to see all of what does not make it fail."""


@dataclass
class Outcome:
    """What one mutant did in a model."""

    failed: str = ""
    """The property, or "step"; empty if there is none."""
    large: bool = False
    """Given up: many more states than the original has."""
    broken: bool = False
    """TLC cannot evaluate it."""


def outcomes(
    spec: Spec, chosen: Mapping[int, Mutant], model: Model, question: Question
) -> dict[int, Outcome]:
    """What each mutant does in the model."""
    if question == "fails" and not set(model.properties) <= set(REFINED):
        return {number: Outcome(alone(spec, one, model)) for number, one in chosen.items()}
    found = {number: Outcome() for number in chosen}

    def broken(number: int) -> None:
        found[number].broken = True

    def run(numbers: Mapping[int, Mutant]) -> TlcOutput:
        return _run(spec, numbers, model, question)

    for output in together(chosen, run, broken):
        for line in output.said:
            word, _, value = line.partition(" ")
            number, what = value.strip("<>").split(", ")
            one = found[int(number)]
            if word == "FAILS":
                one.failed = what.strip('"')
            elif word == "LARGE":
                one.large = True
    return found


def alone(spec: Spec, one: Mutant, model: Model) -> str:
    """The property that fails in the model, by a run of its own: for those of whole behaviours."""
    text = spec.text
    for name in sorted(one.bodies, key=lambda name: -spec.defined[name].start):
        place = spec.defined[name]
        text = text[: place.start] + place.as_text(body=one.bodies[name]) + text[place.end :]
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name) / "specs"
        shutil.copytree(SPECS, folder)
        (folder / "Libxenvchan.tla").write_text(text)
        result = check(model, folder).result
    return "" if isinstance(result, Holds) else result.property


def _run(spec: Spec, numbers: Mapping[int, Mutant], model: Model, question: Question) -> TlcOutput:
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        (folder / "Libxenvchan.tla").write_text(_total(schema(spec, numbers)))
        for path in (SPECS / "Refinement.tla", *(SPECS / "models").glob("*.tla")):
            (folder / path.name).write_text(_total(by_original(path.read_text(), spec)))
        (folder / "Hunt.tla").write_text(_hunt(spec, numbers, model, question))
        config = replace(model, specification="X", invariants=(), properties=()).config()
        config = config.replace("SPECIFICATION X", "INIT HuntInit\nNEXT HuntNext")
        config += "INVARIANT Judge\nCONSTRAINT Alive\n"
        if question != "fails" or model.properties:
            config += "ACTION_CONSTRAINT JudgeStep\n"
        return run_hunt(folder, config, (SPECS,), ("-fp", "0"))


def _hunt(spec: Spec, numbers: Mapping[int, Mutant], model: Model, question: Question) -> str:
    by_mutant = question != "takes away"
    failed = [(f"~{name}", name) for name in model.invariants] if question == "fails" else []
    steps = {
        "fails": [(f"~({REFINED[name]})", name) for name in model.properties],
        "adds": [("~(OriginalNext \\/ UNCHANGED vars)", "step")],
        "takes away": [("~(MutantNext \\/ UNCHANGED vars)", "step")],
    }
    return HUNT.format(
        module=model.module,
        numbers="{" + ", ".join(map(str, numbers)) + "}",
        original_init=by_original(spec.defined["Init"].body, spec),
        original_next=_next(spec, "{}_o({})"),
        mutant_next=_next(spec, "{}({})"),
        goes="MutantNext" if by_mutant else "OriginalNext",
        init="Init" if by_mutant else "OriginalInit",
        failed=_first(failed),
        step_failed=_first(steps[question]),
        states_max=_states_max(model),
        bytes_max=BYTES_MAX,
    )


def _states_max(model: Model) -> int:
    if isinstance(model.due, Holds):
        return STATES_MAX * model.due.distinct
    return STATES_UNTIL_VIOLATED


def _next(spec: Spec, step: str) -> str:
    lines = []
    for name in spec.actions:
        who = "s \\in Sides" if spec.defined[name].parameters == "(s)" else "t \\in Threads"
        lines.append(f"    \\/ \\E {who} : {step.format(name, who[0])}")
    return "\n".join(lines)


def _first(failed: Sequence[tuple[str, str]]) -> str:
    arms = " [] ".join(f'{test} -> "{name}"' for test, name in failed)
    return f'(CASE {arms} [] OTHER -> "")' if arms else '""'


def _total(text: str) -> str:
    """Each CASE of TOTAL gets an OTHER, behind its last line."""
    for name, value in TOTAL.items():
        found = re.search(rf"^{name}\([^\n]*\) ==\n(?:[^\n]+\n)+", text, re.MULTILINE)
        if found:
            last = found[0].rstrip("\n").rsplit("\n", 1)[1]
            column = last.index("[]")
            block = found[0].rstrip("\n") + f"\n{' ' * column}[] OTHER -> {value}\n"
            text = text[: found.start()] + block + text[found.end() :]
    return text
