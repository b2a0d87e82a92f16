"""What test_network.py runs in a network namespace of its own: one function a test.

    unshare --net [--map-root-user] python bodies.py NAME

A function that returns has passed. Each namespace starts with nothing but lo.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pyroute2.iproute.linux import AsyncIPRoute  # type: ignore[import-untyped]

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.helper import agents, network
from vchan_testbed.guests.helper.agents import Agents
from vchan_testbed.guests.helper.network import Network, link_local

SECONDS_MAX = 30.0
SETTLE_SECONDS = 0.2
GUEST_END = "guest"
CHILD = Path(__file__).with_name("answer.py")


class Sent:
    """Where an agent's frames go: counts them."""

    def __init__(self) -> None:
        self.data = b""
        self.news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """A frame."""
        self.data += data
        self.news.set()

    async def drained(self) -> None:
        """At once."""

    async def until(self, what: bytes) -> None:
        """Wait until this was sent."""
        while what not in self.data:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), SECONDS_MAX)


class Domain:
    """What `Agents` needs of a domain."""

    def __init__(self, mac: str) -> None:
        self.name, self.domid, self.state = "a-guest", 1, "alive"
        self.address = link_local(mac)
        self.stirred = asyncio.Event()
        self.console = type("Console", (), {"text": "its last line"})()


@contextlib.asynccontextmanager
async def network_and_route() -> AsyncIterator[tuple[Network, Any]]:
    """A control network, and another netlink socket to look at it with."""
    async with AsyncIPRoute() as route:
        control = Network()
        try:
            yield control, route
        finally:
            await control.close()


async def links(route: Any) -> dict[str, Any]:
    """All interfaces by name."""
    return {link.get_attr("IFLA_IFNAME"): link async for link in await route.link("dump")}


def setting(interface: str, name: str) -> int:
    """One of an interface's IPv6 settings."""
    return int((network.SYSCTL / interface / name).read_text())


async def the_bridge_is_as_it_has_to_be_and_goes_away() -> None:
    async with network_and_route() as (control, route):
        await control.open()
        await control.open()
        bridge = (await links(route))["vtb0"]
        assert control.bridge == "vtb0"
        assert bridge["index"] == control.bridge_index
        assert bridge["state"] == "up"
        data = bridge.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
        assert data.get_attr("IFLA_BR_STP_STATE") == 0
        assert data.get_attr("IFLA_BR_FORWARD_DELAY") == 0
        assert data.get_attr("IFLA_BR_MCAST_SNOOPING") == 0
        assert {name: setting("vtb0", name) for name in network.BRIDGE_SETTINGS} == (
            network.BRIDGE_SETTINGS
        )
        addresses = [address async for address in await route.addr("dump")]
        assert all(a["family"] == 10 for a in addresses if a["index"] == control.bridge_index)
        await control.close()
        assert set(await links(route)) == {"lo"}
        await control.close()
        await control.open()
        assert "vtb0" in await links(route)


async def two_networks_do_not_take_each_others_bridge() -> None:
    async with network_and_route() as (first, route), network_and_route() as (second, _):
        await first.open()
        await second.open()
        assert (first.bridge, second.bridge) == ("vtb0", "vtb1")
        assert first.new_mac() != second.new_mac()
        await first.close()
        assert set(await links(route)) == {"lo", "vtb1"}


async def a_bridge_that_somebody_deleted_is_no_error_at_the_end() -> None:
    async with network_and_route() as (control, route):
        await control.open()
        await route.link("del", index=control.bridge_index)
        await control.close()
        assert set(await links(route)) == {"lo"}


async def a_vif_is_enslaved_when_it_is_there_and_also_when_it_comes_later() -> None:
    async with network_and_route() as (control, route):
        await control.open()
        await route.link("add", ifname="vif1.0", kind="veth", peer="one")
        await control.enslave("vif1.0")
        later = asyncio.create_task(control.enslave("vif2.0"))
        done, _ = await asyncio.wait({later}, timeout=SETTLE_SECONDS)
        assert not done
        await route.link("add", ifname="vif2.0", kind="veth", peer="two")
        await asyncio.wait_for(later, SECONDS_MAX)
        await control.enslave("vif2.0")
        there = await links(route)
        for name in ("vif1.0", "vif2.0"):
            assert there[name].get_attr("IFLA_MASTER") == control.bridge_index
            assert there[name]["flags"] & 1
            assert setting(name, "disable_ipv6") == 1
        assert setting("vtb0", "disable_ipv6") == 0


async def a_vif_that_never_comes_is_an_error_in_time() -> None:
    async with network_and_route() as (control, _):
        await control.open()
        network.VIF_SECONDS_MAX = SETTLE_SECONDS
        await fails("vif9.0 did not appear", control.enslave("vif9.0"))


