"""A trace is sent while it is written, and nothing that was written is lost with its writer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vchan_testbed.guests.agent.trace_stream import TraceStream
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.reader import read_trace

WRITER = Path(__file__).resolve().parents[1] / "processes" / "trace_writer.py"
FEW_BLOCKS = 3
MANY_BLOCKS = 200


class Copy:
    """The far end of a stream: a file that the sent stretches are written into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)

    def write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._file, data, offset)
        self.bytes += len(data)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy.vtrace")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Starts a writer of so many blocks into trace.vtrace; it has made the file then."""
    started: list[subprocess.Popen[str]] = []

    def start(blocks: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WRITER), str(tmp_path / "trace.vtrace"), str(blocks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_without_a_file_nothing_is_sent(tmp_path: Path, copy: Copy) -> None:
    stream = TraceStream(tmp_path / "gone.vtrace", copy.write)
    assert stream.pump() == 0
    assert stream.pump(final=True) == 0
    assert copy.bytes == 0


def test_what_a_killed_writer_had_written_arrives(
    tmp_path: Path, copy: Copy, writer: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = writer(MANY_BLOCKS)
    stream = TraceStream(tmp_path / "trace.vtrace", copy.write)
    closed_block = layout.BLOCK_BYTES
    while stream.file_bytes < 3 * closed_block:
        assert process.poll() is None
        stream.pump()
    process.kill()
    process.wait()
    stream.pump(final=True)

    trace = read_trace(copy.path)
    assert trace.ending == "cut"
    assert list(trace.records["seq"]) == list(range(1, len(trace.records) + 1))
    assert len(trace.records) >= last_complete_record(tmp_path / "trace.vtrace")


def last_complete_record(path: Path) -> int:
    """Number of the newest record in the writer's own file that its check says is whole."""
    data = path.read_bytes()
    used = int.from_bytes(data[24:28], "little")
    newest = 0
    at = layout.HEADER_BYTES + (used - 1) * layout.BLOCK_BYTES + layout.BLOCK_HEADER_BYTES
    while at < len(data):
        record = data[at : at + layout.RECORD_BYTES]
        if layout.record_check(record) != int.from_bytes(record[60:], "little"):
            break
        newest = int.from_bytes(record[40:44], "little")
        at += layout.RECORD_BYTES
    return newest


def test_closed_blocks_give_their_memory_back(
    tmp_path: Path, copy: Copy, writer: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = writer(FEW_BLOCKS)
    path = tmp_path / "trace.vtrace"
    stream = TraceStream(path, copy.write)
    full = layout.HEADER_BYTES + FEW_BLOCKS * layout.BLOCK_BYTES
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    stream.pump()
    assert process.poll() is None
    assert path.stat().st_blocks * 512 <= 2 * layout.HEADER_BYTES
    assert path.stat().st_size == full
    trace = read_trace(copy.path)
    assert len(trace.records) == FEW_BLOCKS * layout.RECORDS_PER_BLOCK


def test_nothing_is_sent_twice_but_what_a_closing_block_needs(
    tmp_path: Path, copy: Copy, writer: Callable[[int], subprocess.Popen[str]]
) -> None:
    process = writer(FEW_BLOCKS)
    stream = TraceStream(tmp_path / "trace.vtrace", copy.write)
    stream.pump()
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    stream.pump()
    sent = copy.bytes
    assert stream.pump() == 0
    assert copy.bytes == sent


def test_a_record_seen_half_written_is_sent_again(tmp_path: Path, copy: Copy) -> None:
    path = tmp_path / "trace.vtrace"
    size = layout.HEADER_BYTES + layout.BLOCK_BYTES
    content = bytearray(size)
    content[24] = 1
    block = layout.HEADER_BYTES
    content[block + 20] = layout.BlockState.OPEN
    record = block + layout.BLOCK_HEADER_BYTES
    content[record + 40] = 1
    path.write_bytes(content)
    stream = TraceStream(path, copy.write)
    stream.pump()
    with path.open("r+b") as file:
        file.seek(record)
        file.write(b"\x77")
    stream.pump()
    assert copy.path.read_bytes()[record] == 0x77


def test_a_file_cut_at_its_last_used_block_while_it_is_read_does_no_harm(tmp_path: Path) -> None:
    path, sent = tmp_path / "trace.vtrace", dict[int, bytes]()
    content = bytearray(layout.HEADER_BYTES + FEW_BLOCKS * layout.BLOCK_BYTES)
    content[24] = FEW_BLOCKS
    content[layout.HEADER_BYTES + layout.BLOCK_HEADER_BYTES + 40] = 1
    path.write_bytes(content)

    def cut(offset: int, data: bytes) -> None:
        os.truncate(path, layout.HEADER_BYTES + layout.BLOCK_BYTES)
        sent[offset] = data

    stream = TraceStream(path, cut)
    stream.pump(final=True)
    stream.close()
    assert stream.file_bytes == (
        layout.HEADER_BYTES + layout.BLOCK_HEADER_BYTES + layout.RECORD_BYTES
    )
    assert set(sent) == {
        0,
        layout.HEADER_BYTES,
        layout.HEADER_BYTES + layout.BLOCK_HEADER_BYTES,
    }
