"""How a client and a helper find each other's first frame in a stream that has a past.

A virtio-serial port outlives its clients: what the last one left half sent or half read comes
first. So each side begins a session with SYNC, 32 bytes that nothing else holds, and whoever reads
drops all that lies before it. (Frames alone do not do: the rest of a dropped 16 MiB frame would
swallow the next client's hello as its payload.)
"""

from __future__ import annotations

import hashlib

from vchan_testbed.guests.frames import Decoder, Frame, FrameError, Message, encode, message_frame

# A digest, so that no source file and no archive of one contains these bytes.
SYNC = hashlib.sha256(b"a session between vchan-testbed and its helper begins here").digest()


def opening(message: Message) -> bytes:
    """The first bytes of a session in either direction."""
    return SYNC + encode(message_frame(message))


class SessionDecoder:
    """Bytes in; frames out, and None where a new session began."""

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._tail = b""

    def feed(self, data: bytes) -> list[Frame | None]:
        """What is complete after `data`.

        Before the first SYNC, and after a broken frame, everything up to the next SYNC is dropped.
        Raises FrameError at a broken frame.
        """
        window = self._tail + data
        found = window.rfind(SYNC)
        if found < 0:
            self._tail = window[-(len(SYNC) - 1) :]
            return list(self._frames(data))
        rest = window[found + len(SYNC) :]
        self._tail = rest[-(len(SYNC) - 1) :]
        self._decoder = Decoder()
        return [None, *self._frames(rest)]

    def forget(self) -> None:
        """The other side hung up: what comes next counts from its SYNC on."""
        self._decoder = None
        self._tail = b""

    def _frames(self, data: bytes) -> list[Frame]:
        if self._decoder is None:
            return []
        try:
            return self._decoder.feed(data)
        except FrameError:
            self._decoder = None
            raise
