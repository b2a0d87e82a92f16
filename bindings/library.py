"""Which libxenvchan the extension was built for, and whether that one is here.

libxenvchan's soname is its Xen version (libxenvchan.so.4.17): an extension that was linked with
one does not load where only another is installed.
"""

from __future__ import annotations

import ctypes.util
import importlib
from types import ModuleType

from vchan_testbed.errors import TestbedError

EXTENSION = "vchan_testbed.bindings._vchan"


class LibraryMissing(TestbedError):
    """The extension is not built, or the library that it was built for is not installed."""


def installed_soname() -> str | None:
    """The soname of the libxenvchan that the loader finds, None without one."""
    return ctypes.util.find_library("xenvchan")


def load_extension() -> ModuleType:
    """Import the extension. Raises LibraryMissing, which says how to get the right one."""
    try:
        return importlib.import_module(EXTENSION)
    except ModuleNotFoundError as error:
        raise LibraryMissing(
            "The binding to libxenvchan is not built.",
            next_step="Run `make setup`, or bindings/build_vchan.py with libxen-dev installed.",
        ) from error
    except ImportError as error:
        found = installed_soname()
        here = f"this machine has {found}" if found else "this machine has no libxenvchan"
        raise LibraryMissing(
            f"The binding was built for another libxenvchan: {error}; {here}.",
            next_step="Install libxenmisc of that Xen version, or build the binding again here.",
        ) from error
