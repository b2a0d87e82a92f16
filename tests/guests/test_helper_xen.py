"""The helper on real Xen in QEMU: pairs of both types, dom0 as an endpoint, ssh, deaths, leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import Experiment, load_experiment
from vchan_testbed.guests.experiment_model import DomainConfig
from vchan_testbed.guests.frames import Message
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu import QemuHost, SshAccess
from vchan_testbed.guests.hosts.ssh import ssh_host
from vchan_testbed.guests.hosts.xen import XenHost
from vchan_testbed.progress import Quiet

pytestmark = pytest.mark.xen

SECONDS_MAX = 600.0


def pair(server: str, client: str) -> Experiment:
    """The default experiment with these types of domains."""
    return replace(
        load_experiment(None),
        server_domain=DomainConfig(type=server),
        client_domain=DomainConfig(type=client),
    )


@pytest.fixture(scope="module")
def machine() -> Iterator[QemuHost]:
    """A machine in QEMU whose dom0 has made no domain yet."""
    with QemuHost(pair("pvh", "pvh"), Quiet(), allow_warm=False) as host:
        yield host


@pytest.fixture
def xen(machine: QemuHost) -> Iterator[XenHost]:
    """Its host; nothing that a test took is left when it is over."""
    host = machine.running.host
    before = host.counts()
    yield host
    for link in host._links.values():
        link.close()
    host.client.ask("destroy")
    assert host.counts() == before


@pytest.fixture
def over_ssh(machine: QemuHost, ssh_address: Callable[[SshAccess], str]) -> Iterator[XenHost]:
    """The same dom0 as any Xen host: by ssh."""
    before = machine.counts()
    with ssh_host(ssh_address(machine.ssh()), Quiet()) as host:
        yield host
    assert machine.counts() == before


def message_of(link: AgentLink) -> Message:
    """The agent's next message."""
    frame = link.events.get(timeout=SECONDS_MAX)
    assert frame is not None
    return frame.message()


def assert_agents_answer(links: dict[str, AgentLink]) -> None:
    """Both say hello from a domain of this Xen, and hang up when they are asked to."""
    for link in links.values():
        hello = message_of(link)
        assert hello["type"] == "hello"
        assert hello["versions"]["xen"].startswith("4.17")
        link.send({"type": "finish"})
        assert message_of(link)["type"] == "bye"
        assert link.events.get(timeout=SECONDS_MAX) is None


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_a_pair_is_made_reached_and_gone(kind: str, xen: XenHost) -> None:
    links = xen.endpoints(pair(kind, kind))
    domids = {link.domid for link in links.values()}
    assert len(domids) == 2
    assert 0 not in domids
    counts = xen.counts()
    assert (counts["domains"], counts["vifs"], counts["bridges"]) == (2, 2, 1)
    types = [domain["config"]["type"] for domain in xen.client.ask("states")["domains"]]
    assert types == [kind, kind]
    assert_agents_answer(links)
    consoles = xen.consoles()
    for label, link in links.items():
        assert "vchan-testbed: listening" in consoles[f"{label}-{link.domid}"]
    assert "Freed" in consoles["xen"]


def test_dom0_is_an_endpoint_by_ssh_too(over_ssh: XenHost) -> None:
    assert over_ssh.facts()["xen_version"].startswith("4.17")
    links = over_ssh.endpoints(pair("dom0", "pv"))
    assert links["server"].domid == 0
    assert links["client"].domid != 0
    assert_agents_answer(links)


def test_a_guest_that_is_destroyed_by_others_is_told_of(xen: XenHost, machine: QemuHost) -> None:
    links = xen.endpoints(pair("pv", "pv"))
    for link in links.values():
        assert message_of(link)["type"] == "hello"
    victim = links["client"]
    with machine.running.qemu.connect("shell") as shell:
        shell.sendall(f"xl destroy {victim.domid}\n".encode())
        lost = message_of(victim)
        assert (lost["type"], lost["domid"], lost["state"]) == ("lost", victim.domid, "gone")
        assert victim.events.get(timeout=SECONDS_MAX) is None
    # Destroyed on purpose is not lost by the emulator.
    assert xen.lost_guests() == []
    links["server"].send({"type": "finish"})
    assert message_of(links["server"])["type"] == "bye"


def test_too_much_memory_is_refused_in_words(xen: XenHost) -> None:
    greedy = replace(pair("pv", "pv"), server_domain=DomainConfig("pv", memory_mib=1 << 20))
    with pytest.raises(TestbedError, match="could not make a domain") as caught:
        xen.endpoints(greedy)
    assert "memory" in caught.value.next_step
    assert caught.value.console
