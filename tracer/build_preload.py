"""Builds `_preload.abi3.so`, which traces a program that knows nothing of it.

No extension of Python: it is loaded into other programs (LD_PRELOAD), and named like one so that it
goes where they go. setuptools takes `make_extension` through setup.py; inside the guest image
`python3 build_preload.py` builds the same beside itself.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setuptools import Extension

HERE = Path(__file__).absolute().parent
MODULE = "vchan_testbed.tracer._preload"
NAME = "_preload.abi3.so"
OPTIONS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
PARTS = ("core", "preload")
LIBRARIES = ["Zydis", "dl", "pthread"]


def sources(folder: Path) -> list[str]:
    """All that is compiled."""
    return [str(path) for part in PARTS for path in sorted((folder / part).glob("*.c"))]


def make_extension() -> Extension:
    """What setuptools builds."""
    from setuptools import Extension

    folder = Path(os.path.relpath(HERE))
    return Extension(
        MODULE,
        sources=sources(folder),
        include_dirs=[str(folder / "core")],
        depends=[str(path) for part in PARTS for path in sorted((folder / part).glob("*.h"))],
        libraries=LIBRARIES,
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=OPTIONS,
        py_limited_api=True,
    )


def build_in_place() -> Path:
    """Compile it into this folder, replaced whole."""
    target = HERE / NAME
    with tempfile.TemporaryDirectory(prefix=".preload.", dir=HERE) as work:
        made = Path(work) / NAME
        command = ["cc", *OPTIONS, "-fPIC", "-shared", "-D_GNU_SOURCE", f"-I{HERE / 'core'}"]
        command += ["-o", str(made), *sources(HERE), *(f"-l{name}" for name in LIBRARIES)]
        subprocess.run(command, check=True)
        os.replace(made, target)
    return target


if __name__ == "__main__":
    print(build_in_place())
