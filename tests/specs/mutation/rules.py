"""Every mutant of a spec of the library's kind, made by rule from its text, in the text's order.

For each operator that a step is made of: each conjunct dropped (a guard is TRUE, an update leaves
its variables as they are) and each guard negated; each disjunct and each arm of CASE taken away;
each condition TRUE and FALSE. For each action: taken away; taken twice; enabled one step too
early, so that the step before is skipped; swapped with the one that comes next; a look that is
made once more shows what the first one showed. A call may return from everywhere.

A mutant changes the bodies of one or two definitions. It has a name that says what it does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from spec_text import Definition, Part, definitions

GOTO = re.compile(r"\bGoto\(t, ")
AT = re.compile(r'\bAt\(t, "(\w+)"\)')
CHOSEN_GOTO = re.compile(r"\\E (\w+) \\in \w+\(t\) : Goto\(t, \1\)")
STRING = re.compile(r'"(\w+)"')
WORD = re.compile(r"\b[A-Za-z_]\w*\b")
PRIMED = re.compile(r"\b(\w+)'")
UNCHANGED = re.compile(r"\bUNCHANGED\s+(?:<<([^>]*)>>|(\w+))")

RECHECKS = {
    # The look that came before, by what it left behind.
    "w_space_again": (r"Free(Out(t))", "seen[t]"),
    "r_have_again": (r"Held(In(t))", "seen[t]"),
    # Who comes here has found the ring without enough, and the peer there.
    "r_final": (r"Enough(t, Held(In(t)))", "FALSE"),
    "w_live_again": (r"AskedInWrite(t)", 'Goto(t, "w_space") /\\ UNCHANGED <<vars_but_at>>'),
}
OTHERWISE = {
    "Awake": "{}",
    "w_space_again": "FALSE",
    "r_have_again": "FALSE",
}
"""What a CASE without a fitting arm is, so that TLC can evaluate each mutant. The spec itself never
gets there: TLC would fail on it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: definitions by name, with their new bodies."""

    name: str
    bodies: Mapping[str, str]


@dataclass(frozen=True)
class Spec:
    """A spec's text, and what its actions are made of."""

    text: str
    variables: tuple[str, ...]
    actions: tuple[str, ...]
    """The parts of the next-state relation, as they come in it."""
    tuples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def defined(self) -> dict[str, Definition]:
        """All definitions; a CASE that has no OTHER gets one."""
        return {name: _total(one) for name, one in definitions(self.text).items()}

    @cached_property
    def helpers(self) -> tuple[str, ...]:
        """Operators that the actions use, directly or not, other than actions."""
        found: set[str] = set()
        todo = list(self.actions)
        while todo:
            for word in WORD.findall(self.defined[todo.pop()].body):
                if word in self.defined and word not in found and word not in self.actions:
                    found.add(word)
                    todo.append(word)
        return tuple(name for name in self.defined if name in found)

    def assigned(self, text: str, *, frame: bool = True) -> tuple[str, ...]:
        """Variables to which a piece of an action gives a next value, in the spec's order."""
        found = set(PRIMED.findall(text))
        if frame:
            for many, one in UNCHANGED.findall(text):
                for name in WORD.findall(many or one):
                    found.update(self.tuples.get(name, (name,)))
        for word in set(WORD.findall(text)) & set(self.helpers):
            found.update(self.assigned(self.defined[word].body, frame=frame))
        return tuple(name for name in self.variables if name in found)

    def users(self, names: Iterable[str]) -> set[str]:
        """The actions that are made of these operators, or are among them."""
        found = set(names)
        while True:
            more = {
                name
                for name in (*self.helpers, *self.actions)
                if name not in found
                and found & set(WORD.findall(STRING.sub("", self.defined[name].body)))
            }
            if not more:
                return found & set(self.actions)
            found |= more

    def label(self, action: str) -> str:
        """Where a thread is that takes it; empty for what is no thread's step."""
        found = AT.search(self.defined[action].body)
        return found[1] if found else ""

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(filter(None, map(self.label, self.actions))) | {"app"}

    def next_labels(self, action: str) -> tuple[str, ...]:
        """Where its thread goes on, as far as the text tells."""
        found: list[str] = []
        todo, seen = [action], {action}
        while todo:
            body = AT.sub("", self.defined[todo.pop(0)].body)
            found += [label for label in STRING.findall(body) if label in self.labels]
            # `At` says where it is, not where it goes; what it is in says nothing either.
            fresh = [word for word in WORD.findall(body) if word in self.helpers]
            todo += [word for word in dict.fromkeys(fresh) if word not in seen]
            seen.update(fresh)
        return tuple(dict.fromkeys(found))


