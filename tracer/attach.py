"""Attach the tracer to this process: every access of libxenvchan becomes a record in a file.

Runs in a guest, so it needs nothing but the standard library, cffi's runtime and the core. The
file is drawn in layout.py; what cannot wait for Python is in core/.

Functions that the process calls through the tables of loaded objects are stood in for, and stay so
when the trace has ended: they then do nothing but call the function itself. An object that is
loaded later has its table changed at the next opening of a channel; until then what it does with an
open one is in the trace only where it touches the shared page.

SIGSEGV is taken again at each call, and let through to a thread that blocks it for as long as its
call lasts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer import layout
from vchan_testbed.tracer._core import ffi, lib
from vchan_testbed.tracer.faults import RULES_MAX, FaultPlan

BLOCKS_MAX = 1 << 20
CHANNELS_LOOKED_AT_MAX = 256
CALLS_LOOKED_AT_MAX = 64
CALIBRATION_NS = 10_000_000
TOLD_MAY_BE_OFF = 0.02
_Kinds = TypeVar("_Kinds", bound=IntEnum)
FAULT_STATES = ("not yet", "held", "done", "in vain")
"""What became of a fault: its step has not come so far; it holds it now; it has had its effect;
what it waited for did not come in time, or a load that it was to make stale had no earlier value.
"""


class Tracer:
    """Traces every channel that this process opens within the `with` block.

        with Tracer("server.vtrace", role="server", domid=1, peer_domid=2) as tracer:
            with Server(...) as server: ...

    `path` must not exist. `bytes_max` is the most that the file may grow to; what does not fit is
    counted as dropped. `versions` may have "xen", "kernel" and "program". `faults` is a plan that
    `vchan_testbed.guests.fault_rules` has made, as plain data; None is none.

    `level` is "exact" (each access to the shared page) or "calls" (the library's calls and the
    event channel's alone: the page is left where it is, and nothing is added to an access).

    `variant` is how accesses are caught: "translation" (a copy of the library's code with a jump in
    the place of each; a library that cannot be translated is emulated, which the header tells) or
    "emulation" (a signal at each). `order` is "kept" (with translation, and its default: nothing is
    added between two accesses that orders them, so what the processor reorders is still reordered)
    or "full" (time stamps and fences around each, and the value that a store overwrote).

    Raises InputError for arguments that make no sense, TestbedError when the file cannot be made
    or libxenvchan is not loaded (the binding loads it).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        role: str,
        domid: int,
        peer_domid: int,
        seed: int = 0,
        run_id: bytes = bytes(16),
        bytes_max: int = 1 << 30,
        versions: Mapping[str, str | None] | None = None,
        faults: Mapping[str, Any] | None = None,
        level: str = "exact",
        variant: str = "translation",
        order: str | None = None,
    ) -> None:
        if role not in layout.ROLES or len(run_id) != 16:
            raise InputError(
                f"A trace of role {role!r} with a run id of {len(run_id)} bytes makes no sense.",
                next_step="The role is server or client, the run id has 16 bytes.",
            )
        self._path = Path(path)
        self._role = layout.ROLES.index(role)
        self._domids = (domid, peer_domid)
        self._seed = seed
        self._run_id = run_id
        self._blocks_max = _blocks(bytes_max)
        self._versions = dict(versions or {})
        self._level = _named(layout.Level, level, "level")
        self._plan = FaultPlan.from_plain(faults) if faults else FaultPlan()
        self._variant = _named(layout.Variant, variant, "variant")
        self._order = _order_of(self._variant, order)
        self._recording: _Recording | None = None

    def __enter__(self) -> Self:
        name = lib.vt_library_name()
        if name == ffi.NULL:
            raise TestbedError(
                "No libxenvchan is loaded in this process, so there is nothing to trace.",
                next_step="Import vchan_testbed.bindings.channel before.",
            )
        is_translated = self._prepare()
        clock = _Clock.calibrated()
        recording = _Recording(*self._create_file(), os.getpid(), clock)
        header = self._header(_text(name), clock, is_translated)
        rules = ffi.new("struct vt_rule[]", self._plan.rules)
        lib.vt_know_steps(ffi.new("struct vt_step_row[]", self._plan.rows), len(self._plan.rows))
        turns = ffi.new("struct vt_turn[]", self._plan.turns)
        lib.vt_keep_schedule(turns, len(self._plan.turns), self._plan.scheduled)
        files = (recording.fd, header, self._blocks_max, recording.doorbell_fd, recording.held_fd)
        if lib.vt_start(*files, rules, len(self._plan.rules)):
            recording.close()
            self._path.unlink()
            raise _cannot_be_traced()
        self._recording = recording
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        recording, self._recording = self._recording, None
        # A child after fork has a copy of this object, but the file is its parent's.
        if recording is None or recording.pid != os.getpid():
            return
        blocks = lib.vt_stop()
        os.pwrite(recording.fd, _u64(recording.clock.refined_hz()), _TSC_HZ_OFFSET)
        os.ftruncate(recording.fd, layout.HEADER_BYTES + blocks * layout.BLOCK_BYTES)
        recording.close()

    @property
    def doorbell_fd(self) -> int:
        """An eventfd that is rung soon after blocks were full; it is closed when the trace ends."""
        return self._running().doorbell_fd

    @property
    def held_fd(self) -> int:
        """An eventfd to be waited for: it is rung when a fault begins to hold a step, when a
        step has been taken of which there is only to be told, and when what a look shows as
        `schedule` changes.

        It is closed when the trace ends.
        """
        return self._running().held_fd

    def release(self, number: int, *, is_there: bool) -> None:
        """Let a fault's step go on, now or as soon as it comes.

        What it waits for has come, or (`is_there` False) will not.
        """
        self._running()
        lib.vt_release(number, is_there)

    def peer_is_over(self) -> None:
        """The peer does nothing any more: no fault waits for it from now on."""
        self._running()
        lib.vt_peer_is_over()

    def grant(self, number: int) -> None:
        """Let this end take its steps of the schedule up to this number, each in its order."""
        self._running()
        lib.vt_grant(number)

    def schedule_is_over(self) -> None:
        """Hold nothing for the schedule any more."""
        self._running()
        lib.vt_schedule_is_over()

    def payload(self, position: int, count: int, ok: bool) -> None:
        """Write down what a payload that was read says of itself.

        Its first byte was written at `position` of the peer's stream, it has `count` bytes, and
        they are what was written there, or not. It belongs to the channel of this thread's last
        call.
        """
        self._running()
        lib.vt_payload(position, count, not ok)

    def look(self) -> dict[str, Any]:
        """What can be seen now, from any thread, without stopping any other.

        `page` (24 bytes as hex, or None) and `event_fd` (or None) are of the channel that was
        opened first; `channels` has them for each open channel; `records` is how many were
        written; `calls` has the API call of each thread that is in one, and whether a fault holds
        the thread (it sleeps, but not as the library would); `faults` has for each fault what
        became of it, one of FAULT_STATES; `told` for each step that there is to be told of whether
        it has been taken; `schedule` has the number of the newest step of the schedule that is over
        here (`over`, 0: none), and the number of the action that this end came to instead of its
        next one (`astray`, 0: none).
        """
        self._running()
        states = _faults()
        channels = _channels()
        first = channels[0] if channels else {"page": None, "event_fd": None}
        return {
            "page": first["page"],
            "event_fd": first["event_fd"],
            "records": lib.vt_look_records(),
            "channels": channels,
            "calls": _calls(),
            "faults": states[: self._plan.faults],
            "told": [state == FAULT_STATES[2] for state in states[self._plan.faults :]],
            "schedule": _schedule(),
        }

    def _running(self) -> _Recording:
        if self._recording is None:
            raise TestbedError(
                "The tracer is not running.", next_step="Use Tracer as a context manager."
            )
        return self._recording

    def _create_file(self) -> tuple[int, int, int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = -1
        try:
            fd = os.open(self._path, flags, 0o644)
            # Sparse: it takes the room only when blocks are used.
            os.ftruncate(fd, layout.HEADER_BYTES + self._blocks_max * layout.BLOCK_BYTES)
            doorbell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            return fd, doorbell_fd, os.eventfd(0, os.EFD_CLOEXEC)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise TestbedError(
                f"The trace file {self._path} cannot be made: {error.strerror}.",
                next_step="Name a file that does not exist, in a folder that you may write to.",
            ) from error

    def _prepare(self) -> bool:
        """Whether the library is translated: one that cannot be is emulated."""
        manner: Any = ffi.new("struct vt_manner *")
        manner.translate = self._variant is layout.Variant.TRANSLATION
        manner.keep_order = self._order is layout.Order.KEPT
        manner.calls_only = self._level is layout.Level.CALLS
        made: Any = ffi.new("struct vt_translated *")
        if lib.vt_prepare(manner, made):
            raise _cannot_be_traced()
        self._translated = (int(made.functions), int(made.refused), int(made.sites))
        return bool(made.is_there)

    def _variant_used(self, *, is_translated: bool) -> layout.Variant:
        if self._level is layout.Level.CALLS:
            return layout.Variant.NONE
        return layout.Variant.TRANSLATION if is_translated else layout.Variant.EMULATION

    def _header(self, library: str, clock: _Clock, is_translated: bool) -> bytes:
        kernel = self._versions.get("kernel") or os.uname().release
        program = self._versions.get("program") or Path(sys.argv[0]).name or "python3"
        texts = (self._versions.get("xen") or "", library, kernel, program)
        return layout.HEADER.pack(
            layout.MAGIC,
            layout.VERSION,
            layout.HEADER_BYTES,
            layout.RECORD_BYTES,
            layout.BLOCK_BYTES,
            0,
            self._blocks_max,
            0,
            layout.FileState.RECORDING,
            self._role,
            self._level,
            self._order if is_translated else layout.Order.FULL,
            self._variant_used(is_translated=is_translated),
            *self._domids,
            0,
            0,
            0,
            clock.hz,
            self._seed & 0xFFFFFFFFFFFFFFFF,
            clock.start_ticks,
            time.time_ns(),
            self._run_id,
            *(text.encode()[:63] for text in texts),
            *layout.NO_WINDOW,
        ).ljust(layout.HEADER_BYTES, b"\0")


_TSC_HZ_OFFSET = 80


def _cannot_be_traced() -> TestbedError:
    return TestbedError(
        f"The process cannot be traced: {_text(lib.vt_problem())}.",
        next_step="`vchan-testbed doctor` says what this machine has.",
    )


def _order_of(variant: layout.Variant, name: str | None) -> layout.Order:
    """The order asked for; of accesses that each take a signal none can be kept."""
    if name is None:
        return layout.Order.KEPT if variant is layout.Variant.TRANSLATION else layout.Order.FULL
    order = _named(layout.Order, name, "order")
    if order is layout.Order.KEPT and variant is layout.Variant.EMULATION:
        raise InputError(
            "The order of accesses cannot be kept by emulation: each takes a signal.",
            next_step="Use the translation, or the order full.",
        )
    return order


def _named(kinds: type[_Kinds], name: str, what: str) -> _Kinds:
    try:
        return kinds[name.upper()]
    except KeyError:
        names = ", ".join(kind.name.lower() for kind in kinds)
        raise InputError(
            f"There is no {what} {name!r}.", next_step=f"Use one of: {names}."
        ) from None


@dataclass(frozen=True)
class _Recording:
    """What is open while a trace is being recorded."""

    fd: int
    doorbell_fd: int
    held_fd: int
    pid: int
    clock: _Clock

    def close(self) -> None:
        for descriptor in (self.fd, self.doorbell_fd, self.held_fd):
            os.close(descriptor)


@dataclass(frozen=True)
class _Clock:
    """How fast the time stamp counter runs, and where it and the monotonic clock began."""

    hz: int
    is_told: bool
    start_ticks: int
    start_ns: int

    @staticmethod
    def calibrated() -> _Clock:
        """What the processor or Xen says, if a short measurement agrees; else what was measured."""
        ticks, nanoseconds = _now()
        later_ticks, later = _now()
        while later - nanoseconds < CALIBRATION_NS:
            later_ticks, later = _now()
        measured = round((later_ticks - ticks) * 1e9 / (later - nanoseconds))
        told = lib.vt_clock_told_hz()
        is_told = abs(told - measured) < TOLD_MAY_BE_OFF * measured
        return _Clock(told if is_told else measured, is_told, ticks, nanoseconds)

    def refined_hz(self) -> int:
        """Measured again over the whole trace, unless it was told."""
        ticks, nanoseconds = _now()
        if self.is_told:
            return self.hz
        return round((ticks - self.start_ticks) * 1e9 / (nanoseconds - self.start_ns))


def _now() -> tuple[int, int]:
    ticks, nanoseconds = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    lib.vt_clock_pair(ticks, nanoseconds)
    return int(ticks[0]), int(nanoseconds[0])


def _channels() -> list[dict[str, Any]]:
    looks = ffi.new("struct vt_channel_look[]", CHANNELS_LOOKED_AT_MAX)
    count = lib.vt_look_channels(looks, CHANNELS_LOOKED_AT_MAX)
    found = [
        {
            "channel": int(look.number),
            "role": layout.ROLES[0 if look.is_server else 1],
            "page": bytes(ffi.buffer(look.page)).hex() if look.has_page else None,
            "event_fd": int(look.event_fd) if look.event_fd >= 0 else None,
        }
        for look in (looks[i] for i in range(count))
    ]
    return sorted(found, key=lambda channel: int(channel["channel"]))


def _calls() -> list[dict[str, Any]]:
    looks = ffi.new("struct vt_call_look[]", CALLS_LOOKED_AT_MAX)
    count = lib.vt_look_calls(looks, CALLS_LOOKED_AT_MAX)
    return [
        {
            "tid": int(looks[i].tid),
            "call": layout.Call(looks[i].call).name.lower(),
            "channel": int(looks[i].channel),
            "held": bool(looks[i].held),
        }
        for i in range(count)
    ]


def _faults() -> list[str]:
    looks = ffi.new("struct vt_fault_look[]", RULES_MAX)
    return [FAULT_STATES[looks[i].state] for i in range(lib.vt_look_faults(looks, RULES_MAX))]


def _schedule() -> dict[str, int]:
    look: Any = ffi.new("struct vt_schedule_look *")
    lib.vt_look_schedule(look)
    return {"over": int(look.over), "astray": int(look.astray)}


def _blocks(bytes_max: int) -> int:
    blocks = (bytes_max - layout.HEADER_BYTES) // layout.BLOCK_BYTES
    if not 1 <= blocks <= BLOCKS_MAX:
        raise InputError(
            f"A trace file of {bytes_max} bytes is out of range.",
            next_step=f"Give {layout.HEADER_BYTES + layout.BLOCK_BYTES} bytes to 64 GiB.",
        )
    return blocks


def _text(pointer: Any) -> str:
    content = ffi.string(pointer)
    return content.decode(errors="replace") if isinstance(content, bytes) else str(content)


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
