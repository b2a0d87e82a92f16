"""The trace file's numbers: sizes, kinds, flags, and where everything lies. Standard library only.

A trace file (`.vtrace`, little endian) is a header page and then blocks:

    0      header, 4096 bytes
    4096   block 0, 65536 bytes: 64 bytes of block header, 1023 records of 64 bytes
    69632  block 1 ...

A block belongs to one thread. While it is open its records count by themselves, each with its own
check; when it is closed it has a count and a CRC-32 over their checks.

A flight recorder's file is a window: of each thread it has the last records alone. A thread has a
ring of `ring_blocks` blocks that follow on each other, and goes round in them; they are never
closed. In a block whose first record has the number `first`, record i (from 0) has the number
first + i, or, if it was not written over yet, that of the round before, ring_blocks * 1023 less.
Its `seq` has the low 32 bits of that, and tells which of the two it is. With seven records a block,
two blocks, and number 18 as the newest one:

    block 0, first 15:  15 16 17 18  5  6  7     the window: 5 to 18, 4 records were lost before it
    block 1, first 8:    8  9 10 11 12 13 14

One record, byte by byte. The example: the server, 64 bytes further, moves left.cons.

    at  field     type  bytes of the example      value
     0  t0        u64   10 27 00 00 00 00 00 00   10000       TSC before the access
     8  t1        u64   74 27 00 00 00 00 00 00   10100       TSC after it
    16  old       u64   00 04 00 00 00 00 00 00   1024        value before
    24  new       u64   40 04 00 00 00 00 00 00   1088        value after
    32  site      u32   9a 2f 00 00               12186       offset in the loaded library
    36  operand   u32   40 00 00 00               64          of an RMW: mask or addend
    40  seq       u32   07 00 00 00               7           number in the thread, from 1
    44  call_seq  u32   02 00 00 00               2           number of the call, 0 outside of one
    48  channel   u16   00 00                     0           number in the process, from 0
    50  thread    u16   01 00                     1           number in the process, from 0
    52  offset    u16   00 00                     0           in the shared page, 65535 for none
    54  kind      u8    04                        4           RMW_PLAIN
    55  op        u8    03                        3           ADD
    56  call      u8    03                        3           READ: the API call it belongs to
    57  width     u8    04                        4           bytes
    58  flags     u16   00 00                     0
    60  check     u32   1c 27 b9 5e               1589192476  mix of the other 60 bytes

What `old`, `new`, `operand` and `offset` hold, by kind (an empty place is 0):

    LOAD               old = new = the value read
    STORE              old = the value that was really overwritten, new = the value stored
    RMW_LOCKED         old, new; operand = the mask or addend (see `Op`)
    RMW_PLAIN          the same, not locked; old is what the store displaced. If that is not what
                       the load had read: flag LOST_UPDATE, and a LOAD before it has that value
    CMPXCHG_OK, _FAIL  old = the value found, new = the value afterwards; operand = the comparand
    BULK               as STORE, by memset: one record a cell; then one for what lies above the
                       cells, offset = its start, operand = its bytes
    CALL_ENTER         old = size argument (of a server's init: read + 2**32 * write)
    CALL_EXIT          new = result (i64; of an init 0 or -1), old = errno if it failed
    NOTIFY             old = port, new = result
    PENDING_ENTER      -
    PENDING_EXIT       new = port or -1, old = errno if it failed
    UNMASK             old = port, new = result
    BIND_UNBOUND       new = port or -1, operand = the peer's domid
    BIND_INTERDOMAIN   old = remote port, new = port or -1, operand = the peer's domid
    UNBIND             old = port, new = result
    EVTCHN_CLOSE       new = result
    SHARE_PAGE         old = grant, new = 1 or 0 if it failed, offset = live byte of this side
    MAP_PAGE           the same
    UNSHARE_PAGE       old = the live byte of this side just before, new = result, offset = it
    UNMAP_PAGE         the same: these two make the kernel clear the byte and raise the event
    SHARE_RING         old = first grant, new = pages or 0 if it failed, offset = of its grants
    MAP_RING           the same
    ATTACH             old = left order + 65536 * right order, new = port, operand = role
    DETACH             -
    FAULT              old = number of the fault in the list, new = kind (`FaultKind`), offset =
                       the cell that it is at, width = its bytes; 65535 and 0 if it is at none. The
                       record that it hit follows, perhaps behind further faults: of DROP, REPEAT,
                       STALE and CORRUPT with FAULT_INJECTED, of those that hold it, later, with
                       HELD or HELD_IN_VAIN; behind a KILL none. That record has what the library
                       saw, or meant to store. operand = what the page held of a load that is
                       changed, or what it holds behind a store that is
    PAYLOAD            old = stream position as decoded from the data, new = bytes, operand =
                       0 if the data is right, 1 if not
    COPY               old = digest of the bytes that the application hands in or gets
                       (core/digest.h), new = how many, operand = offset in the ring;
                       op COPY_IN (0) or COPY_OUT (1). With DIGEST_FOLLOWS old = 0
    DIGEST             old = digest of a COPY of the same call that has none, new = its bytes,
                       operand = its seq. It comes before the thread waits for an event and before
                       the call's end: where the peer has its own event already
    PAGE               what the page holds when this side is about to give it back, before
                       UNSHARE_PAGE or UNMAP_PAGE: old = left.cons + 2**32 * left.prod, new = the
                       same of right, operand = cli_live, srv_live, cli_notify, srv_notify, a byte
                       each from the lowest on. None at the level calls

A store of the application's (flag BY_APPLICATION, call NONE) to an index right behind a successful
CALL_EXIT of server_init sets what a ring begins with; prod and cons of a ring get the same value.

An access that covers several cells of the page (an 8-byte store of zero, a 16-bit store of both
live bytes) is one record for each cell, all with the same time stamps and site.

The header, byte by byte:

      0  magic              8 bytes  VCHTRACE
      8  version            u32
     12  header_bytes       u32      4096
     16  record_bytes       u32      64
     20  block_bytes        u32      65536
     24  blocks_used        u32      grows while recording; one may be empty that was kept ready
     28  blocks_max         u32
     32  dropped            u64      records that found no room
     40  state              u32      1 recording, 2 complete
     44  role               u32      0 server, 1 client
     48  level              u32      1 exact, 2 calls
     52  order              u32      0 full, 1 kept: no time stamps but in CALL_ENTER, CALL_EXIT
                                     and what is written down by itself (ATTACH, DETACH, PAYLOAD),
                                     and no `old` of stores (flag OLD_UNKNOWN)
     56  variant            u32      0 none (level calls), 1 emulation, 2 translation
     60  domid              u32
     64  peer_domid         u32
     68  left_order         u32      of the first channel that was attached; 0 before
     72  right_order        u32
     76  channels           u32      channels that were attached
     80  tsc_hz             u64
     88  seed               u64
     96  start_tsc          u64
    104  start_realtime_ns  u64
    112  run_id             16 bytes
    128  xen_version        64 bytes, UTF-8, padded with zeros
    192  library            64 bytes  soname and build id
    256  kernel             64 bytes
    320  program            64 bytes
    384  ring_blocks        u32      0: all is kept; else blocks of a thread's ring
    388  settle_milliseconds  u32    frozen when no record has come for so long; 0: never
    392  request            u32      another process writes 1 here: freeze
    396  frozen             u32      0, or by what (`FrozenBy`)
    400  frozen_tsc         u64      when
    408  left_out           u64      records that came later
    416  left_out_tsc       u64      when the first of these came
    424  look               u32      what was seen when it was frozen by the settle time (`Look`)
    428  in_call            u32      the API call that a thread was in then
    432  page               24 bytes  what the shared page held then, its first 24 bytes
    456  zeros

The header of a block:

      0  magic      u32  0x4b4c4256 ("VBLK")
      4  number     u32  of the block in the file, from 0
      8  thread     u32  number in the process, from 0
     12  first_seq  u32
     16  count      u32  of records, when closed
     20  state      u32  1 open, 2 closed, 3 of a ring
     24  crc        u32  CRC-32 (zlib) of the checks of `count` records, when closed
     28  tid        u32  the kernel's name of the thread
     32  first      u64  number of its first record in the thread, from 1
     40  zeros
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

MAGIC = b"VCHTRACE"
VERSION = 4
"""From 2 on a COPY has a digest of its bytes.

