"""Experiments: YAML in, frozen dataclasses out.

Errors say file and line, what stands there and what was expected. What must hang or lose bytes is
refused, unless `expect:` names that outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jsonschema
import yaml

from vchan_testbed.errors import InputError

ENDPOINTS = ("server", "client")
WRITES = {"client": "left", "server": "right"}
"""The direction that each endpoint writes."""
SENDING = {"write", "send"}
RECEIVING = {"read", "recv"}

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class DomainConfig:
    """What a domain is to be; type "default" leaves it to the host, "dom0" is the host's own."""

    type: str = "default"
    memory_mib: int = 160
    vcpus: int = 1


@dataclass(frozen=True)
class ChannelConfig:
    """Ring sizes asked for, in bytes; left is what the client writes."""

    left_ring_bytes: int = 4096
    right_ring_bytes: int = 4096
    blocking: bool = True
    threads: str = "one"


@dataclass(frozen=True)
class Operation:
    """One entry of an endpoint's list.

    `do` is write, read, send, recv, read_to_end, pause, data_ready, buffer_space or close; `sizes`
    is a tuple taken in turn, or ("from", A, "to", B) for sizes drawn from the seed.
    """

    do: str
    bytes: int = 0
    sizes: tuple[int | str, ...] = ()
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Timeouts:
    """Watchdogs, in seconds. A run that stands still for `settle_seconds` is looked at."""

    connect_seconds_max: float = 60.0
    settle_seconds: float = 2.0
    run_seconds_max: float = 600.0


@dataclass(frozen=True)
class Fault:
    """What the tracer of the endpoint `at` makes go wrong."""

    at: str
    do: str
    nth: int
    bit: str | None = None


@dataclass(frozen=True)
class Expect:
    """The verdict that counts as a success."""

    conformance: str = "ACCEPTED"
    progress: str = "PROGRESS"
    known: tuple[str, ...] = ()
    fault_of: str | None = None


@dataclass(frozen=True)
class Experiment:
    """One experiment, with every default filled in."""

    name: str
    server: tuple[Operation, ...]
    client: tuple[Operation, ...]
    about: str = ""
    server_domain: DomainConfig = DomainConfig()
    client_domain: DomainConfig = DomainConfig()
    channel: ChannelConfig = ChannelConfig()
    timeouts: Timeouts = Timeouts()
    faults: tuple[Fault, ...] = ()
    expect: Expect = field(default_factory=Expect)

    def operations(self, endpoint: str) -> tuple[Operation, ...]:
        """What "server" or "client" does, in order."""
        return self.server if endpoint == "server" else self.client

    def domain(self, endpoint: str) -> DomainConfig:
        """Where "server" or "client" lives."""
        return self.server_domain if endpoint == "server" else self.client_domain

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Experiment:
        """The inverse of to_dict, also after a way through JSON."""
        return cls(
            name=data["name"],
            about=data["about"],
            server=tuple(_operation(o) for o in data["server"]),
            client=tuple(_operation(o) for o in data["client"]),
            server_domain=DomainConfig(**data["server_domain"]),
            client_domain=DomainConfig(**data["client_domain"]),
            channel=ChannelConfig(**data["channel"]),
            timeouts=Timeouts(**data["timeouts"]),
            faults=tuple(Fault(**f) for f in data["faults"]),
            expect=Expect(**{**data["expect"], "known": tuple(data["expect"]["known"])}),
        )


def default_path() -> Path:
    """The default experiment."""
    return Path(str(resources.files("vchan_testbed.guests"))).resolve().parent / (
        "experiments/default.yaml"
    )


def load_experiment(path: Path | None = None) -> Experiment:
    """Read and check an experiment file; None is the default one. Raises InputError."""
    path = path or default_path()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", next_step="Name an experiment file (YAML)."
        ) from error
    return parse_experiment(text, str(path))


def parse_experiment(text: str, name: str) -> Experiment:
    """The same from a text; `name` stands for the file in errors."""
    source = _Source(text, name)
    validator = jsonschema.Draft202012Validator(_schema())
    problems = sorted(validator.iter_errors(source.data), key=lambda e: len(e.absolute_path))
    if problems:
        raise _schema_error(source, _most_telling(problems[0]))
    experiment = _build(source.data)
    _refuse_what_cannot_end(source, experiment)
    return experiment


class _Source:
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


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


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


def _schema_error(source: _Source, problem: jsonschema.ValidationError) -> InputError:
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
    expected = schema.get("description") or problem.message
    return source.error(where, f"{place} is {found!r}", f"Expected {str(expected).rstrip('.')}.")


def _build(data: dict[str, Any]) -> Experiment:
    domains = data.get("domains", {})
    expect = dict(data.get("expect", {}))
    expect["known"] = tuple(expect.get("known", ()))
    return Experiment(
        name=data["name"],
        about=data.get("about", ""),
        server=tuple(_read_operation(o) for o in data["server"]),
        client=tuple(_read_operation(o) for o in data["client"]),
        server_domain=DomainConfig(**domains.get("server", {})),
        client_domain=DomainConfig(**domains.get("client", {})),
        channel=ChannelConfig(**data.get("channel", {})),
        timeouts=Timeouts(**data.get("timeouts", {})),
        faults=tuple(Fault(**f) for f in data.get("faults", ())),
        expect=Expect(**expect),
    )


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
    )


def _read_sizes(sizes: Any) -> tuple[int | str, ...]:
    if isinstance(sizes, int):
        return (sizes,)
    if isinstance(sizes, dict):
        return ("from", sizes["from"], "to", sizes["to"])
    return tuple(sizes)


def _operation(data: dict[str, Any]) -> Operation:
    return Operation(**{**data, "sizes": tuple(data["sizes"])})


