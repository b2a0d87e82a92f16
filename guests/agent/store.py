"""A server's keys in xenstore, where the library does not see to them.

A process that is killed does not take its own out: libxenvchan_close removes them
(tools/libs/vchan/init.c, Xen 4.17). In a domain that is destroyed they go with it; in dom0 they
would stay for ever. And the first of two keys is put there alone, as servers did of which both were
not one transaction (xen.git before b72624aad5).
"""

from __future__ import annotations

import ctypes

from vchan_testbed.errors import TestbedError

LIBRARY = "libxenstore.so.4"
FIRST_KEY = "ring-ref"
NO_GRANT = b"0"
PERM_NONE, PERM_READ = 0, 1


class _Permission(ctypes.Structure):
    """struct xs_permissions (xenstore_lib.h)."""

    _fields_ = (("id", ctypes.c_uint), ("perms", ctypes.c_uint))


def put_first_key(path: str, own_domid: int, peer_domid: int) -> None:
    """Put the first of a server's keys there, which its peer may read. Raises TestbedError."""
    library = ctypes.CDLL(LIBRARY)
    library.xs_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.xs_open(ctypes.c_ulong(0)))
    key = f"{path}/{FIRST_KEY}".encode()
    readable = (_Permission * 2)(
        _Permission(own_domid, PERM_NONE), _Permission(peer_domid, PERM_READ)
    )
    try:
        written = handle and library.xs_write(handle, 0, key, NO_GRANT, len(NO_GRANT))
        if not written or not library.xs_set_permissions(handle, 0, key, readable, 2):
            raise TestbedError(
                f"The key {key.decode()} cannot be put into xenstore.",
                next_step="Does xenstored run, and is the path one of this domain's own?",
            )
    finally:
        library.xs_close(handle)


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