From 3 on the order may be kept, and the CRC of a block is over its records' checks.

From 4 on it may be a window, of a flight recorder; the digest of a COPY may follow in a DIGEST, and
a record's check is another one.
"""
HEADER_BYTES = 4096
BLOCK_BYTES = 65536
BLOCK_HEADER_BYTES = 64
RECORD_BYTES = 64
RECORDS_PER_BLOCK = (BLOCK_BYTES - BLOCK_HEADER_BYTES) // RECORD_BYTES
CHECKED_BYTES = 60
NO_OFFSET = 0xFFFF
FILE_SUFFIX = ".vtrace"

HEADER = struct.Struct("<8s6I Q 10I Q Q Q Q 16s 64s 64s 64s 64s 4I 3Q 2I 24s")
NO_WINDOW = (0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(24))
"""The fields of the header behind `program`, of a trace in which all is kept."""
REQUEST_OFFSET = 392
"""Of `request` in the file."""
BLOCK_HEADER = struct.Struct("<8I Q 24x")
BLOCK_MAGIC = 0x4B4C4256
RECORD = struct.Struct("<4Q 4I 3H 4B H I")

CHECK_START = 0x9E3779B97F4A7C15
CHECK_FACTOR = 0xD6E8FEB86659FD93
WORD = 2**64

LOOK_BYTES = 24
"""Bytes of the shared page that are indices, orders, live and notify bytes."""


class Kind(IntEnum):
    """What a record shows."""

    LOAD = 1
    STORE = 2
    RMW_LOCKED = 3
    RMW_PLAIN = 4
    CMPXCHG_OK = 5
    CMPXCHG_FAIL = 6
    BULK = 7
    CALL_ENTER = 16
    CALL_EXIT = 17
    NOTIFY = 32
    PENDING_ENTER = 33
    PENDING_EXIT = 34
    UNMASK = 35
    BIND_UNBOUND = 36
    BIND_INTERDOMAIN = 37
    UNBIND = 38
    EVTCHN_CLOSE = 39
    SHARE_PAGE = 48
    MAP_PAGE = 49
    UNSHARE_PAGE = 50
    UNMAP_PAGE = 51
    SHARE_RING = 52
    MAP_RING = 53
    ATTACH = 64
    DETACH = 65
    FAULT = 66
    PAYLOAD = 67
    COPY = 68
    DIGEST = 69
    PAGE = 70


ACCESS_KINDS = frozenset(range(Kind.LOAD, Kind.BULK + 1))
"""Kinds that are accesses to the shared page."""


class Op(IntEnum):
    """What a read-modify-write does; `operand` is the mask, the addend or the new value."""

    NONE = 0
    OR = 1
    AND = 2
    ADD = 3
    SUB = 4
    XOR = 5
    XCHG = 6
    INC = 7
    DEC = 8
    MOV = 9


COPY_IN = 0
COPY_OUT = 1


class Call(IntEnum):
    """An API call of libxenvchan."""

    NONE = 0
    SERVER_INIT = 1
    CLIENT_INIT = 2
    READ = 3
    WRITE = 4
    RECV = 5
    SEND = 6
    WAIT = 7
    CLOSE = 8
    IS_OPEN = 9
    DATA_READY = 10
    BUFFER_SPACE = 11
    FD_FOR_SELECT = 12


class FaultKind(IntEnum):
    """What a fault does to the step that it is at."""

    DROP = 1
    """An event is not sent, or a store not made, as if it had been."""
    DELAY = 2
    """It waits: for a time, or until the peer has come to some place."""
    REPEAT = 3
    """An event is sent, or a store made, twice."""
    STALE = 4
    """A load returns what the cell held before its last change."""
    CORRUPT = 5
    """A load or a store carries another value."""
    KILL = 6
    """The process dies by SIGKILL before it."""
    PAUSE = 7
    """It waits until a domain has been paused; so do the four that follow."""
    UNPAUSE = 8
    DESTROY = 9
    PANIC = 10
    SAVE = 11


CHANGING_FAULTS = (FaultKind.DROP, FaultKind.REPEAT, FaultKind.STALE, FaultKind.CORRUPT)
"""Faults of which the record that they hit has FAULT_INJECTED."""
HOLDING_FAULTS = (
    FaultKind.DELAY,
    FaultKind.PAUSE,
    FaultKind.UNPAUSE,
    FaultKind.DESTROY,
    FaultKind.PANIC,
    FaultKind.SAVE,
)
"""Faults of which the record that they hit has HELD or HELD_IN_VAIN, if it comes at all."""


class Flag(IntFlag):
    """Bits of `flags`."""

    FAULT_INJECTED = 1
    """The effect of this record was dropped or changed by the test bed."""
    BY_APPLICATION = 2
    """Not libxenvchan did it but what calls it."""
    RETRIED = 4
    """The compare-and-swap on the real page had to be repeated."""
    LOST_UPDATE = 8
    """Somebody stored between the load and the store of a plain read-modify-write."""
    HELD = 16
    """The test bed held this step until what it waited for had come."""
    HELD_IN_VAIN = 32
    """The test bed held this step, and what it waited for did not come in time."""
    OLD_UNKNOWN = 64
    """A plain store of which `old` was not looked at: that would have taken an exchange."""
    DIGEST_FOLLOWS = 128
    """A copy whose digest is in a DIGEST of its call; who died before that left none."""
    BY_SIGNAL = 256
    """A signal caught it, an access of the library's, though that is translated: in its init, where
    memory is filled, or in code that has no copy."""


class FileState(IntEnum):
    """State of a trace file."""

    RECORDING = 1
    COMPLETE = 2


class BlockState(IntEnum):
    """State of a block."""

    OPEN = 1
    CLOSED = 2
    OF_RING = 3


class FrozenBy(IntEnum):
    """What froze a flight recorder."""

    NOTHING = 0
    """It went on until its process ended."""
    SIGNAL = 1
    SETTLE_TIME = 2
    """No record came for so long."""
    REQUEST = 3
    """Another process asked for it, by the word in the header."""


class Look(IntFlag):
    """What was seen when the settle time was over: bits of `look`."""

    TAKEN = 1
    ASLEEP = 2
    """At its beginning and at its end every thread that has records slept in the kernel."""
    SAME_PAGE = 4
    """The shared page held the same at its beginning and at its end."""
    READABLE = 8
    """The event descriptor was readable at its end."""
    ALONE = 16
    """One channel was open: it is the one that the rest is about."""


class Level(IntEnum):
    """What is recorded."""

    EXACT = 1
    CALLS = 2


class Variant(IntEnum):
    """How the accesses are caught."""

    NONE = 0
    """Not at all: calls and events alone are recorded."""
    EMULATION = 1
    """A signal at each."""
    TRANSLATION = 2
    """A copy of the library's code with a jump in the place of each; what that misses: a signal."""


