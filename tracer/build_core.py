"""Builds the extension `vchan_testbed.tracer._core` from core/*.c.

Runs with any cffi from 1.15 on, inside the guest image as well: `python3 build_core.py` builds
`_core.abi3.so` beside itself. setuptools takes `ffibuilder` through setup.py and makes the same
file. Nothing of Xen's is linked: what the core calls it finds in the process.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).absolute().parent
CORE = HERE / "core"
MODULE = "vchan_testbed.tracer._core"


def declarations() -> str:
    """What tracer.h declares, without the preprocessor's lines."""
    text = (CORE / "tracer.h").read_text()
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


def make_builder(folder: str) -> FFI:
    """The cffi builder; `folder` is where the compiler finds the sources."""
    builder = FFI()
    builder.cdef(declarations())
    builder.set_source(
        MODULE,
        '#include "tracer.h"',
        sources=[f"{folder}/{path.name}" for path in sorted(CORE.glob("*.c"))],
        include_dirs=[folder],
        depends=[f"{folder}/{path.name}" for path in sorted(CORE.glob("*.h"))],
        libraries=["Zydis"],
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
    )
    return builder


def build_in_place() -> Path:
    """Compile to `_core.abi3.so` in this folder, replaced whole."""
    target = HERE / "_core.abi3.so"
    with tempfile.TemporaryDirectory(prefix=".core.", dir=HERE) as work:
        # A copy, because objects are put beside their sources.
        shutil.copytree(CORE, Path(work) / "core")
        built = make_builder("core").compile(tmpdir=work, verbose=False)
        # cffi names it after this Python's version, though it compiles for the stable interface.
        shutil.move(built, Path(work) / target.name)
        os.replace(Path(work) / target.name, target)
    return target


ffibuilder = make_builder(os.path.relpath(CORE))

if __name__ == "__main__":
    print(build_in_place())
