"""Compile the stand-ins into the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.cache import cached, key_of
from vchan_testbed.errors import TestbedError

SOURCE_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class StandIn:
    """One shared object: its soname, its C files and its version script."""

    soname: str
    sources: tuple[str, ...]
    version_script: str


STAND_INS = (
    StandIn("libxenevtchn.so.1", ("evtchn.c", "ports.c", "host.c"), "evtchn.map"),
    StandIn("libxengnttab.so.1", ("gnttab.c", "grants.c", "ports.c", "host.c"), "gnttab.map"),
    StandIn(
        "libxenstore.so.4",
        ("xenstore.c", "watch.c", "transaction.c", "store.c", "host.c"),
        "xenstore.map",
    ),
    StandIn("libxenctrl.so.4.17", ("xenctrl.c", "host.c"), "xenctrl.map"),
)
GUARDIAN = "guardian"
GUARDIAN_SOURCES = (
    "guardian.c",
    "grants.c",
    "ports.c",
    "watch.c",
    "transaction.c",
    "store.c",
    "host.c",
)
COMPILE_FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")


def build_standins() -> Path:
    """The folder with the stand-ins and the guardian, compiled when it is not cached.

    Raises TestbedError when there is no compiler or libxen-dev's headers are missing.
    """
    compiler = _compiler()
    sources = sorted(
        path for path in SOURCE_FOLDER.iterdir() if path.suffix in (".c", ".h", ".map")
    )
    key = key_of(_version(compiler), Path(__file__), *sources)
    return cached("standins", key, lambda folder: _compile(compiler, folder))


def _compiler() -> str:
    name = os.environ.get("CC", "cc")
    found = shutil.which(name)
    if found is None:
        raise TestbedError(
            f"The stand-ins of the loopback host cannot be compiled: there is no {name}.",
            next_step="Install a C compiler (Debian: apt-get install gcc libc6-dev libxen-dev).",
        )
    return found


def _version(compiler: str) -> str:
    return subprocess.run(
        [compiler, "--version"], check=True, capture_output=True, text=True
    ).stdout


def _compile(compiler: str, folder: Path) -> None:
    for stand_in in STAND_INS:
        _run(
            [
                compiler,
                *COMPILE_FLAGS,
                "-fPIC",
                "-shared",
                f"-Wl,-soname,{stand_in.soname}",
                f"-Wl,--version-script={SOURCE_FOLDER / stand_in.version_script}",
                "-Wl,-z,defs",
                "-o",
                str(folder / stand_in.soname),
                *(str(SOURCE_FOLDER / source) for source in stand_in.sources),
            ]
        )
    sources = (str(SOURCE_FOLDER / source) for source in GUARDIAN_SOURCES)
    _run([compiler, *COMPILE_FLAGS, "-o", str(folder / GUARDIAN), *sources])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(
            "The stand-ins of the loopback host do not compile.",
            next_step="See the compiler's message; the headers come from Debian's libxen-dev.",
            console="\n".join((" ".join(command), done.stderr)),
        )
