"""The sweep over all mutants of Libxenvchan.tla: `make mutants`.

Checks for each what is pinned in mutants.json: that it accepts a trace which is no behaviour of
the spec, rejects one which is, breaks a property in a model or TLC itself; or that in models its
steps are exactly those of the spec. `--pin` looks for what becomes of those that are not pinned.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "validate"))

from library_walks import ACTIONS, PLAYERS, Walk, walks
from one_jvm import follow_all
from pins import (
    ACCEPTS,
    BROKEN,
    EQUIVALENT,
    FAILS,
    MISSES,
    OPEN,
    REJECTS,
    Fate,
    Pins,
    fewer_traces,
    in_order,
    load_pins,
    save_pins,
)
from rules import WORD, Mutant, Spec, mutants, spec_of
from searches import outcomes
from traces import KINDS, LANES, Trace, followed, seldom, strayed

from vchan_testbed.validate.models import SPECS, Holds, Model, load_models

ORIGINAL = {0: Mutant("the spec itself", {})}
SEED = 7
WALKS = 400
"""Random walks a run, of which each is one of its mutants."""
CANDIDATES = 9
BEHAVIOURS = 24
"""Traces of the spec itself, of each kind."""
JUDGED_TOGETHER = 120
COUNTEREXAMPLES = {
    "l1": "L1",
    "l2": "L2",
    "l3": "L3",
    "l4": "L4",
    "small_application_waits": "L7",
    "l8": "L8",
    "l9": "L9",
}
"""Models in which a deviation makes a property fail, with the deviation."""


def library() -> Spec:
    """Libxenvchan as it is."""
    return spec_of((SPECS / "Libxenvchan.tla").read_text())


def small_models() -> dict[str, Model]:
    """Those of the manifest that are small enough for hundreds of mutants, the smallest first."""
    found = {
        name: one
        for name, one in load_models().items()
        if name.startswith("small_") and isinstance(one.due, Holds)
    }
    return dict(sorted(found.items(), key=lambda item: _states(item[1])))


def _never(model: Model) -> tuple[str, ...]:
    return model.due.never_taken if isinstance(model.due, Holds) else ()


def _states(model: Model) -> int:
    return model.due.distinct if isinstance(model.due, Holds) else 0


def numbered(spec: Spec, names: Iterable[str] | None = None) -> dict[int, Mutant]:
    """The mutants by number, all or those named."""
    wanted = None if names is None else set(names)
    return {
        number: one
        for number, one in enumerate(mutants(spec), start=1)
        if wanted is None or one.name in wanted
    }


# ---- what is pinned, once more


def wrong(
    spec: Spec, pins: Pins, names: Iterable[str], note: Callable[[str], None], *, whole: bool
) -> list[str]:
    """In words, what is not as it is pinned for these mutants.

    `whole`: in every order of the two sides' steps, and in every model.
    """
    chosen = numbered(spec, names)
    number_of = {one.name: number for number, one in chosen.items()}
    found: list[str] = []
    for how in (ACCEPTS, REJECTS):
        asked = {name: fate for name, fate in pins.of(how).items() if name in number_of}
        note(f"{how} a trace: {len(asked)} mutants")
        traces = sorted({fate.trace for fate in asked.values() if fate.trace})
        of = {
            number_of[name]: [traces.index(fate.trace)]
            for name, fate in asked.items()
            if fate.trace
        }
        these = {number: chosen[number] for number in of}
        broken: set[int] = set()
        free = whole and how == REJECTS
        got = followed(spec, these, traces, of, broken.add, any_order=free)
        # Where TLC stops nothing is followed: that is not a trace rejected.
        found += [
            f"{chosen[number].name}: does not {how.rstrip('s')} its trace any more"
            for number in of
            if number in broken or bool(got[number]) != (how == ACCEPTS)
        ]
    found += _wrong_in_models(spec, pins, number_of, chosen, note)
    return found + _wrong_equivalent(spec, pins, number_of, chosen, note, whole=whole)


def _wrong_in_models(
    spec: Spec,
    pins: Pins,
    number_of: Mapping[str, int],
    chosen: Mapping[int, Mutant],
    note: Callable[[str], None],
) -> list[str]:
    found = []
    models = load_models()
    noticed = {**pins.of(FAILS), **pins.of(BROKEN), **pins.of(MISSES)}
    for model, names in _by_model(noticed, number_of, 1).items():
        note(f"{model}: {len(names)} mutants")
        got = outcomes(
            spec, {number_of[n]: chosen[number_of[n]] for n in names}, models[model], "fails"
        )
        for name in names:
            one, fate = got[number_of[name]], pins.fates[name]
            due = fate.failed if fate.how == FAILS else ""
            large = one.large and fate.how == MISSES
            # Which of several properties fails first depends on the others in one run.
            if large or one.broken != (fate.how == BROKEN) or bool(one.failed) != bool(due):
                seen = "too much to see" if large else f"{one.failed or 'nothing'} fails"
                found.append(f"{name}: {seen} in {model}, not {due or 'nothing'}")
    return found


def _wrong_equivalent(
    spec: Spec,
    pins: Pins,
    number_of: Mapping[str, int],
    chosen: Mapping[int, Mutant],
    note: Callable[[str], None],
    *,
    whole: bool,
) -> list[str]:
    found = []
    models = load_models()
    most = None if whole else 1
    for model, names in _by_model(pins.of(EQUIVALENT), number_of, most).items():
        note(f"{model}: {len(names)} mutants, whether they are equivalent")
        these = {number_of[name]: chosen[number_of[name]] for name in names}
        for number, what in _differences(spec, these, models[model]).items():
            found.append(f"{chosen[number].name}: not equivalent in {model}: it {what}")
    return found


def _by_model(
    fates: Mapping[str, Fate], chosen: Mapping[str, int], most: int | None
) -> dict[str, list[str]]:
    """The chosen ones, by each of the first models of their fates."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, fate in fates.items():
        for model in fate.models[:most] if name in chosen else ():
            found[model].append(name)
    return found


