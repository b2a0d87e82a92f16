"""The compiled extension, or an error that says how to get the right one.

Importing this module raises LibraryMissing when the extension is not built or was built for a
libxenvchan that is not installed.
"""

from __future__ import annotations

from vchan_testbed.bindings.library import explain

try:
    from vchan_testbed.bindings._vchan import ffi, lib
except ImportError as error:
    raise explain(error) from error

__all__ = ["ffi", "lib"]
