"""A process that calls libxenevtchn, libxengnttab and libxenstore for a test, by ctypes."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
from typing import Any

from serving import serve

PAGE_BYTES = 4096
DOMINFO_BYTES_MAX = 1024
POINTER = ctypes.c_void_p
WORD = ctypes.c_uint32
WORDS = ctypes.POINTER(ctypes.c_uint32)
INT = ctypes.c_int
TEXT = ctypes.c_char_p


class Permissions(ctypes.Structure):
    """struct xs_permissions."""

    _fields_ = [("id", ctypes.c_uint), ("perms", ctypes.c_uint)]


SIGNATURES: dict[str, dict[str, tuple[Any, list[Any]]]] = {
    "libxenevtchn.so.1": {
        "xenevtchn_open": (POINTER, [POINTER, ctypes.c_uint]),
        "xenevtchn_close": (INT, [POINTER]),
        "xenevtchn_fd": (INT, [POINTER]),
        "xenevtchn_notify": (INT, [POINTER, WORD]),
        "xenevtchn_bind_unbound_port": (INT, [POINTER, WORD]),
        "xenevtchn_bind_interdomain": (INT, [POINTER, WORD, WORD]),
        "xenevtchn_unbind": (INT, [POINTER, WORD]),
        "xenevtchn_pending": (INT, [POINTER]),
        "xenevtchn_unmask": (INT, [POINTER, WORD]),
    },
    "libxengnttab.so.1": {
        "xengnttab_open": (POINTER, [POINTER, ctypes.c_uint]),
        "xengnttab_close": (INT, [POINTER]),
        "xengnttab_map_grant_ref": (POINTER, [POINTER, WORD, WORD, INT]),
        "xengnttab_map_grant_refs": (POINTER, [POINTER, WORD, WORDS, WORDS, INT]),
        "xengnttab_map_domain_grant_refs": (POINTER, [POINTER, WORD, WORD, WORDS, INT]),
        "xengnttab_map_grant_ref_notify": (POINTER, [POINTER, WORD, WORD, INT, WORD, WORD]),
        "xengnttab_unmap": (INT, [POINTER, POINTER, WORD]),
        "xengntshr_open": (POINTER, [POINTER, ctypes.c_uint]),
        "xengntshr_close": (INT, [POINTER]),
        "xengntshr_share_pages": (POINTER, [POINTER, WORD, INT, WORDS, INT]),
        "xengntshr_share_page_notify": (POINTER, [POINTER, WORD, WORDS, INT, WORD, WORD]),
        "xengntshr_unshare": (INT, [POINTER, POINTER, WORD]),
    },
    "libxenstore.so.4": {
        "xs_open": (POINTER, [ctypes.c_ulong]),
        "xs_close": (None, [POINTER]),
        "xs_read": (POINTER, [POINTER, WORD, TEXT, WORDS]),
        "xs_write": (ctypes.c_bool, [POINTER, WORD, TEXT, TEXT, ctypes.c_uint]),
        "xs_mkdir": (ctypes.c_bool, [POINTER, WORD, TEXT]),
        "xs_rm": (ctypes.c_bool, [POINTER, WORD, TEXT]),
        "xs_directory": (POINTER, [POINTER, WORD, TEXT, WORDS]),
        "xs_get_permissions": (POINTER, [POINTER, WORD, TEXT, WORDS]),
        "xs_set_permissions": (
            ctypes.c_bool,
            [POINTER, WORD, TEXT, ctypes.POINTER(Permissions), ctypes.c_uint],
        ),
        "xs_transaction_start": (WORD, [POINTER]),
        "xs_transaction_end": (ctypes.c_bool, [POINTER, WORD, ctypes.c_bool]),
        "xs_watch": (ctypes.c_bool, [POINTER, TEXT, TEXT]),
        "xs_unwatch": (ctypes.c_bool, [POINTER, TEXT, TEXT]),
        "xs_read_watch": (POINTER, [POINTER, WORDS]),
        "xs_check_watch": (POINTER, [POINTER]),
    },
    "libxenctrl.so.4.17": {
        "xc_interface_open": (POINTER, [POINTER, POINTER, ctypes.c_uint]),
        "xc_interface_close": (INT, [POINTER]),
        "xc_domain_getinfo": (INT, [POINTER, WORD, ctypes.c_uint, POINTER]),
    },
}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.free.argtypes = [POINTER]
LIBC.munmap.argtypes = [POINTER, ctypes.c_size_t]


class CallFailed(Exception):
    """A call returned NULL, -1 or false."""

    def __init__(self, call: str, errno: int) -> None:
        super().__init__(f"{call}: {os.strerror(errno)}")
        self.call = call
        self.errno = errno


def checked(name: str, function: Any, result: Any) -> Any:
    """A function that sets errno to 0, calls, and raises CallFailed for a failure."""

    def call(*arguments: Any) -> Any:
        encoded = [a.encode() if isinstance(a, str) else a for a in arguments]
        ctypes.set_errno(0)
        value = function(*encoded)
        failed = value is None if result is POINTER else value is False or value == -1
        if result is not None and failed:
            raise CallFailed(name, ctypes.get_errno())
        return value

    return call


def xen_functions() -> dict[str, Any]:
    """Every function of SIGNATURES by its name."""
    functions = {}
    for soname, signatures in SIGNATURES.items():
        library = ctypes.CDLL(soname, use_errno=True)
        for name, (result, arguments) in signatures.items():
            function = library[name]
            function.restype = result
            function.argtypes = arguments
            functions[name] = checked(name, function, result)
    return functions


XEN = xen_functions()


def words(values: list[int]) -> Any:
    return (ctypes.c_uint32 * len(values))(*values)


def share_pages(handle: int, domid: int, count: int, writable: int) -> list[Any]:
    """[address, references]."""
    refs = words([0] * count)
    return [XEN["xengntshr_share_pages"](handle, domid, count, refs, writable), list(refs)]


def share_page_notify(handle: int, domid: int, offset: int, port: int) -> list[int]:
    """[address, reference]."""
    refs = words([0])
    address = XEN["xengntshr_share_page_notify"](handle, domid, refs, 1, offset, port)
    return [address, refs[0]]


def map_domain_refs(handle: int, domid: int, refs: list[int], prot: int) -> Any:
    return XEN["xengnttab_map_domain_grant_refs"](handle, len(refs), domid, words(refs), prot)


def map_refs(handle: int, domids: list[int], refs: list[int], prot: int) -> Any:
    return XEN["xengnttab_map_grant_refs"](handle, len(refs), words(domids), words(refs), prot)


def peek(address: int, count: int) -> bytes:
    return ctypes.string_at(address, count)


def poke(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))


def munmap(address: int, pages: int) -> int:
    return int(LIBC.munmap(address, pages * PAGE_BYTES))


def protection(address: int) -> str:
    """As /proc/self/maps gives it, like "r--s"."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return line.split()[1]
    return "----"


