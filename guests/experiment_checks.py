"""What the fields of an experiment have to do with each other.

What must hang or lose bytes is refused, unless `expect:` names that outcome.
"""

from __future__ import annotations

from collections.abc import Iterator

from vchan_testbed.guests.experiment_file import Source, Where, scheduled
from vchan_testbed.guests.experiment_model import (
    ENDPOINTS,
    RECEIVING,
    SENDING,
    WRITES,
    Expect,
    Experiment,
    Operation,
    ring_bytes,
)
from vchan_testbed.guests.fault_rules import Setting, refusal, too_many
from vchan_testbed.guests.fault_steps import ON_DOMAINS
from vchan_testbed.guests.rings import standing_still
from vchan_testbed.guests.schedule import step_refusal
from vchan_testbed.guests.workload import JOIN, STREAM_BYTES_MAX
from vchan_testbed.tracer.faults import FAULTS_MAX, TURNS_MAX

HOLDING = ("delay", *ON_DOMAINS)
"""Faults that hold the endpoint which they are at."""
PEER_DOMAIN_GONE = "peer domain gone"
"""Whose fault a stop may be that the spec admits."""
STOOD_STILL = "stood still"
"""How a run ends in which both ends wait, and an idle channel with it."""
OF_NO_DIRECTION = ("pause", "await_hold", "wait", "stop", "is_open")


def refuse_what_cannot_end(source: Source, experiment: Experiment) -> None:
    """The checks across fields, each with the place to look at."""
    _check_domains(source, experiment)
    _check_tracing(source, experiment)
    for endpoint in ENDPOINTS:
        for number, operation in enumerate(experiment.operations(endpoint)):
            _check_operation(source, (endpoint, number), experiment, endpoint, operation)
        _check_total(source, experiment, endpoint)
        _check_awaited(source, experiment, endpoint)
    _check_faults(source, experiment)
    _check_schedule(source, experiment)
    _check_expectation(source, experiment)
    expect = experiment.expect
    wrong: list[tuple[Where, str, str]] = []
    if expect.progress == "PROGRESS" and expect.outcome != STOOD_STILL:
        wrong += _what_hangs(experiment)
        if expect.conformance == "ACCEPTED" and not expect.known:
            wrong += _unacknowledged_close(experiment)
    for where, found, expected in wrong:
        raise source.error(where, found, expected)


def _check_domains(source: Source, experiment: Experiment) -> None:
    in_dom0 = experiment.server_domain.type == "dom0"
    if in_dom0 and experiment.channel.server_grants_max is not None:
        raise source.error(
            ("channel", "server_grants_max"),
            "dom0 is to have a limit of grants",
            "It is the whole host's: let the server run in a domain of its own.",
        )
    if experiment.expect.no_channel is None and all(
        experiment.domain(e).type == "dom0" for e in ENDPOINTS
    ):
        raise source.error(
            ("domains", "client", "type"),
            "both endpoints are dom0",
            "One end has to be another domain: a vchan to the own domain crashes kernels.",
        )


def _check_tracing(source: Source, experiment: Experiment) -> None:
    if (experiment.tracing.variant, experiment.tracing.order) == ("emulation", "kept"):
        raise source.error(
            ("tracing", "order"),
            "emulation that keeps the order",
            "Each access takes a signal there: take `order: full`, or the variant translation.",
        )


