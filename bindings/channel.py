"""Third layer: a channel as an object.

    with Server(peer_domid=5, path="data/vchan", read_ring_bytes=4096, write_ring_bytes=4096) as s:
        s.write(b"hello")

Blocking is set always and explicitly, because the library leaves it to chance. A blocking call
cannot be cancelled: an endpoint that blocks lives in a process of its own, which can be killed.
An endpoint that must not block is made with `blocking=False` and driven by poll:

    poller.register(client, select.POLLIN)
    while not (data := client.read(4096)):  # b"" is "would block", the end raises PeerGone
        poller.poll()
        client.wait()                       # takes the event; it blocks without one, so poll first

One thread must not close while another one reads or waits: libxenvchan frees the structure under
it. Two threads that block on one channel take each other's events and hang.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from vchan_testbed.bindings import raw, under
from vchan_testbed.bindings.errors import ChannelClosed, OwnDomain
from vchan_testbed.errors import InputError

if TYPE_CHECKING:
    from vchan_testbed.bindings.raw import Channel as Handle

RING_BYTES_MAX = 1 << 20
CALL_BYTES_MAX = (1 << 31) - 1
"""The library returns sizes as int."""
PATH_BYTES_MAX = 49
"""The library builds "<path>/event-channel" in 64 bytes and cuts off what is longer."""


class _Channel:
    def __init__(self, ctrl: Handle, *, blocking: bool) -> None:
        self._ctrl: Handle | None = ctrl
        self._blocking = blocking
        raw.set_blocking(ctrl, blocking)

    @property
    def blocking(self) -> bool:
        """Whether read, write, recv and send wait."""
        return self._blocking

    @property
    def read_ring_bytes(self) -> int:
        """Size of the ring that this end reads."""
        return raw.ring_bytes(self._open("read_ring_bytes"), write_ring=False)

    @property
    def write_ring_bytes(self) -> int:
        """Size of the ring that this end writes."""
        return raw.ring_bytes(self._open("write_ring_bytes"), write_ring=True)

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the stream, at least one.

        b"" means "would block" and comes only when not blocking. Raises PeerGone at the end.
        """
        ctrl = self._open("libxenvchan_read")
        # With 0 bytes asked for, a blocking read of an empty ring would wait for ever.
        _check_size("read", size, 1, CALL_BYTES_MAX)
        return raw.libxenvchan_read(ctrl, size)

    def write(self, data: bytes) -> int:
        """Put `data` into the stream; how many bytes were taken.

        All when blocking; else as many as fit, 0 meaning "would block". Raises PeerGone.
        """
        ctrl = self._open("libxenvchan_write")
        _check_size("write", len(data), 0, CALL_BYTES_MAX)
        return raw.libxenvchan_write(ctrl, data) if data else 0

    def recv(self, size: int) -> bytes:
        """A packet of exactly `size` bytes, b"" when not blocking and it is not there yet.

        Raises PeerGone, InputError for what cannot fit the ring.
        """
        ctrl = self._open("libxenvchan_recv")
        _check_size("recv", size, 1, self.read_ring_bytes)
        return raw.libxenvchan_recv(ctrl, size)

    def send(self, data: bytes) -> int:
        """A packet: its size, or 0 when not blocking and there is no room for all of it.

        Raises PeerGone, InputError for what cannot fit the ring.
        """
        ctrl = self._open("libxenvchan_send")
        _check_size("send", len(data), 1, self.write_ring_bytes)
        return raw.libxenvchan_send(ctrl, data)

    def wait(self) -> None:
        """Wait for the peer to read, write or close. Blocks if no event is there: poll first."""
        raw.libxenvchan_wait(self._open("libxenvchan_wait"))

    def data_ready(self) -> int:
        """Bytes that can be read now."""
        return raw.libxenvchan_data_ready(self._open("libxenvchan_data_ready"))

    def buffer_space(self) -> int:
        """Bytes that can be written now."""
        return raw.libxenvchan_buffer_space(self._open("libxenvchan_buffer_space"))

    def is_open(self) -> int:
        """0 closed or peer dead, 1 open, 2 (server) no client has connected yet."""
        return raw.libxenvchan_is_open(self._open("libxenvchan_is_open"))

    def fileno(self) -> int:
        """The event descriptor, for poll: readable when wait would not block."""
        return raw.libxenvchan_fd_for_select(self._open("libxenvchan_fd_for_select"))

    def close(self) -> None:
        """Close this end; a second close does nothing. What the peer wrote and was not read is
        lost, what was written here can still be read there."""
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

    def _open(self, call: str) -> Handle:
        if self._ctrl is None:
            raise ChannelClosed(
                call,
                0,
                "this end of the channel was closed before",
                check="A closed end cannot be opened again: make a new one.",
            )
        return self._ctrl


