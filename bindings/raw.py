"""Second layer: the functions of libxenvchan under their C names.

An error becomes an exception here and nowhere else. A blocking call lets other Python threads run
and cannot be cancelled: a blocking endpoint lives in a process of its own, which can be killed.

Source: tools/libs/vchan/{init,io}.c, Xen 4.17.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from vchan_testbed.bindings import under
from vchan_testbed.bindings.errors import (
    Interrupted,
    NoDevice,
    NoSuchDomain,
    NoSuchPath,
    PeerGone,
    VchanError,
)
from vchan_testbed.bindings.extension import ffi, lib

if TYPE_CHECKING:
    from _cffi_backend import FFI

    Channel: TypeAlias = FFI.CData
    """A `struct libxenvchan *`."""

PAGE_BYTES = under.PAGE_BYTES
SMALL_RING_BYTES = 1024
LARGE_RING_BYTES = 2048
"""The two rings that fit into the shared page, one of each."""


def ring_sizes(read_min_bytes: int, write_min_bytes: int) -> tuple[int, int]:
    """The ring sizes that `libxenvchan_server_init` makes of what is asked for."""
    small, large = SMALL_RING_BYTES, LARGE_RING_BYTES
    if read_min_bytes <= small and write_min_bytes <= large:
        return small, large
    if read_min_bytes <= large and write_min_bytes <= small:
        return large, small
    read, write = (
        max(PAGE_BYTES, 1 << (size - 1).bit_length()) for size in (read_min_bytes, write_min_bytes)
    )
    if read_min_bytes <= large:
        return large, write
    if write_min_bytes <= large:
        return read, large
    return read, write


def libxenvchan_server_init(
    domain: int, xs_path: str, read_min_bytes: int, write_min_bytes: int
) -> Channel:
    """Grant the rings to `domain` and write the keys below `xs_path`.

    What it needs is tried first, because the C function crashes when it does not get it (see
    `under`). Raises NoDevice, or VchanError for everything else that can fail.
    """
    pages = 1 + sum(size // PAGE_BYTES for size in ring_sizes(read_min_bytes, write_min_bytes))
    failure = under.probe_server(domain, pages)
    if failure is not None:
        raise _init_error(failure, xs_path, domain, pages)
    ffi.errno = 0
    ctrl = lib.libxenvchan_server_init(
        ffi.NULL, domain, xs_path.encode(), read_min_bytes, write_min_bytes
    )
    if ctrl == ffi.NULL:
        # All else was there a moment ago, so it is the keys.
        raise _init_error(
            under.Failure("libxenvchan_server_init", ffi.errno), xs_path, domain, pages
        )
    return ctrl


def libxenvchan_client_init(domain: int, xs_path: str) -> Channel:
    """Connect to the server in `domain` whose keys are below `xs_path`.

    Raises NoSuchPath while the keys are not there, NoDevice, NoSuchDomain, VchanError.
    """
    ffi.errno = 0
    ctrl = lib.libxenvchan_client_init(ffi.NULL, domain, xs_path.encode())
    if ctrl == ffi.NULL:
        failure = under.Failure("libxenvchan_client_init", ffi.errno)
        raise _init_error(under.probe_client(xs_path) or failure, xs_path, domain, 0)
    return ctrl


def libxenvchan_close(ctrl: Channel) -> None:
    """Clear the own live byte, raise the event, give everything back. `ctrl` is dead then."""
    lib.libxenvchan_close(ctrl)


def libxenvchan_read(ctrl: Channel, size: int) -> bytes:
    """At most `size` bytes; b"" only when not blocking and there are none. Raises PeerGone."""
    return _take("libxenvchan_read", lib.libxenvchan_read, ctrl, size)


def libxenvchan_recv(ctrl: Channel, size: int) -> bytes:
    """Exactly `size` bytes; b"" only when not blocking and there are fewer. Raises PeerGone."""
    return _take("libxenvchan_recv", lib.libxenvchan_recv, ctrl, size)


def libxenvchan_write(ctrl: Channel, data: bytes) -> int:
    """Bytes that were put: all when blocking, else as many as fit. Raises PeerGone."""
    return _put("libxenvchan_write", lib.libxenvchan_write, ctrl, data)


def libxenvchan_send(ctrl: Channel, data: bytes) -> int:
    """All bytes, or 0 when not blocking and they do not fit. Raises PeerGone."""
    return _put("libxenvchan_send", lib.libxenvchan_send, ctrl, data)


def libxenvchan_wait(ctrl: Channel) -> None:
    """Block until an event is there and take it. Raises Interrupted, VchanError."""
    ffi.errno = 0
    if lib.libxenvchan_wait(ctrl):
        raise _wait_error("libxenvchan_wait", ffi.errno)


def libxenvchan_fd_for_select(ctrl: Channel) -> int:
    """The event channel's descriptor: readable when a wait would not block."""
    return lib.libxenvchan_fd_for_select(ctrl)


def libxenvchan_is_open(ctrl: Channel) -> int:
    """0 closed or crashed, 1 open, 2 no client has connected yet (server only)."""
    return lib.libxenvchan_is_open(ctrl)


