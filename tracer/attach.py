"""Attach the tracer to this process: from then on every access of libxenvchan is logged.

Runs in guests: no numpy here. The C core is in core/; the trace file is drawn in layout.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vchan_testbed.bindings import raw
from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.tracer import layout
from vchan_testbed.tracer._core import ffi, lib

BITS = {None: 0, "write": 1, "read": 2}
"""Which notify bit's test-and-clear leads to a notify: write is a data event, read a space one."""


class Tracer:
    """Traces all channels that this process opens inside the `with` block into the file `path`.

    `faults` are dicts like {"do": "drop_notify", "nth": 2, "bit": "write"}. Channels have to be
    opened inside the block and closed before it ends. Raises TestbedError when the file cannot be
    made or libxenvchan is not loaded, InputError for an unknown fault.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        role: str,
        domid: int,
        peer_domid: int,
        seed: int = 0,
        run_id: bytes = bytes(16),
        bytes_max: int = 1 << 30,
        versions: Mapping[str, str | None] | None = None,
        faults: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._path = str(path)
        self._role = layout.ROLES.index(role)
        self._domids = (domid, peer_domid)
        self._seed = seed
        self._run_id = run_id
        self._bytes_max = bytes_max
        self._versions = versions or {}
        self._faults = [_fault(fault) for fault in faults]

    def __enter__(self) -> Self:
        texts = (
            self._versions.get("xen") or "",
            raw.library_soname(),
            self._versions.get("kernel") or "",
            Path(sys.argv[0]).name,
        )
        _checked(
            lib.tracer_open(
                self._path.encode(),
                self._role,
                *self._domids,
                self._seed,
                self._run_id,
                self._bytes_max,
                *(text.encode() for text in texts),
            ),
            f"the trace file {self._path} cannot be made",
            "Is there room, and is no other trace open in this process?",
        )
        for bit, nth in self._faults:
            _checked(lib.tracer_plan_drop(bit, nth), "too many faults", "Plan 16 at most.")
        _checked(
            lib.tracer_attach(),
            "libxenvchan cannot be traced in this process",
            "Is it loaded, and may its tables be made writable?",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lib.tracer_detach()

    @property
    def doorbell_fd(self) -> int:
        """An eventfd that is rung when a block of the trace is full."""
        return int(lib.tracer_doorbell())

    def payload(self, position: int, count: int, ok: bool) -> None:
        """Record what a read's payload said: `count` bytes written at stream `position`."""
        lib.tracer_payload(position, count, int(ok))

    def look(self) -> dict[str, Any]:
        """The first channel's page (24 bytes, hex) and event descriptor, from any thread."""
        look = ffi.new("struct tracer_look *")
        lib.tracer_look(look)
        return {
            "channels": look.channels,
            "page": bytes(look.page).hex() if look.has_page else None,
            "event_fd": look.event_fd if look.event_fd >= 0 else None,
            "records": look.records,
            "in_call": layout.Call(look.call).name.lower() if look.call else None,
        }


def _fault(fault: Mapping[str, Any]) -> tuple[int, int]:
    if fault.get("do") != "drop_notify" or fault.get("bit") not in BITS:
        raise InputError(
            f"the tracer knows no fault {dict(fault)!r}",
            next_step="It can drop_notify, with bit write, read or none.",
        )
    return BITS[fault["bit"]], int(fault["nth"])


def _checked(result: int, what: str, next_step: str) -> None:
    if result < 0:
        raise TestbedError(f"{what}: {os.strerror(-result)}", next_step=next_step)