class Order(IntEnum):
    """What the tracer does to the order of two accesses."""

    FULL = 0
    """Time stamps with fences around each, and stores that are exchanges."""
    KEPT = 1
    """Nothing: time stamps only where calls begin and end."""


ROLES = ("server", "client")
"""Roles by their number."""


class Cell(IntEnum):
    """Offsets in the shared page (`struct vchan_interface`, xen/include/public/io/libxenvchan.h).

    left: the client writes and the server reads; right: the other way round.
    """

    LEFT_CONS = 0
    LEFT_PROD = 4
    RIGHT_CONS = 8
    RIGHT_PROD = 12
    LEFT_ORDER = 16
    RIGHT_ORDER = 18
    CLI_LIVE = 20
    SRV_LIVE = 21
    CLI_NOTIFY = 22
    SRV_NOTIFY = 23


CELL_WIDTH = {
    Cell.LEFT_CONS: 4,
    Cell.LEFT_PROD: 4,
    Cell.RIGHT_CONS: 4,
    Cell.RIGHT_PROD: 4,
    Cell.LEFT_ORDER: 2,
    Cell.RIGHT_ORDER: 2,
    Cell.CLI_LIVE: 1,
    Cell.SRV_LIVE: 1,
    Cell.CLI_NOTIFY: 1,
    Cell.SRV_NOTIFY: 1,
}
"""Bytes of each cell."""


def record_check(record: bytes) -> int:
    """The check of a record: a mix of its first 60 bytes, 32 bits.

    Seven words of 64 bits and one of 32, each by a power of an odd factor: no change of one of them
    leaves the sum as it was. A record of zeros has a check that is not zero, so that a page never
    written holds no record.
    """
    words: tuple[int, ...] = struct.unpack_from("<7QI", record)
    products = (word * CHECK_FACTOR ** (at + 1) for at, word in enumerate(words))
    mixed: int = (CHECK_START + sum(products)) % WORD
    return (mixed ^ mixed >> 32) * CHECK_FACTOR % WORD >> 32
