"""Domains of real Xen with an image of one's own, and what an end in one of them says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from vchan_testbed.guests.experiment import Experiment, load_experiment
from vchan_testbed.guests.frames import Kind, Message
from vchan_testbed.guests.hosts.client import HelperClient
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.ssh import connect, parse_address
from vchan_testbed.guests.hosts.xen import Guest, XenHost
from vchan_testbed.progress import Quiet

SECONDS_MAX = 600


def roomy(memory_mib: int) -> Experiment:
    """The default one with guests of that size: the kernel unpacks into half of it at most."""
    default = load_experiment(None)
    return replace(
        default,
        server_domain=replace(default.server_domain, memory_mib=memory_mib),
        client_domain=replace(default.client_domain, memory_mib=memory_mib),
    )


def host_with(image: Path, address: str) -> XenHost:
    """The host behind ssh, whose guests have the initramfs `image`."""

    def guest(client: HelperClient) -> Guest:
        return Guest(kernel=client.facts["guest"]["kernel"], ramdisk=client.put(image))

    return XenHost("ssh", partial(connect, parse_address(address)), guest, Quiet())


def hear(
    link: AgentLink, kind: str, take: Callable[[int, bytes], None] = lambda offset, data: None
) -> Message:
    """The next message, which has to be of that kind; `take` gets the data on the way.

    Raises AssertionError for another one, and when the end is gone.
    """
    while True:
        frame = link.events.get(timeout=SECONDS_MAX)
        assert frame is not None, f"the end is gone, and {kind} was due"
        if frame.kind is Kind.DATA:
            take(*frame.data())
        elif frame.kind is Kind.MESSAGE:
            message = frame.message()
            assert message["type"] == kind, message
            return message
