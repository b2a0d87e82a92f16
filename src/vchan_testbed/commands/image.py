"""The guest images."""

from __future__ import annotations

import click

from vchan_testbed.guests.images import build
from vchan_testbed.progress import for_terminal


@click.group()
def image() -> None:
    """Build what the guests and dom0 boot from."""


@image.command("build")
def build_command() -> None:
    """Build the images as far as the cache lacks them, and say where they are.

    `run --host qemu` does this by itself. The first build fetches Debian packages, about 300 MB.
    """
    images = build(for_terminal())
    for name, version in sorted(images.versions.items()):
        click.echo(f"{name} {version}")
    click.echo(str(images.xen.parent))
