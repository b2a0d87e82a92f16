"""A host with real Xen, wherever it is: this side of its helper.

The same code for this machine, for one behind ssh and for one in QEMU; they differ in what carries
the stream, where the guests' kernel lies, and whether an emulator may lose guests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import ENDPOINTS, DomainConfig, Experiment
from vchan_testbed.guests.frames import Message
from vchan_testbed.guests.hosts.client import (
    CREATE_SECONDS_MAX,
    AgentBehindHelper,
    HelperClient,
    HelperGone,
)
from vchan_testbed.guests.hosts.protocol import AgentLink, nothing_seen
from vchan_testbed.guests.images import Images
from vchan_testbed.progress import Progress

GUEST_SECONDS_MAX = 1200.0
"""From xl's unpause to the agent's answer; one that is silent for long is given up before."""
PINNED_CPU = "1"


@dataclass(frozen=True)
class Guest:
    """Paths on the host of what guests boot."""

    kernel: str
    ramdisk: str


class XenHost:
    """Domains behind a helper. `connect` opens the session, `guest` says what guests boot.

    `accelerator` is what QEMU runs the host with, where that is QEMU of our own. `baseline` is what
    was in use before the domains that an earlier session left idle were made.
    """

    def __init__(
        self,
        kind: str,
        connect: Callable[[], HelperClient],
        guest: Callable[[HelperClient], Guest],
        progress: Progress,
        *,
        accelerator: str = "none",
        baseline: Mapping[str, int] | None = None,
    ) -> None:
        self._kind = kind
        self._connect = connect
        self._guest = guest
        self._progress = progress
        self._accelerator = accelerator
        self._client_if_open: HelperClient | None = None
        self._baseline = None if baseline is None else dict(baseline)
        self._links: dict[str, AgentLink] = {}
        self._idle: dict[str, Message] = {}
        self._domids: dict[str, int] = {}

    def __enter__(self) -> Self:
        client = self._connect()
        self._client_if_open = client
        self._idle = {domain["label"]: domain for domain in client.hello["domains"]}
        try:
            if self._baseline is None:
                self._baseline = self.counts()
        except BaseException:
            client.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._hang_up()
            self._client.ask("destroy")
        except TestbedError:
            # The first failure is the one to hear of; the helper gives back by itself.
            if error is None:
                raise
        finally:
            self._client.close()
            self._client_if_open = None

    @property
    def kind(self) -> str:
        """One of local, ssh, qemu."""
        return self._kind

    @property
    def client(self) -> HelperClient:
        """The session with the helper, for what is asked of it beyond a run."""
        return self._client

    def facts(self) -> dict[str, Any]:
        """Xen's and dom0's, and how the host's CPUs are made."""
        return {**self._client.facts, "kind": self.kind, "accelerator": self._accelerator}

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        """Domains that run, and an agent in each. Asked again, it makes the pair anew.

        Raises TestbedError; whether it is a guest that the emulator has lost on the way is told by
        `lost_guests`.
        """
        self._hang_up()
        self.prepare(experiment)
        self._link(experiment)
        return dict(self._links)

    def prepare(self, experiment: Experiment) -> None:
        """Make the domains that the experiment needs, or take those that were left idle.

        They boot; whether their agents answer is seen by `endpoints` or `wait_for_guests`.
        """
        wanted = {
            endpoint: self._config(experiment.domain(endpoint))
            for endpoint in ENDPOINTS
            if experiment.domain(endpoint).type != "dom0"
        }
        idle, self._idle = self._idle, {}
        if set(idle) == set(wanted) and all(_is_as(idle[each], wanted[each]) for each in wanted):
            self._domids = {label: int(idle[label]["domid"]) for label in wanted}
            return
        self._client.ask("destroy")
        guest = self._guest(self._client)
        self._domids = {}
        for label, config in wanted.items():
            with self._progress.step(f"Make the {label}'s domain ({config['type']})"):
                self._domids[label] = self._create(label, config, guest)

    def wait_for_guests(self) -> None:
        """Until an agent in each domain has answered; it is let go again."""
        for domid in self._domids.values():
            self._client.agent(domid, GUEST_SECONDS_MAX).close()

    def act(self, domid: int, do: str) -> None:
        """Pause, unpause or destroy the domain of an endpoint. Raises TestbedError."""
        self._client.ask("act", domid=domid, do=do)

    def look(self, domids: Sequence[int], *, dump: bool) -> dict[int, dict[str, Any]]:
        """States of domains, and with `dump` the ports that Xen has of each."""
        try:
            answer = self._client.ask("look", domids=list(domids), dump=dump)
        except TestbedError as error:
            return nothing_seen(domids, error.message, dump=dump)
        return {seen["domid"]: _as_seen(seen, dump=dump) for seen in answer["domains"]}

    def lost_guests(self) -> list[str]:
        """Guests that died of a triple fault under an emulator: no workload does that."""
        if not self._emulated:
            return []
        states = self._client.ask("states")["domains"]
        return [
            f"The emulator lost the {domain['label']}'s guest (domain {domain['domid']}, triple"
            f" fault, {domain['state']})."
            for domain in states
            if domain.get("triple_fault")
        ]

    def selftest(self) -> dict[str, Any]:
        """dom0's; on a host that is not of our own making none runs there."""
        answer = self._client.ask("selftest")
        return {"ok": answer["ok"], "detail": answer["detail"]}

    def counts(self) -> dict[str, int]:
        """What is in use on the host (helper/counts.py says of each what is counted)."""
        return dict(self._client.ask("counts")["counts"])

    def baseline(self) -> dict[str, int]:
        """The counts when nothing had been taken yet."""
        assert self._baseline is not None
        return dict(self._baseline)

    def give_back(self) -> dict[str, int]:
        """End the agents and all domains, and count again. Raises TestbedError."""
        self._hang_up()
        self._idle, self._domids = {}, {}
        self._client.ask("destroy")
        return self.counts()

    def consoles(self) -> dict[str, str]:
        """Of the guests, Xen, dom0's kernel, the helper; what is left when that is gone."""
        try:
            return dict(self._client.ask("consoles")["consoles"])
        except HelperGone as error:
            return {"helper": "\n".join([*self._client.notes, error.console])}

    @property
    def _client(self) -> HelperClient:
        if self._client_if_open is None:
            raise TestbedError("The host is not open.", next_step="Use it in a `with` statement.")
        return self._client_if_open

    @property
    def _emulated(self) -> bool:
        """Whether guests may be lost by an emulator's fault."""
        return bool(self._client.facts["emulated"])

    def _config(self, config: DomainConfig) -> dict[str, Any]:
        kind = self._default_type() if config.type == "default" else config.type
        # Pinned PVH guests were not lost in 24 tries under TCG, others twice (4.17 and 4.20).
        pinned = self._emulated and kind == "pvh"
        return {**asdict(config), "type": kind, "cpus": PINNED_CPU if pinned else None}

    def _default_type(self) -> str:
        """PVH, as domains are made today; PV where that is emulated or the CPU cannot."""
        can = "hvm" in str(self._client.facts.get("virt_capabilities", "")).split()
        return "pvh" if can and not self._emulated else "pv"

    def _create(self, label: str, config: dict[str, Any], guest: Guest) -> int:
        answer = self._client.ask(
            "create", within=CREATE_SECONDS_MAX, name=label, config=config, **asdict(guest)
        )
        return int(answer["domid"])

    def _link(self, experiment: Experiment) -> None:
        with self._progress.step("Reach the agents"):
            for endpoint in ENDPOINTS:
                in_dom0 = experiment.domain(endpoint).type == "dom0"
                domid = 0 if in_dom0 else self._domids[endpoint]
                agent = self._client.agent(domid, GUEST_SECONDS_MAX)
                self._links[endpoint] = InDom0(agent, self._client) if in_dom0 else agent

    def _hang_up(self) -> None:
        for link in self._links.values():
            link.close()
        self._links = {}


