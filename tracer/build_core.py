"""Builds the extension `vchan_testbed.tracer._core` from core/*.c.

Runs with any cffi from 1.15 on, inside the guest image as well: `python3 build_core.py` builds in
place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).absolute().parent
CORE = HERE / "core"


def declarations() -> str:
    """What api.h declares, without the preprocessor's lines and comments."""
    text = (CORE / "api.h").read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def make_builder() -> FFI:
    """The cffi builder, for setuptools and for building in place."""
    builder = FFI()
    builder.cdef(declarations())
    # setuptools wants paths relative to the project; they are links to where the sources are.
    base = Path(os.path.relpath(CORE))
    builder.set_source(
        "vchan_testbed.tracer._core",
        '#include "api.h"',
        sources=[str(base / path.name) for path in sorted(CORE.glob("*.c"))],
        include_dirs=[str(base)],
        libraries=["xenevtchn"],
        define_macros=[("_GNU_SOURCE", None)],
        # A handler that runs the real ALU instructions pushes the flags: no red zone.
        extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-mno-red-zone"],
    )
    return builder


ffibuilder = make_builder()

if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    make_builder().compile(tmpdir=".", verbose=False)
