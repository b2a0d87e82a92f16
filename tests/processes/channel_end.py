"""A process that holds one end of a channel for a test."""

from __future__ import annotations

import select
import signal
from typing import Any

from serving import serve

from vchan_testbed.bindings import raw, under
from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.bindings.errors import PeerGone


class End:
    """The end, and the calls on it."""

    def __init__(self) -> None:
        self.channel: Server | Client | None = None

    def server(self, peer: int, path: str, read: int, write: int, blocking: bool) -> list[int]:
        """[read ring, write ring] in bytes."""
        server = Server(peer, path, read, write, blocking=blocking)
        self.channel = server
        return [server.read_ring_bytes, server.write_ring_bytes]

    def client(self, peer: int, path: str, blocking: bool) -> list[int]:
        """[read ring, write ring] in bytes."""
        client = Client(peer, path, blocking=blocking)
        self.channel = client
        return [client.read_ring_bytes, client.write_ring_bytes]

    def call(self, name: str, *arguments: Any) -> Any:
        """A method of the channel."""
        return getattr(self.channel, name)(*arguments)

    def close(self) -> None:
        """Close the end if there is one."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.close()

    def read_all(self, count: int, size: int) -> bytes:
        """`count` bytes of the stream by reads of up to `size`."""
        got = bytearray()
        while len(got) < count:
            got += self._again("read", min(size, count - len(got)))
        return bytes(got)

    def write_all(self, data: bytes, sizes: list[int]) -> int:
        """The whole of `data`, by writes of the given sizes in turn; the number of calls."""
        position = calls = 0
        while position < len(data):
            size = sizes[calls % len(sizes)]
            position += self._again("write", data[position : position + size])
            calls += 1
        return calls

    def recv_all(self, sizes: list[int]) -> list[bytes]:
        """Packets of these sizes."""
        return [self._again("recv", size) for size in sizes]

    def send_all(self, packets: list[bytes]) -> list[int]:
        """Each as a packet."""
        return [self._again("send", packet) for packet in packets]

    def read_to_end(self, size: int) -> bytes:
        """All that comes until the peer is gone."""
        got = bytearray()
        while True:
            try:
                got += self._again("read", size)
            except PeerGone:
                return bytes(got)

    def ready(self) -> bool:
        """Is the event descriptor readable?"""
        return bool(select.select([self._fileno()], [], [], 0)[0])

    def _again(self, name: str, argument: Any) -> Any:
        """Call until it moved something; non-blocking ends wait for an event between."""
        while True:
            moved = self.call(name, argument)
            if moved:
                return moved
            select.select([self._fileno()], [], [])
            self.call("wait")

    def _fileno(self) -> int:
        assert self.channel is not None
        return self.channel.fileno()


def raise_on_signal() -> None:
    """Let SIGUSR1 end a system call without ending the process."""
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.siginterrupt(signal.SIGUSR1, True)


if __name__ == "__main__":
    end = End()
    serve(
        {
            "server": end.server,
            "client": end.client,
            "call": end.call,
            "close": end.close,
            "read_all": end.read_all,
            "write_all": end.write_all,
            "recv_all": end.recv_all,
            "send_all": end.send_all,
            "read_to_end": end.read_to_end,
            "ready": end.ready,
            "own_domid": under.own_domid,
            "raise_on_signal": raise_on_signal,
            "library_soname": raw.library_soname,
        }
    )
