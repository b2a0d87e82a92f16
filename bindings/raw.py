"""Second layer: the functions of libxenvchan under their C names.

An error becomes an exception here and nowhere else. A blocking call holds no lock of Python's, and
cannot be cancelled: a blocking endpoint lives in a process of its own, which can be killed.

Source: tools/libs/vchan/{init,io}.c, Xen 4.17.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from vchan_testbed.bindings.errors import NoDevice, NoSuchPath, PeerGone, VchanError
from vchan_testbed.bindings.library import load_extension

_vchan = load_extension()
_ffi = _vchan.ffi
_lib = _vchan.lib

Channel = Any
"""A `struct libxenvchan *`."""

_DEVICES = {
    "server": ("/dev/xen/evtchn", "/dev/xen/gntalloc"),
    "client": ("/dev/xen/evtchn", "/dev/xen/gntdev"),
}


def libxenvchan_server_init(
    domain: int, xs_path: str, read_min_bytes: int, write_min_bytes: int
) -> Channel:
    """Grant the rings to `domain` and write the keys below `xs_path`.

    Raises NoDevice, or VchanError for everything else that can fail.
    """
    ctrl, number = _call(
        _lib.libxenvchan_server_init,
        _ffi.NULL,
        domain,
        xs_path.encode(),
        read_min_bytes,
        write_min_bytes,
    )
    if ctrl == _ffi.NULL:
        raise _init_error("libxenvchan_server_init", "server", number, xs_path, domain)
    return ctrl


def libxenvchan_client_init(domain: int, xs_path: str) -> Channel:
    """Connect to the server in `domain` whose keys are below `xs_path`.

    Raises NoSuchPath while the keys are not there, NoDevice, VchanError.
    """
    ctrl, number = _call(_lib.libxenvchan_client_init, _ffi.NULL, domain, xs_path.encode())
    if ctrl == _ffi.NULL:
        raise _init_error("libxenvchan_client_init", "client", number, xs_path, domain)
    return ctrl


def libxenvchan_close(ctrl: Channel) -> None:
    """Clear the own live byte, raise the event, give everything back. `ctrl` is dead then."""
    _lib.libxenvchan_close(ctrl)


def libxenvchan_read(ctrl: Channel, size: int) -> bytes:
    """At most `size` bytes; b"" only when not blocking and there are none. Raises PeerGone."""
    buffer = bytearray(size)
    return bytes(buffer[: _transfer("libxenvchan_read", ctrl, buffer)])


def libxenvchan_recv(ctrl: Channel, size: int) -> bytes:
    """Exactly `size` bytes; b"" only when not blocking and there are fewer. Raises PeerGone."""
    buffer = bytearray(size)
    return bytes(buffer[: _transfer("libxenvchan_recv", ctrl, buffer)])


def libxenvchan_write(ctrl: Channel, data: bytes) -> int:
    """Bytes that were put: all when blocking, else as many as fit. Raises PeerGone."""
    return _transfer("libxenvchan_write", ctrl, data)


def libxenvchan_send(ctrl: Channel, data: bytes) -> int:
    """All bytes, or 0 when not blocking and they do not fit. Raises PeerGone."""
    return _transfer("libxenvchan_send", ctrl, data)


def libxenvchan_wait(ctrl: Channel) -> None:
    """Block until an event is there and take it. Raises VchanError."""
    result, number = _call(_lib.libxenvchan_wait, ctrl)
    if result:
        raise VchanError(
            "libxenvchan_wait",
            number,
            "the event channel could not be read",
            check="A signal ends a wait (EINTR); else look whether the channel is still open.",
        )


def libxenvchan_fd_for_select(ctrl: Channel) -> int:
    """The event channel's descriptor: readable when a wait would not block."""
    return int(_lib.libxenvchan_fd_for_select(ctrl))


def libxenvchan_is_open(ctrl: Channel) -> int:
    """0 closed or crashed, 1 open, 2 no client has connected yet (server only)."""
    return int(_lib.libxenvchan_is_open(ctrl))


def libxenvchan_data_ready(ctrl: Channel) -> int:
    """Bytes that can be read. Always asks the peer to tell of writes."""
    return int(_lib.libxenvchan_data_ready(ctrl))


def libxenvchan_buffer_space(ctrl: Channel) -> int:
    """Bytes that can be put. Always asks the peer to tell of reads."""
    return int(_lib.libxenvchan_buffer_space(ctrl))


def set_blocking(ctrl: Channel, blocking: bool) -> None:
    """Set the field that no init sets."""
    _lib.vchan_set_modes(ctrl, int(blocking))


def ring_bytes(ctrl: Channel, *, write_ring: bool) -> int:
    """Size of the ring that is written or read."""
    return 1 << int(_lib.vchan_ring_order(ctrl, int(write_ring)))


def _call(function: Any, *arguments: Any) -> tuple[Any, int]:
    _ffi.errno = 0
    result = function(*arguments)
    return result, int(_ffi.errno)


def _transfer(call: str, ctrl: Channel, data: bytes | bytearray) -> int:
    pointer = _ffi.from_buffer(data)
    result, number = _call(getattr(_lib, call), ctrl, pointer, len(data))
    if result >= 0:
        return int(result)
    if _lib.libxenvchan_is_open(ctrl):
        raise VchanError(
            call,
            number,
            f"{len(data)} bytes could not be moved",
            check="A packet must fit the ring; a signal ends a wait; xenevtchn_notify may fail.",
        )
    raise PeerGone(call, number, "the peer has closed or died")


def _init_error(call: str, role: str, number: int, xs_path: str, domain: int) -> VchanError:
    # Over the loopback stand-ins there are no devices: ENOENT is then about the keys.
    devices = () if "VCHAN_LOOPBACK_DIR" in os.environ else _DEVICES[role]
    for device in devices:
        if number in (errno.ENOENT, errno.EACCES, errno.EPERM) and not os.access(
            device, os.R_OK | os.W_OK
        ):
            module = "xen-" + device.rsplit("/", 1)[1]
            return NoDevice(
                call,
                number,
                f"{device} cannot be opened",
                check=f"In a Xen domain, as root: modprobe {module}; see `vchan-testbed doctor`.",
            )
    if number == errno.ENOENT:
        return NoSuchPath(
            call,
            number,
            f"no keys at {xs_path}",
            check="The server has to be there first; the client's path is absolute.",
        )
    hints = {
        errno.EACCES: f"May this domain use {xs_path}, and domain {domain} the grants?",
        errno.EPERM: f"Has domain {domain} granted its pages to this domain?",
        errno.ENOSPC: "gntalloc's limit of pages is reached: see its module parameter `limit`.",
    }
    return VchanError(
        call,
        number,
        f"no channel with domain {domain} at {xs_path}",
        check=hints.get(number, "Is xenstored running, and does the peer's domain exist?"),
    )
