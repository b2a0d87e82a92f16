"""Properties of streams and packets, with random sizes, over the unmodified libxenvchan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conftest import Domains, Remote

PATH = "data/channel"
SERVER_PATH = "/local/domain/1/data/channel"
STREAM_BYTES_MAX = 20_000

ring_sizes = st.sampled_from([1024, 2048, 4096, 8192, 1 << 16])
writers = st.sampled_from(["server", "client"])
properties = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Ends:
    """Two processes that make a new channel for each example."""

    def __init__(self, domains: Domains) -> None:
        self.server = domains.process("channel_end.py", 1)
        self.client = domains.process("channel_end.py", 2)

    def connect(
        self, rings: tuple[int, int], writer: str, blocking: tuple[bool, bool]
    ) -> tuple[Remote, Remote, int]:
        """(writer, reader, bytes of the ring between them)."""
        read, write = self.server("server", 2, PATH, *rings, blocking[0])
        assert self.client("client", 1, SERVER_PATH, blocking[1]) == [write, read]
        if writer == "client":
            return self.client, self.server, read
        return self.server, self.client, write

    def close(self) -> None:
        for remote in (self.client, self.server):
            if remote.alive:
                remote("close")


@pytest.fixture
def ends(domains: Domains) -> Iterator[Ends]:
    """A process for each end."""
    found = Ends(domains)
    yield found
    found.close()


def pattern(count: int) -> bytes:
    """Bytes in which a shift by less than 251 * 256 shows."""
    return bytes((i % 251) ^ (i // 251 % 256) for i in range(count))


@properties
@given(
    rings=st.tuples(ring_sizes, ring_sizes),
    writer=writers,
    blocking=st.tuples(st.booleans(), st.booleans()),
    count=st.integers(1, STREAM_BYTES_MAX),
    write_sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=6),
    read_size=st.integers(1, 9000),
)
def test_a_stream_comes_out_as_it_went_in(
    ends: Ends,
    rings: tuple[int, int],
    writer: str,
    blocking: tuple[bool, bool],
    count: int,
    write_sizes: list[int],
    read_size: int,
) -> None:
    # Many tiny calls on both sides say nothing new and take long.
    read_size = max(read_size, count // 200)
    sizes = [max(size, count // 200) for size in write_sizes]
    out, into, _ = ends.connect(rings, writer, blocking)
    data = pattern(count)
    out.start("write_all", data, sizes)
    assert into("read_all", count, read_size) == data
    out.finish()
    assert into("call", "data_ready") == 0
    ends.close()


@properties
@given(
    rings=st.tuples(ring_sizes, ring_sizes),
    writer=writers,
    blocking=st.tuples(st.booleans(), st.booleans()),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_packets_come_out_as_they_went_in(
    ends: Ends,
    rings: tuple[int, int],
    writer: str,
    blocking: tuple[bool, bool],
    fractions: list[float],
) -> None:
    out, into, ring = ends.connect(rings, writer, blocking)
    sizes = [1 + int(fraction * (min(ring, 8192) - 1)) for fraction in fractions]
    whole = pattern(sum(sizes))
    packets = [whole[sum(sizes[:i]) : sum(sizes[:i]) + size] for i, size in enumerate(sizes)]
    out.start("send_all", packets)
    assert into("recv_all", sizes) == packets
    assert out.finish() == sizes
    ends.close()


@properties
@given(
    rings=st.tuples(ring_sizes, ring_sizes),
    closer=writers,
    count=st.integers(0, 1024),
    read_size=st.integers(1, 1024),
)
def test_what_was_put_before_close_is_read_after_it(
    ends: Ends, rings: tuple[int, int], closer: str, count: int, read_size: int
) -> None:
    out, into, _ = ends.connect(rings, closer, (True, True))
    data = pattern(count)
    assert out("call", "write", data) == count
    out("close")
    assert into("read_to_end", max(read_size, count // 50)) == data
    ends.close()
