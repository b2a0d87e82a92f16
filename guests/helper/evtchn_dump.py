"""Xen's own word on event channels: what `xl debug-keys e` adds to Xen's console.

    (XEN) Event channel information for domain 1:
    (XEN) Polling vCPUs: {}
    (XEN)     port [p/m/s]
    (XEN)       16 [0/1/  -   ]: s=3 n=0 x=0 d=2 p=16

One line a port: pending, masked, the state (3: interdomain), and then the domain and the port at
the other end (domain_dump_evtchn_info in xen/common/event_channel.c, Xen 4.17). The console is a
ring, of 16 KiB if nobody has said otherwise: what was written over is not known, and nothing is
guessed of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.helper import xl

HEAD = re.compile(r"Event channel information for domain (\d+):\s*$")
PORT = re.compile(r"^\(XEN\)\s+(\d+) \[([01])/([01])/[^\]]*\]: s=(\d+)(.*)$")
PEER = re.compile(r"\bd=(\d+) p=(\d+)")

Ports = list[dict[str, Any]]


async def dumped(domids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Each domain's ports, by domid: `ports`, None where they are not known, and then `why`."""
    try:
        before = await xl.run("xl", "dmesg")
        await xl.run("xl", "debug-keys", "e")
        after = await xl.run("xl", "dmesg")
    except TestbedError as error:
        return {domid: _unknown(error.message) for domid in domids}
    new = added(before, after)
    if new is None:
        why = "Xen's console has nothing left of before the dump: it was cut in the ring"
        return {domid: _unknown(why) for domid in domids}
    found = parse(new)
    why = "the dump of Xen's event channels has nothing of this domain: cut, or it is gone"
    return {domid: {"ports": found[domid]} if domid in found else _unknown(why) for domid in domids}


def added(before: str, after: str) -> str | None:
    """The lines that a console has had since; None when none of those before is left."""
    old, new = before.splitlines(), after.splitlines()
    for start in range(len(old)):
        left = len(old) - start
        # The first line that is left may have lost its beginning.
        if left <= len(new) and old[start + 1 :] == new[1:left] and old[start].endswith(new[0]):
            return "\n".join(new[left:])
    return None


def parse(text: str) -> dict[int, Ports]:
    """The ports in a dump, by domid. A domain whose heading is not there is not there at all."""
    found: dict[int, Ports] = {}
    ports: Ports | None = None
    for line in text.splitlines():
        if head := HEAD.search(line):
            ports = found.setdefault(int(head[1]), [])
        elif ports is not None and (port := PORT.match(line)):
            ports.append(_port(port))
    return found


def _port(match: re.Match[str]) -> dict[str, Any]:
    peer = PEER.search(match[5])
    return {
        "port": int(match[1]),
        "pending": match[2] == "1",
        "masked": match[3] == "1",
        "state": int(match[4]),
        "peer_domid": int(peer[1]) if peer else None,
        "peer_port": int(peer[2]) if peer else None,
    }


def _unknown(why: str) -> dict[str, Any]:
    return {"ports": None, "why": why}
