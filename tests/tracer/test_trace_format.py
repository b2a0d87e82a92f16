"""The drawing of the trace file, its writer and its reader."""

from __future__ import annotations

import random
import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vchan_testbed.errors import InputError
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.format import (
    BLOCK_HEADER_DTYPE,
    RECORD_DTYPE,
    Records,
    checks_of,
    write_trace,
)
from vchan_testbed.tracer.header import TraceHeader
from vchan_testbed.tracer.reader import TraceDamaged, read_trace

DRAWING = layout.__doc__ or ""
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
HEADER = TraceHeader(
    role="client",
    domid=3,
    peer_domid=7,
    left_order=12,
    right_order=10,
    tsc_hz=2_000_000_000,
    seed=42,
    run_id=bytes(range(16)),
    start_tsc=5,
    start_realtime_ns=6,
    xen_version="4.17.4",
    library="libxenvchan.so.4.17 0123456789abcdef",
    kernel="6.1.0",
    program="worker",
)


def records_of(counts: dict[int, int], seed: int = 1) -> Records:
    """Records of several threads, interleaved, with arbitrary values."""
    order = [thread for thread, count in counts.items() for _ in range(count)]
    random.Random(seed).shuffle(order)
    records = np.zeros(len(order), RECORD_DTYPE)
    records["thread"] = order
    for thread in counts:
        own = records["thread"] == thread
        records["seq"][own] = np.arange(1, int(own.sum()) + 1)
    values = np.random.default_rng(seed).integers(0, 2**63, len(order), dtype=np.uint64)
    records["old"] = values
    records["kind"] = layout.Kind.LOAD
    return records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.vtrace"


def offsets(dtype: np.dtype[np.void]) -> dict[str, int]:
    """Where each field of a record type begins."""
    return {name: field[1] for name, field in (dtype.fields or {}).items()}


def drawn(pattern: str) -> Iterator[re.Match[str]]:
    return re.finditer(pattern, DRAWING, re.MULTILINE)


def test_the_drawn_record_is_the_record() -> None:
    rows = list(drawn(r"^ +(\d+)  (\w+) +(u\d+) +((?:[0-9a-f]{2} )+) +(\d+)\b"))
    assert [row[2] for row in rows] == list(RECORD_DTYPE.names or ())
    data = b"".join(bytes.fromhex(row[4]) for row in rows)
    record = np.frombuffer(data, RECORD_DTYPE)
    for row in rows:
        assert offsets(RECORD_DTYPE)[row[2]] == int(row[1])
        assert RECORD_DTYPE[row[2]].itemsize == SIZES[row[3]]
        assert record[row[2]][0] == int(row[5])
    assert layout.record_check(data) == record["check"][0] == checks_of(record)[0]
    assert layout.RECORD.unpack(data) == tuple(record[0])


def test_the_drawn_header_is_the_header(path: Path) -> None:
    write_trace(path, HEADER, records_of({0: 1}))
    page = path.read_bytes()[: layout.HEADER_BYTES]
    read = read_trace(path).header
    part = DRAWING[DRAWING.index("The header, byte") : DRAWING.index("The header of a block")]
    rows = re.findall(r"^ +(\d+)  (\w+) +(u32|u64|\d+ bytes)\b", part, re.MULTILINE)
    end = 0
    for at, name, kind in rows:
        assert int(at) == end, name
        end += SIZES.get(kind) or int(kind.split()[0])
        field = page[int(at) : end]
        if name in ("magic", "header_bytes", "record_bytes", "block_bytes", "state"):
            continue
        assert field == encoded(getattr(read, name), len(field)), name
        if name not in ("blocks_used", "blocks_max"):
            assert getattr(read, name) == getattr(HEADER, name)
    assert end == layout.HEADER.size == 456
    assert page[:8] == layout.MAGIC


def encoded(value: object, size: int) -> bytes:
    """A header's value as the drawing says that it is written."""
    numbers = {"server": 0, "client": 1, "exact": 1, "calls": 2}
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value not in numbers:
        return value.encode().ljust(size, b"\0")
    return int(numbers.get(str(value), str(value))).to_bytes(size, "little")


def test_the_drawn_block_header_is_the_block_header() -> None:
    part = DRAWING[DRAWING.index("The header of a block") :]
    rows = re.findall(r"^ +(\d+)  (\w+) +u\d\d", part, re.MULTILINE)
    assert {name: int(at) for at, name in rows} == offsets(BLOCK_HEADER_DTYPE)


def test_what_is_written_is_read(path: Path) -> None:
    records = records_of({0: 3000, 1: 1, 5: 1023, 6: 1024})
    write_trace(path, HEADER, records)
    trace = read_trace(path)
    assert trace.ending == "complete"
    assert trace.notes == ()
    expected = records[np.lexsort((records["seq"], records["thread"]))].copy()
    expected["check"] = checks_of(expected)
    assert (trace.records == expected).all()
    assert trace.header.complete
    assert trace.header.blocks_used == 3 + 1 + 1 + 2
    for name in ("role", "domid", "left_order", "run_id", "library", "level", "seed", "tsc_hz"):
        assert getattr(trace.header, name) == getattr(HEADER, name)