class InDom0:
    """The link to an agent in dom0: what a domain's end takes along elsewhere is removed here."""

    def __init__(self, agent: AgentBehindHelper, client: HelperClient) -> None:
        self._agent = agent
        self._client = client
        self._path: str | None = None
        self.domid = agent.domid
        self.events = agent.events

    def send(self, message: Message) -> None:
        """Say something to the agent."""
        if message["type"] == "start" and message["role"] == "server":
            self._path = message["path"]
        self._agent.send(message)

    def close(self) -> None:
        """Hang up, then remove the channel's keys and the empty folders above them."""
        self._agent.close()
        if self._path is not None:
            path, self._path = self._path, None
            self._client.ask("remove_key", path=path)


def uploaded(images: Callable[[], Images]) -> Callable[[HelperClient], Guest]:
    """The guests' kernel and archive, built here and sent to the host once a session."""

    def send(client: HelperClient) -> Guest:
        found = images()
        return Guest(kernel=client.put(found.kernel), ramdisk=client.put(found.domu))

    return send


def on_the_host(client: HelperClient) -> Guest:
    """The guests' kernel and archive that dom0's own image holds."""
    guest = client.facts["guest"]
    if guest is None:
        raise TestbedError("dom0's image holds no guest.", next_step="Build the image again.")
    return Guest(**guest)


def _as_seen(seen: Message, *, dump: bool) -> dict[str, Any]:
    found = {"domain": {"state": seen["state"]}}
    return {**found, "event_channels": seen["event_channels"]} if dump else found


def _is_as(domain: Message, config: dict[str, Any]) -> bool:
    return bool(domain["config"] == config and domain["state"] == "alive")
