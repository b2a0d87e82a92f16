"""The models of the specs: what TLC has to find in each, and whether it does.

`specs/manifest.json` lists them: the module in `specs/models/`, its constants, what is checked and
what is due, figures included. TLC's configuration files are made from it. With one worker and a
fixed fingerprint function the figures are the same each time, so that any change of a spec shows.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vchan_testbed
from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.validate.tlc.behaviour import read_states, steps_of
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, TlcOutput, run_tlc

SPECS = Path(vchan_testbed.__file__).parent / "specs"
MANIFEST = SPECS / "manifest.json"
SECONDS_MAX = 1800.0
HEAP_MIB = 2000
CONSOLE_LINES = 40
OPTIONS = ("-deadlock", "-fp", "0", "-coverage", "600", "-lncheck", "final")
"""Liveness at the end alone: which counterexample TLC meets on the way is a matter of time."""
KEYS = {"what", "module", "specification", "constants", "invariants", "properties", "quick"}

_INVARIANT = re.compile(r"^Error: Invariant (\w+) is violated")
_UNNAMED = ("Error: Temporal properties were violated", "Error: Action property line")
"""What TLC says of a property without naming it: a model that is to violate one has only that."""
_NOTHING_FOUND = "Model checking completed. No error has been found."
_COVERED = re.compile(r"^<(\w+) line .*>: \d+:(\d+)")


@dataclass(frozen=True, slots=True)
class Holds:
    """All that is checked holds; figures of the search."""

    generated: int
    distinct: int
    depth: int
    never_taken: tuple[str, ...]
    """Actions that this model does not take: each for a reason that its constants show."""


@dataclass(frozen=True, slots=True)
class Violates:
    """A property is violated, and TLC's counterexample."""

    property: str
    states: int
    """Length, with the first state and without the way back of one that goes on for ever."""
    steps: tuple[str, ...]
    """The actions, each with the thread or side that took it where the spec names one."""


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the manifest."""

    name: str
    what: str
    module: str
    specification: str
    constants: Mapping[str, str]
    """Text of each value; with `<- ` in front the name of what stands for it."""
    invariants: tuple[str, ...]
    properties: tuple[str, ...]
    quick: bool
    """Checked whenever the tests are run."""
    due: Holds | Violates | None
    """None: not measured yet."""
    seconds: float
    """Time that it took when it was pinned; for information."""

    def config(self) -> str:
        """TLC's configuration file."""
        lines = ["CONSTANTS"]
        for name, value in self.constants.items():
            lines.append(f"  {name} {value}" if value.startswith("<- ") else f"  {name} = {value}")
        lines.append(f"SPECIFICATION {self.specification}")
        if self.invariants:
            lines.append(f"INVARIANTS {' '.join(self.invariants)}")
        if self.properties:
            lines.append(f"PROPERTIES {' '.join(self.properties)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Found:
    """What TLC found in a model."""

    result: Holds | Violates
    seconds: float
    console: tuple[str, ...]

    def differs(self, due: Holds | Violates | None) -> str:
        """In words, how it differs from what was due; empty when it does not."""
        if due is None:
            return "nothing is pinned for it yet"
        if type(self.result) is not type(due):
            return f"it {said(self.result)}; due: it {said(due)}"
        return "; ".join(
            f"{name} is {getattr(self.result, name)}, due is {getattr(due, name)}"
            for name in due.__dataclass_fields__
            if getattr(self.result, name) != getattr(due, name)
        )


def said(result: Holds | Violates) -> str:
    """A result in words."""
    if isinstance(result, Holds):
        return f"holds, {result.distinct:,} distinct states"
    return f"violates {result.property} after {result.states} states"


def load_models(path: Path = MANIFEST) -> dict[str, Model]:
    """The models by name. Raises InputError, with the place, for what is no manifest."""
    try:
        data = json.loads(path.read_text())
        shared: dict[str, dict[str, Any]] = data["shared"]
        return {name: _model(name, row, shared) for name, row in data["models"].items()}
    except OSError as error:
        raise InputError(
            f"The manifest {path} cannot be read: {error.strerror}.",
            next_step="Name a file that is there.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a manifest of models: {error}.",
            next_step=f"Compare it with {MANIFEST}.",
        ) from error


def _model(name: str, row: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]]) -> Model:
    unknown = row.keys() - KEYS - {"holds", "violates", "seconds"}
    if unknown:
        raise ValueError(f"{name}: no such key: {', '.join(sorted(unknown))}")
    missing = {"what", "module", "specification"} - row.keys()
    if missing:
        raise ValueError(f"{name}: {', '.join(sorted(missing))} missing")
    if "holds" in row and "violates" in row:
        raise ValueError(f"{name}: it cannot both hold and be violated")
    constants = {**shared.get(row["module"], {}), **row.get("constants", {})}
    return Model(
        name=name,
        what=row["what"],
        module=row["module"],
        specification=row["specification"],
        constants={key: _text(value) for key, value in constants.items()},
        invariants=tuple(row.get("invariants", ())),
        properties=tuple(row.get("properties", ())),
        quick=bool(row.get("quick", False)),
        due=_due(row),
        seconds=float(row.get("seconds", 0)),
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, list):
        return "{" + ", ".join(f'"{one}"' for one in value) + "}"
    return str(value)


