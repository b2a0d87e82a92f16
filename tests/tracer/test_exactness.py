"""Is every access in the trace, with the value it really had?

The oracle (oracle.py) is a model of libxenvchan that is fed with the values that the log says were
read.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.layout import (
    Kind,
)
from vchan_testbed.tracer.reader import Trace

if TYPE_CHECKING:
    from conftest import TracedPair

sys.path.insert(0, str(Path(__file__).parent))

from conversations import ends_that_do_not_block, packets_and_questions, streams_both_ways
from oracle import Model, assert_exact

RINGS = [
    pytest.param(1024, 2048, (10, 11), id="1K+2K in the page"),
    pytest.param(2048, 1000, (11, 10), id="2K+1K in the page"),
    pytest.param(1024, 4096, (11, 12), id="2K in the page, 4K"),
    pytest.param(4096, 4096, (12, 12), id="4K"),
    pytest.param(65536, 8192, (16, 13), id="64K+8K"),
    pytest.param(1 << 20, 1 << 20, (20, 20), id="1M"),
]


@pytest.mark.parametrize(("left", "right", "orders"), RINGS)
def test_every_access_is_in_the_trace(
    traced: TracedPair, left: int, right: int, orders: tuple[int, int]
) -> None:
    streams_both_ways(traced, left, right, orders)


def test_packets_and_questions(traced: TracedPair) -> None:
    packets_and_questions(traced)


def test_non_blocking_ends(traced: TracedPair) -> None:
    ends_that_do_not_block(traced)


def test_the_end_of_the_stream(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    traced.server.start("read_to_end", 100)
    traced.client("write_all", b"a" * 10, [10])
    traced.client("close")
    # The client may close before the last bytes are read (L1), but here they were few.
    assert traced.server.finish() in (b"a" * 10, b"")
    server, client = traced.end()
    assert_exact(server, client)
    result = server.records[server.records["kind"] == Kind.CALL_EXIT]["new"]
    assert (result == np.uint64(2**64 - 1)).any()


def test_a_server_nobody_comes_to(traced: TracedPair) -> None:
    traced.trace()
    traced.server("server", 2, "data/vchan", 4096, 4096, False)
    assert traced.server("call", "is_open") == 2
    assert traced.server("call", "write", b"x" * 100) == 100
    server, client = traced.end()
    model = Model(server)
    model.blocking = False
    assert model.replay() == 4
    assert len(client.records) == 0
    assert check_pair(server, client) == []


def test_the_oracle_sees_what_is_wrong(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    traced.client("write_all", b"x" * 3000, [1000])
    traced.server("read_all", 3000, 700)
    server, client = traced.end()
    assert_exact(server, client)
    source = random.Random(8)
    accesses = np.flatnonzero((client.records["kind"] <= Kind.BULK) & (client.records["call"] == 4))
    for place in source.sample(list(accesses), 12):
        kept = np.delete(client.records, place)
        missing = Trace(client.header, kept, "complete", 0, ())
        twice = np.insert(client.records, place, client.records[place])
        doubled = Trace(client.header, twice, "complete", 0, ())
        changed = client.records.copy()
        changed["old"][place] += 1
        other = Trace(client.header, changed, "complete", 0, ())
        for wrong in (missing, doubled, other):
            # The hoisted pair that gcc makes may stand there or not, so one of it is no loss
            # to the model: the other half is.
            with pytest.raises(AssertionError):
                assert_exact(server, wrong)
