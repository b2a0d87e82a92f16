"""The sections of the page that come from run.json: how it stood at the end, and how to repeat it.

A run that was cut short has less in its run.json, so nothing here takes an entry for granted.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from vchan_testbed.tracer.layout import LOOK_BYTES, Cell
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report import units
from vchan_testbed.validate.report.blocks import Block, Code, Points, Section, Table, Text

Facts = Mapping[str, Any]

ENDPOINTS = ("server", "client")


def sections_of(
    run: Path, facts: Facts, spec_hash: str, traces: Mapping[str, Trace]
) -> tuple[Section, ...]:
    """The page's sections, in the order of the page; `facts` is what run.json holds."""
    return (
        Section("end", "How the run ended", tuple(_ending(facts, traces))),
        Section("repeat", "Repeat it", tuple(_repeat(run, facts))),
        Section("versions", "Versions", (versions(facts, spec_hash, traces),)),
        Section("experiment", "Experiment", (_experiment(facts),)),
    )


def _ending(facts: Facts, traces: Mapping[str, Trace]) -> Iterator[Block]:
    outcome = facts.get("outcome")
    yield Text(f"Outcome: {outcome}." if outcome else "The run did not come to an end.")
    notes = [f"{role}: {note}" for role in ENDPOINTS for note in traces[role].notes]
    notes += [str(message) for message in facts.get("messages") or ()]
    if notes:
        yield Points(tuple(notes))
    heads = ("Endpoint", "Domain", "Ended", "Trace", "Records", "Records dropped")
    rows = tuple(
        (
            role,
            str(_endpoint(facts, role).get("domid", traces[role].header.domid)),
            str(_endpoint(facts, role).get("ended", "unknown")),
            traces[role].ending,
            units.count(len(traces[role].records)),
            units.count(traces[role].dropped),
        )
        for role in ENDPOINTS
    )
    yield Table("The two endpoints", heads, rows)
    yield from _quiescence(facts)


def _endpoint(facts: Facts, role: str) -> Mapping[str, Any]:
    return (facts.get("endpoints") or {}).get(role) or {}


def _quiescence(facts: Facts) -> Iterator[Block]:
    quiescence = facts.get("quiescence")
    if not quiescence:
        yield Text("The run was not looked at for standing still: it went on until it ended.")
        return
    settle = quiescence.get("settle_seconds")
    found = (
        "nothing had moved, and no event was there to be read"
        if quiescence.get("quiescent")
        else "something moved, or an event was there to be read"
    )
    yield Text(f"Looked at twice, {settle} s apart: {found}.")
    looks = quiescence.get("looks") or []
    heads = ("Seen", *(_look_title(number, look) for number, look in enumerate(looks, 1)))
    rows = tuple(
        (f"{role}: {name}", *(look_words(look, role)[name] for look in looks))
        for role in ENDPOINTS
        for name in (look_words(looks[0], role) if looks else ())
    )
    yield Table("Each look, each endpoint", heads, rows, numeric=False)


def _look_title(number: int, look: Mapping[str, Any]) -> str:
    at = look.get("at_seconds")
    return f"Look {number}" + (f", after {at:.1f} s" if isinstance(at, int | float) else "")


def look_words(look: Mapping[str, Any], role: str) -> dict[str, str]:
    """What one look shows of one endpoint, in words."""
    seen = (look.get("endpoints") or {}).get(role) or {}
    threads = seen.get("threads") or []
    blocked = sum(1 for thread in threads if thread.get("blocked_in_kernel"))
    records = seen.get("records")
    places = sorted({str(each["wait_channel"]) for each in threads if each.get("wait_channel")})
    return {
        "alive": _yes_no(seen.get("alive")) + (", stopped" if seen.get("stopped") else ""),
        "in call": str(seen.get("in_call") or "none"),
        "threads blocked in the kernel": f"{blocked} of {len(threads)}"
        + (f" ({', '.join(places)})" if places else ""),
        "event fd readable": _yes_no(seen.get("event_fd_readable")),
        "events counted by the kernel": _interrupts(seen.get("interrupts")),
        "events read by the process": _number(seen.get("events_read")),
        "domain, as Xen has it": _known(seen.get("domain"), "state"),
        "its port in Xen": _port(seen),
        "records": _number(records),
        "shared page": page_words(seen.get("page")),
    }


def _interrupts(seen: object) -> str:
    """When the channel was ready, and now."""
    if not isinstance(seen, Mapping):
        return "unknown"
    ready, now = (_known(seen.get(when), "count") for when in ("ready", "now"))
    return now if ready == now and ready.startswith("unknown") else f"{ready} at first, {now} now"


