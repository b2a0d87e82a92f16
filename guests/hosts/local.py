"""This machine's own Xen: the helper as a process of its own beside us, in dom0."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from vchan_testbed.errors import InputError
from vchan_testbed.guests.helper.build import helper_zipapp
from vchan_testbed.guests.helper.limits import HOST_FILE, read_limits
from vchan_testbed.guests.hosts.carrier import ProcessCarrier
from vchan_testbed.guests.hosts.client import HelperClient
from vchan_testbed.guests.hosts.findings import Finding
from vchan_testbed.guests.hosts.xen import XenHost, uploaded
from vchan_testbed.guests.images import build
from vchan_testbed.progress import Progress

HYPERVISOR = Path("/sys/hypervisor/type")
CAPABILITIES = Path("/proc/xen/capabilities")


def local_host(progress: Progress) -> XenHost:
    """This machine's Xen. Raises InputError where there is none, or not the rights to use it."""
    missing = [finding for finding in _needed() if not finding.ok]
    if missing:
        raise InputError(
            f"--host local: {missing[0].detail}",
            next_step=missing[0].how_to_get or "Try --host qemu.",
        )
    return XenHost(
        "local",
        lambda: HelperClient(ProcessCarrier([sys.executable, str(helper_zipapp())])),
        uploaded(lambda: build(progress)),
        progress,
    )


def is_dom0() -> bool:
    """Whether this machine is a Xen host's dom0."""
    try:
        return "control_d" in CAPABILITIES.read_text()
    except OSError:
        return False


def doctor_findings() -> list[Finding]:
    """What `--host local` needs, and whether `--host auto` may take it."""
    limits = read_limits()
    allowed = limits is not None and limits.allow
    return [
        *_needed(),
        Finding(
            "the owner's word",
            allowed,
            f"{HOST_FILE} allows test domains" if allowed else f"{HOST_FILE} does not allow them",
            "" if allowed else f"Write `allow: true` into {HOST_FILE}; else name --host local.",
        ),
    ]


def _needed() -> list[Finding]:
    dom0 = is_dom0()
    xl = shutil.which("xl")
    root = os.geteuid() == 0
    return [
        Finding(
            "Xen on this machine",
            dom0,
            "this is dom0" if dom0 else "this machine is not the dom0 of a Xen host",
            "" if dom0 else "Use --host qemu, or --host ssh://USER@NAME for a Xen host.",
        ),
        Finding(
            "xl", xl is not None, xl or "there is no xl here", "" if xl else "Install xen-utils."
        ),
        Finding("root", root, "root" if root else "not root", "" if root else "Run it as root."),
    ]
