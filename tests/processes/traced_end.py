"""A process that holds ends of channels and traces itself, for a test."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from channel_end import End
from serving import serve
from siege import Besieged, Besieger, opens

from vchan_testbed.bindings.extension import ffi
from vchan_testbed.bindings.raw import library_soname
from vchan_testbed.tracer.attach import Tracer


class Traced:
    """The tracer, one end or several, and calls that run beside the one that is served."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.end = End()
        self.others: dict[str, End] = {}
        self.running: dict[str, tuple[threading.Thread, list[Any]]] = {}
        self.application: ctypes.CDLL | None = None
        self.besieged: Besieged | None = None

    def trace(self, path: str, role: str, options: str) -> int:
        """Begin; the doorbell's descriptor. `options` are the Tracer's as JSON."""
        own, peer = (1, 2) if role == "server" else (2, 1)
        tracer = Tracer(path, role=role, domid=own, peer_domid=peer, **json.loads(options))
        self.tracer = tracer.__enter__()
        return tracer.doorbell_fd

    def end_trace(self) -> None:
        """End it."""
        tracer, self.tracer = self.tracer, None
        assert tracer is not None
        tracer.__exit__(None, None, None)

    def look(self) -> str:
        """What the tracer sees, as JSON."""
        assert self.tracer is not None
        return json.dumps(self.tracer.look())

    def release(self, number: int, is_there: bool) -> None:
        """Let the step that a fault holds go on."""
        assert self.tracer is not None
        self.tracer.release(number, is_there=is_there)

    def peer_is_over(self) -> None:
        """The other end does nothing any more."""
        assert self.tracer is not None
        self.tracer.peer_is_over()

    def payload(self, position: int, count: int, ok: bool) -> None:
        """Write down a payload."""
        assert self.tracer is not None
        self.tracer.payload(position, count, ok)

    def other(self, name: str, method: str, *arguments: Any) -> Any:
        """A call on another end than the first, which is made when it is named first."""
        return getattr(self.others.setdefault(name, End()), method)(*arguments)

    def background(self, name: str, *arguments: Any) -> None:
        """Begin a call in a thread of its own: of the first end, or of the end `name`."""
        result: list[Any] = []
        method, *rest = arguments
        end = self.end if name == "" else self.others.setdefault(name, End())
        thread = threading.Thread(
            target=lambda: result.append(getattr(end, method)(*rest)), daemon=True
        )
        self.running[name] = (thread, result)
        thread.start()

    def join(self, name: str) -> Any:
        """Its result."""
        thread, result = self.running.pop(name)
        thread.join(30)
        assert not thread.is_alive()
        return result[0]

    def store_garbage(self, seed: int, count: int) -> None:
        """Be a peer that no library is."""
        assert self.end.channel is not None
        Besieger(self.end.channel).store(seed, count)

    def spoil_orders(self, seed: int) -> None:
        """Have a client find garbage."""
        assert self.end.channel is not None
        Besieger(self.end.channel).spoil_orders(seed)

    def relent(self) -> None:
        """Let go whoever waits for this peer."""
        assert self.end.channel is not None
        Besieger(self.end.channel).relent()

    def begin_facing(self) -> None:
        """Make all calls, again and again, beside what is served."""
        assert self.end.channel is not None
        self.besieged = Besieged(self.end.channel)
        self.besieged.begin()

    def calls_so_far(self) -> int:
        """How many it has made."""
        assert self.besieged is not None
        return self.besieged.calls

    def enough(self) -> None:
        """No other call than the one that is being made."""
        assert self.besieged is not None
        self.besieged.enough()

    def end_facing(self) -> int:
        """How many calls that were."""
        assert self.besieged is not None
        return self.besieged.end()

    def descriptors(self) -> int:
        """How many are open."""
        return len(list(Path("/proc/self/fd").iterdir()))

    def handle_faults(self) -> None:
        """Switch Python's own handler on, as pytest does."""
        faulthandler.enable()

    def block_faults(self) -> None:
        """Block SIGSEGV in this thread, as threads that leave all signals to another one do."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV})

    def blocked(self) -> list[int]:
        """The signals that are blocked in this thread."""
        return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    def crash(self) -> None:
        """Read at an address that nothing is at."""
        ctypes.string_at(8)

    def fork_and_use(self) -> int:
        """Use the channel in a child, leave the tracer there; its exit status."""
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                assert self.end.call("is_open") == 1
                assert self.tracer is not None
                self.tracer.__exit__(None, None, None)
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def load_application(self, path: str) -> None:
        """Load the library of functions that touch a channel without libxenvchan."""
        self.application = ctypes.CDLL(path)
        self.application.app_load.restype = ctypes.c_uint32
        self.application.app_load_by_two_codes.restype = ctypes.c_uint64

    def apply(self, function: str, *arguments: int) -> int:
        """Call one of them on the first end's structure."""
        assert self.application is not None
        assert self.end.channel is not None
        assert self.end.channel._ctrl is not None
        ctrl = int(ffi.cast("uintptr_t", self.end.channel._ctrl))
        return int(getattr(self.application, function)(ctypes.c_void_p(ctrl), *arguments))


class Unseen:
    """libxenvchan called at addresses that dlsym gave: through no table of any object."""

    def __init__(self) -> None:
        self.library: Any = None
        self.ctrl: Any = None

    def server(self, peer: int, path: str, read: int, write: int) -> None:
        """Make a server's end."""
        self.library = ctypes.CDLL(library_soname())
        init = self.library.libxenvchan_server_init
        init.restype = ctypes.c_void_p
        init.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, *[ctypes.c_size_t] * 2]
        self.ctrl = ctypes.c_void_p(init(None, peer, path.encode(), read, write))
        assert self.ctrl.value

    def write(self, data: bytes) -> int:
        """Put `data`; the library's `blocking` is chance here, the data must fit."""
        return int(self.library.libxenvchan_write(self.ctrl, data, ctypes.c_size_t(len(data))))

    def read(self, count: int) -> bytes:
        """Take what must be there."""
        buffer = ctypes.create_string_buffer(count)
        got = self.library.libxenvchan_read(self.ctrl, buffer, ctypes.c_size_t(count))
        return buffer.raw[:got]

    def close(self) -> None:
        """Close it."""
        self.library.libxenvchan_close(self.ctrl)


if __name__ == "__main__":
    traced, unseen = Traced(), Unseen()
    first = traced.end
    names = ("server", "client", "call", "close", "read_all", "write_all", "recv_all", "send_all")
    functions = {name: getattr(first, name) for name in (*names, "read_to_end", "ready")}
    functions |= {
        name: getattr(traced, name)
        for name in (
            "trace",
            "end_trace",
            "look",
            "release",
            "peer_is_over",
            "payload",
            "other",
            "background",
            "join",
            "store_garbage",
            "spoil_orders",
            "relent",
            "begin_facing",
            "calls_so_far",
            "enough",
            "end_facing",
            "descriptors",
            "handle_faults",
            "block_faults",
            "blocked",
            "crash",
            "fork_and_use",
            "load_application",
            "apply",
        )
    }
    functions["opens"] = opens
    functions |= {
        f"unseen_{name}": getattr(unseen, name) for name in ("server", "write", "read", "close")
    }
    if "--faulthandler" in sys.argv:
        faulthandler.enable()
    serve(functions)
