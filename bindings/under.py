"""The libraries under libxenvchan: what an init will ask of them, tried beforehand.

Why: `libxenvchan_server_init` of every version up to now, when the event channel or the shared
page cannot be had, closes a half-made channel: it frees `xs_path` and unmaps ring buffers that
nobody has set yet (tools/libs/vchan/init.c, Xen 4.17), and the process crashes or loses memory.
And an init says only NULL: which of six calls failed is found out by making them.

The calls go through ctypes to the libraries that libxenvchan has loaded already, so a tracer that
patches libxenvchan's own calls does not see them. Their sonames have not changed since Xen 4.8.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

PAGE_BYTES = 4096


@dataclass(frozen=True)
class Failure:
    """A call that failed, and its errno."""

    call: str
    errno: int


class _Failed(Exception):
    def __init__(self, call: str) -> None:
        self.failure = Failure(call, ctypes.get_errno() or errno.EIO)


_HANDLE = ctypes.c_void_p
_WORD = ctypes.c_uint32
_WORDS = ctypes.POINTER(ctypes.c_uint32)
_INT = ctypes.c_int
_SIGNATURES: dict[str, dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "libxenevtchn.so.1": {
        "xenevtchn_open": (_HANDLE, (_HANDLE, ctypes.c_uint)),
        "xenevtchn_close": (_INT, (_HANDLE,)),
        "xenevtchn_bind_unbound_port": (_INT, (_HANDLE, _WORD)),
    },
    "libxengnttab.so.1": {
        "xengntshr_open": (_HANDLE, (_HANDLE, ctypes.c_uint)),
        "xengntshr_close": (_INT, (_HANDLE,)),
        "xengntshr_share_pages": (_HANDLE, (_HANDLE, _WORD, _INT, _WORDS, _INT)),
        "xengntshr_unshare": (_INT, (_HANDLE, _HANDLE, _WORD)),
        "xengnttab_open": (_HANDLE, (_HANDLE, ctypes.c_uint)),
        "xengnttab_close": (_INT, (_HANDLE,)),
    },
    "libxenstore.so.4": {
        "xs_open": (_HANDLE, (ctypes.c_ulong,)),
        "xs_close": (None, (_HANDLE,)),
        "xs_read": (_HANDLE, (_HANDLE, _WORD, ctypes.c_char_p, _WORDS)),
    },
}


def probe_server(peer_domid: int, pages: int) -> Failure | None:
    """Ask for what a server needs, and give it back: an event channel port, `pages` grants.

    The first call that failed, None when a server can be made.
    """
    try:
        _probe_grants(peer_domid, pages)
        _probe_port(peer_domid)
        _close("xs_close", _open("xs_open", 0))
    except _Failed as failed:
        return failed.failure
    return None


def probe_client(xs_path: str) -> Failure | None:
    """Ask for what a client needs short of binding and mapping: keys and devices.

    The first call that failed; None when it must have been the binding or the mapping.
    """
    try:
        store = _open("xs_open", 0)
        try:
            for key in ("ring-ref", "event-channel"):
                _read(store, f"{xs_path}/{key}")
        finally:
            _close("xs_close", store)
        _close("xenevtchn_close", _open("xenevtchn_open", None, 0))
        _close("xengnttab_close", _open("xengnttab_open", None, 0))
    except _Failed as failed:
        return failed.failure
    return None


def own_domid() -> int | None:
    """This domain's id as xenstore tells it; None where no xenstore answers."""
    try:
        store = _open("xs_open", 0)
        try:
            return int(_read(store, "domid"))
        finally:
            _close("xs_close", store)
    except _Failed:
        return None


def _probe_grants(peer_domid: int, pages: int) -> None:
    device = _open("xengntshr_open", None, 0)
    try:
        refs = (ctypes.c_uint32 * pages)()
        area = _open("xengntshr_share_pages", device, peer_domid, pages, refs, 1)
        if _call("xengntshr_unshare", device, area, pages):
            raise _Failed("xengntshr_unshare")
    finally:
        _close("xengntshr_close", device)


def _probe_port(peer_domid: int) -> None:
    device = _open("xenevtchn_open", None, 0)
    try:
        if _call("xenevtchn_bind_unbound_port", device, peer_domid) < 0:
            raise _Failed("xenevtchn_bind_unbound_port")
    finally:
        _close("xenevtchn_close", device)


def _read(store: int, path: str) -> bytes:
    length = ctypes.c_uint32()
    value = _open("xs_read", store, 0, os.fsencode(path), ctypes.byref(length))
    try:
        return ctypes.string_at(value, length.value)
    finally:
        _free(value)


def _open(name: str, *arguments: object) -> int:
    """Call what returns a pointer. Raises _Failed for NULL."""
    pointer = _call(name, *arguments)
    if not pointer:
        raise _Failed(name)
    return int(pointer)


def _close(name: str, pointer: int) -> None:
    before = ctypes.get_errno()
    _call(name, pointer)
    ctypes.set_errno(before)


def _call(name: str, *arguments: object) -> int:
    ctypes.set_errno(0)
    result = _functions()[name](*arguments)
    return 0 if result is None else int(result)


def _free(pointer: int) -> None:
    free = ctypes.CDLL(None).free
    free.argtypes = (_HANDLE,)
    free.restype = None
    free(pointer)


@cache
def _functions() -> dict[str, ctypes._NamedFuncPointer]:
    functions = {}
    for soname, signatures in _SIGNATURES.items():
        library = ctypes.CDLL(soname, use_errno=True)
        for name, (result, arguments) in signatures.items():
            function = library[name]
            function.restype = result
            function.argtypes = arguments
            functions[name] = function
    return functions
