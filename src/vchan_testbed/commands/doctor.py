"""What this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess

import click

from vchan_testbed.bindings.library import LibraryMissing, installed_soname, load_extension
from vchan_testbed.cache import cache_dir
from vchan_testbed.errors import ExitStatus, TestbedError
from vchan_testbed.guests.hosts import local, qemu_doctor
from vchan_testbed.guests.hosts.findings import Finding


@click.command()
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say what this machine can do and what is missing, and how to get it.

    Exit status: 0 when real Xen can be had here, 4 when it cannot.
    """
    show(
        "The loopback host (no Xen; for tests and development)",
        [libraries(), binding(), compiler()],
    )
    show("Judging a trace", [java(), cache()])
    hosts = {"qemu": qemu_doctor.doctor_findings(), "local": local.doctor_findings()}
    for host, findings in hosts.items():
        show(f"Real Xen: --host {host}", findings)
    usable = any(all(finding.ok for finding in findings) for findings in hosts.values())
    context.exit(ExitStatus.EXPECTED if usable else ExitStatus.TESTBED_FAILED)


def show(title: str, findings: list[Finding]) -> None:
    """One line a finding, and one more for what to do about it."""
    click.secho(title, bold=True)
    for finding in findings:
        mark = click.style("ok     ", "green") if finding.ok else click.style("missing", "red")
        click.echo(f"  {mark} {finding.name}: {finding.detail}")
        if not finding.ok and finding.how_to_get:
            click.echo(f"          Next: {finding.how_to_get}")


def libraries() -> Finding:
    """libxenvchan, the library under test."""
    soname = installed_soname()
    return Finding(
        "libxenvchan",
        soname is not None,
        soname or "not installed",
        "sudo apt-get install --no-install-recommends libxen-dev",
    )


def binding() -> Finding:
    """The cffi extension, and whether it is built for the library that is here."""
    try:
        load_extension()
    except LibraryMissing as error:
        return Finding("binding", False, error.message, error.next_step)
    return Finding("binding", True, "loads")


def compiler() -> Finding:
    """What builds the stand-ins."""
    found = shutil.which(os.environ.get("CC", "cc"))
    return Finding(
        "C compiler", found is not None, found or "not found", "sudo apt-get install gcc libc6-dev"
    )


def java() -> Finding:
    """What TLC runs on."""
    found = shutil.which("java")
    if found is None:
        how = "sudo apt-get install --no-install-recommends default-jdk-headless"
        return Finding("Java", False, "not found", how)
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    lines = (said.stderr or said.stdout).splitlines()
    return Finding("Java", said.returncode == 0, lines[0] if lines else found)


def cache() -> Finding:
    """Where images and compiled specs are kept."""
    try:
        folder = cache_dir()
    except TestbedError as error:
        return Finding("cache folder", False, error.message, error.next_step)
    free_mib = shutil.disk_usage(folder).free >> 20
    return Finding("cache folder", free_mib > 2048, f"{folder}, {free_mib} MiB free", "Make room.")