def _port(seen: Mapping[str, Any]) -> str:
    """The port's number, and its bits if Xen was asked."""
    number, bits = _number(seen.get("port")), seen.get("event_channel")
    if not isinstance(bits, Mapping):
        return f"{number}; not asked for"
    if not isinstance(bits.get("pending"), bool):
        return f"{number}; {_known(bits, 'pending')}"
    words = (name if bits.get(name) else f"not {name}" for name in ("pending", "masked"))
    return f"{number}; {', '.join(words)}"


def _known(seen: object, name: str) -> str:
    """An entry of a look, or that it is unknown, and why."""
    found = seen if isinstance(seen, Mapping) else {}
    if found.get(name) is not None:
        return str(found[name])
    return f"unknown: {found['why']}" if found.get("why") else "unknown"


def _number(value: object) -> str:
    return units.count(value) if isinstance(value, int) else "unknown"


def _yes_no(value: object) -> str:
    return (
        {True: "yes", False: "no"}.get(value, "unknown") if isinstance(value, bool) else "unknown"
    )


def page_words(page: object) -> str:
    """The head of the shared page, given in hexadecimal, in words."""
    try:
        data = bytes.fromhex(str(page or ""))
    except ValueError:
        data = b""
    if len(data) < LOOK_BYTES:
        return "not seen"
    left_cons, left_prod, right_cons, right_prod = struct.unpack_from("<4I", data)
    return (
        f"left prod {left_prod}, cons {left_cons}; right prod {right_prod}, cons {right_cons}; "
        f"live: server {data[Cell.SRV_LIVE]}, client {data[Cell.CLI_LIVE]}; "
        f"notify: server {data[Cell.SRV_NOTIFY]}, client {data[Cell.CLI_NOTIFY]}"
    )


def _repeat(run: Path, facts: Facts) -> Iterator[Block]:
    command = facts.get("command")
    if isinstance(command, Mapping):
        yield Code("Run the same experiment with the same seed", run_again(command, facts))
        if command.get("experiment"):
            yield Text("The file is named as it was then, from the folder in which that was typed.")
    else:
        yield Text("run.json does not say with which command this run was made.")
    # The run's folder was made by somebody's shell, and may have been copied: its own name only.
    judge = ["vchan-testbed", "validate", run.resolve().name]
    yield Code("Judge these traces again, without Xen", shlex.join(judge))


def run_again(command: Mapping[str, Any], facts: Facts) -> str:
    """The command line that does the same again: what was asked for, and the seed that it got."""
    words = ["vchan-testbed", "run"]
    if command.get("experiment"):
        words.append(str(command["experiment"]))
    for option, value in (
        ("--host", command.get("host")),
        ("--domain-type", command.get("domain_type")),
        ("--seed", facts.get("seed")),
    ):
        if value is not None:
            words += [option, str(value)]
    return shlex.join(words)


def versions(facts: Facts, spec_hash: str, traces: Mapping[str, Trace]) -> Table:
    """Everything whose version can matter."""
    host = facts.get("host") or {}
    rows = [
        ("Run", str(facts.get("run_id") or "unknown")),
        ("Seed", str(facts.get("seed", "unknown"))),
        ("Host", str(host.get("kind") or "unknown")),
        ("Xen", str(host.get("xen_version") or "none: no Xen was involved")),
        ("Domain type", str(facts.get("domain_type") or "none")),
        ("Spec", spec_hash or str(facts.get("spec_hash") or "unknown")),
    ]
    shown = {"kind", "xen_version"}
    rows += [(f"Host: {key}", _plain(host[key])) for key in host if key not in shown]
    for role in ENDPOINTS:
        header = traces[role].header
        rows += [
            (f"Library of the {role}", header.library or "unknown"),
            (f"Kernel of the {role}", header.kernel or "unknown"),
            (f"TSC of the {role}", _frequency(header.tsc_hz)),
        ]
    rows += [(str(key), _plain(value)) for key, value in (facts.get("versions") or {}).items()]
    return Table("What took part", ("Part", "Version"), tuple(rows), numeric=False)


def _frequency(hz: int) -> str:
    return f"{hz / 1e6:.3f} MHz" if hz else "unknown"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(below)}" for key, below in value.items())
    return "unknown" if value is None else str(value)


def _experiment(facts: Facts) -> Code:
    experiment = facts.get("experiment") or {}
    text = yaml.safe_dump(
        experiment, sort_keys=False, allow_unicode=True, width=88, default_flow_style=None
    )
    return Code("As it was run, with every default filled in", text.strip())