def _due(row: Mapping[str, Any]) -> Holds | Violates | None:
    if due := row.get("holds"):
        return Holds(**{**due, "never_taken": tuple(due["never_taken"])})
    if due := row.get("violates"):
        return Violates(**{**due, "steps": tuple(due["steps"])})
    return None


def check(model: Model, specs: Path = SPECS) -> Found:
    """Run TLC on a model. Raises TestbedError when TLC fails or takes too long."""
    with tempfile.TemporaryDirectory(prefix="model-") as name:
        folder = Path(name)
        write(model, folder, specs)
        job = TlcJob(
            folder=folder,
            module=model.module,
            config=f"{model.name}.cfg",
            library=(specs, specs / "models"),
            options=OPTIONS,
            short=model.quick and model.seconds < 5,
        )
        output = run_tlc(job, Limits(seconds_max=SECONDS_MAX, heap_mib=HEAP_MIB))
    if output.bound:
        raise InputError(
            f"The model {model.name} met a bound: {output.bound}.",
            next_step="Make it smaller: fewer bytes or fewer kinds of calls.",
        )
    return Found(_result(model, output), output.seconds, output.console)


def write(model: Model, folder: Path, specs: Path = SPECS) -> None:
    """The model as files for TLC: its module and its configuration."""
    shutil.copy(specs / "models" / f"{model.module}.tla", folder)
    (folder / f"{model.name}.cfg").write_text(model.config())


def _result(model: Model, output: TlcOutput) -> Holds | Violates:
    violated = ""
    taken: dict[str, int] = {}
    for line in output.console:
        if match := _INVARIANT.match(line):
            violated = match[1]
        elif line.startswith(_UNNAMED):
            violated = " ".join(model.properties)
        elif match := _COVERED.match(line):
            taken[match[1]] = max(taken.get(match[1], 0), int(match[2]))
    if violated:
        steps = tuple(_steps(output.console))
        return Violates(violated, len(steps) + 1, steps)
    if _NOTHING_FOUND not in output.console or output.unexplored:
        # Else an error that TLC words in another way would pass for none.
        raise TestbedError(
            f"TLC did not come to an end with the model {model.name}.",
            next_step="Read TLC's last lines.",
            console="\n".join(output.console[-CONSOLE_LINES:]),
        )
    never = tuple(sorted(name for name, count in taken.items() if not count and name != "Init"))
    return Holds(output.generated, output.distinct, output.depth, never)


def _steps(console: Sequence[str]) -> Iterator[str]:
    """The actions of the counterexample, with who took them."""
    for _, action, who in steps_of(list(read_states(console))):
        yield f"{action} {who}".strip()


def pinned(path: Path, found: Mapping[str, Found]) -> None:
    """Write what was found into the manifest as what is due from now on."""
    data = json.loads(path.read_text())
    for name, one in found.items():
        row = data["models"][name]
        row.pop("holds", None)
        row.pop("violates", None)
        key = "holds" if isinstance(one.result, Holds) else "violates"
        row[key] = {
            field: list(value) if isinstance(value, tuple) else value
            for field in one.result.__dataclass_fields__
            for value in (getattr(one.result, field),)
        }
        row["seconds"] = round(one.seconds, 1)
    path.write_text(json.dumps(data, indent=1) + "\n")


def chosen(models: Mapping[str, Model], names: Sequence[str], *, quick: bool) -> list[Model]:
    """Those that are named, or all of them; the longest first, so that two workers end together.

    Raises InputError for a name that is none.
    """
    for name in names:
        if name not in models:
            raise InputError(
                f"There is no model {name}.",
                next_step=f"Name one of: {', '.join(sorted(models))}.",
            )
    every = [models[name] for name in names] if names else list(models.values())
    kept = [model for model in every if model.quick or not quick]
    return sorted(kept, key=lambda model: -model.seconds)
