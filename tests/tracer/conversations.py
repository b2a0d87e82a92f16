"""Conversations of two traced ends, of which every access has to be in the traces."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from oracle import assert_exact

from vchan_testbed.tracer.layout import COPY_IN, COPY_OUT, Cell, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.digest import digest_of

if TYPE_CHECKING:
    from conftest import TracedPair


def streams_both_ways(traced: TracedPair, left: int, right: int, orders: tuple[int, int]) -> None:
    """Several rings full of bytes each way, one after the other, with waits."""
    source = random.Random(left)
    up = source.randbytes(5 * left if left < 1 << 20 else (3 << 19))
    down = source.randbytes(3 * right if right < 1 << 20 else (3 << 19))
    sizes = [max(1, left // 3), 1, left + 7, left // 2]
    traced.trace()
    traced.connect(left, right)
    traced.client.start("write_all", up, sizes)
    assert traced.server("read_all", len(up), max(1, left // 2)) == up
    traced.client.finish()
    traced.server.start("write_all", down, [max(1, right // 2), right, 3])
    assert traced.client("read_all", len(down), right) == down
    traced.server.finish()
    server, client = traced.end()
    assert (server.header.left_order, server.header.right_order) == orders
    assert (client.header.left_order, client.header.right_order) == orders
    assert_exact(server, client)
    for trace, op, data in (
        (client, COPY_IN, up),
        (server, COPY_OUT, up),
        (server, COPY_IN, down),
        (client, COPY_OUT, down),
    ):
        assert_copied(trace, op, data)
    for cell, data in ((Cell.LEFT_PROD, up), (Cell.RIGHT_CONS, down)):
        assert int(client.records["new"][client.records["offset"] == cell][-1]) == len(data)


def assert_copied(trace: Trace, op: int, data: bytes) -> None:
    """All of the data in order and with its digests, or nothing: the compiler may do without."""
    copies = trace.records[(trace.records["kind"] == Kind.COPY) & (trace.records["op"] == op)]
    ends = np.cumsum(copies["new"].astype(int)).tolist()
    assert ends[-1:] in ([len(data)], [])
    parts = [data[start:end] for start, end in pairwise([0, *ends])]
    assert copies["old"].tolist() == [digest_of(part) for part in parts]


def packets_and_questions(traced: TracedPair) -> None:
    """Packets up to a ring's size, and what can be asked."""
    traced.trace()
    traced.connect()
    packets = [bytes([i]) * size for i, size in enumerate((1, 600, 4096, 17, 4095, 2048))]
    traced.client.start("send_all", packets)
    assert traced.server("recv_all", [len(packet) for packet in packets]) == packets
    assert traced.client.finish() == [len(packet) for packet in packets]
    assert traced.server("call", "is_open") == 1
    assert traced.server("call", "data_ready") == 0
    assert traced.server("call", "buffer_space") == 4096
    assert traced.client("call", "fileno") > 0
    assert_exact(*traced.end())


def ends_that_do_not_block(traced: TracedPair) -> None:
    """A stream by polling, and packets that do not fit."""
    traced.trace()
    traced.connect(blocking=False)
    data = random.Random(5).randbytes(30000)
    assert traced.server("call", "read", 10) == b""
    traced.client.start("write_all", data, [5000, 1, 4096])
    assert traced.server("read_all", len(data), 3000) == data
    traced.client.finish()
    assert traced.client("call", "send", b"x" * 4000) == 4000
    assert traced.client("call", "send", b"x" * 4000) == 0
    assert traced.server("call", "recv", 4096) == b""
    assert_exact(*traced.end(), blocking=False)