def libxenvchan_data_ready(ctrl: Channel) -> int:
    """Bytes that can be read. Always asks the peer to tell of writes."""
    return lib.libxenvchan_data_ready(ctrl)


def libxenvchan_buffer_space(ctrl: Channel) -> int:
    """Bytes that can be put. Always asks the peer to tell of reads."""
    return lib.libxenvchan_buffer_space(ctrl)


def set_blocking(ctrl: Channel, blocking: bool) -> None:
    """Set the field that no init sets."""
    lib.vchan_set_blocking(ctrl, int(blocking))


def ring_bytes(ctrl: Channel, *, write_ring: bool) -> int:
    """Size of the ring that is written or read."""
    return 1 << lib.vchan_ring_order(ctrl, int(write_ring))


def set_indices(ctrl: Channel, index: int, *, write_ring: bool) -> None:
    """Set prod and cons of a ring that nobody has used yet; `index` is a 32-bit number."""
    lib.vchan_set_indices(ctrl, int(write_ring), index)


def library_soname() -> str:
    """The soname of the libxenvchan that this binding was built for and has loaded."""
    name = ffi.string(lib.vchan_soname_at_build())
    return name.decode() if isinstance(name, bytes) else name


def _take(
    call: str, function: Callable[[Channel, Channel, int], int], ctrl: Channel, size: int
) -> bytes:
    buffer = bytearray(size)
    ffi.errno = 0
    result = function(ctrl, ffi.from_buffer(buffer), size)
    if result < 0:
        raise _transfer_error(call, ffi.errno, ctrl, size)
    return bytes(memoryview(buffer)[:result])


def _put(
    call: str, function: Callable[[Channel, Channel, int], int], ctrl: Channel, data: bytes
) -> int:
    ffi.errno = 0
    result = function(ctrl, ffi.from_buffer(data), len(data))
    if result < 0:
        raise _transfer_error(call, ffi.errno, ctrl, len(data))
    return result


def _transfer_error(call: str, number: int, ctrl: Channel, size: int) -> VchanError:
    """What -1 means: closed, unless a call below failed and left its errno.

    The live byte is looked at only in that case: a look is an access of its own in a trace.
    """
    if number == 0 or (number != errno.EINTR and not lib.libxenvchan_is_open(ctrl)):
        return PeerGone(call, number, "the peer has closed the channel or died")
    if number == errno.EINTR:
        return _wait_error(call, number)
    return VchanError(
        call,
        number,
        f"{size} bytes could not be moved",
        check="Is the event channel still bound? The peer's domain may be gone (`xl list`).",
    )


def _wait_error(call: str, number: int) -> VchanError:
    if number == errno.EINTR:
        return Interrupted(
            call,
            number,
            "a signal ended the wait",
            check="Do not repeat a blocking write: how much of it was put is not known.",
        )
    return VchanError(
        call,
        number,
        "the event channel could not be read",
        check="Was this end closed by another thread? It must not be, while one waits.",
    )


def _init_error(failure: under.Failure, xs_path: str, domain: int, pages: int) -> VchanError:
    call, number = failure.call, failure.errno
    if call in _DEVICES:
        device, module = _DEVICES[call]
        return NoDevice(
            call,
            number,
            f"{device} cannot be opened",
            check=f"Only inside a Xen domain, as root, after `modprobe {module}`; "
            "`vchan-testbed doctor` says what this machine has.",
        )
    if call == "xs_open":
        return NoDevice(
            call,
            number,
            "xenstore does not answer",
            check="In dom0: is xenstored running? In a guest: is /dev/xen/xenbus there "
            "(`modprobe xenfs`), and may this user open it?",
        )
    if call == "xs_read":
        return NoSuchPath(
            call,
            number,
            f"no keys that this domain may read at {xs_path}",
            check=f"Is the server up, in domain {domain}, with this domain as its peer? "
            "A client gives the absolute path, /local/domain/<server>/...",
        )
    if number == errno.ESRCH:
        return NoSuchDomain(
            call, number, f"there is no domain {domain}", check="See `xl list` in dom0."
        )
    return VchanError(
        call,
        number,
        f"no channel with domain {domain} at {xs_path}",
        check=_check(failure, xs_path, domain, pages),
    )


_DEVICES = {
    "xengntshr_open": ("/dev/xen/gntalloc", "xen-gntalloc"),
    "xengnttab_open": ("/dev/xen/gntdev", "xen-gntdev"),
    "xenevtchn_open": ("/dev/xen/evtchn", "xen-evtchn"),
}


def _check(failure: under.Failure, xs_path: str, domain: int, pages: int) -> str:
    if failure.call == "xengntshr_share_pages":
        return (
            f"The channel needs {pages} granted pages; gntalloc's limit for this domain may be "
            "reached: see /sys/module/xen_gntalloc/parameters/limit, or take smaller rings."
        )
    if failure.call == "libxenvchan_client_init":
        return (
            f"Has the server in domain {domain} named this domain as its peer, and is no other "
            "client connected? Its keys may be left over from a server that died."
        )
    if failure.call == "libxenvchan_server_init":
        return (
            f"May this domain write {xs_path} in xenstore? A guest may below its own "
            "/local/domain/<domid>/data."
        )
    return f"Does domain {domain} exist (`xl list` in dom0), and may this domain reach it?"
