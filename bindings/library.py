"""Which libxenvchan the extension was built for, and whether that one is here.

libxenvchan's soname is its Xen version (libxenvchan.so.4.17): an extension that was linked with
one does not load where only another is installed.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType

from vchan_testbed.errors import TestbedError

_SONAME = re.compile(r"libxenvchan\.so\.[0-9]+\.[0-9]+")
_FOLDERS = ("/usr/local/lib", "/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/lib/xen-*/lib")
REBUILD = (
    "build the binding again here (needs libxen-dev): `make setup`, or "
    "`python3 bindings/build_vchan.py`"
)


class LibraryMissing(TestbedError):
    """The extension is not built, or the library that it was built for is not installed."""


def installed_sonames() -> tuple[str, ...]:
    """The sonames of the libxenvchan that are installed here, oldest first."""
    folders = [Path(name) for name in os.environ.get("LD_LIBRARY_PATH", "").split(":") if name]
    multiarch = getattr(sys.implementation, "_multiarch", "")
    if multiarch:
        folders += [Path("/lib", multiarch), Path("/usr/lib", multiarch)]
    for pattern in _FOLDERS:
        folders += Path("/").glob(pattern.lstrip("/"))
    found = {
        match.group(0)
        for folder in folders
        for path in folder.glob("libxenvchan.so.*")
        if (match := _SONAME.fullmatch(path.name))
    }
    return tuple(sorted(found, key=lambda name: [int(n) for n in re.findall(r"[0-9]+", name)]))


def installed_soname() -> str | None:
    """The newest of them, None without one."""
    return next(reversed(installed_sonames()), None)


def load_extension() -> ModuleType:
    """Import the extension. Raises LibraryMissing, which says how to get the right one."""
    try:
        return importlib.import_module("vchan_testbed.bindings._vchan")
    except ImportError as error:
        raise explain(error) from error


def explain(error: ImportError) -> LibraryMissing:
    """What the failed import of the extension means, and what to do."""
    wanted = _SONAME.search(str(error))
    if isinstance(error, ModuleNotFoundError):
        return LibraryMissing("The binding to libxenvchan is not built.", next_step=_step(REBUILD))
    if wanted is None or "cannot open shared object" not in str(error):
        return LibraryMissing(f"The binding does not load: {error}.", next_step=_step(REBUILD))
    found = " and ".join(installed_sonames())
    here = f"this machine has {found}" if found else "this machine has no libxenvchan"
    return LibraryMissing(
        f"The binding was built for {wanted.group(0)}, and {here}.",
        next_step=_step(f"install {wanted.group(0)} (Debian: libxenmisc), or {REBUILD}"),
    )


def _step(text: str) -> str:
    return text[0].upper() + text[1:] + "."
