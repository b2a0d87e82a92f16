"""Digests of long copies are written down when the peer has its event, each once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.completed import completed, copies_of_digests
from vchan_testbed.tracer.format import Records
from vchan_testbed.tracer.layout import Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.digest import digest_of

if TYPE_CHECKING:
    from conftest import TracedPair

RING = 4096
LONG = RING
SHORT = 1000
DATA = bytes(range(256)) * (LONG // 256)


@pytest.fixture
def ends(traced: TracedPair) -> tuple[Trace, Trace]:
    """The server's and the client's trace: one long message and one short one, from the client."""
    traced.trace()
    traced.connect(RING, RING)
    for size in (LONG, SHORT):
        traced.client.start("write_all", DATA[:size], [size])
        assert traced.server("read_all", size, size) == DATA[:size]
        traced.client.finish()
    return traced.end()


def of_calls(records: Records, *kinds: Kind) -> list[tuple[int, list[Kind]]]:
    """By call: those kinds in order."""
    chosen = records[np.isin(records["kind"], kinds)]
    numbers = dict.fromkeys(chosen["call_seq"].tolist())
    return [(n, [Kind(k) for k in chosen["kind"][chosen["call_seq"] == n]]) for n in numbers]


def test_a_long_copy_has_its_digest_behind_the_event_for_the_peer(
    ends: tuple[Trace, Trace],
) -> None:
    for trace in ends:
        records = trace.records
        digests, copies = copies_of_digests(records)
        assert len(digests) == 1
        (digest,), (copy,) = digests, copies
        assert records["new"][copy] == records["new"][digest] == LONG
        assert records["old"][copy] == records["old"][digest] == digest_of(DATA)
        assert records["call_seq"][copy] == records["call_seq"][digest]
        later = [Kind(kind) for kind in records["kind"][copy:digest]]
        assert Kind.RMW_PLAIN in later, "the index had moved before it was digested"
        assert Kind.COPY not in later[1:]
        assert Kind(records["kind"][digest + 1]) in (Kind.CALL_EXIT, Kind.PENDING_ENTER)
        assert not (records["flags"] & Flag.DIGEST_FOLLOWS).any()
    (client,) = (trace for trace in ends if trace.header.role == "client")
    digest = int(copies_of_digests(client.records)[0][0])
    assert Kind.NOTIFY in client.records["kind"][:digest]


def test_a_short_copy_has_its_own(ends: tuple[Trace, Trace]) -> None:
    for trace in ends:
        copies = trace.records[trace.records["kind"] == Kind.COPY]
        assert copies["new"].tolist() == [LONG, SHORT]
        assert copies["old"].tolist() == [digest_of(DATA), digest_of(DATA[:SHORT])]


def changed(trace: Trace, change: str) -> Trace:
    """With something wrong about the digest that was put off."""
    records = trace.records.copy()
    (digest,), (copy,) = copies_of_digests(records)
    records["flags"][copy] |= Flag.DIGEST_FOLLOWS
    if change == "missing":
        records = np.delete(records, digest)
        records["seq"] = np.arange(1, len(records) + 1)
    elif change == "of no copy":
        records["operand"][digest] += 1
    elif change == "of another size":
        records["new"][digest] += 1
    return replace(trace, records=completed(trace.header, records))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("none", set()),
        ("missing", {"Its call has ended, and its digest is missing."}),
        (
            "of no copy",
            {
                "Its call has ended, and its digest is missing.",
                "It is the digest of no copy of its call.",
            },
        ),
        ("of another size", {"It is the digest of no copy of its call."}),
    ],
)
def test_what_is_wrong_about_it_is_said(
    ends: tuple[Trace, Trace], change: str, said: set[str]
) -> None:
    server, client = ends
    found = check_pair(server, changed(client, change))
    assert {problem.text for problem in found} == said
