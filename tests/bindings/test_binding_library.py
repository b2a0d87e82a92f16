"""The binding belongs to one libxenvchan, and says so when another one is here."""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vchan_testbed.bindings
from vchan_testbed.bindings import extension, raw
from vchan_testbed.bindings.library import (
    LibraryMissing,
    explain,
    installed_soname,
    installed_sonames,
    load_extension,
)

FOLDER = Path(vchan_testbed.bindings.__file__).parent
EXTENSION = FOLDER / "_vchan.abi3.so"


def copy_of_package(folder: Path) -> Path:
    """A copy of the package that can be broken; returns its bindings folder."""
    package = folder / "vchan_testbed"
    package.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copyfile(FOLDER.parent / name, package / name)
    shutil.copytree(
        FOLDER, package / "bindings", ignore=shutil.ignore_patterns("__pycache__", ".vchan*")
    )
    return package / "bindings"


def import_binding(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import the copy of the binding in a process of its own."""
    script = (
        "from vchan_testbed.errors import TestbedError\n"
        "try:\n"
        "    import vchan_testbed.bindings.raw as raw\n"
        "except TestbedError as error:\n"
        "    print(type(error).__name__, error, int(error.exit_status))\n"
        "else:\n"
        "    print('loaded', raw.library_soname())\n"
    )
    # -I: neither this folder nor the editable install may supply the package.
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + site_packages() + script],
        capture_output=True,
        text=True,
        check=True,
    )


def site_packages() -> str:
    """Lets a process that has no site folders import cffi's runtime."""
    import _cffi_backend

    return f"sys.path.append({str(Path(_cffi_backend.__file__).parent)!r})\n"


def test_the_soname_is_that_of_the_library_that_is_loaded() -> None:
    soname = raw.library_soname()
    assert re.fullmatch(r"libxenvchan\.so\.\d+\.\d+", soname)
    assert ctypes.CDLL(soname, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    assert soname in installed_sonames()
    assert installed_soname() in installed_sonames()
    assert load_extension().lib is extension.lib


def test_the_extension_uses_the_stable_interface() -> None:
    assert EXTENSION.name.endswith(".abi3.so")
    dynamic = subprocess.run(
        ["nm", "-D", "--undefined-only", EXTENSION], capture_output=True, text=True, check=True
    ).stdout
    private = re.findall(r"\b_Py\w+", dynamic)
    # What the stable interface itself makes of its macros.
    assert set(private) <= {"_Py_Dealloc", "_Py_NoneStruct"}


def test_another_soname_is_told_of(tmp_path: Path) -> None:
    bindings = copy_of_package(tmp_path)
    copied = bindings / EXTENSION.name
    wanted = raw.library_soname()
    other = wanted[:-2] + "99"
    content = copied.read_bytes()
    assert content.count(wanted.encode() + b"\0") >= 1
    copied.write_bytes(content.replace(wanted.encode() + b"\0", other.encode() + b"\0"))
    said = import_binding(tmp_path).stdout
    assert said.startswith("LibraryMissing The binding was built for " + other)
    assert f"this machine has {installed_sonames()[0]}" in said
    assert "build_vchan.py" in said
    assert said.rstrip().endswith("4")


def test_a_missing_extension_is_told_of(tmp_path: Path) -> None:
    bindings = copy_of_package(tmp_path)
    (bindings / EXTENSION.name).unlink()
    said = import_binding(tmp_path).stdout
    assert said.startswith("LibraryMissing The binding to libxenvchan is not built.")
    assert "make setup" in said


def test_a_broken_extension_is_told_of(tmp_path: Path) -> None:
    (copy_of_package(tmp_path) / EXTENSION.name).write_bytes(b"not an object file")
    said = import_binding(tmp_path).stdout
    assert said.startswith("LibraryMissing The binding does not load: ")


def test_no_library_at_all_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vchan_testbed.bindings.library.installed_sonames", lambda: ())
    error = explain(
        ImportError("libxenvchan.so.4.17: cannot open shared object file: No such file")
    )
    assert isinstance(error, LibraryMissing)
    assert "this machine has no libxenvchan" in error.message


def test_the_build_script_builds_in_place(tmp_path: Path) -> None:
    bindings = copy_of_package(tmp_path)
    (bindings / EXTENSION.name).unlink()
    built = subprocess.run(
        [sys.executable, "build_vchan.py"],
        cwd=bindings,
        capture_output=True,
        text=True,
        check=True,
    )
    assert built.stdout.strip() == str(bindings / EXTENSION.name)
    assert import_binding(tmp_path).stdout == f"loaded {raw.library_soname()}\n"
    left_over = [path.name for path in bindings.iterdir() if path.name.startswith(".vchan")]
    assert left_over == []
    assert importlib.machinery.EXTENSION_SUFFIXES.index(".abi3.so") >= 0


def test_the_build_script_says_what_is_missing(tmp_path: Path) -> None:
    bindings = copy_of_package(tmp_path)
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho libxenvchan.so\n")
    compiler.chmod(0o755)
    built = subprocess.run(
        [sys.executable, bindings / "build_vchan.py"],
        env={**os.environ, "CC": str(compiler)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode != 0
    assert "install the package libxen-dev" in built.stderr
