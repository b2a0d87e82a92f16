"""Takes a dead server's keys out of xenstore: a process that is killed does not do it itself.

libxenvchan_close removes them (tools/libs/vchan/init.c, Xen 4.17). In a domain that is destroyed
they go with it; in dom0 they would stay for ever.
"""

from __future__ import annotations

import ctypes

LIBRARY = "libxenstore.so.4"


def remove_keys(path: str) -> bool:
    """Remove `path` and all below it; False when nothing was there or no xenstore answers."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    library.xs_open.restype = ctypes.c_void_p
    library.xs_open.argtypes = (ctypes.c_ulong,)
    library.xs_rm.restype = ctypes.c_bool
    library.xs_rm.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p)
    library.xs_close.restype = None
    library.xs_close.argtypes = (ctypes.c_void_p,)
    handle = library.xs_open(0)
    if not handle:
        return False
    try:
        return bool(library.xs_rm(handle, 0, path.encode()))
    finally:
        library.xs_close(handle)