def readable(handle: int) -> bool:
    """Would xenevtchn_pending return at once?"""
    return bool(select.select([XEN["xenevtchn_fd"](handle)], [], [], 0)[0])


def events(handle: int) -> list[int]:
    """Take and unmask all events that are there."""
    taken = []
    while readable(handle):
        taken.append(XEN["xenevtchn_pending"](handle))
        XEN["xenevtchn_unmask"](handle, taken[-1])
    return taken


def read_key(handle: int, transaction: int, path: str) -> bytes:
    length = words([0])
    pointer = XEN["xs_read"](handle, transaction, path, length)
    value = ctypes.string_at(pointer, length[0])
    LIBC.free(pointer)
    return value


def write_key(handle: int, transaction: int, path: str, value: bytes) -> None:
    XEN["xs_write"](handle, transaction, path, value, len(value))


def list_keys(handle: int, transaction: int, path: str) -> list[str]:
    count = words([0])
    pointer = XEN["xs_directory"](handle, transaction, path, count)
    names = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_char_p))
    found = sorted(os.fsdecode(names[i]) for i in range(count[0]))
    LIBC.free(pointer)
    return found


def _told(pointer: int) -> list[str]:
    texts = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_char_p))
    found = [os.fsdecode(texts[0]), os.fsdecode(texts[1])]
    LIBC.free(pointer)
    return found


def read_watch(handle: int) -> list[str]:
    """Path and token of the next watch that fires."""
    return _told(XEN["xs_read_watch"](handle, words([0])))


def check_watch(handle: int) -> list[str]:
    """The same of one that has fired."""
    return _told(XEN["xs_check_watch"](handle))


def first_domain(first: int) -> int:
    """The domid that libxenctrl tells of at `first` or behind it, -1 for none."""
    handle = XEN["xc_interface_open"](None, None, 0)
    info = ctypes.create_string_buffer(DOMINFO_BYTES_MAX)
    count = XEN["xc_domain_getinfo"](handle, first, 1, info)
    XEN["xc_interface_close"](handle)
    return int.from_bytes(info.raw[:4], "little") if count else -1


def get_permissions(handle: int, path: str) -> list[list[int]]:
    count = words([0])
    pointer = XEN["xs_get_permissions"](handle, 0, path, count)
    entries = ctypes.cast(pointer, ctypes.POINTER(Permissions))
    found = [[entries[i].id, entries[i].perms] for i in range(count[0])]
    LIBC.free(pointer)
    return found


def set_permissions(handle: int, transaction: int, path: str, entries: list[list[int]]) -> None:
    packed = (Permissions * len(entries))(*(Permissions(*entry) for entry in entries))
    XEN["xs_set_permissions"](handle, transaction, path, packed, len(entries))


def take_host_lock(offset: int) -> int:
    """Lock the host's mutex, as if this process were in the middle of a call."""
    with open(os.path.join(os.environ["VCHAN_LOOPBACK_DIR"], "state"), "r+b") as state:
        mapped = mmap.mmap(state.fileno(), PAGE_BYTES)
    KEPT.append(mapped)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    return int(LIBC.pthread_mutex_lock(ctypes.c_void_p(address + offset)))


KEPT: list[mmap.mmap] = []

if __name__ == "__main__":
    serve(
        {
            **XEN,
            "share_pages": share_pages,
            "share_page_notify": share_page_notify,
            "map_domain_refs": map_domain_refs,
            "map_refs": map_refs,
            "peek": peek,
            "poke": poke,
            "munmap": munmap,
            "protection": protection,
            "readable": readable,
            "events": events,
            "read_key": read_key,
            "write_key": write_key,
            "list_keys": list_keys,
            "read_watch": read_watch,
            "check_watch": check_watch,
            "first_domain": first_domain,
            "get_permissions": get_permissions,
            "set_permissions": set_permissions,
            "take_host_lock": take_host_lock,
        }
    )