def test_an_open_last_block_is_read_record_by_record(path: Path) -> None:
    records = records_of({0: 2000})
    write_trace(path, HEADER, records, complete=False)
    trace = read_trace(path)
    assert trace.ending == "cut"
    assert len(trace.records) == 2000
    assert trace.notes == (
        "The process did not end its trace.",
        "Block 1 was not closed: 977 records taken one by one.",
    )


def test_a_torn_record_ends_an_open_block(path: Path) -> None:
    write_trace(path, HEADER, records_of({0: 20}), complete=False)
    data = bytearray(path.read_bytes())
    data[layout.HEADER_BYTES + 64 + 10 * 64 + 16] ^= 1
    path.write_bytes(data)
    trace = read_trace(path)
    assert len(trace.records) == 10
    assert trace.notes[-1] == "Block 0: 9 records behind a torn one are left out."


def test_a_block_beyond_the_headers_count_is_read(path: Path) -> None:
    write_trace(path, HEADER, records_of({0: 1500}), complete=False)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 24, 0)
    path.write_bytes(data + bytes(layout.BLOCK_BYTES))
    assert len(read_trace(path).records) == 1500


@pytest.mark.parametrize("at", [24, 64 + 10 * 64 + 16, 64 + 10 * 64 + 60])
def test_a_wrong_crc_is_damage(path: Path, at: int) -> None:
    """Of the block: its own, a field of a record, a record's check."""
    write_trace(path, HEADER, records_of({0: 20}))
    data = bytearray(path.read_bytes())
    data[layout.HEADER_BYTES + at] ^= 1
    path.write_bytes(data)
    with pytest.raises(TraceDamaged, match=r"Block 0 of .*server.vtrace has a wrong CRC") as caught:
        read_trace(path)
    assert caught.value.next_step


@pytest.mark.parametrize(("at", "word"), [(0, 1), (4, 7), (20, 3), (16, 5000)])
def test_a_block_header_that_makes_no_sense_is_damage(path: Path, at: int, word: int) -> None:
    write_trace(path, HEADER, records_of({0: 20}))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, layout.HEADER_BYTES + at, word)
    path.write_bytes(data)
    with pytest.raises(TraceDamaged):
        read_trace(path)


def test_another_version_is_refused(path: Path) -> None:
    write_trace(path, HEADER, records_of({0: 20}))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 8, 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match="version 1; this program reads 4"):
        read_trace(path)


@pytest.mark.parametrize("content", [b"", b"V", b"\x7fELF" + bytes(100), bytes(5000)])
def test_what_is_no_trace_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert caught.value.next_step


def test_a_file_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(path)


WHOLE = records_of({0: 1100, 1: 30}, seed=3)


@settings(max_examples=80, deadline=None)
@given(
    kept=st.integers(0, layout.HEADER_BYTES + 3 * layout.BLOCK_BYTES - 1), complete=st.booleans()
)
def test_cut_at_any_byte_it_is_refused_or_a_prefix(kept: int, complete: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.vtrace"
        write_trace(path, HEADER, WHOLE, complete=complete)
        full = read_trace(path).records
        path.write_bytes(path.read_bytes()[:kept])
        if kept < layout.HEADER_BYTES:
            with pytest.raises(InputError):
                read_trace(path)
            return
        trace = read_trace(path)
    # Zeros behind a block's records hold nothing: losing them loses nothing.
    assert trace.ending == "cut" or len(trace.records) == len(full)
    for thread in (0, 1):
        own = trace.records[trace.records["thread"] == thread]
        assert (own == full[full["thread"] == thread][: len(own)]).all()
    whole_records = max(0, kept - layout.HEADER_BYTES - 64) // 64
    assert len(trace.records) >= min(whole_records, layout.RECORDS_PER_BLOCK)


@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(layout.HEADER_BYTES, layout.HEADER_BYTES + 64 + 20 * 64 - 1),
    bit=st.integers(0, 7),
)
def test_no_changed_bit_of_a_closed_block_goes_unseen(at: int, bit: int) -> None:
    unused = range(layout.HEADER_BYTES + 28, layout.HEADER_BYTES + 64)
    told_twice = range(layout.HEADER_BYTES + 8, layout.HEADER_BYTES + 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.vtrace"
        write_trace(path, HEADER, records_of({0: 20}))
        before = read_trace(path)
        data = bytearray(path.read_bytes())
        data[at] ^= 1 << bit
        path.write_bytes(data)
        try:
            after = read_trace(path)
        except TraceDamaged:
            return
    same = len(after.records) == 20 and (after.records == before.records).all()
    assert after.ending == "cut" or (same and (at in unused or at in told_twice))


def test_zeros_are_no_record() -> None:
    assert layout.record_check(bytes(64)) != 0
