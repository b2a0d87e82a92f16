"""QMP, the way to tell QEMU something: JSON over a Unix socket."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vchan_testbed.errors import TestbedError

ANSWER_SECONDS_MAX = 300
_NO_LIMIT_BYTES_PER_SECOND = 1 << 40
_PAUSE_SECONDS = 0.01


class Qmp:
    """One connection to QEMU's monitor (QEMU 7.2, docs/interop/qmp-spec.txt)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_SECONDS_MAX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._next()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, *descriptors: int, **arguments: Any) -> Any:
        """Run `command` and return its result; `descriptors` are handed to QEMU with it.

        Raises TestbedError when QEMU refuses or is gone.
        """
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            socket.send_fds(self._socket, [text], descriptors)
        except OSError as error:
            raise TestbedError(f"QEMU is gone: {error.strerror}") from error
        while True:
            answer = self._next()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise TestbedError(f"QEMU refused {command}: {answer['error'].get('desc')}")

    def forwarded_port(self) -> int:
        """The port of this machine that QEMU forwards into the guest."""
        listing = self.execute("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)", listing)
        if found is None:
            raise TestbedError("QEMU names no forwarded port", console=listing)
        return int(found[1])

    def save_state(self, descriptor: int) -> None:
        """Stop the machine, write its state to an open file, and let it go on.

        Raises TestbedError when QEMU cannot save it; it goes on then as well.
        """
        self.execute("stop")
        try:
            self._move("migrate", descriptor)
            # "completed" comes a moment before QEMU would take `cont` (7.2).
            deadline = time.monotonic() + ANSWER_SECONDS_MAX
            while self.execute("query-status")["status"] != "postmigrate":
                if time.monotonic() > deadline:
                    raise TestbedError("QEMU saved the machine's state and did not come to an end")
                select.select([], [], [], _PAUSE_SECONDS)
        finally:
            self.execute("cont")

    def load_state(self, descriptor: int, *, go_on: bool = True) -> None:
        """Give a machine that was started with `-incoming defer` a saved state.

        It goes on, or stays as it was saved. Raises TestbedError when the state does not fit.
        """
        self._move("migrate-incoming", descriptor)
        if go_on:
            self.execute("cont")

    def _move(self, command: str, descriptor: int) -> None:
        capability = {"capability": "events", "state": True}
        self.execute("migrate-set-capabilities", capabilities=[capability])
        self.execute("migrate-set-parameters", **{"max-bandwidth": _NO_LIMIT_BYTES_PER_SECOND})
        self.execute("getfd", descriptor, fdname="state")
        self.execute(command, uri="fd:state")
        while True:
            message = self._next()
            if message.get("event") != "MIGRATION":
                continue
            status = message["data"]["status"]
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise TestbedError(f"QEMU's {command} {status}")

    def _next(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise TestbedError(
                f"QEMU said nothing for {ANSWER_SECONDS_MAX} s",
                next_step="the machine is overloaded, or QEMU hangs: try again",
            ) from error
        if not line:
            raise TestbedError("QEMU ended while it was being asked something")
        message: dict[str, Any] = json.loads(line)
        return message