def _refuse_what_cannot_end(source: _Source, experiment: Experiment) -> None:
    """The checks across fields, each with the place to look at."""
    _check_domains(source, experiment)
    for endpoint in ENDPOINTS:
        for number, operation in enumerate(experiment.operations(endpoint)):
            _check_operation(source, (endpoint, number), experiment, endpoint, operation)
    if experiment.expect != Expect():
        return
    for where, found, expected in _what_goes_wrong(experiment):
        raise source.error(where, found, expected)


def _check_domains(source: _Source, experiment: Experiment) -> None:
    if all(experiment.domain(e).type == "dom0" for e in ENDPOINTS):
        raise source.error(
            ("domains", "client", "type"),
            "both endpoints are dom0",
            "One end has to be another domain: a vchan to the own domain crashes kernels.",
        )


def _check_operation(
    source: _Source, where: Where, experiment: Experiment, endpoint: str, operation: Operation
) -> None:
    sizes = operation.sizes
    if sizes and sizes[0] == "from" and int(sizes[1]) > int(sizes[3]):
        raise source.error(where, f"sizes from {sizes[1]} to {sizes[3]}", "Expected from <= to.")
    if operation.do in ("send", "recv"):
        ring = ring_bytes(experiment.channel, endpoint, writes=operation.do == "send")
        largest = max(int(s) for s in sizes if s not in ("from", "to"))
        if largest > ring:
            raise source.error(
                where,
                f"a packet of {largest} bytes over a ring of {ring} bytes",
                "A packet has to fit the ring: the library refuses others.",
            )


def _what_goes_wrong(experiment: Experiment) -> Iterator[tuple[Where, str, str]]:
    """Place, finding and way out for each thing that must hang or lose bytes."""
    totals = {
        endpoint: {
            kind: sum(o.bytes for o in experiment.operations(endpoint) if o.do in kind_names)
            for kind, kind_names in (("out", SENDING), ("in", RECEIVING))
        }
        for endpoint in ENDPOINTS
    }
    to_end = {e: any(o.do == "read_to_end" for o in experiment.operations(e)) for e in ENDPOINTS}
    for writer, reader in (("client", "server"), ("server", "client")):
        out, taken = totals[writer]["out"], totals[reader]["in"]
        if out != taken and not to_end[reader]:
            yield (
                (reader,),
                f"the {writer} writes {out} bytes and the {reader} reads {taken}",
                "Make the totals equal, or name the outcome in `expect:`.",
            )
    if experiment.channel.blocking and experiment.channel.threads == "one":
        stuck = _standing_still(experiment)
        if stuck:
            endpoint, number = next(iter(stuck.items()))
            doing = " and ".join(f"the {e} in its operation {n + 1}" for e, n in stuck.items())
            yield (
                (endpoint, number),
                f"this cannot end: {doing} would wait for ever",
                "Let one end read what the other writes, or name the outcome in `expect:`.",
            )
    yield from _unacknowledged_close(experiment)


def _standing_still(experiment: Experiment) -> dict[str, int]:
    """Play the bytes through the rings: which endpoints never get past which operation."""
    room = {e: ring_bytes(experiment.channel, e, writes=True) for e in ENDPOINTS}
    filled = dict.fromkeys(ENDPOINTS, 0)
    lists = {e: experiment.operations(e) for e in ENDPOINTS}
    at = dict.fromkeys(ENDPOINTS, 0)
    done = dict.fromkeys(ENDPOINTS, 0)
    moved = True
    while moved:
        moved = False
        for end, peer in (("server", "client"), ("client", "server")):
            while at[end] < len(lists[end]):
                operation = lists[end][at[end]]
                missing = operation.bytes - done[end]
                if operation.do in SENDING:
                    count = min(missing, room[end] - filled[end])
                    filled[end] += count
                elif operation.do in RECEIVING:
                    count = min(missing, filled[peer])
                    filled[peer] -= count
                else:
                    count = missing
                    if operation.do == "read_to_end":
                        moved = moved or filled[peer] > 0
                        filled[peer] = 0
                        if at[peer] < len(lists[peer]):
                            break
                done[end] += count
                moved = moved or count > 0
                if done[end] < operation.bytes:
                    break
                at[end], done[end], moved = at[end] + 1, 0, True
    return {e: at[e] for e in ENDPOINTS if at[e] < len(lists[e])}


def _unacknowledged_close(experiment: Experiment) -> Iterator[tuple[Where, str, str]]:
    for endpoint in ENDPOINTS:
        before: Operation | None = None
        for number, operation in enumerate(experiment.operations(endpoint)):
            if operation.do == "close" and before is not None and before.do in SENDING:
                yield (
                    (endpoint, number),
                    f"the {endpoint} closes right after it wrote: the tail may be lost (L1)",
                    "Read an acknowledgement before `close`, or name the outcome in `expect:`.",
                )
            if operation.bytes or operation.do == "read_to_end":
                before = operation


def ring_bytes(channel: ChannelConfig, endpoint: str, *, writes: bool) -> int:
    """The size of the ring that the library makes for what was asked.

    1 KiB and 2 KiB lie inside the shared page, so there is one of each at most; else 4 KiB up.
    Source: libxenvchan_server_init in tools/libs/vchan/init.c, Xen 4.17.
    """
    small, large = 1024, 2048
    left, right = channel.left_ring_bytes, channel.right_ring_bytes
    rings = [max(4096, 1 << (size - 1).bit_length()) for size in (left, right)]
    if left <= small and right <= large:
        rings = [small, large]
    elif left <= large and right <= small:
        rings = [large, small]
    elif left <= large:
        rings[0] = large
    elif right <= large:
        rings[1] = large
    return rings[0 if (endpoint == "client") == writes else 1]