def spec_of(text: str) -> Spec:
    """Find variables, tuples of them and actions in a module's text."""
    every = definitions(text)
    tuples: dict[str, tuple[str, ...]] = {}
    for name, one in every.items():
        if re.fullmatch(r"\s*<<[\w,\s]*>>", one.body):
            tuples[name] = tuple(WORD.findall(one.body))
    actions = re.findall(r"\b([a-z]\w*)\([ts]\)", every["Next"].body)
    for group in ("Library", "Application"):
        actions += re.findall(r"\b([a-z]\w*)\([ts]\)", every[group].body)
    ordered = tuple(name for name in every if name in set(actions))
    return Spec(text, tuples["vars"], ordered, tuples)


def mutants(spec: Spec) -> list[Mutant]:
    """All of them, each with a name of its own."""
    found: list[Mutant] = []
    for name in spec.defined:
        if name in spec.actions or name in spec.helpers:
            found += _of_definition(spec, spec.defined[name])
        if name in spec.actions:
            found += _of_action(spec, name)
    seen: Counter[str] = Counter()
    unlike = []
    for one in found:
        if all(_bare(body) == _bare(spec.defined[name].body) for name, body in one.bodies.items()):
            continue
        seen[one.name] += 1
        number = f" ({seen[one.name]})" if seen[one.name] > 1 else ""
        unlike.append(Mutant(one.name + number, one.bodies))
    return unlike


Changed: TypeAlias = Callable[[Part, str, str], Mutant]
"""Makes the mutant that has this text in the place of a part; called so."""

# ---- one definition


def _of_definition(spec: Spec, one: Definition) -> Iterator[Mutant]:
    tree = one.tree

    def changed(part: Part, text: str, said: str) -> Mutant:
        body = one.body[: part.first] + text + one.body[part.last :]
        return Mutant(f"{one.name}: {said}", {one.name: body})

    joined: dict[int, str] = {}
    for part in tree.every():
        for item in part.parts:
            joined[id(item)] = part.joined_by
    updating = {id(tree), *map(id, _pieces(tree))}
    for part in tree.every():
        text = part.text(one.body)
        by = joined.get(id(part), "")
        if id(part) in updating and spec.assigned(text):
            yield from _of_update(spec, part, text, changed)
        elif by == "/\\":
            yield from _of_guard(part, text, changed)
        if by == "\\/":
            yield changed(part, "FALSE", f"without the choice {_short(text)}")
        if part.form == "if":
            for value in ("TRUE", "FALSE"):
                said = _short(part.parts[0].text(one.body))
                yield changed(part.parts[0], value, f"{said} taken as {value}")
        if part.form == "case":
            yield from _of_case(part, one, changed)
    if one.name.startswith("Port"):
        yield from _of_record(one)


def _pieces(tree: Part) -> Iterator[Part]:
    """Where a predicate or an update may stand by itself."""
    for part in tree.every():
        if part.form in ("list", "chain") and part.joined_by != "=>":
            yield from part.parts
        elif part.form in ("quantifier", "let"):
            yield part.parts[-1]
        elif part.form == "if":
            yield from part.parts[1:]
        elif part.form == "case":
            yield from part.parts[1::2]


def _of_update(spec: Spec, part: Part, text: str, changed: Changed) -> Iterator[Mutant]:
    if part.form == "text" and not text.startswith("UNCHANGED"):
        same = f"UNCHANGED <<{', '.join(spec.assigned(text))}>>"
        yield changed(part, same, f"{_short(text)} dropped")


def _of_guard(part: Part, text: str, changed: Changed) -> Iterator[Mutant]:
    if part.form in ("text", "quantifier") or part.joined_by == "=>":
        yield changed(part, "TRUE", f"guard {_short(text)} dropped")
        yield changed(part, f"~({text})", f"guard {_short(text)} negated")


def _of_case(part: Part, one: Definition, changed: Changed) -> Iterator[Mutant]:
    arms = list(zip(part.parts[::2], part.parts[1::2], strict=True))
    arms = [arm for arm in arms if arm[0].text(one.body) != "OTHER"]
    for number, (guard, value) in enumerate(arms):
        said = _short(guard.text(one.body))
        yield changed(guard, "FALSE", f"without the case {said}")
        other = arms[(number + 1) % len(arms)][1].text(one.body)
        if "\n" not in other:
            yield changed(value, f"({other})", f"case {said} does {_short(other)}")


def _of_record(one: Definition) -> Iterator[Mutant]:
    port = one.parameters.strip("()")
    for found in re.finditer(r"(\w+) \|-> ([^,\]]+)", one.body):
        kept = f"{found[1]} |-> {port}.{found[1]}"
        if port and found[2] != f"{port}.{found[1]}":
            body = one.body[: found.start()] + kept + one.body[found.end() :]
            yield Mutant(f"{one.name}: {found[1]} as it was", {one.name: body})
    for found in re.finditer(r"\[(\w+) EXCEPT !\.(\w+) = [^\]]+\]", one.body):
        body = one.body[: found.start()] + found[1] + one.body[found.end() :]
        yield Mutant(f"{one.name}: {found[2]} as it was", {one.name: body})