def _differences(spec: Spec, chosen: Mapping[int, Mutant], model: Model) -> dict[int, str]:
    """Mutants whose steps in the model are not the spec's."""
    found: dict[int, str] = {}
    for question in ("adds", "takes away"):
        left = {number: one for number, one in chosen.items() if number not in found}
        for number, one in outcomes(spec, left, model, question).items():
            if one.failed or one.broken or one.large:
                found[number] = f"{question} a step"
    return found


def wrong_corpora(pins: Pins, note: Callable[[str], None], every: int = 1) -> list[str]:
    """Traces that the judge takes for what they are not. `every`: one of so many."""
    found = []
    for how in (ACCEPTS, REJECTS):
        traces = pins.corpus(how)[::every]
        note(f"{len(traces)} traces through the judge, to be {'rejected' * (how == ACCEPTS)}")
        for trace, accepted in zip(traces, judged(traces), strict=True):
            if accepted != (how == REJECTS):
                found.append(f"the judge says otherwise: {trace.text()}")
    return found


def judged(traces: Sequence[Trace]) -> list[bool | None]:
    """Whether the judge accepts each, in any order of the two sides; None: undecided."""
    found: list[bool | None] = []
    for first in range(0, len(traces), JUDGED_TOGETHER):
        part = traces[first : first + JUDGED_TOGETHER]
        cases = [(trace.lanes(), KINDS[trace.kind].params()) for trace in part]
        results, _ = follow_all(cases, actions=ACTIONS, explain=False)
        found += [None if one.undecided else one.accepted for one in results]
    return found


# ---- what becomes of the others


