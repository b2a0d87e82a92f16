"""The control network: a bridge of our own on which dom0 reaches the agents, and nobody else.

No uplink, no address but the link-local one, nothing forwarded, the machine's firewall as it is.
Whatever has to become ready is waited for by its netlink event.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2.iproute.linux import AsyncIPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl import (  # type: ignore[import-untyped]
    RTMGRP_IPV6_IFADDR,
    RTMGRP_LINK,
)

from vchan_testbed.errors import TestbedError

BRIDGE_PREFIX = "vtb"
BRIDGES_MAX = 64
MAC_PREFIX = "00:16:3e"
"""Xen's own, of which everybody may take addresses."""
VIF_SECONDS_MAX = 60.0
SYSCTL = Path("/proc/sys/net/ipv6/conf")

# The bridge has an address of its own making; what a guest advertises is not believed.
BRIDGE_SETTINGS = {"accept_dad": 0, "dad_transmits": 0, "accept_ra": 0, "disable_ipv6": 0}


class Network:
    """The bridge, made with the first vif and removed by `close`."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._route: Any = None
        self._watcher: asyncio.Task[None] | None = None
        # Three bytes of chance: two helpers on one host do not take the same addresses.
        self._macs = int.from_bytes(secrets.token_bytes(3), "big")
        self.bridge = ""
        self.bridge_index = 0

    async def open(self) -> None:
        """Make the bridge if there is none. Raises TestbedError."""
        if self.bridge:
            return
        if not SYSCTL.exists():
            raise TestbedError(
                "The control network needs IPv6, and this host's kernel has it switched off.",
                next_step="Start that kernel without ipv6.disable=1.",
            )
        self._route = AsyncIPRoute()
        await self._route.setup_endpoint()
        events = AsyncIPRoute()
        await events.bind(groups=RTMGRP_LINK | RTMGRP_IPV6_IFADDR)
        self._watcher = asyncio.create_task(self._watch(events))
        try:
            await self._make_bridge()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Remove the bridge. The vifs on it go with their domains."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        if self._route is None:
            return
        if self.bridge_index:
            try:
                await self._route.link("del", index=self.bridge_index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise
        self.bridge, self.bridge_index = "", 0
        self._route.close()
        self._route = None

    def new_mac(self) -> str:
        """An address for a vif."""
        self._macs = (self._macs + 1) % (1 << 24)
        return MAC_PREFIX + "".join(f":{byte:02x}" for byte in self._macs.to_bytes(3, "big"))

    async def enslave(self, name: str) -> None:
        """Put the vif `name` on the bridge, as soon as it is there. Raises TestbedError."""
        deadline = asyncio.get_running_loop().time() + VIF_SECONDS_MAX
        while True:
            # Cleared before the look: a change between look and wait would be slept through.
            self._changed.clear()
            if index := await self.index_of(name):
                break
            if not await self._change_before(deadline):
                raise TestbedError(
                    f"The network interface {name} did not appear within {VIF_SECONDS_MAX:.0f} s.",
                    next_step="Look at dom0's kernel log: is the module xen-netback loaded?",
                )
        # All vifs have the same address: fe:ff:ff:ff:ff:ff.
        setting(name, "disable_ipv6", 1)
        await self._route.link("set", index=index, master=self.bridge_index, state="up")

    async def index_of(self, name: str) -> int:
        """The index of an interface, 0 when it is not there."""
        found = await self._route.link_lookup(ifname=name)
        return int(found[0]) if found else 0

    async def _change_before(self, deadline: float) -> bool:
        left = deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _make_bridge(self) -> None:
        for number in range(BRIDGES_MAX):
            name = f"{BRIDGE_PREFIX}{number}"
            try:
                await self._route.link(
                    "add",
                    ifname=name,
                    kind="bridge",
                    address=self.new_mac(),
                    br_stp_state=0,
                    br_forward_delay=0,
                    br_mcast_snooping=0,
                )
            except NetlinkError as error:
                if error.code == errno.EEXIST:
                    continue
                raise TestbedError(
                    f"The bridge {name} cannot be made: {error}",
                    next_step="Is the module bridge there (modprobe bridge)?",
                ) from error
            self.bridge, self.bridge_index = name, await self.index_of(name)
            for key, value in BRIDGE_SETTINGS.items():
                setting(name, key, value)
            await self._route.link("set", index=self.bridge_index, state="up")
            return
        raise TestbedError(
            f"{BRIDGES_MAX} bridges named {BRIDGE_PREFIX}* are there already.",
            next_step="Remove those of runs that are over: ip link delete NAME.",
        )

    async def _watch(self, events: Any) -> None:
        try:
            while True:
                async for _ in events.get():
                    self._changed.set()
                    self._on_change()
        finally:
            events.close()


def setting(interface: str, name: str, value: int) -> None:
    """Set one of an interface's IPv6 settings."""
    (SYSCTL / interface / name).write_text(f"{value}\n")


def link_local(mac: str) -> str:
    """The link-local address that Linux makes of a MAC address (RFC 4291, appendix A)."""
    parts = [int(part, 16) for part in mac.split(":")]
    parts[0] ^= 0x02
    parts[3:3] = [0xFF, 0xFE]
    words = [f"{parts[i] << 8 | parts[i + 1]:x}" for i in range(0, 8, 2)]
    return "fe80::" + ":".join(words)
