"""One text of a spec with many mutants in it.

The spec gets one more variable, `mutant`, which is chosen in the first state and never changes,
and each operator that a mutant changes becomes one with a case for each of them: so one JVM runs
them all. Beside each operator `X` stands `X_o`, as it was: properties and shown values are the
original's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rules import Mutant, Spec

EXTENDS = "EXTENDS Integers, Stream\n"
WORD_OR_STRING = re.compile(r'"[^"]*"|\b[A-Za-z_]\w*\b')


def schema(spec: Spec, chosen: Mapping[int, Mutant]) -> str:
    """The spec's text with the variable `mutant`; one that is not in `chosen` is the original."""
    of: dict[str, list[int]] = defaultdict(list)
    for number, one in chosen.items():
        for name in one.bodies:
            of[name].append(number)
    text = spec.text.replace(EXTENDS, f"{EXTENDS}VARIABLE mutant\n")
    assert text != spec.text
    shift = len(text) - len(spec.text)
    places = [spec.defined[name] for name in (*spec.helpers, *spec.actions)]
    for place in sorted(places, key=lambda place: -place.start):
        text = text[: place.start + shift] + "\n" + text[place.end + shift :]
    # All operators first: a swapped action may use one that stands behind it.
    for before, names in (("Library(t) ==", spec.actions), ("Init ==", spec.helpers)):
        made = "".join(_original(spec, name) for name in names)
        made += "".join(_cases(spec, name, of[name], chosen) for name in names)
        head, found, tail = text.partition(f"\n{before}")
        assert found
        text = head + "\n" + made + found + tail
    steps, found, properties = text.partition("\nSpec ==")
    assert found
    return steps + found + by_original(properties, spec)


def by_original(text: str, spec: Spec) -> str:
    """An expression in the original's operators; definitions keep their names."""
    known = {*spec.helpers, *spec.actions}
    return WORD_OR_STRING.sub(lambda found: found[0] + "_o" * (found[0] in known), text)


def _original(spec: Spec, name: str) -> str:
    return by_original(spec.defined[name].as_text(), spec) + "\n"


def _cases(spec: Spec, name: str, numbers: Sequence[int], chosen: Mapping[int, Mutant]) -> str:
    """One operator as its mutants have it."""
    one = spec.defined[name]
    if not numbers:
        return one.as_text() + "\n"
    call = one.parameters
    arms = "\n      [] ".join(f"mutant = {number} -> {name}_{number}{call}" for number in numbers)
    known = "{" + ", ".join(map(str, numbers)) + "}"
    texts = [
        one.as_text(f"{name}_0"),
        *(one.as_text(f"{name}_{number}", chosen[number].bodies[name]) for number in numbers),
        f"Of_{name} == {known}\n{name}{call} ==\n",
        f"    IF mutant \\notin Of_{name} THEN {name}_0{call}\n    ELSE CASE {arms}\n\n",
    ]
    return "".join(texts)
