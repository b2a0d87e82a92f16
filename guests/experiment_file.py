"""An experiment's YAML text: its data, the line of each place in it, and the schema."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, cast

import jsonschema
import yaml

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment_model import (
    ChannelConfig,
    DomainConfig,
    Expect,
    Experiment,
    Fault,
    Operation,
    Timeouts,
    Tracing,
)

Where = tuple[str | int, ...]


def _is_whole(_: object, value: object) -> bool:
    # JSON Schema takes 64.0 for an integer, and 64.0 bytes cannot be written.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: object, value: object) -> bool:
    # Every comparison with a NaN is false, so that no minimum would refuse it.
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_whole, "number": _is_number}
    ),
)


class Source:
    """A YAML text, its data, and the line of each place in it."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = getattr(error, "problem", None) or str(error)
            raise InputError(
                f"{name}:{line}: not YAML: {problem}", next_step="Mend that line."
            ) from error
        except RecursionError:
            raise InputError(
                f"{name}:1: it is nested too deep to be read", next_step="Mend its brackets."
            ) from None
        self._refuse_repeated()

    def line(self, where: Where) -> int:
        """The line of the deepest place along `where` that the text has."""
        node, line = self._root, 1
        for step in where:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def error(self, where: Where, found: str, expected: str) -> InputError:
        """An error at a place."""
        return InputError(f"{self.name}:{self.line(where)}: {found}", next_step=expected)

    def _refuse_repeated(self) -> None:
        """YAML's own reader takes the last of two entries, and operations would be gone."""
        nodes = [self._root] if self._root else []
        visited: set[int] = set()
        while nodes:
            node = nodes.pop()
            # An alias leads to a node once more, maybe to one that it stands in.
            if id(node) in visited:
                continue
            visited.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                nodes += node.value
            if isinstance(node, yaml.MappingNode):
                nodes += [value for _, value in node.value]
                self._refuse_repeated_keys([key for key, _ in node.value])

    def _refuse_repeated_keys(self, keys: list[yaml.Node]) -> None:
        lines: dict[str, int] = {}
        for key in keys:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise InputError(
                    f"{self.name}:{line}: {key.value!r} stands in line {lines[key.value]} already",
                    next_step="Expected each entry once.",
                )
            lines[key.value] = line


def check_schema(source: Source) -> None:
    """Raises InputError for the outermost place that the schema does not allow."""
    problems = sorted(
        _Validator(_schema()).iter_errors(source.data), key=lambda e: len(e.absolute_path)
    )
    if problems:
        raise _schema_error(source, _most_telling(problems[0]))


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


@cache
def _schema() -> dict[str, Any]:
    text = resources.files("vchan_testbed.guests").joinpath("experiment.schema.yaml").read_text()
    schema: dict[str, Any] = yaml.safe_load(text)
    return schema


def _most_telling(problem: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Of alternatives that all failed, the one that got furthest into the data."""
    while problem.context:
        deepest = max(problem.context, key=lambda e: len(e.absolute_path))
        if len(deepest.absolute_path) <= len(problem.absolute_path):
            return problem
        problem = deepest
    return problem


def _schema_error(source: Source, problem: jsonschema.ValidationError) -> InputError:
    where = tuple(problem.absolute_path)
    place = ".".join(str(step) for step in where) or "the file"
    schema = cast(dict[str, Any], problem.schema)
    found = cast(Any, problem.instance)
    if problem.validator == "additionalProperties":
        known = sorted(schema.get("properties", {}))
        unknown = [str(key) for key in found if key not in known]
        return source.error(
            (*where, *unknown[:1]),
            f"{place} has no entry {unknown[0] if unknown else '?'!r}",
            "Expected one of: " + ", ".join(known) + ".",
        )
    if problem.validator == "required":
        return source.error(where, f"{place}: {problem.message}", "Add it.")
    seen = "empty" if found is None else repr(found)
    return source.error(where, f"{place} is {seen}", f"Expected {_expected(problem)}.")


def _expected(problem: jsonschema.ValidationError) -> str:
    """What the schema says of the place, or of the closest one around it that it describes."""
    around: jsonschema.ValidationError | None = problem
    while around is not None:
        described = cast(dict[str, Any], around.schema).get("description")
        if described:
            return str(described)
        around = cast(jsonschema.ValidationError | None, around.parent)
    return problem.message


def build(data: dict[str, Any]) -> Experiment:
    """The dataclasses from what the schema has allowed."""
    domains = data.get("domains", {})
    expect = dict(data.get("expect", {}))
    expect["known"] = tuple(expect.get("known", ()))
    return Experiment(
        name=data["name"],
        about=data.get("about", ""),
        needs=data.get("needs"),
        server=tuple(_read_operation(o) for o in data["server"]),
        client=tuple(_read_operation(o) for o in data["client"]),
        server_domain=DomainConfig(**domains.get("server", {})),
        client_domain=DomainConfig(**domains.get("client", {})),
        channel=ChannelConfig(**data.get("channel", {})),
        timeouts=Timeouts(**data.get("timeouts", {})),
        tracing=Tracing(**data.get("tracing", {})),
        faults=tuple(_read_fault(f) for f in data.get("faults", ())),
        schedule=tuple(step for _, step in scheduled(data)),
        expect=Expect(**expect),
    )


def scheduled(data: dict[str, Any]) -> list[tuple[Where, tuple[str, str]]]:
    """The steps of the schedule, side and action, each with its place in the file."""
    steps: list[tuple[Where, tuple[str, str]]] = []
    for number, entry in enumerate(data.get("schedule", ())):
        ((side, actions),) = entry.items()
        if isinstance(actions, str):
            steps.append((("schedule", number, side), (side, actions)))
            continue
        places = (("schedule", number, side, place) for place in range(len(actions)))
        steps += [(where, (side, one)) for where, one in zip(places, actions, strict=True)]
    return steps


def _read_operation(entry: str | dict[str, dict[str, Any]]) -> Operation:
    if isinstance(entry, str):
        return Operation(do=entry)
    ((do, arguments),) = entry.items()
    if do == "pause":
        return Operation(do=do, pause_seconds=float(arguments["seconds"]))
    return Operation(
        do=do,
        bytes=arguments.get("bytes", 0),
        sizes=_read_sizes(arguments.get("sizes", ())),
        pause_seconds=float(arguments.get("pause_seconds", 0.0)),
        once=arguments.get("once", False),
    )


def _read_fault(entry: dict[str, Any]) -> Fault:
    pairs: dict[str, Any] = {}
    for name in ("until", "behind"):
        if name in entry:
            pairs[name] = next(iter(entry[name].items()))
    return Fault(**{**entry, **pairs})


def _read_sizes(sizes: Any) -> tuple[int | str, ...]:
    if isinstance(sizes, int):
        return (sizes,)
    if isinstance(sizes, dict):
        return ("from", sizes["from"], "to", sizes["to"])
    return tuple(sizes)
