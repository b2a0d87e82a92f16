"""The dom0 of a machine in QEMU, as a host behind ssh."""

from __future__ import annotations

from pathlib import Path

from vchan_testbed.guests.hosts.qemu import SshAccess


def ssh_config(access: SshAccess, folder: Path) -> str:
    """What ssh has to know to get there; the folder takes the host's key."""
    return (
        f"IdentityFile {access.key}\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known_hosts\nStrictHostKeyChecking accept-new\n"
    )