async def too_many_bridges_are_an_error() -> None:
    network.BRIDGES_MAX = 2
    async with network_and_route() as (control, route):
        for name in ("vtb0", "vtb1"):
            await route.link("add", ifname=name, kind="bridge")
        await fails("are there already", control.open())
        assert control.bridge == ""


async def an_agent_is_reached_as_soon_as_its_guest_listens() -> None:
    async with network_and_route() as (control, route):
        await control.open()
        mac = control.new_mac()
        domain = Domain(mac)
        sent = Sent()
        serving = Agents(sent)
        reaching = asyncio.create_task(open_agent(serving, domain, control))
        done, _ = await asyncio.wait({reaching}, timeout=SETTLE_SECONDS)
        assert not done, "there is no guest yet"
        await add_vif(route, control, mac)
        with subprocess.Popen(
            ["unshare", "--net", sys.executable, str(CHILD), str(agents.PORT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as guest:
            try:
                await give_end_to(guest)
                await asyncio.wait_for(reaching, SECONDS_MAX)
                await sent.until(b"from the agent")
                await serving.close()
                assert await asyncio.to_thread(lines_until, guest, b"hung up") == b"hung up\n"
                # The tag ends in good order, for whoever reads it.
                assert sent.data.endswith(bytes([0, 0, 0, 0, 5, 0, 4, 0, 0, 0, 0, 0]))
            finally:
                guest.kill()


async def a_guest_that_dies_on_the_way_is_given_up_at_once() -> None:
    async with network_and_route() as (control, _):
        await control.open()
        domain = Domain(control.new_mac())
        reaching = asyncio.create_task(open_agent(Agents(Sent()), domain, control))
        await asyncio.wait({reaching}, timeout=SETTLE_SECONDS)
        domain.state = "crashed"
        domain.stirred.set()
        await fails("did not answer .* the domain is crashed", reaching)


async def a_guest_that_is_silent_is_given_up_and_one_that_speaks_is_not() -> None:
    agents.SILENCE_SECONDS_MAX = 1.0
    async with network_and_route() as (control, _):
        await control.open()
        domain = Domain(control.new_mac())
        reaching = asyncio.create_task(open_agent(Agents(Sent()), domain, control))
        for _ in range(8):
            done, _ = await asyncio.wait({reaching}, timeout=0.4)
            assert not done
            domain.stirred.set()
        await fails("did not answer", reaching)


async def a_session_that_ends_gives_up_its_guest() -> None:
    async with network_and_route() as (control, _):
        await control.open()
        serving = Agents(Sent())
        domain = Domain(control.new_mac())
        reaching = asyncio.create_task(open_agent(serving, domain, control))
        await asyncio.wait({reaching}, timeout=SETTLE_SECONDS)
        await serving.close()
        done, _ = await asyncio.wait({reaching}, timeout=SECONDS_MAX)
        assert reaching in done
        assert reaching.cancelled()


async def open_agent(serving: Agents, domain: Domain, control: Network) -> None:
    """Tag 5 for the agent in `domain`."""
    # The domain is one only as far as it is looked at.
    await serving.open_guest(5, domain, lambda: control.bridge_index, SECONDS_MAX)  # type: ignore[arg-type]


async def add_vif(route: Any, control: Network, mac: str) -> None:
    """A guest's interface: one end on the bridge, the other, with the guest's address, not yet."""
    await route.link(
        "add", ifname="vif1.0", kind="veth", peer={"ifname": GUEST_END, "address": mac}
    )
    await control.enslave("vif1.0")


async def give_end_to(guest: subprocess.Popen[bytes]) -> None:
    """Move the other end into the guest's namespace, and tell it so."""
    assert guest.stdin is not None
    assert guest.stdout is not None
    await asyncio.to_thread(guest.stdout.readline)
    async with AsyncIPRoute() as route:
        (index,) = await route.link_lookup(ifname=GUEST_END)
        await route.link("set", index=index, net_ns_fd=f"/proc/{guest.pid}/ns/net")
    guest.stdin.write(f"{GUEST_END}\n".encode())
    guest.stdin.flush()


def lines_until(guest: subprocess.Popen[bytes], what: bytes) -> bytes:
    """The first line that holds `what`."""
    assert guest.stdout is not None
    for line in guest.stdout:
        if what in line:
            return line
    return b""


async def fails(said: str, work: Awaitable[Any]) -> None:
    """The work raises a TestbedError that says this."""
    with pytest.raises(TestbedError, match=said):
        await asyncio.wait_for(work, SECONDS_MAX)


if __name__ == "__main__":
    body: Callable[[], Any] = globals()[sys.argv[1]]
    assert errno.ENETUNREACH in agents.NOT_YET
    asyncio.run(asyncio.wait_for(body(), 2 * SECONDS_MAX))