def hunt(spec: Spec, pins: Pins, save: Callable[[Pins], None], note: Callable[[str], None]) -> Pins:
    """Look for what becomes of mutants that are not pinned."""
    every = numbered(spec)
    names = [one.name for one in every.values()]
    fates = {name: fate for name, fate in pins.fates.items() if fate.how != OPEN}

    def left() -> dict[int, Mutant]:
        return {number: one for number, one in every.items() if one.name not in fates}

    def keep(fresh: Mapping[str, Fate]) -> None:
        fates.update(fresh)
        note(f"  {len(fresh)} more; {len(left())} of {len(every)} are left")
        save(Pins(in_order(fates, names)))

    # What TLC cannot evaluate here stops it in a model, too.
    broken: set[int] = set()
    for what, fates_of in _searches(spec, broken):
        if left():
            note(what)
            keep(fates_of(left()))
    keep(_equivalent(spec, left(), note))
    keep({one.name: Fate(OPEN) for one in left().values()})
    return Pins(in_order(fates, names))


def _searches(
    spec: Spec, broken: set[int]
) -> Iterator[tuple[str, Callable[[Mapping[int, Mutant]], dict[str, Fate]]]]:
    """What may notice a mutant, the cheapest first: in words, and fates of some of those asked."""
    for kind in KINDS:
        what = f"{kind}: traces of mutants, which the spec does not accept"
        yield what, partial(_accepting, spec, kind)
    for model in small_models().values():
        yield f"{model.name}: properties", partial(_failing, spec, model)
    for name in COUNTEREXAMPLES:
        yield f"{name}: its counterexample", partial(_missing, spec, load_models()[name])
    for trace in seldom():
        what = f"{trace.kind}, seldom: a trace of the spec, which mutants do not accept"
        yield what, partial(_rejecting, spec, partial(list, (trace,)), broken)
    for kind, one in KINDS.items():
        # Where no byte is moved walks soon come to where chance allows nothing.
        if {"write", "send"} & set(one.calls):
            what = f"{kind}: traces of the spec, which mutants do not accept"
            yield what, partial(_rejecting, spec, partial(_behaviours, kind), broken)


def _behaviours(kind: str) -> list[Trace]:
    return [_trace(kind, walk) for walk in walks(KINDS[kind], BEHAVIOURS, 70, SEED)]


def _accepting(spec: Spec, kind: str, left: Mapping[int, Mutant]) -> dict[str, Fate]:
    of = {
        number: sorted(set(traces), key=lambda trace: len(trace.steps))[:CANDIDATES:3]
        for number, traces in strayed(spec, left, kind, WALKS, SEED).items()
    }
    every = sorted({trace for traces in of.values() for trace in traces})
    legal = followed(spec, ORIGINAL, every)[0]
    unlike = [trace for place, trace in enumerate(every) if place not in legal]
    verdicts = zip(unlike, judged(unlike), strict=True)
    rejected = [trace for trace, accepted in verdicts if accepted is False]
    # A walk goes on behind a death, which is followed only behind all that records show.
    places = {
        number: [p for p, trace in enumerate(rejected) if trace in of[number]] for number in of
    }
    got = followed(spec, {number: left[number] for number in of}, rejected, places)
    own = {left[n].name: {rejected[place] for place in got[n]} for n in of}
    fates = {name: Fate(ACCEPTS) for name, traces in own.items() if traces}
    return fewer_traces(fates, own)


def _rejecting(
    spec: Spec,
    behaviours: Callable[[], Sequence[Trace]],
    broken: set[int],
    left: Mapping[int, Mutant],
) -> dict[str, Fate]:
    traces = behaviours()
    left = {number: one for number, one in left.items() if number not in broken}
    got = followed(spec, {**ORIGINAL, **left}, traces, broken=broken.add)
    left = {number: one for number, one in left.items() if number not in broken}
    assert got[0] == set(range(len(traces))), "the spec does not follow itself"
    # The shortest is the quickest to be followed in every order.
    by_length = sorted(range(len(traces)), key=lambda place: len(traces[place].steps))
    first = {
        number: next((place for place in by_length if place not in got[number]), None)
        for number in left
    }
    of = {number: [place] for number, place in first.items() if place is not None}
    these = {number: left[number] for number in of}
    free = followed(spec, these, traces, of, broken.add, any_order=True)
    return {
        left[number].name: Fate(REJECTS, traces[places[0]])
        for number, places in of.items()
        if not free[number] and number not in broken
    }


