"""Builds of the project's own libxenvchan (vchan.c), by one compiler or another."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
SONAME = "libxenvchan.so.4.17"
COMPILERS = ("gcc", "clang")
OPTIONS = ("-O0", "-O1", "-O2", "-O3", "-Os", "-O3 -march=haswell")


def build_library(folder: Path, compiler: str, *options: str) -> Path:
    """Compile it into a folder of its own in `folder`, for LD_LIBRARY_PATH; that folder."""
    made = folder / "-".join([compiler, *(option.strip("-") for option in options)])
    made.mkdir()
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *options]
    command += [f"-Wl,--version-script={HERE / 'vchan.map'}", f"-Wl,-soname,{SONAME}"]
    sources = [str(HERE / "vchan.c"), "-lxenevtchn", "-lxengnttab", "-lxenstore"]
    subprocess.run([*command, "-o", str(made / SONAME), *sources], check=True)
    return made