def _check_operation(
    source: Source, where: Where, experiment: Experiment, endpoint: str, operation: Operation
) -> None:
    if operation.do == "close" and where[1] != len(experiment.operations(endpoint)) - 1:
        raise source.error(where, "`close` is not the last operation", "Nothing can follow it.")
    sizes = operation.sizes
    if sizes and sizes[0] == "from" and int(sizes[1]) > int(sizes[3]):
        raise source.error(where, f"sizes from {sizes[1]} to {sizes[3]}", "Expected from <= to.")
    if operation.once and operation.sizes != (operation.bytes,):
        raise source.error(
            where, f"{operation.bytes} bytes at once, in calls of other sizes", "Give one size."
        )
    if operation.do == JOIN and experiment.channel.threads == "one":
        raise source.error(
            where,
            "`join` in an endpoint with one thread",
            "It joins two directions: leave it out, or take `threads: duplex`.",
        )
    if operation.do in OF_NO_DIRECTION and experiment.channel.threads == "duplex":
        raise source.error(
            where,
            f"`{operation.do}` in an endpoint with a thread for each direction",
            "It belongs to neither: leave it out, or take `threads: one`.",
        )
    if operation.do in ("send", "recv"):
        ring = ring_bytes(experiment.channel, endpoint, writes=operation.do == "send")
        largest = max(int(s) for s in sizes if s not in ("from", "to"))
        if largest > ring:
            raise source.error(
                where,
                f"a packet of {largest} bytes over a ring of {ring} bytes",
                "A packet has to fit the ring: the library refuses others.",
            )


def _check_total(source: Source, experiment: Experiment, endpoint: str) -> None:
    total = sum(o.bytes for o in experiment.operations(endpoint) if o.do in SENDING)
    if total > STREAM_BYTES_MAX:
        raise source.error(
            (endpoint,),
            f"the {endpoint} writes {total} bytes",
            f"Expected {STREAM_BYTES_MAX} at most: each byte tells its position in the stream.",
        )


def _check_expectation(source: Source, experiment: Experiment) -> None:
    """What is expected together has to be what one verdict can say."""
    expect = experiment.expect
    if expect.no_channel is not None and expect != Expect(no_channel=expect.no_channel):
        raise source.error(
            ("expect", "no_channel"),
            "no channel is expected, and a verdict on one",
            "Expected nothing beside it.",
        )
    if expect.known and expect.conformance != "KNOWN":
        raise source.error(
            ("expect", "known"),
            f"known deviations are expected, and {expect.conformance}",
            "Expected conformance: KNOWN beside them.",
        )
    stalled = (expect.progress, expect.fault_of) == ("STALLED", PEER_DOMAIN_GONE)
    if expect.fault_of is not None and expect.progress != "VIOLATION" and not stalled:
        raise source.error(
            ("expect", "fault_of"),
            f"a fault is expected, and {expect.progress}",
            f"Expected progress: VIOLATION beside it, or STALLED beside {PEER_DOMAIN_GONE!r}.",
        )


def _check_faults(source: Source, experiment: Experiment) -> None:
    setting = Setting.of(experiment)
    for number, fault in enumerate(experiment.faults):
        if (wrong := refusal(fault, setting)) is not None:
            raise source.error(("faults", number, wrong.entry), wrong.found, wrong.expected)
    if (number_over := too_many(experiment.faults)) is not None:
        raise source.error(
            ("faults", number_over),
            f"more than {FAULTS_MAX} faults of one endpoint",
            f"Inject {FAULTS_MAX} at each endpoint at most.",
        )


def _check_schedule(source: Source, experiment: Experiment) -> None:
    if experiment.schedule and experiment.channel.threads == "duplex":
        raise source.error(
            ("schedule",),
            "a schedule of endpoints with a thread for each direction",
            "Its steps do not say whose they are: take `threads: one`.",
        )
    if len(experiment.schedule) > TURNS_MAX:
        raise source.error(
            ("schedule",), f"{len(experiment.schedule)} steps", f"Expected {TURNS_MAX} at most."
        )
    setting = Setting.of(experiment)
    for where, step in scheduled(source.data):
        if (wrong := step_refusal(step, setting)) is not None:
            raise source.error(where, wrong.found, wrong.expected)


def _check_awaited(source: Source, experiment: Experiment, endpoint: str) -> None:
    """Each await_hold takes one fault that holds the peer."""
    awaiting = [n for n, o in enumerate(experiment.operations(endpoint)) if o.do == "await_hold"]
    holds = [f for f in experiment.faults if f.do in HOLDING and f.side != endpoint]
    if len(awaiting) > len(holds):
        raise source.error(
            (endpoint, awaiting[len(holds)]),
            f"the {endpoint} awaits more holds than its peer has: {len(holds)}",
            "It would wait for ever: add a fault at the other side that holds it (delay, or one of "
            "its domain), or leave it out.",
        )


