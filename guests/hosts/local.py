"""This machine's own Xen: the helper as a process beside this one, in dom0."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vchan_testbed.errors import InputError
from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.helper.build import helper_zipapp
from vchan_testbed.guests.helper.limits import HOST_FILE, read_limits
from vchan_testbed.guests.hosts.carrier import ProcessCarrier
from vchan_testbed.guests.hosts.client import HelperClient
from vchan_testbed.guests.hosts.findings import Finding
from vchan_testbed.guests.hosts.xen import XenHost, uploaded
from vchan_testbed.guests.images import build
from vchan_testbed.progress import Progress

CAPABILITIES = Path("/proc/xen/capabilities")
MODULES = ("xen_gntdev", "xen_gntalloc", "xen_evtchn", "xen_netback", "bridge")
_MODULES_FOLDER = Path("/sys/module")


def local_host(progress: Progress) -> XenHost:
    """This machine as a host, not opened yet. Raises InputError where it cannot be one."""
    for finding in [_dom0(), _root(), _tools()]:
        if not finding.ok:
            raise InputError(f"--host local: {finding.detail}.", next_step=finding.how_to_get)
    return XenHost("local", connect, uploaded(lambda: build(progress)), progress)


def connect() -> HelperClient:
    """Start the helper, with the Python that runs this: an agent in dom0 needs our package."""
    return HelperClient(ProcessCarrier([sys.executable, str(helper_zipapp())]))


def is_dom0() -> bool:
    """Whether this machine runs Xen and this is its dom0."""
    try:
        return "control_d" in CAPABILITIES.read_text()
    except OSError:
        return False


def doctor_findings() -> list[Finding]:
    """What a run on this machine's own Xen needs, and whether it is there."""
    dom0 = _dom0()
    if not dom0.ok:
        # Without Xen nothing else is worth installing.
        return [dom0]
    return [dom0, _root(), _tools(), *(_module(name) for name in MODULES), _owner()]


def _dom0() -> Finding:
    dom0 = is_dom0()
    return Finding(
        "Xen on this machine",
        dom0,
        "this is dom0" if dom0 else "this machine is not the dom0 of a Xen host",
        "Use --host qemu, which needs no Xen here, or --host ssh://USER@NAME for a Xen host.",
    )


def _root() -> Finding:
    return Finding(
        "rights",
        os.geteuid() == 0,
        "root" if os.geteuid() == 0 else f"user id {os.geteuid()}, and xl needs root",
        "Run vchan-testbed with sudo.",
    )


def _tools() -> Finding:
    lacking = [name for name in ("xl", "xenstore-watch") if xl.find_program(name) is None]
    return Finding(
        "Xen's tools",
        not lacking,
        f"there is no {' and no '.join(lacking)}" if lacking else "xl and the xenstore programs",
        "sudo apt-get install --no-install-recommends xen-utils-common xenstore-utils",
    )


def _module(name: str) -> Finding:
    there = (_MODULES_FOLDER / name).is_dir()
    return Finding(
        f"kernel module {name}",
        there,
        "loaded" if there else "not loaded",
        f"sudo modprobe {name}",
    )


def _owner() -> Finding:
    """Only `--host auto` asks for it: `--host local` is a word by itself."""
    try:
        limits = read_limits()
    except InputError as error:
        return Finding("its owner's word", False, error.message, error.next_step)
    allowed = limits is not None and limits.allow
    detail = f"{HOST_FILE} allows test domains"
    if not allowed:
        detail = f"{HOST_FILE} does not say `allow: true`: only --host local takes this Xen"
    return Finding("its owner's word", True, detail)
