"""A peer that stores garbage into the shared page while this end is traced.

The library holds each index against the ring before it copies, so it survives that; so must the
tracer, and what it writes down has to be what the library saw. Each manner meets a million stores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import WRAP, Model

from vchan_testbed.tracer.checks_lane import lane_problems
from vchan_testbed.tracer.layout import Call, Cell, Kind
from vchan_testbed.tracer.reader import read_trace

if TYPE_CHECKING:
    from conftest import TracedPair

STORES = 1_000_000
ROUNDS_MIN = 50
FOLLOWED_MAX = 30_000
"""Records that the model follows; all of them pass the checks."""


class Beset(Model):
    """The model of an end whose own indices somebody else moves as well."""

    def move(self, index: Cell, ring_bytes: int, size: int, direction: int) -> None:
        start = self.load(index)
        first = min(size, ring_bytes - start % ring_bytes)
        parts = [(start % ring_bytes, first), (0, size - first)]
        for offset, count in parts if direction in self.copies else ():
            if count:
                self.take(Kind.COPY, op=direction, operand=offset, new=count)
        before = self.peek()["old"] if self.peek()["kind"] == Kind.RMW_PLAIN else self.load(index)
        self.take(Kind.RMW_PLAIN, Kind.STORE, offset=index, width=4, new=(before + size) % WRAP)

    def follow(self, records_max: int) -> int:
        """Calls that were followed, in the first records; an opening is not looked at."""
        calls = 0
        while self.at < min(len(self.records) - 1, records_max):
            enter = self.take(Kind.CALL_ENTER)
            name = Call(enter["call"]).name.lower()
            if name in ("server_init", "close"):
                while self.take(*Kind)["kind"] != Kind.CALL_EXIT:
                    pass
                continue
            method = self.live if name == "is_open" else None
            result = method() if method else getattr(self, name)(enter["old"])
            self.take(Kind.CALL_EXIT, new=result % (1 << 64), call=enter["call"])
            calls += 1
        return calls


@pytest.mark.parametrize("seed", [1])
def test_garbage_in_the_page_harms_neither_the_tracer_nor_its_records(
    traced: TracedPair, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "beset.vtrace"
    server, client = traced.server, traced.client
    server("trace", str(path), "server", json.dumps(traced.manner))
    traced.connect(4096, 1024, blocking=False)
    server("begin_facing")
    client("store_garbage", seed, STORES)
    rounds = server("end_facing")
    server("close")
    server("end_trace")
    client("close")
    assert rounds > ROUNDS_MIN
    trace = read_trace(path)
    assert (trace.ending, trace.dropped) == ("complete", 0)
    wrong = [problem for problem in lane_problems("server", trace) if problem.rule == "log"]
    assert wrong == []
    model = Beset(trace)
    model.blocking = False
    assert model.follow(FOLLOWED_MAX) > ROUNDS_MIN
