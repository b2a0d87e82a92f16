"""Writes a trace file through a mapping, record by record, until it is killed.

trace_writer.py FILE BLOCKS
"""

from __future__ import annotations

import mmap
import struct
import sys
import zlib

from vchan_testbed.tracer import layout
from vchan_testbed.tracer.header import TraceHeader

FILE_SIZE = layout.HEADER_BYTES + layout.BLOCK_BYTES * int(sys.argv[2])


def write_block(file: mmap.mmap, number: int) -> None:
    """Fill one block and close it; its records' numbers go on where the one before ended."""
    start = layout.HEADER_BYTES + number * layout.BLOCK_BYTES
    first = number * layout.RECORDS_PER_BLOCK + 1
    header = [layout.BLOCK_MAGIC, number, 0, first, 0, layout.BlockState.OPEN, 0, 0, 0]
    file[start : start + layout.BLOCK_HEADER_BYTES] = layout.BLOCK_HEADER.pack(*header)
    file[24:28] = struct.pack("<I", number + 1)
    at = start + layout.BLOCK_HEADER_BYTES
    checks = bytearray()
    for seq in range(first, first + layout.RECORDS_PER_BLOCK):
        # t0, t1, old, new; site, operand, seq, call_seq; the rest: a PAYLOAD record.
        body = struct.pack("<4Q4I3H4BH", seq, seq, 0, 1, 0, 0, seq, 0, 0, 0, 0xFFFF, 67, 0, 0, 0, 0)
        check = struct.pack("<I", layout.record_check(body))
        file[at : at + 64] = body + check
        checks += check
        at += layout.RECORD_BYTES
    header[4:7] = [
        layout.RECORDS_PER_BLOCK,
        layout.BlockState.CLOSED,
        zlib.crc32(checks),
    ]
    file[start : start + layout.BLOCK_HEADER_BYTES] = layout.BLOCK_HEADER.pack(*header)


def main() -> None:
    """Write all blocks, then wait to be killed."""
    with open(sys.argv[1], "w+b") as file:
        file.truncate(FILE_SIZE)
        mapped = mmap.mmap(file.fileno(), FILE_SIZE)
    header = TraceHeader("server", 1, 2, 12, 12, 10**9, complete=False)
    mapped[: layout.HEADER_BYTES] = header.pack()
    print("ready", flush=True)
    for number in range(int(sys.argv[2])):
        write_block(mapped, number)
    print("written", flush=True)
    sys.stdin.readline()


main()