def _what_hangs(experiment: Experiment) -> Iterator[tuple[Where, str, str]]:
    """Place, finding and way out for each thing that must hang or end early."""
    for writer, reader in (("client", "server"), ("server", "client")):
        out = sum(o.bytes for o in experiment.operations(writer) if o.do in SENDING)
        taken = sum(o.bytes for o in experiment.operations(reader) if o.do in RECEIVING)
        to_end = any(o.do == "read_to_end" for o in experiment.operations(reader))
        if out != taken and not to_end and not _breaks_off(experiment, reader, out - taken):
            yield (
                (reader,),
                f"the {writer} writes {out} bytes and the {reader} reads {taken}",
                "Make the totals equal, or name the outcome in `expect:`.",
            )
    stuck = standing_still(experiment)
    for endpoint, peer in (ENDPOINTS, ENDPOINTS[::-1]):
        if endpoint in stuck and peer not in stuck and _breaks_off(experiment, peer):
            del stuck[endpoint]
    if stuck:
        endpoint, number = next(iter(stuck.items()))
        doing = " and ".join(f"the {e} in its operation {n + 1}" for e, n in stuck.items())
        yield (
            (endpoint, number),
            f"this cannot end: {doing} would wait for ever",
            "Let one end read what the other writes, or name the outcome in `expect:`.",
        )


def _unacknowledged_close(experiment: Experiment) -> Iterator[tuple[Where, str, str]]:
    for endpoint, peer in (("server", "client"), ("client", "server")):
        if not (
            _acknowledged(experiment.operations(endpoint), experiment.operations(peer))
            or _closes_when_all_is_read(experiment, endpoint)
            or _breaks_off(experiment, peer)
        ):
            yield (
                (endpoint, len(experiment.operations(endpoint)) - 1),
                f"the {endpoint} closes before the {peer} has said that it read everything: "
                "the tail may be lost (L1)",
                "Read an acknowledgement before the end, or name the outcome in `expect:`.",
            )


def _close_waits_for(experiment: Experiment, endpoint: str, cell: str) -> int | None:
    """How many bytes `cell` has to count before the endpoint, held so, closes; None: it is not."""
    channel = experiment.channel
    first = channel.left_first_index if cell.startswith("left") else channel.right_first_index
    for fault in experiment.faults:
        held = (fault.side, fault.do, fault.at) == (endpoint, "delay", "c_close")
        if held and fault.until and fault.until[0] == cell:
            return (fault.until[1] - first) % 2**32
    return None


def _closes_when_all_is_read(experiment: Experiment, endpoint: str) -> bool:
    written = sum(o.bytes for o in experiment.operations(endpoint) if o.do in SENDING)
    return _close_waits_for(experiment, endpoint, f"{WRITES[endpoint]}_cons") == written


def _breaks_off(experiment: Experiment, reader: str, unread_bytes: int = 1) -> bool:
    """Whether the reader is to close in the middle of what its peer writes."""
    writer = "client" if reader == "server" else "server"
    waits_for = _close_waits_for(experiment, reader, f"{WRITES[writer]}_prod")
    return waits_for is not None and unread_bytes > 0


def _acknowledged(own: tuple[Operation, ...], peer: tuple[Operation, ...]) -> bool:
    """Whether the last byte that `own` reads was written after the peer had read all of own's.

    Reading until the peer closes is one as well: who has closed reads no more.
    """
    written = sum(o.bytes for o in own if o.do in SENDING)
    awaited = sum(o.bytes for o in own if o.do in RECEIVING)
    if not written or any(o.do == "read_to_end" for o in own):
        return True
    seen = answered = 0
    for operation in peer:
        if operation.do in RECEIVING:
            seen += operation.bytes
        elif operation.do in SENDING:
            answered += operation.bytes
            if awaited and answered >= awaited:
                return seen >= written
    return False
