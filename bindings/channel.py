"""Third layer: a channel as an object.

    with Server(peer_domid=5, path="data/vchan", read_ring_bytes=4096, write_ring_bytes=4096) as s:
        s.write(b"hello")

A blocking call cannot be cancelled, and one thread must not close while another one reads or
waits: libxenvchan frees the structure under it. Two threads that block on one channel take each
other's events.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from vchan_testbed.bindings import raw
from vchan_testbed.bindings.errors import OwnDomain, PeerGone
from vchan_testbed.errors import InputError

RING_BYTES_MAX = 1 << 20
PATH_BYTES_MAX = 48
"""The library builds "<path>/event-channel" in 64 bytes and cuts off what is longer."""


class _Channel:
    def __init__(self, ctrl: raw.Channel, *, blocking: bool) -> None:
        self._ctrl: raw.Channel | None = ctrl
        self._blocking = blocking
        raw.set_blocking(ctrl, blocking)

    @property
    def blocking(self) -> bool:
        """Whether read, write, recv and send wait."""
        return self._blocking

    @property
    def read_ring_bytes(self) -> int:
        """Size of the ring that this end reads."""
        return raw.ring_bytes(self._open(), write_ring=False)

    @property
    def write_ring_bytes(self) -> int:
        """Size of the ring that this end writes."""
        return raw.ring_bytes(self._open(), write_ring=True)

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the stream.

        b"" means "would block" and comes only when not blocking. Raises PeerGone at the end.
        """
        return raw.libxenvchan_read(self._open(), size)

    def write(self, data: bytes) -> int:
        """Put `data` into the stream; how many bytes were taken (all, when blocking)."""
        return raw.libxenvchan_write(self._open(), data)

    def recv(self, size: int) -> bytes:
        """A packet of exactly `size` bytes, b"" when not blocking and it is not there yet."""
        return raw.libxenvchan_recv(self._open(), size)

    def send(self, data: bytes) -> int:
        """A packet: its size, or 0 when not blocking and there is no room for all of it."""
        return raw.libxenvchan_send(self._open(), data)

    def wait(self) -> None:
        """Wait for the peer to read, write or close. Blocks if no event is there: poll first."""
        raw.libxenvchan_wait(self._open())

    def data_ready(self) -> int:
        """Bytes that can be read now."""
        return raw.libxenvchan_data_ready(self._open())

    def buffer_space(self) -> int:
        """Bytes that can be written now."""
        return raw.libxenvchan_buffer_space(self._open())

    def is_open(self) -> int:
        """0 closed or peer dead, 1 open, 2 (server) no client has connected yet."""
        return raw.libxenvchan_is_open(self._open())

    def fileno(self) -> int:
        """The event descriptor, for poll: readable when wait would not block."""
        return raw.libxenvchan_fd_for_select(self._open())

    def close(self) -> None:
        """Close this end; a second close does nothing."""
        ctrl, self._ctrl = self._ctrl, None
        if ctrl is not None:
            raw.libxenvchan_close(ctrl)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> raw.Channel:
        if self._ctrl is None:
            raise PeerGone("libxenvchan", 0, "this end of the channel is closed")
        return self._ctrl


class Server(_Channel):
    """The end that grants the rings: libxenvchan_server_init.

    `path` is in xenstore, absolute or relative to the own domain. `own_domid`, where the caller
    knows it, lets the own domain be refused as a peer before the kernel sees it.
    Raises InputError (sizes, path), OwnDomain, NoDevice, VchanError.
    """

    def __init__(
        self,
        peer_domid: int,
        path: str,
        read_ring_bytes: int,
        write_ring_bytes: int,
        *,
        blocking: bool = True,
        own_domid: int | None = None,
    ) -> None:
        _refuse_own_domain(peer_domid, own_domid)
        _check_path(path)
        for name, size in (("read", read_ring_bytes), ("write", write_ring_bytes)):
            if not 1 <= size <= RING_BYTES_MAX:
                raise InputError(
                    f"{name}_ring_bytes is {size}",
                    next_step=f"Give 1 to {RING_BYTES_MAX}; the library rounds up.",
                )
        super().__init__(
            raw.libxenvchan_server_init(peer_domid, path, read_ring_bytes, write_ring_bytes),
            blocking=blocking,
        )


class Client(_Channel):
    """The end that maps the rings: libxenvchan_client_init.

    `path` is absolute in xenstore. Raises InputError, OwnDomain, NoSuchPath (the server is not
    there yet), NoDevice, VchanError.
    """

    def __init__(
        self,
        peer_domid: int,
        path: str,
        *,
        blocking: bool = True,
        own_domid: int | None = None,
    ) -> None:
        _refuse_own_domain(peer_domid, own_domid)
        _check_path(path)
        super().__init__(raw.libxenvchan_client_init(peer_domid, path), blocking=blocking)


def _refuse_own_domain(peer_domid: int, own_domid: int | None) -> None:
    if own_domid is not None and peer_domid == own_domid:
        raise OwnDomain(
            f"domain {peer_domid} is this domain itself",
            next_step="Take two domains: kernels have crashed on a vchan to the own domain.",
        )


def _check_path(path: str) -> None:
    if not path or len(path.encode()) > PATH_BYTES_MAX:
        raise InputError(
            f"the xenstore path {path!r} has {len(path.encode())} bytes",
            next_step=f"Give 1 to {PATH_BYTES_MAX}: the library cuts longer ones off.",
        )
