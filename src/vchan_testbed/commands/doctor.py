"""What this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable

import click

from vchan_testbed.bindings.library import LibraryMissing, installed_soname, load_extension
from vchan_testbed.cache import cache_dir
from vchan_testbed.errors import ExitStatus, TestbedError
from vchan_testbed.guests.hosts import local, qemu_doctor, table
from vchan_testbed.guests.hosts.findings import Finding
from vchan_testbed.validate.tlc.jar import tla2tools

JAVA = "default-jdk-headless"
CACHE_MIB_MIN = 2048


@click.command()
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say what this machine can do and what is missing, and how to get it.

    Exit status: 0 when a run on real Xen can be made and judged here, 4 when it cannot.
    """
    judging = [java("java"), java("javac"), tlc(), cache()]
    hosts = {
        "qemu": found(qemu_doctor.doctor_findings),
        "local": found(local.doctor_findings),
    }
    show(
        "The loopback host (no Xen; for tests and development)",
        [libraries(), binding(), compiler()],
    )
    show("Judging a trace", judging)
    for host, findings in hosts.items():
        show(f"Real Xen: --host {host}", findings)
    usable = [host for host, findings in hosts.items() if all(one.ok for one in findings)]
    with contextlib.suppress(TestbedError):
        # A host file that cannot be read was told of above.
        chosen, why = table.choose()
        click.echo(f"Without --host a run takes: {chosen} ({why}).")
    able = bool(usable) and all(one.ok for one in judging)
    context.exit(ExitStatus.EXPECTED if able else ExitStatus.TESTBED_FAILED)


def found(look: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings, or why there are none: one thing that is missing must not hide the rest."""
    try:
        return look()
    except TestbedError as error:
        return [Finding("not looked at", False, error.message, error.next_step)]


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


def java(name: str) -> Finding:
    """What TLC runs on, or what compiles our classes for it: a JDK, where a JRE has only java."""
    how = f"sudo apt-get install --no-install-recommends {JAVA}"
    home = os.environ.get("JAVA_HOME")
    place = shutil.which(name, path=f"{home}/bin" if home else None)
    if place is None:
        where = f"not in {home}/bin (JAVA_HOME)" if home else "not found"
        return Finding(name, False, where, how)
    said = subprocess.run([place, "-version"], capture_output=True, text=True, check=False)
    lines = (said.stderr or said.stdout).splitlines()
    return Finding(name, said.returncode == 0, lines[0] if lines else place, how)


def tlc() -> Finding:
    """TLC's jar."""
    try:
        return Finding("TLC", True, str(tla2tools()))
    except TestbedError as error:
        return Finding("TLC", False, error.message, error.next_step)


def cache() -> Finding:
    """Where images and compiled classes are kept."""
    name = "cache folder"
    try:
        folder = cache_dir()
    except TestbedError as error:
        return Finding(name, False, error.message, error.next_step)
    if not os.access(folder, os.W_OK | os.X_OK):
        how = "Set VCHAN_TESTBED_CACHE to a folder that you may write to."
        return Finding(name, False, f"{folder} cannot be written to", how)
    free_mib = shutil.disk_usage(folder).free >> 20
    how = "Make room there, or set VCHAN_TESTBED_CACHE to a folder with more."
    return Finding(name, free_mib > CACHE_MIB_MIN, f"{folder}, {free_mib} MiB free", how)
