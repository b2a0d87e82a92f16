"""How each mutant is noticed, as it is pinned: mutants.json, and the two corpora of traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traces import Trace, trace_of

PINS = Path(__file__).with_name("mutants.json")

OPEN = "open"
"""Not noticed yet, nor shown to be equivalent: `make mutants` fails for it."""
ACCEPTS = "accepts"
"""It accepts a trace of the negative corpus, which is no behaviour of the spec."""
REJECTS = "rejects"
"""It rejects a trace of the positive corpus, which is one."""
FAILS = "fails"
"""A property fails in a model."""
MISSES = "misses"
"""The counterexample that a model is there for is not found any more: a deviation has gone."""
BROKEN = "cannot be evaluated"
"""TLC stops with an error in a model."""
EQUIVALENT = "equivalent"
"""It survives: in the models named all its steps are steps of the spec, and the other way round."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one mutant."""

    how: str
    trace: Trace | None = None
    models: tuple[str, ...] = ()
    failed: str = ""
    """The property."""


@dataclass(frozen=True, slots=True)
class Pins:
    """Fates by the mutants' names, in the order of the spec's text."""

    fates: dict[str, Fate]

    def of(self, how: str) -> dict[str, Fate]:
        """Those that are noticed so."""
        return {name: fate for name, fate in self.fates.items() if fate.how == how}

    def corpus(self, how: str) -> list[Trace]:
        """Its traces: ACCEPTS is the negative corpus, REJECTS the positive one."""
        return sorted({fate.trace for fate in self.of(how).values() if fate.trace})


def load_pins(path: Path = PINS) -> Pins:
    """Read them; none, where there is no file yet."""
    if not path.exists():
        return Pins({})
    read = json.loads(path.read_text())
    traces = {how: [trace_of(line) for line in read["traces"][how]] for how in (ACCEPTS, REJECTS)}
    return Pins({name: _fate(row, traces) for name, row in read["mutants"].items()})


def save_pins(pins: Pins, path: Path = PINS) -> None:
    """Write them, one mutant or trace a line."""
    traces = {how: pins.corpus(how) for how in (ACCEPTS, REJECTS)}
    places = {how: {trace: n for n, trace in enumerate(those)} for how, those in traces.items()}
    mutants = [
        f"  {json.dumps(name)}: {json.dumps(_row(fate, places))}"
        for name, fate in pins.fates.items()
    ]
    corpora = [
        f"  {json.dumps(how)}: [\n" + ",\n".join(f"   {json.dumps(t.text())}" for t in those) + "]"
        for how, those in traces.items()
    ]
    text = '{\n "mutants": {\n' + ",\n".join(mutants)
    path.write_text(text + '\n },\n "traces": {\n' + ",\n".join(corpora) + "\n }\n}\n")


def fewer_traces(fates: dict[str, Fate], does: dict[str, set[Trace]]) -> dict[str, Fate]:
    """The same fates, by as few traces as a greedy choice finds.

    `does` says for each mutant with which traces it could be noticed.
    """
    left = {name: traces for name, traces in does.items() if traces}
    found = dict(fates)
    while left:
        counts: dict[Trace, int] = {}
        for traces in left.values():
            for trace in traces:
                counts[trace] = counts.get(trace, 0) + 1
        best = max(sorted(counts), key=lambda trace: counts[trace])
        for name in [name for name, traces in left.items() if best in traces]:
            found[name] = replace(found[name], trace=best)
            del left[name]
    return found


def sample(names: Sequence[str], count: int) -> list[str]:
    """As many of them, evenly spread."""
    step = max(1, len(names) // max(1, count))
    return list(names[::step][:count])


def _fate(row: dict[str, Any], traces: dict[str, list[Trace]]) -> Fate:
    how = row["how"]
    trace = traces[how][row["trace"]] if "trace" in row else None
    return Fate(how, trace, tuple(row.get("models", ())), row.get("property", ""))


def _row(fate: Fate, places: dict[str, dict[Trace, int]]) -> dict[str, Any]:
    row: dict[str, Any] = {"how": fate.how}
    if fate.trace:
        row["trace"] = places[fate.how][fate.trace]
    if fate.models:
        row["models"] = list(fate.models)
    if fate.failed:
        row["property"] = fate.failed
    return row


def in_order(fates: dict[str, Fate], names: Iterable[str]) -> dict[str, Fate]:
    """Those of the mutants that there are, in their order."""
    return {name: fates[name] for name in names if name in fates}
