"""Builds the extension `vchan_testbed.bindings._vchan` against the libxenvchan of this machine.

The soname of libxenvchan is its Xen version, so an extension belongs to one library: the name
that it was linked with is compiled in. Runs with any cffi from 1.15 on, inside the guest image as
well: `python3 build_vchan.py` builds `_vchan.abi3.so` beside itself. setuptools takes `ffibuilder`
through setup.py and makes the same file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
MODULE = "vchan_testbed.bindings._vchan"


def soname_of_library() -> str:
    """The soname that `-lxenvchan` resolves to here. Raises RuntimeError without libxen-dev."""
    compiler = os.environ.get("CC", "cc").split()
    found = subprocess.run(
        [*compiler, "-print-file-name=libxenvchan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        raise RuntimeError("libxenvchan.so is not there: install the package libxen-dev")
    dynamic = subprocess.run(["readelf", "-d", found], capture_output=True, text=True, check=True)
    match = re.search(r"SONAME.*\[(.+)\]", dynamic.stdout)
    if match is None:
        raise RuntimeError(f"{found} has no soname")
    return match.group(1)


def make_builder() -> FFI:
    """The cffi builder, for setuptools and for building in place."""
    cdef, source = _declarations()
    builder = FFI()
    builder.cdef(cdef)
    builder.set_source(
        MODULE,
        source,
        libraries=["xenvchan"],
        define_macros=[("VCHAN_SONAME", f'"{soname_of_library()}"')],
        extra_compile_args=["-O2", "-Wall", "-Wno-unused-function"],
    )
    return builder


def build_in_place(builder: FFI) -> Path:
    """Compile to `_vchan.abi3.so` in this folder, replaced whole."""
    target = HERE / "_vchan.abi3.so"
    with tempfile.TemporaryDirectory(prefix=".vchan.", dir=HERE) as work:
        built = builder.compile(tmpdir=work, verbose=False)
        # cffi names it after this Python's version, though it compiles for the stable interface.
        shutil.move(built, Path(work) / target.name)
        os.replace(Path(work) / target.name, target)
    return target


def _declarations() -> tuple[str, str]:
    # By path: while the package is being built it cannot be imported yet.
    spec = importlib.util.spec_from_file_location("declarations", HERE / "declarations.py")
    if spec is None or spec.loader is None:
        raise RuntimeError(f"no declarations.py in {HERE}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.CDEF), str(module.SOURCE)


ffibuilder = make_builder()

if __name__ == "__main__":
    print(build_in_place(ffibuilder))
