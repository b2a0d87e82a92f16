"""The same seeded conversation in every manner of tracing leaves the same records."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vchan_testbed.tracer.layout import Flag
from vchan_testbed.tracer.reader import Trace

if TYPE_CHECKING:
    from conftest import TracedBy, TracedPair

CALLS = 120
RINGS = (4096, 2048)
FIELDS = ("kind", "op", "offset", "call", "width", "channel", "call_seq", "site", "new", "operand")
HOW_IT_WAS_CAUGHT = Flag.OLD_UNKNOWN | Flag.BY_SIGNAL


def conversation(seed: int) -> Iterator[tuple[str, str, Any]]:
    """End, call, argument: one after the other, so that both ends' accesses have one order."""
    chosen = random.Random(seed)
    for _ in range(CALLS):
        role = chosen.choice(("server", "client"))
        name = chosen.choice(("read", "write", "write", "read", "send", "recv", "looks"))
        size = chosen.choice((1, 7, 64, 300, 1500, min(RINGS)))
        if name == "looks":
            for look in ("data_ready", "buffer_space", "is_open"):
                yield role, look, None
        else:
            yield role, name, chosen.randbytes(size) if name in ("write", "send") else size


def traced_in(pair: TracedPair, seed: int) -> tuple[Trace, Trace]:
    """Both ends' traces."""
    pair.trace()
    pair.connect(*RINGS, blocking=False)
    for role, name, argument in conversation(seed):
        end = pair.server if role == "server" else pair.client
        end("call", name, *([] if argument is None else [argument]))
    return pair.end()


def assert_same(one: Trace, other: Trace) -> None:
    """In all but times, and what a manner does not look at."""
    mine, theirs = one.records, other.records
    for field in FIELDS:
        differ = np.flatnonzero(mine[field] != theirs[field]) if len(mine) == len(theirs) else [0]
        assert not len(differ), (field, mine[differ[0]], theirs[differ[0]])
    flags = [records["flags"] & ~np.uint16(HOW_IT_WAS_CAUGHT) for records in (mine, theirs)]
    assert (flags[0] == flags[1]).all()
    unknown = (mine["flags"] | theirs["flags"]) & Flag.OLD_UNKNOWN != 0
    assert (mine["old"] == theirs["old"])[~unknown].all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_manner_leaves_the_same_records(traced_by: TracedBy, seed: int) -> None:
    first = traced_in(traced_by(None, "emulation"), seed)
    assert len(first[0].records) > CALLS
    for manner in ("translation-kept", "translation-full"):
        for one, other in zip(first, traced_in(traced_by(None, manner), seed), strict=True):
            assert_same(one, other)