# ---- whole actions


def _of_action(spec: Spec, name: str) -> Iterator[Mutant]:
    one = spec.defined[name]
    yield Mutant(f"{name}: taken away", {name: "    FALSE"})
    label = spec.label(name)
    if not label:
        return
    if name in RECHECKS:
        old, new = RECHECKS[name]
        but_at = ", ".join(variable for variable in spec.variables if variable != "at")
        body = one.body.replace(old, new.replace("vars_but_at", but_at))
        yield Mutant(f"{name}: shows what was shown before", {name: body})
    yield from _repeated(one)
    yield from _too_early(spec, name)
    yield from _swapped(spec, name)


def _repeated(one: Definition) -> Iterator[Mutant]:
    for first, last in _gotos(one.body):
        again = f"({one.body[first:last]} \\/ UNCHANGED at)"
        body = one.body[:first] + again + one.body[last:]
        yield Mutant(f"{one.name}: may be made again", {one.name: body})


def _too_early(spec: Spec, name: str) -> Iterator[Mutant]:
    """Enabled where a step that leads to it is still to be made."""
    own = spec.label(name)
    if name == "return":
        early = sorted(spec.labels - {"return"})
    else:
        early = list(
            dict.fromkeys(
                spec.label(before) or "app"
                for before in spec.actions
                if own in spec.next_labels(before)
                and (spec.label(before) or before.startswith("call_"))
            )
        )
    one = spec.defined[name]
    for label in early:
        if label != own:
            body = AT.sub(f'(At(t, "{own}") \\\\/ At(t, "{label}"))', one.body, count=1)
            yield Mutant(f'{name}: enabled at "{label}" too', {name: body})


def _swapped(spec: Spec, name: str) -> Iterator[Mutant]:
    """The step and one that comes next, in the other order: each with its own effect."""
    first = _inlined(spec, name)
    for after in spec.next_labels(name):
        if after == name or after not in spec.actions or after == "return":
            continue
        if spec.label(name) != name or spec.label(after) != after:
            continue
        second = _inlined(spec, after)
        goes = CHOSEN_GOTO.search(second)
        places = [goes.span()] if goes else list(_gotos(second))
        if len(places) != 1:
            continue
        begin, end = places[0]
        onwards = second[begin:end]
        # What comes second goes where the first one went, and the first one behind the second.
        moved = _goes_elsewhere(first, after, onwards)
        if moved is None:
            continue
        other = second[:begin] + f'Goto(t, "{name}")' + second[end:]
        bodies = {
            name: moved.replace(f'At(t, "{name}")', f'At(t, "{after}")', 1),
            after: other.replace(f'At(t, "{after}")', f'At(t, "{name}")', 1),
        }
        yield Mutant(f"{name}: swapped with {after}", bodies)


def _goes_elsewhere(body: str, label: str, onwards: str) -> str | None:
    """The body with `onwards` where it goes to the label; None where it does not."""
    plain = f'Goto(t, "{label}")'
    if plain in body:
        return body.replace(plain, onwards)
    if not onwards.startswith("Goto(t, "):
        return None
    step = onwards.removeprefix("Goto(t, ")[:-1]
    for begin, end in _gotos(body):
        if f'"{label}"' in body[begin:end]:
            inside = body[begin:end].replace(f'"{label}"', f"({step})")
            return body[:begin] + inside + body[end:]
    return None


def _inlined(spec: Spec, name: str) -> str:
    """The body; one that is a guard and an operator has that operator's text instead."""
    body = spec.defined[name].body
    found = re.fullmatch(r'(\s*/\\ At\(t, "\w+"\)\n)\s*/\\ (\w+)\(t\)', body)
    return found[1] + spec.defined[found[2]].body if found else body


def _gotos(body: str) -> Iterator[tuple[int, int]]:
    """From the name to the closing parenthesis of each."""
    for found in GOTO.finditer(body):
        depth, at = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(body[at], 0)
            at += 1
        yield found.start(), at


# ---- words


def _total(one: Definition) -> Definition:
    if one.name not in OTHERWISE:
        return one
    tree = one.tree
    case = next(part for part in tree.every() if part.form == "case")
    column = case.first - one.body.rfind("\n", 0, case.first) - 1
    other = f"\n{' ' * column}  [] OTHER -> {OTHERWISE[one.name]}"
    body = one.body[: case.last] + other + one.body[case.last :]
    return Definition(one.name, one.parameters, body, one.start, one.end)


def _bare(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    bare = _bare(text)
    return bare if len(bare) <= 60 else f"{bare[:40]} ... {bare[-16:]}"
