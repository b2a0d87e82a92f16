"""What the host is, and what it lacks to serve as one."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.helper.emulator import emulated

CAPABILITIES = Path("/proc/xen/capabilities")
OWN_GUEST = Path("/usr/lib/vchan-testbed/domu")
XENSTORED = ("xenstored", "oxenstored")

# Whole output of `xl info` is in neither: it names the host.
INFO = {
    "xen_version": "xen_version",
    "xen_changeset": "xen_changeset",
    "xen_build_id": "build_id",
    "xen_command_line": "xen_commandline",
    "xen_capabilities": "xen_caps",
    "xen_scheduler": "xen_scheduler",
    "cpus": "nr_cpus",
    "total_memory_mib": "total_memory",
    "free_memory_mib": "free_memory",
    "virt_capabilities": "virt_caps",
}
NUMBERS = ("cpus", "total_memory_mib", "free_memory_mib")


async def facts() -> dict[str, Any]:
    """Xen, its command line and resources, dom0's kernel; `xen_version` is None without Xen.

    Sizes in MiB. `emulated` tells whether QEMU emulates this host's processors; `guest` names the
    kernel and the initramfs of guests where this host's own image holds them.
    """
    found: dict[str, Any] = {
        "xen_version": None,
        "kernel": f"{platform.system()} {platform.release()}",
        "kernel_version": platform.version(),
        "kernel_command_line": _read(Path("/proc/cmdline")),
        "machine": platform.machine(),
        "emulated": emulated(),
        "python": platform.python_version(),
        "xenstored": _xenstored(),
        "guest": _own_guest(),
    }
    with suppress(TestbedError):
        info = xl.parse_info(await xl.run("xl", "info"))
        found.update({name: info.get(key, "") for name, key in INFO.items()})
        found.update({name: int(found[name]) for name in NUMBERS if found[name]})
        (dom0,) = (domain for domain in await xl.list_domains() if domain.domid == 0)
        found["dom0_memory_mib"] = dom0.memory_mib
    return found


def problems() -> list[dict[str, str]]:
    """Why no domain can be made here: message and next_step for each reason; empty if it can."""
    found = []

    def lacks(message: str, next_step: str) -> None:
        found.append({"message": message, "next_step": next_step})

    if os.geteuid() != 0:
        lacks(
            "The helper does not run as root, and xl needs that.",
            "Run as root: ssh://root@NAME, or with sudo on this machine.",
        )
    if "control_d" not in _read(CAPABILITIES):
        if _read(Path("/sys/hypervisor/type")) == "xen":
            lacks("This is a guest of Xen, not its dom0.", "Name the host that it runs on.")
        else:
            lacks(
                "Xen does not run on this machine.",
                "Boot it with Xen, name another host, or use --host qemu, which needs none.",
            )
    lacking = [n for n in ("xl", "xenstore-watch", "xenstore-write") if not xl.find_program(n)]
    if lacking:
        lacks(
            f"This host has no {' and no '.join(lacking)}.",
            "Install Xen's tools there (Debian: xen-utils-common, xenstore-utils).",
        )
    return found


def _own_guest() -> dict[str, str] | None:
    names = {"kernel": "vmlinuz", "ramdisk": "initramfs"}
    paths = {name: OWN_GUEST / file for name, file in names.items()}
    if not all(path.exists() for path in paths.values()):
        return None
    return {name: str(path) for name, path in paths.items()}


def _xenstored() -> str:
    """Which xenstored serves: its process's name, or that it is a domain of its own."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (name := _read(entry / "comm")) in XENSTORED:
            return name
    return "in a domain of its own, or none"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
