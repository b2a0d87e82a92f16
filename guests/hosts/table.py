"""Which host a word of --host means. The whole table; nothing registers itself."""

from __future__ import annotations

from collections.abc import Callable

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.helper.limits import HOST_FILE, read_limits
from vchan_testbed.guests.hosts.local import is_dom0, local_host
from vchan_testbed.guests.hosts.loopback import LoopbackHost
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.guests.hosts.ssh import ssh_host
from vchan_testbed.progress import Progress

HOSTS: dict[str, Callable[[Experiment, Progress], Host]] = {
    "loopback": lambda experiment, progress: LoopbackHost(),
    "qemu": QemuHost,
    "local": lambda experiment, progress: local_host(progress),
}


def open_host(name: str, experiment: Experiment, progress: Progress) -> Host:
    """The host that `name` means, not entered yet.

    `auto` is this machine's Xen where its owner allowed it, else QEMU: nobody's dom0 gets test
    domains by accident. Raises InputError.
    """
    if name == "auto":
        name, why = choose()
        progress.note(f"Host: {name} ({why}).")
    if name.startswith("ssh:"):
        return ssh_host(name, progress)
    if name not in HOSTS:
        known = ", ".join(["auto", *sorted(HOSTS), "ssh://USER@NAME"])
        raise InputError(f"there is no host {name!r}", next_step=f"Expected one of: {known}.")
    return HOSTS[name](experiment, progress)


def choose() -> tuple[str, str]:
    """What `auto` means here, and why. Raises InputError for a host file that cannot be read."""
    if not is_dom0():
        return "qemu", "this machine is not the dom0 of a Xen host"
    limits = read_limits()
    if limits is None or not limits.allow:
        return "qemu", f"{HOST_FILE} does not allow test domains on this machine's Xen"
    return "local", f"{HOST_FILE} allows test domains here"
