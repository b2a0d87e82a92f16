"""The supervisor: frames to the host, one worker that may be killed, the trace in between."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.agent import inspect, interrupts
from vchan_testbed.guests.agent.child import Child, Serve
from vchan_testbed.guests.agent.store import remove_keys
from vchan_testbed.guests.agent.trace_stream import TraceStream
from vchan_testbed.guests.frames import (
    Decoder,
    Frame,
    Kind,
    Message,
    data_frame,
    encode,
    message_frame,
)
from vchan_testbed.guests.ground import selftest

PUMP_SECONDS = 0.1
READ_BYTES = 1 << 16
FOR_THE_WORKER = (
    "peer_held",
    "peer_refused",
    "release",
    "peer_over",
    "grant",
    "schedule_over",
)
"""Messages that the worker gets as they are."""
SYSRQ_TRIGGER = Path("/proc/sysrq-trigger")
TRACE_BYTES_MAX = int(os.environ.get("VCHAN_TRACE_BYTES_MAX", str(1 << 30)))


class Supervisor:
    """Serves one experiment on a pair of descriptors; `worker` may be why there is none."""

    def __init__(self, frames_in: int, frames_out: int, worker: Serve | TestbedError) -> None:
        self._in = frames_in
        self._out = frames_out
        self._serve_worker = worker
        self._decoder = Decoder()
        self._folder = tempfile.TemporaryDirectory(prefix="vchan-agent-", dir=_memory_folder())
        self._trace = TraceStream(Path(self._folder.name) / "trace.vtrace", self._send_trace)
        self._worker: Child | None = None
        self._hears_worker = False
        self._worker_text = b""
        self._doorbell = -1
        self._server_path = ""
        self._done = False
        self.rests = False
        """The host is done with this experiment, and not with the agent."""
        self._look_due = False
        self._look_number: int | None = None
        self._for_worker: list[Message] = []
        self._last_words: Message = {}
        """What the worker said of itself before it stopped."""
        self._at_ready: interrupts.Counted = {"count": None, "why": "the channel was not ready"}

    def serve(self) -> int:
        """Until the host says finish or rest, or hangs up. Returns the process's exit status."""
        try:
            self._send(
                {
                    "type": "hello",
                    "pid": os.getpid(),
                    "versions": inspect.versions(),
                    "guest_type": inspect.guest_type(),
                    "selftest": selftest(),
                }
            )
            while self._turn():
                pass
        except TestbedError as error:
            self._send({"type": "error", "message": error.message, "next_step": error.next_step})
            return 4
        except (BrokenPipeError, ConnectionResetError):
            return 4
        finally:
            self._end_worker()
            self._trace.close()
            self._folder.cleanup()
        return 0

    def _turn(self) -> bool:
        """Wait for something and deal with it; False when it is over."""
        ready = self._wait()
        if self._doorbell in ready:
            os.eventfd_read(self._doorbell)
        if self._worker is not None:
            self._trace.pump()
            if self._worker.socket in ready:
                self._hear_worker(self._worker)
            if self._worker.pidfd in ready:
                self._worker_ended(self._worker)
        if self._in in ready:
            data = os.read(self._in, READ_BYTES)
            if not data:
                return False
            return all(self._obey(frame) for frame in self._decoder.feed(data))
        return True

    def _wait(self) -> list[Any]:
        watched: list[Any] = [self._in]
        if self._worker is not None:
            watched.append(self._worker.pidfd)
            if self._hears_worker:
                watched.append(self._worker.socket)
        if self._doorbell >= 0:
            watched.append(self._doorbell)
        # The doorbell tells of full blocks only; stores to a mapped file wake nobody. So while the
        # worker runs its trace is looked at now and then.
        ready, _, _ = select.select(watched, [], [], PUMP_SECONDS if self._worker else None)
        return ready

    def _obey(self, frame: Frame) -> bool:
        if frame.kind is not Kind.MESSAGE:
            return True
        message = frame.message()
        commands: dict[str, Callable[[Message], None]] = {
            "start": self._start,
            "look": lambda message: self._look(message.get("number")),
            "stop": lambda _: self._stop(),
            "kill": lambda _: self._kill(),
            **dict.fromkeys(FOR_THE_WORKER, self._hand_on),
            "panic": lambda _: panic(),
        }
        if message["type"] in ("finish", "rest"):
            self.rests = message["type"] == "rest"
            self._send({"type": "bye", "selftest": selftest()})
            return False
        if message["type"] not in commands:
            raise TestbedError(
                f"the agent does not know the command {message['type']!r}",
                next_step="Build the image again: host and guest have different versions.",
            )
        commands[message["type"]](message)
        return True

    def _start(self, message: Message) -> None:
        self._server_path = message["path"] if message["role"] == "server" else ""
        if isinstance(self._serve_worker, TestbedError):
            raise self._serve_worker
        self._worker = Child(self._serve_worker, {self._in, self._out})
        self._hears_worker = True
        self._tell_worker(
            {
                **message,
                "trace_path": str(Path(self._folder.name) / "trace.vtrace"),
                "trace_bytes_max": message.get("trace_bytes_max", TRACE_BYTES_MAX),
                "versions": inspect.versions(),
            }
        )
        for early in self._for_worker:
            self._tell_worker(early)

    def _hand_on(self, message: Message) -> None:
        """What the worker is to know of its peer: it may be so before it has started."""
        if self._worker is not None:
            self._tell_worker(message)
        elif not self._done:
            self._for_worker.append(message)

    def _look(self, number: int | None) -> None:
        """Half of the evidence is the kernel's; the worker adds its page and event descriptor.

        The answer has the question's number: one that comes late is not taken for the next one's.
        """
        if self._worker is None or self._done:
            self._send({"type": "look", "number": number, "alive": False, "threads": []})
            return
        if inspect.is_stopped(self._worker.pid):
            self._send({"type": "look", "number": number, **self._look_at_stopped(self._worker)})
            return
        self._look_due, self._look_number = True, number
        self._tell_worker({"type": "look", "number": number})

    def _look_at_stopped(self, worker: Child) -> Message:
        """It cannot answer, and writes no record: it has those that it had when it stopped."""
        said = self._last_words
        descriptor = said.get("event_fd")
        readable = None if descriptor is None else inspect.is_readable(worker.pidfd, descriptor)
        return {
            "alive": True,
            "stopped": True,
            "threads": self._thread_states(said.get("calls", {}), said.get("held", [])),
            "event_fd_readable": readable,
            "records": said.get("records"),
            **self._interrupts(),
        }

    def _counted_now(self) -> interrupts.Counted:
        assert self._worker is not None
        return interrupts.counted(interrupts.name_of(self._worker.pid))

    def _interrupts(self) -> Message:
        """What the kernel had counted when the channel was ready, and has by now."""
        return {"interrupts": {"ready": self._at_ready, "now": self._counted_now()}}

    def _stop(self) -> None:
        """Both ends are stopped before either is killed: the death of one wakes the other."""
        if self._worker is not None:
            self._worker.signal(signal.SIGSTOP)
        self._send({"type": "stopped"})

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.signal(signal.SIGKILL)

    def _hear_worker(self, worker: Child) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(worker.socket, READ_BYTES, 1)
        except ConnectionResetError:
            # It was killed before it had read all that was said to it.
            data, descriptors = b"", []
        self._doorbell = descriptors[0] if descriptors else self._doorbell
        self._hears_worker = bool(data)
        self._worker_text += data
        *lines, self._worker_text = self._worker_text.split(b"\n")
        for line in lines:
            self._pass_on(json.loads(line))

    def _pass_on(self, message: Message) -> None:
        if message["type"] == "doorbell":
            return
        if message["type"] == "stops":
            self._last_words = message
            assert self._worker is not None
            # A look that comes before it has stopped would wait for its answer in vain.
            os.waitid(os.P_PIDFD, self._worker.pidfd, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            return
        if message["type"] == "held":
            # Whoever hears of it has the trace up to the fault's record: the domain may die next.
            self._trace.pump()
        if message["type"] in ("listening", "connected"):
            self._at_ready = self._counted_now()
        if message["type"] == "look":
            self._look_due = False
            threads = self._thread_states(message.pop("calls"), message.pop("held"))
            message = {**message, "alive": True, "threads": threads, **self._interrupts()}
        self._send(message)

    def _thread_states(self, calls: dict[str, str | None], held: list[int]) -> list[dict[str, Any]]:
        """Of the threads that make calls; JSON has made text of their numbers.

        One that a fault holds sleeps as well, but it will go on by itself, and what it does then is
        not the library's delay: it does not count as blocked.
        """
        assert self._worker is not None
        states = []
        for tid, call in calls.items():
            state = inspect.thread_state(self._worker.pid, int(tid))
            if state is not None:
                state |= {"in_call": call, "held": int(tid) in held}
                state["blocked_in_kernel"] &= not state["held"]
                states.append(state)
        return states

    def _worker_ended(self, worker: Child) -> None:
        while self._hears_worker:
            self._hear_worker(worker)
        status = worker.wait()
        if status and self._server_path:
            remove_keys(self._server_path)
        worker.close()
        if self._doorbell >= 0:
            os.close(self._doorbell)
        self._doorbell = -1
        self._done = True
        self._trace.pump(final=True)
        self._worker = None
        if self._look_due:
            self._look(self._look_number)
        if status < 0:
            self._send({"type": "died", "signal": -status})
        self._send({"type": "trace_end", "bytes": self._trace.file_bytes, "status": status})

    def _end_worker(self) -> None:
        """The host has hung up: nobody wants to know any more, but nothing may be left behind."""
        if self._worker is not None:
            self._kill()
            if self._worker.wait() and self._server_path:
                remove_keys(self._server_path)
            self._worker.close()

    def _tell_worker(self, message: Message) -> None:
        assert self._worker is not None
        # One that has just died does not hear it; its pidfd says so in the next turn.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._worker.socket.sendall(json.dumps(message).encode() + b"\n")

    def _send(self, message: Message) -> None:
        self._write(encode(message_frame({**message, "at": time.time()})))

    def _send_trace(self, offset: int, data: bytes) -> None:
        self._write(encode(data_frame(offset, data)))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]


def panic() -> None:
    """Let this domain's kernel crash, at once."""
    try:
        SYSRQ_TRIGGER.write_text("c")
    except OSError as error:
        raise TestbedError(
            f"This domain's kernel cannot be made to crash: {error}.",
            next_step="Run the agent as root, with a kernel that has CONFIG_MAGIC_SYSRQ.",
        ) from error


def _memory_folder() -> str | None:
    for folder in ("/dev/shm", "/run"):
        if os.access(folder, os.W_OK):
            return folder
    return None
