"""What an experiment is: frozen dataclasses, and the way to plain data and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

ENDPOINTS = ("server", "client")
WRITES = {"client": "left", "server": "right"}
"""The direction that each endpoint writes."""
SENDING = {"write", "send"}
RECEIVING = {"read", "recv"}


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
    left_first_index: int = 0
    """What both indices of the ring are set to before the client connects."""
    right_first_index: int = 0
    keys: str = "at once"
    """How the server's keys come into xenstore; "one by one": with a client's look in between."""
    server_grants_max: int | None = None
    """Pages that gntalloc may share in the server's domain; None: its own limit."""


@dataclass(frozen=True)
class Operation:
    """One entry of an endpoint's list.

    `do` is write, read, send, recv, read_to_end, pause, await_hold, wait, stop, join, data_ready,
    buffer_space, is_open or close; `sizes` is a tuple taken in turn, or ("from", A, "to", B), drawn
    from the seed. `once`: the call is made once, whatever it moves.
    """

    do: str
    bytes: int = 0
    sizes: tuple[int | str, ...] = ()
    pause_seconds: float = 0.0
    once: bool = False


@dataclass(frozen=True)
class Timeouts:
    """Watchdogs, in seconds. A run that stands still for `settle_seconds` is looked at."""

    connect_seconds_max: float = 60.0
    settle_seconds: float = 2.0
    run_seconds_max: float = 600.0


@dataclass(frozen=True)
class Tracing:
    """How both ends' accesses are recorded, as `vchan_testbed.tracer.attach` explains it."""

    level: str = "exact"
    """exact, or calls: no access is recorded."""
    variant: str = "translation"
    order: str | None = None
    """kept or full; None: what the variant has by default."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong at one end: the `nth` time that `side` takes the action `at` of the spec.

    `do` is drop, delay, repeat, stale, corrupt or kill; of a domain pause, unpause, destroy, panic
    or save. `behind` is an own action and how often it has to be taken before `at` is counted. A
    delay has `seconds`, or `until`: an action of the peer and which time, or a field of the shared
    page and a value. `value` or `xor` are what a corrupt puts there; `domain` is the end whose
    domain is meant.
    """

    side: str
    at: str
    nth: int
    do: str
    behind: tuple[str, int] | None = None
    seconds: float | None = None
    until: tuple[str, int] | None = None
    seconds_max: float | None = None
    value: int | None = None
    xor: int | None = None
    domain: str | None = None


@dataclass(frozen=True)
class Expect:
    """The verdict that counts as a success."""

    conformance: str = "ACCEPTED"
    progress: str = "PROGRESS"
    known: tuple[str, ...] = ()
    fault_of: str | None = None
    outcome: str | None = None
    """How the run is to end, in the words of `run.json`; None: that is left open."""
    no_channel: str | None = None
    """A part of what is to be said why no channel can be made; None: one is."""

    def is_met_by(self, message: str) -> bool:
        """Whether an error is the one that is expected."""
        return self.no_channel is not None and self.no_channel in message


@dataclass(frozen=True)
class Experiment:
    """One experiment, with every default filled in."""

    name: str
    server: tuple[Operation, ...]
    client: tuple[Operation, ...]
    about: str = ""
    needs: str | None = None
    """"xen": the loopback host lacks what it takes; None: any host will do."""
    server_domain: DomainConfig = DomainConfig()
    client_domain: DomainConfig = DomainConfig()
    channel: ChannelConfig = ChannelConfig()
    timeouts: Timeouts = Timeouts()
    tracing: Tracing = Tracing()
    faults: tuple[Fault, ...] = ()
    schedule: tuple[tuple[str, str], ...] = ()
    """Side and action of each step, in the order in which they are to be taken."""
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
            needs=data.get("needs"),
            server=tuple(_operation(o) for o in data["server"]),
            client=tuple(_operation(o) for o in data["client"]),
            server_domain=DomainConfig(**data["server_domain"]),
            client_domain=DomainConfig(**data["client_domain"]),
            channel=ChannelConfig(**data["channel"]),
            timeouts=Timeouts(**data["timeouts"]),
            tracing=Tracing(**data["tracing"]),
            faults=tuple(_fault(f) for f in data["faults"]),
            schedule=tuple((side, action) for side, action in data.get("schedule", ())),
            expect=Expect(**{**data["expect"], "known": tuple(data["expect"]["known"])}),
        )


def _operation(data: dict[str, Any]) -> Operation:
    return Operation(**{**data, "sizes": tuple(data["sizes"])})


def _fault(data: dict[str, Any]) -> Fault:
    pairs = {name: tuple(data[name]) if data[name] else None for name in ("until", "behind")}
    return Fault(**{**data, **pairs})


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