def _trace(kind: str, walk: Walk) -> Trace:
    left = {
        lane: [(lane, step.action, int(step.value)) for step in steps]
        for lane, steps in zip(
            LANES, (walk.lanes.sender.steps, walk.lanes.receiver.steps), strict=True
        )
    }
    dead = [
        lane
        for lane in LANES
        if {f"dies {PLAYERS[lane]}", f"domain_dies {PLAYERS[lane]}"} & set(walk.hidden)
    ]
    return Trace(kind, tuple(left[lane].pop(0) for lane in walk.order), tuple(sorted(dead)))


def _failing(spec: Spec, model: Model, left: Mapping[int, Mutant]) -> dict[str, Fate]:
    fates = {}
    for number, one in outcomes(spec, left, model, "fails").items():
        if one.broken or one.failed:
            how = BROKEN if one.broken else FAILS
            fates[left[number].name] = Fate(how, None, (model.name,), one.failed)
    return fates


def _missing(spec: Spec, model: Model, left: Mapping[int, Mutant]) -> dict[str, Fate]:
    """Of the operators in which the model's deviation is."""
    (due,) = (*model.invariants, *model.properties)
    switch = COUNTEREXAMPLES[model.name]
    left = {
        number: one
        for number, one in left.items()
        if any(switch in WORD.findall(spec.defined[name].body) for name in one.bodies)
    }
    return {
        left[number].name: Fate(MISSES, None, (model.name,), due)
        for number, one in outcomes(spec, left, model, "fails").items()
        if not one.failed and not one.broken and not one.large
    }


def _equivalent(
    spec: Spec, left: Mapping[int, Mutant], note: Callable[[str], None]
) -> dict[str, Fate]:
    """Those that no model tells from the spec, with the models in which they could be told."""
    models = small_models()
    taken = {name: set(spec.actions) - set(_never(model)) for name, model in models.items()}
    differs: dict[int, str] = {}
    proved: dict[int, list[str]] = defaultdict(list)
    for name, model in models.items():
        these = {
            number: one
            for number, one in left.items()
            if number not in differs and spec.users(one.bodies) & taken[name]
        }
        note(f"{name}: {len(these)} mutants, whether they are equivalent")
        found = _differences(spec, these, model)
        for number, what in found.items():
            note(f"    {left[number].name}: {what} in {name}")
        differs.update(found)
        for number in these.keys() - found.keys():
            proved[number].append(name)
    return {
        left[number].name: Fate(EQUIVALENT, None, tuple(names))
        for number, names in proved.items()
        if number not in differs
    }


def main() -> None:
    """Check all, or those named; or pin them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="words of mutants' names; without: all")
    parser.add_argument("--pin", action="store_true", help="look for those that are not pinned")
    asked = parser.parse_args()
    began = time.monotonic()

    def note(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    spec, pins = library(), load_pins()
    if asked.pin:
        pins = hunt(spec, pins, save_pins, note)
    every = [one.name for one in mutants(spec)]
    names = [name for name in every if all(word in name for word in asked.names)]
    lost = [name for name in names if pins.fates.get(name, Fate(OPEN)).how == OPEN]
    if asked.pin:
        found = []
    else:
        found = wrong(spec, pins, names, note, whole=True)
        found += [] if asked.names else wrong_corpora(pins, note)
    for text in [*found, *(f"{name}: nothing notices it" for name in lost)]:
        print(text)
    note(f"{len(names)} mutants: {_counts(pins, names)}, {len(lost)} survive unexplained")
    sys.exit(1 if found or lost else 0)


def _counts(pins: Pins, names: Sequence[str]) -> str:
    hows = [pins.fates[name].how for name in names if name in pins.fates]
    return ", ".join(f"{hows.count(how)} {how}" for how in sorted(set(hows)))


if __name__ == "__main__":
    main()
