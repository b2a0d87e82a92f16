"""The guest images."""

from __future__ import annotations

import sys

import click

from vchan_testbed.guests.experiment import load_experiment
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.guests.images import build
from vchan_testbed.progress import for_terminal


@click.group()
def image() -> None:
    """Build what dom0 and the guests boot from, and look around in it."""


@image.command("build")
def build_command() -> None:
    """Build the images as far as the cache lacks them, and say where they are.

    `run --host qemu` does this by itself. The first build fetches Debian packages, about 300 MB.
    """
    images = build(for_terminal())
    for name, version in sorted(images.versions.items()):
        click.echo(f"{name} {version}")
    click.echo(str(images.xen.parent))


@image.command("boot")
def boot() -> None:
    """Start Xen in QEMU as a run does, say how to log in to its dom0, and wait for Ctrl-D."""
    with QemuHost(load_experiment(None), for_terminal()) as host:
        access = host.ssh()
        click.echo(
            f"ssh -p {access.port} -i {access.key} -o StrictHostKeyChecking=no"
            " -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@127.0.0.1"
        )
        click.echo("Xen runs until the end of this command's input (Ctrl-D).")
        sys.stdin.read()
