"""What is in use on the host: the same numbers before and after, or something leaked."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2.iproute.linux import AsyncIPRoute  # type: ignore[import-untyped]

from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.helper.agents import AGENT_MODULE
from vchan_testbed.guests.helper.keys import is_channel_key
from vchan_testbed.guests.helper.network import BRIDGE_PREFIX

GRANT_DEVICES = ("/dev/xen/gntdev", "/dev/xen/gntalloc")


async def counts() -> dict[str, int]:
    """Everything that a run takes.

    - domains: lines of `xl list`, dying ones too, without dom0
    - ports: dom0's event channels that are not closed (lsevtchn 0)
    - grants: mappings of /dev/xen/gntdev and gntalloc in dom0's processes (Xen's own table would
      have to be dumped to its console, for all domains)
    - keys: nodes of xenstore that are channels' (keys.py), and vif back ends
    - vifs, bridges: network interfaces named vif* and vtb*
    - processes: agents in dom0, and `xl create`s that stayed behind

    What a guest has given out itself, its ports and its grants, is not seen from here; it goes with
    the guest, which is why the domains are ended before the second count.
    """
    links = await _interfaces()
    return {
        "domains": len(await xl.list_domains()) - 1,
        "ports": len((await xl.run(_lsevtchn(), "0")).splitlines()),
        "grants": sum(_grant_mappings(process) for process in _processes()),
        "keys": count_keys(await xl.run("xenstore-ls", "-f", "/local/domain")),
        "vifs": sum(name.startswith("vif") for name in links),
        "bridges": sum(name.startswith(BRIDGE_PREFIX) for name in links),
        "processes": sum(is_left_over(_command(process)) for process in _processes()),
    }


def count_keys(listing: str) -> int:
    """Nodes of ours in what `xenstore-ls -f` printed (path = "value" a line)."""
    paths = (line.partition(" = ")[0] for line in listing.splitlines())
    return sum(is_channel_key(path) or "/backend/vif/" in path for path in paths)


def is_left_over(command: list[str]) -> bool:
    """Whether a command line is an agent's (supervisor or worker) or that of `xl create`."""
    if any(word.startswith(AGENT_MODULE) for word in command):
        return True
    return bool(command) and Path(command[0]).name == "xl" and "create" in command[1:]


async def _interfaces() -> list[str]:
    async with AsyncIPRoute() as route:
        found: list[Any] = [link async for link in await route.link("dump")]
    return [str(link.get_attr("IFLA_IFNAME")) for link in found]


def _lsevtchn() -> str:
    """Debian keeps it in a folder named after the release of Xen."""
    for folder in sorted(Path("/usr/lib").glob("xen-*/bin/lsevtchn")):
        return str(folder)
    return "lsevtchn"


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text(errors="replace").split("\0")
    except OSError:
        # It has ended in this moment.
        return []


def _grant_mappings(process: Path) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        try:
            maps = (process / "maps").read_text(errors="replace")
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EACCES):
                return 0
            raise
        return sum(line.endswith(GRANT_DEVICES) for line in maps.splitlines())
    return 0
