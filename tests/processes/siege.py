"""A peer that stores garbage into a channel's pages, and an end that goes on in spite of it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.bindings.errors import VchanError
from vchan_testbed.bindings.extension import ffi
from vchan_testbed.errors import TestbedError

WRAP = 1 << 32
INDICES = range(4)
"""Words of the page: left.cons, left.prod, right.cons, right.prod (libxenvchan.h)."""
ORDERS = (16, 18)
BYTES = range(16, 24)
"""Orders, live bytes, notify bytes."""
LIVE_BYTES = (20, 21)
GRANTS = range(6, 1024)
"""Words: the list of grants, and in a page with rings those."""
NASTY = (0, 1, 7, 1023, 1024, 1025, 4095, 4096, 4097, 1 << 31, WRAP - 1, WRAP - 7, 0xDEADBEEF)
APART = (0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 1 << 31, WRAP - 1)
"""prod - cons: within the ring, at its end, beyond it, and behind cons."""
NASTY_BYTES = (0, 1, 2, 3, 255)
NASTY_ORDERS = (0, 9, 10, 11, 12, 20, 21, 31, 32, 255, 0xFFFF)
STORES_TO_AN_EVENT = 64
BREATH_SECONDS = 0.0002
"""Between two rounds: else the trace of a second fills a disk."""
JOIN_SECONDS_MAX = 30

Channel = Server | Client


class Besieger:
    """Stores values that no library would, where the peer of an honest one looks."""

    def __init__(self, channel: Channel) -> None:
        assert channel._ctrl is not None
        # libxenvchan.h: a handle of grants, the page, the handle of events, the port.
        pointers = ffi.cast("char **", channel._ctrl)
        page = memoryview(ffi.buffer(pointers[1], 4096))
        self._words, self._octets = page.cast("B").cast("I"), page.cast("B")
        self._shorts = page.cast("B").cast("H")
        self._event = ctypes.c_void_p(int(ffi.cast("uintptr_t", pointers[2])))
        self._port = int(ffi.cast("uint32_t *", channel._ctrl)[6])
        self._xenevtchn: Any = ctypes.CDLL("libxenevtchn.so.1")

    def store(self, seed: int, count: int) -> None:
        """`count` values, with an event now and then for who waits."""
        chance = random.Random(seed)
        for number in range(count):
            self._one(chance)
            if number % STORES_TO_AN_EVENT == 0:
                self.raise_event()

    def _one(self, chance: random.Random) -> None:
        kind = chance.random()
        if kind < 0.35:
            word = chance.choice(INDICES)
            # The other index of the ring: prod stands behind cons.
            self._words[word] = (self._words[word ^ 1] + chance.choice(APART)) % WRAP
        elif kind < 0.5:
            self._words[chance.choice(INDICES)] = chance.choice(NASTY)
        elif kind < 0.65:
            self._words[chance.choice(INDICES)] = chance.getrandbits(32)
        elif kind < 0.8:
            self._octets[chance.choice(BYTES)] = chance.choice(NASTY_BYTES)
        elif kind < 0.85:
            self._octets[chance.choice(BYTES)] = chance.getrandbits(8)
        elif kind < 0.9:
            self._octets[chance.choice(LIVE_BYTES)] = 1
        else:
            self._words[chance.choice(GRANTS)] = chance.getrandbits(32)

    def spoil_orders(self, seed: int) -> None:
        """What a client finds that opens the channel then."""
        chance = random.Random(seed)
        for offset in ORDERS:
            self._shorts[offset // 2] = chance.choice(NASTY_ORDERS)
        for word in range(6, 16):
            self._words[word] = chance.choice((self._words[word], chance.getrandbits(32)))

    def relent(self) -> None:
        """Nobody waits for this peer any more: both are gone, and there is an event."""
        for offset in LIVE_BYTES:
            self._octets[offset] = 0
        self.raise_event()

    def raise_event(self) -> None:
        """An event for the peer."""
        assert self._xenevtchn.xenevtchn_notify(self._event, self._port) == 0


class Besieged:
    """Calls on an end, again and again, in a thread of their own."""

    def __init__(self, channel: Channel) -> None:
        self._calls = _calls_on(channel)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._face, daemon=True)
        self.calls = 0

    def begin(self) -> None:
        """Begin."""
        self._thread.start()

    def enough(self) -> None:
        """Make no other call than the one that is being made."""
        assert self._thread.is_alive(), "it has ended before it was told to"
        self._enough.set()

    def end(self) -> int:
        """How many calls that were."""
        self._thread.join(JOIN_SECONDS_MAX)
        assert not self._thread.is_alive(), "a call does not return"
        return self.calls

    def _face(self) -> None:
        for call in itertools.cycle(self._calls):
            if self._enough.is_set():
                return
            # Whom the page tells that its peer is gone goes on all the same.
            with contextlib.suppress(VchanError):
                call()
            self.calls += 1
            if not self.calls % len(self._calls):
                time.sleep(BREATH_SECONDS)


def _calls_on(channel: Channel) -> list[Callable[[], Any]]:
    """Streams and packets, small ones and such as fill a ring, and all questions."""
    return [
        lambda: channel.write(b"w" * 200),
        lambda: channel.read(100),
        lambda: channel.send(b"s" * 30),
        lambda: channel.recv(50),
        channel.data_ready,
        channel.buffer_space,
        channel.is_open,
        lambda: channel.write(b"w" * 5000),
        lambda: channel.read(5000),
        lambda: channel.send(b"s" * channel.write_ring_bytes),
        lambda: channel.recv(channel.read_ring_bytes),
    ]


def opens(peer: int, path: str) -> bool:
    """Whether a client can open a channel there; it is closed again."""
    try:
        Client(peer, path, blocking=False).close()
    except TestbedError:
        return False
    return True