class Server(_Channel):
    """The end that grants the rings: libxenvchan_server_init.

    `path` is in xenstore, absolute or relative to the own domain's home. Ring sizes are the least
    that is wanted: the library rounds up to a power of two, and of rings below 4 KiB only one can
    be 1 KiB and only one 2 KiB (they share a page); `read_ring_bytes` and `write_ring_bytes` say
    what came of it. `own_domid` is asked of xenstore when it is not given.

    The peer's domain need not exist yet: Xen does not look for it.

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
        _check_path(path)
        _check_size("read_ring_bytes", read_ring_bytes, 1, RING_BYTES_MAX)
        _check_size("write_ring_bytes", write_ring_bytes, 1, RING_BYTES_MAX)
        _refuse_own_domain(peer_domid, own_domid)
        super().__init__(
            raw.libxenvchan_server_init(peer_domid, path, read_ring_bytes, write_ring_bytes),
            blocking=blocking,
        )

    def start_indices_at(self, read_index: int, write_index: int) -> None:
        """Let both rings begin at other indices than 0: near 2**32, to see them wrap.

        Only for a ring that nobody has used: call it before the client can connect. Raises
        InputError for what is no 32-bit number.
        """
        for name, index in (("read_index", read_index), ("write_index", write_index)):
            if not 0 <= index < 2**32:
                raise InputError(
                    f"{name} {index} is no index of a ring.",
                    next_step=f"Give 0 to {2**32 - 1}.",
                )
        ctrl = self._open("start_indices_at")
        raw.set_indices(ctrl, read_index, write_ring=False)
        raw.set_indices(ctrl, write_index, write_ring=True)


class Client(_Channel):
    """The end that maps the rings: libxenvchan_client_init.

    `path` is absolute in xenstore. `own_domid` is asked of xenstore when it is not given.

    Raises InputError, OwnDomain, NoSuchPath (the server is not there yet), NoDevice,
    NoSuchDomain, VchanError.
    """

    def __init__(
        self,
        peer_domid: int,
        path: str,
        *,
        blocking: bool = True,
        own_domid: int | None = None,
    ) -> None:
        _check_path(path)
        _refuse_own_domain(peer_domid, own_domid)
        super().__init__(raw.libxenvchan_client_init(peer_domid, path), blocking=blocking)


def _refuse_own_domain(peer_domid: int, own_domid: int | None) -> None:
    if peer_domid == (under.own_domid() if own_domid is None else own_domid):
        raise OwnDomain(
            f"Domain {peer_domid} is this domain itself.",
            next_step="Take two domains: kernels have crashed on a vchan to the own domain.",
        )


def _check_path(path: str) -> None:
    size = len(path.encode())
    if not 1 <= size <= PATH_BYTES_MAX or "\0" in path:
        raise InputError(
            f"The xenstore path {path!r} has {size} bytes.",
            next_step=f"Give 1 to {PATH_BYTES_MAX} (no NUL): the library cuts longer ones off.",
        )


def _check_size(what: str, size: int, size_min: int, size_max: int) -> None:
    if not size_min <= size <= size_max:
        raise InputError(
            f"{what} of {size} bytes is out of range.",
            next_step=f"Give {size_min} to {size_max} bytes.",
        )
