"""What this machine has and lacks for booting Xen in QEMU."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from vchan_testbed.cache import cache_dir
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.hosts.accelerator import kept_answer, qemu_version
from vchan_testbed.guests.hosts.findings import Finding
from vchan_testbed.guests.hosts.machine import MEMORY_MIB_MIN, QEMU
from vchan_testbed.guests.images import kept_root

CACHE_MIB_MIN = 4096
_INSTALL = "sudo apt-get install --no-install-recommends"


def doctor_findings() -> list[Finding]:
    """One finding for each thing that `--host qemu` needs; nothing is built or booted."""
    return [_qemu(), _accelerator(), _image_maker(), _ssh(), _memory(), _room()]


def _qemu() -> Finding:
    try:
        return Finding("QEMU", True, qemu_version())
    except TestbedError as error:
        return Finding("QEMU", False, error.message, f"{_INSTALL} qemu-system-x86")


def _accelerator() -> Finding:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Finding("accelerator", True, "TCG (slower than KVM): /dev/kvm cannot be opened")
    answer = kept_answer() if shutil.which(QEMU) else None
    if answer is None:
        return Finding("accelerator", True, "KVM if Xen boots in it: the first run tries, else TCG")
    return Finding("accelerator", True, f"{answer.accelerator.name.upper()}: {answer.reason}")


def _image_maker() -> Finding:
    name = "guest image"
    if kept_root() is not None:
        return Finding(name, True, "its Debian root is in the cache")
    if shutil.which("mmdebstrap") is None:
        how = f"{_INSTALL} mmdebstrap uidmap"
        return Finding(name, False, "mmdebstrap, which makes it, is not installed", how)
    if os.geteuid() == 0:
        return Finding(name, True, "mmdebstrap makes it at the first run, as root")
    user = pwd.getpwuid(os.geteuid()).pw_name
    if shutil.which("newuidmap") is None:
        return Finding(name, False, "a user needs newuidmap to make it", f"{_INSTALL} uidmap")
    for table in (Path("/etc/subuid"), Path("/etc/subgid")):
        if not _has_range(table, user):
            how = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            return Finding(name, False, f"{user} has no range in {table} to make it with", how)
    return Finding(name, True, "mmdebstrap makes it at the first run, in a user namespace")


def _has_range(table: Path, user: str) -> bool:
    lines = table.read_text().splitlines() if table.exists() else []
    return any(line.split(":")[0] in (user, str(os.geteuid())) for line in lines)


def _ssh() -> Finding:
    found = shutil.which("ssh-keygen")
    how = f"{_INSTALL} openssh-client"
    return Finding("ssh-keygen", found is not None, found or "not found", how)


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available_kib,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    available_mib = available_kib >> 10
    detail = f"{available_mib} MiB available, the machine gets {MEMORY_MIB_MIN} MiB"
    return Finding("memory", available_mib > MEMORY_MIB_MIN, detail, "End something large.")


def _room() -> Finding:
    folder = cache_dir()
    free_mib = shutil.disk_usage(folder).free >> 20
    how = "Make room there, or set VCHAN_TESTBED_CACHE to a folder with more."
    return Finding("room for images", free_mib > CACHE_MIB_MIN, f"{free_mib} MiB free", how)
