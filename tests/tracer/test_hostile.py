"""A peer that stores garbage into the shared pages while this end is traced.

The library reads each index once and holds it against the ring before it copies (io.c: where there
is more than the ring holds, there is nothing), and it masks its own index: so no store of the peer
leads it out of the ring, and what it makes of garbage is "nothing there", bytes, or an error. The
tracer must survive all of it as well, and what it writes down has to be what the library saw: the
model follows the records, and has to come to the same results.

Each case meets STORES stores; `make siege` has it meet a million.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import WRAP, Model

from vchan_testbed.tracer.checks_lane import lane_problems
from vchan_testbed.tracer.layout import ACCESS_KINDS, Call, Cell, Kind
from vchan_testbed.tracer.reader import Trace, read_trace

if TYPE_CHECKING:
    from conftest import Remote, TracedPair

STORES = int(os.environ.get("VCHAN_TESTS_STORES", "40000"))
CALLS_MIN = 100
FOLLOWED_MAX = min(STORES, 200_000)
"""Records that the model follows, as it needs a kilobyte for each; all of them pass the checks."""
OPENINGS = max(STORES // 1000, 40)
PATH = "data/vchan"


class Beset(Model):
    """The model of an end whose own indices somebody else moves as well."""

    def __init__(self, trace: Trace, *, blocking: bool) -> None:
        records = trace.records[:FOLLOWED_MAX]
        whole = np.flatnonzero(records["kind"] == Kind.CALL_EXIT)[-1] + 1
        super().__init__(replace(trace, records=records[:whole]))
        self.blocking = blocking

    def move(self, index: Cell, ring_bytes: int, size: int, direction: int) -> None:
        start = self.load(index)
        first = min(size, ring_bytes - start % ring_bytes)
        parts = [(start % ring_bytes, first), (0, size - first)]
        for offset, count in parts if direction in self.copies else ():
            if count:
                self.take(Kind.COPY, op=direction, operand=offset, new=count)
        before = self.peek()["old"] if self.peek()["kind"] == Kind.RMW_PLAIN else self.load(index)
        self.take(Kind.RMW_PLAIN, Kind.STORE, offset=index, width=4, new=(before + size) % WRAP)

    def follow(self) -> int:
        """Calls that were followed; openings and closes are not looked at."""
        calls = 0
        while self.at < len(self.records):
            enter = self.take(Kind.CALL_ENTER)
            name = Call(enter["call"]).name.lower()
            if name in ("server_init", "client_init", "close"):
                while self.take(*Kind)["kind"] != Kind.CALL_EXIT:
                    pass
                continue
            method = self.live if name == "is_open" else None
            result = method() if method else getattr(self, name)(enter["old"])
            self.take(Kind.CALL_EXIT, new=result % (1 << 64), call=enter["call"])
            calls += 1
        return calls


def begin(pair: TracedPair, role: str, path: Path) -> tuple[Remote, Remote]:
    """The end that is traced from here on, and its peer, which is not."""
    ends = {"server": pair.server, "client": pair.client}
    own = ends.pop(role)
    own("trace", str(path), role, json.dumps(pair.manner))
    (peer,) = ends.values()
    return own, peer


@pytest.mark.parametrize("blocking", [False, True], ids=["polling", "blocking"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_garbage_in_the_page_harms_neither_the_tracer_nor_its_records(
    traced: TracedPair, tmp_path: Path, role: str, blocking: bool
) -> None:
    path = tmp_path / "beset.vtrace"
    own, peer = begin(traced, role, path)
    traced.connect(4096, 1024, blocking=blocking)
    own("begin_facing")
    peer("store_garbage", STORES, STORES)
    seed = 0
    while own("calls_so_far") < 2 * CALLS_MIN:
        peer("store_garbage", seed := seed + 1, STORES // 10)
    own("enough")
    peer("relent")
    calls = own("end_facing")
    own("close")
    own("end_trace")
    peer("close")
    trace = read_trace(path)
    assert (trace.ending, trace.dropped) == ("complete", 0)
    problems = lane_problems(trace.header.role, trace)
    wrong = [problem for problem in problems if problem.rule == "log"]
    assert wrong == []
    seen = trace.records["old"][trace.records["kind"] == Kind.LOAD]
    assert (seen > 1 << 31).sum() > CALLS_MIN, "it has met no garbage"
    assert Beset(trace, blocking=blocking).follow() > CALLS_MIN
    assert calls > CALLS_MIN


def test_a_channel_that_is_garbage_when_it_is_opened_is_refused_or_used(
    traced: TracedPair, tmp_path: Path
) -> None:
    path = tmp_path / "opened.vtrace"
    client, server = begin(traced, "client", path)
    opened = 0
    for seed in range(OPENINGS):
        server("server", 2, PATH, 4096, 1024, False)
        server("spoil_orders", seed)
        opened += client("opens", 1, f"/local/domain/1/{PATH}")
        server("close")
    client("end_trace")
    assert opened < OPENINGS
    trace = read_trace(path)
    assert (trace.ending, trace.dropped) == ("complete", 0)
    records = trace.records
    exits = records[(records["kind"] == Kind.CALL_EXIT) & (records["call"] == Call.CLIENT_INIT)]
    assert len(exits) == OPENINGS
    assert (exits["new"] == 0).sum() == opened
    orders = records[records["offset"] == Cell.LEFT_ORDER]
    assert len(orders) >= OPENINGS
    assert set(orders["kind"].tolist()) <= set(ACCESS_KINDS)
