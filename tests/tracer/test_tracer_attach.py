"""The tracer in a process: faults, looks, other handlers, forks, kills, what it refuses."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vchan_testbed.tracer import layout
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.layout import Call, Cell, Flag, Kind, Order, Variant
from vchan_testbed.tracer.reader import Trace, read_trace

if TYPE_CHECKING:
    from conftest import Domains, Remote, TracedPair

sys.path.insert(0, str(Path(__file__).parent))

from injected import faults

HERE = Path(__file__).resolve().parent
SECONDS_MAX = 20.0
PATIENCE_SECONDS = 0.3


def kinds(trace: Trace) -> list[Kind]:
    return [Kind(kind) for kind in trace.records["kind"]]


def look(remote: Remote) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(remote("look"))
    return found


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of a program that touches a channel by itself."""
    path = tmp_path_factory.mktemp("application") / "application.so"
    options = ["-O1", "-Wall", "-Wextra", "-fPIC", "-shared"]
    subprocess.run(["cc", *options, HERE / "application.c", "-o", path, "-lxenevtchn"], check=True)
    return path


@pytest.fixture
def dying(domains: Domains) -> Iterator[Domains]:
    """For servers that do not live to take their keys away: another one does it."""
    yield domains
    sweeper = domains.process("traced_end.py", 1, PART="sweeper")
    sweeper("server", 2, "data/vchan", 4096, 4096, True)
    sweeper("close")


# ---- what is recorded ----


def test_the_header_says_what_is_traced(traced: TracedPair) -> None:
    own = {"seed": 77, "versions": {"xen": "4.17.4", "kernel": "6.1.0-guest", "program": "agent"}}
    traced.trace(server=own)
    traced.connect(2000, 65536)
    server, client = traced.end()
    header = server.header
    assert (header.role, header.domid, header.peer_domid) == ("server", 1, 2)
    assert (header.left_order, header.right_order, header.channels) == (11, 16, 1)
    assert (header.seed, header.level) == (77, "exact")
    assert Variant(header.variant).name.lower() == traced.manner["variant"]
    assert Order(header.order).name.lower() == traced.manner.get("order", "full")
    assert (header.xen_version, header.kernel, header.program) == ("4.17.4", "6.1.0-guest", "agent")
    name, build_id = header.library.split()
    assert name.startswith("libxenvchan.so.4")
    assert len(build_id) == 40
    assert client.header.kernel == os.uname().release
    assert abs(header.start_realtime_ns - time.time_ns()) < 600e9
    assert header.start_tsc < server.records["t0"].min()
    # Two processes of one machine have one counter.
    assert abs(header.tsc_hz - client.header.tsc_hz) < header.tsc_hz / 100


def test_the_file_has_no_more_than_its_blocks(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    server, _ = traced.end()
    size = traced.path("server").stat().st_size
    assert size == layout.HEADER_BYTES + server.header.blocks_used * layout.BLOCK_BYTES


def test_an_existing_file_is_not_overwritten(traced: TracedPair) -> None:
    traced.path("server").write_text("mine")
    error = traced.server.fails("trace", str(traced.path("server")), "server", "{}")
    assert "cannot be made: File exists" in error.message
    assert traced.path("server").read_text() == "mine"


@pytest.mark.parametrize(
    "options",
    [
        {"faults": [{"do": "drop_read", "nth": 1}]},
        {"bytes_max": 1000},
    ],
)
def test_what_makes_no_sense_is_refused(traced: TracedPair, options: dict[str, Any]) -> None:
    error = traced.server.fails("trace", str(traced.path("server")), "server", json.dumps(options))
    assert error.type == "InputError"
    assert "Next: " in error.message


def test_only_one_trace_at_a_time(traced: TracedPair) -> None:
    traced.trace()
    error = traced.server.fails("trace", str(traced.folder / "second"), "server", "{}")
    assert "another trace" in error.message
    assert not (traced.folder / "second").exists()
    traced.server("end_trace")
    traced.client("end_trace")


def test_without_libxenvchan_there_is_nothing_to_trace(tmp_path: Path) -> None:
    script = (
        "from vchan_testbed.tracer.attach import Tracer\n"
        f"Tracer({str(tmp_path / 't')!r}, role='server', domid=1, peer_domid=2).__enter__()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "No libxenvchan is loaded" in ran.stderr
    assert list(tmp_path.iterdir()) == []


NO_MPROTECT = """
import ctypes
from vchan_testbed.bindings import channel
from vchan_testbed.tracer.attach import Tracer

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]

def step(code, yes, no, value):
    return code.to_bytes(2, "little") + bytes([yes, no]) + value.to_bytes(4, "little")

# The number of the system call; if it is mprotect's (10) then EPERM, else go on.
program = step(0x20, 0, 0, 0) + step(0x15, 0, 1, 10) + step(6, 0, 0, 0x50001)
program += step(6, 0, 0, 0x7FFF0000)
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0
assert prctl(22, 2, ctypes.byref(Filter(4, program))) == 0
Tracer(%r, role="server", domid=1, peer_domid=2).__enter__()
"""


def test_a_system_that_keeps_tables_from_being_changed(dying: Domains, tmp_path: Path) -> None:
    """Otherwise calls would go past the tracer, and the trace would lack them in silence."""
    ran = subprocess.run(
        [sys.executable, "-c", NO_MPROTECT % str(tmp_path / "t")],
        env={**os.environ, **dying.world.environment(1)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be traced: this system keeps tables of addresses" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_tracer_needs_no_numpy() -> None:
    script = (
        "import sys; sys.modules['numpy'] = None; import vchan_testbed.tracer.attach\n"
        "assert sys.modules['numpy'] is None\n"
        "assert 'vchan_testbed.tracer.format' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_trace_can_follow_another_one(traced: TracedPair) -> None:
    """Also with a channel of the first one still open: it goes on, and is in neither."""
    descriptors = traced.server("descriptors")
    traced.trace()
    traced.connect()
    traced.server("end_trace")
    traced.client.start("write_all", b"x" * 9000, [3000])
    assert traced.server("read_all", 9000, 9000) == b"x" * 9000
    traced.client.finish()
    again = traced.folder / "again.vtrace"
    traced.server("trace", str(again), "server", "{}")
    traced.client("write_all", b"y", [1])
    assert traced.server("read_all", 1, 1) == b"y"
    traced.server("other", "second", "server", 2, "data/second", 4096, 4096, True)
    traced.server("other", "second", "close")
    traced.client("close")
    traced.server("close")
    traced.server("end_trace")
    traced.client("end_trace")
    first = read_trace(traced.path("server"))
    assert first.ending == "complete"
    assert kinds(first)[-1] == Kind.CALL_EXIT
    second = read_trace(again)
    assert set(second.records["call"]) == {Call.SERVER_INIT, Call.CLOSE}
    assert set(second.records["channel"]) == {0}
    assert traced.server("descriptors") == descriptors


def test_payloads_and_looks(traced: TracedPair) -> None:
    traced.trace()
    assert look(traced.server) == {
        "page": None,
        "event_fd": None,
        "records": 0,
        "channels": [],
        "calls": [],
        "faults": [],
        "told": [],
        "schedule": {"over": 0, "astray": 0},
    }
    traced.connect()
    traced.client("write_all", b"x" * 100, [100])
    assert traced.server("read_all", 60, 60) == b"x" * 60
    traced.server("payload", 1000, 60, True)
    traced.server("payload", 1060, 5, False)
    seen = look(traced.server)
    page = bytes.fromhex(seen["page"])
    assert len(page) == layout.LOOK_BYTES
    left_cons, left_prod = page[:4], page[4:8]
    assert (int.from_bytes(left_cons, "little"), int.from_bytes(left_prod, "little")) == (60, 100)
    assert page[Cell.CLI_LIVE] == page[Cell.SRV_LIVE] == 1
    assert seen["event_fd"] == traced.server("call", "fileno")
    assert [channel["role"] for channel in seen["channels"]] == ["server"]
    server, client = traced.end()
    assert seen["records"] <= len(server.records)
    payloads = server.records[server.records["kind"] == Kind.PAYLOAD]
    assert payloads[["old", "new", "operand"]].tolist() == [(1000, 60, 0), (1060, 5, 1)]
    problems = check_pair(server, client)
    assert [(p.endpoint, p.rule) for p in problems] == [("server", "R2")]


def test_a_look_from_beside_sees_who_blocks(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    traced.server("background", "", "call", "read", 10)
    deadline = time.monotonic() + SECONDS_MAX
    while not (calls := look(traced.server)["calls"]):
        assert time.monotonic() < deadline
    tasks = {int(task.name) for task in Path(f"/proc/{traced.server.pid}/task").iterdir()}
    assert [(call["call"], call["channel"]) for call in calls] == [("read", 0)]
    assert calls[0]["tid"] in tasks
    traced.client("write_all", b"x", [1])
    assert traced.server("join", "") == b"x"
    server, client = traced.end()
    assert len(np.unique(server.records["thread"])) == 2
    assert check_pair(server, client) == []


def test_two_channels_in_one_process(traced: TracedPair) -> None:
    traced.trace()
    traced.connect(1024, 2048)
    traced.server("other", "b", "server", 2, "data/b", 65536, 4096, True)
    traced.client("other", "b", "client", 1, "/local/domain/1/data/b", True)
    assert len(look(traced.server)["channels"]) == 2
    # Both at once, each in a thread of its own on either side.
    up, down = b"u" * 40000, b"d" * 30000
    traced.client("background", "", "write_all", up, [700])
    traced.client("background", "b", "read_all", len(down), 900)
    traced.server("background", "", "read_all", len(up), 500)
    traced.server("background", "b", "write_all", down, [1300])
    assert traced.server("join", "") == up
    assert traced.client("join", "b") == down
    traced.client("join", "")
    traced.server("join", "b")
    for remote in (traced.client, traced.server):
        remote("other", "b", "close")
    server, client = traced.end()
    for trace in (server, client):
        assert trace.ending == "complete"
        assert set(trace.records["channel"]) == {0, 1}
        assert trace.header.channels == 2
    assert (server.header.left_order, server.header.right_order) == (10, 11)
    assert check_pair(server, client) == []


def test_channels_opened_and_closed_in_turn(traced: TracedPair) -> None:
    """Grants and ports are given again, places of decoys too."""
    descriptors = traced.server("descriptors")
    traced.trace()
    for _ in range(6):
        traced.connect()
        traced.client("write_all", b"x" * 10, [10])
        assert traced.server("read_all", 10, 10) == b"x" * 10
        traced.client("close")
        traced.server("close")
    server, client = traced.end()
    assert server.header.channels == client.header.channels == 6
    assert check_pair(server, client) == []
    assert traced.server("descriptors") == descriptors


def test_an_init_that_fails(traced: TracedPair) -> None:
    traced.trace()
    error = traced.client.fails("client", 1, "/local/domain/1/data/none", True)
    assert error.type == "NoSuchPath"
    # Nobody may write another domain's keys: the server has its rings by then.
    error = traced.server.fails("server", 2, "/local/domain/2/data/vchan", 1024, 4096, True)
    assert "no channel with domain 2" in error.message
    traced.connect()
    server, client = traced.end()
    attempt = server.records[server.records["channel"] == 0]
    assert kinds(server)[: len(attempt)][-2:] == [Kind.DETACH, Kind.CALL_EXIT]
    assert Kind.UNSHARE_PAGE in [Kind(kind) for kind in attempt["kind"]]
    assert attempt["new"][-1] == np.uint64(2**64 - 1)
    assert server.header.left_order == client.header.left_order == 12
    assert check_pair(server, client) == []


def test_a_client_that_does_not_like_the_page(traced: TracedPair, application: Path) -> None:
    """It gives the page back without having connected: the kernel clears its live byte."""
    traced.trace()
    traced.server("load_application", str(application))
    traced.server("server", 2, "data/vchan", 4096, 4096, True)
    traced.server("apply", "app_store_order", 9)
    traced.client.fails("client", 1, "/local/domain/1/data/vchan", True)
    assert traced.server("call", "is_open") == 0
    server, client = traced.end()
    unmap = client.records[client.records["kind"] == Kind.UNMAP_PAGE]
    assert unmap[["offset", "old", "new"]].tolist() == [(Cell.CLI_LIVE, 2, 0)]
    store = server.records[server.records["flags"] == Flag.BY_APPLICATION]
    assert store[["kind", "offset", "old", "new"]].tolist() == [
        (Kind.STORE, Cell.LEFT_ORDER, 12, 9)
    ]


# ---- what others do ----


def test_what_the_application_does_by_itself(traced: TracedPair, application: Path) -> None:
    traced.trace()
    # Loaded when the trace has begun: its table is patched at the next init.
    for remote in (traced.server, traced.client):
        remote("load_application", str(application))
    traced.connect()
    traced.client("write_all", b"x" * 100, [100])
    assert traced.server("apply", "app_load", Cell.LEFT_PROD) == 100
    assert traced.server("apply", "app_notify") == 0
    traced.server("apply", "app_store_both_live")
    server, client = traced.end()
    own = server.records[server.records["flags"] == Flag.BY_APPLICATION]
    assert own[["kind", "offset", "width", "old", "new"]].tolist() == [
        (Kind.LOAD, Cell.LEFT_PROD, 4, 100, 100),
        (Kind.NOTIFY, layout.NO_OFFSET, 0, own["old"][1], 0),
        (Kind.STORE, Cell.CLI_LIVE, 1, 1, 2),
        (Kind.STORE, Cell.SRV_LIVE, 1, 1, 1),
    ]
    assert set(own["call"]) == {0}
    assert {p.rule for p in check_pair(server, client)} == {"R8"}


def test_another_instruction_at_the_same_place(traced: TracedPair, application: Path) -> None:
    traced.trace()
    traced.server("load_application", str(application))
    traced.connect()
    traced.client("write_all", b"x" * 300, [300])
    assert traced.server("read_all", 100, 100) == b"x" * 100
    assert traced.server("apply", "app_load_by_two_codes") == 300 << 32 | 100
    server, client = traced.end()
    own = server.records[server.records["flags"] == Flag.BY_APPLICATION]
    assert own[["offset", "old"]].tolist() == [(Cell.LEFT_CONS, 100), (Cell.LEFT_PROD, 300)]
    assert check_pair(server, client) == []


@pytest.mark.parametrize("read_bytes", [1024, 4096])
def test_calls_that_go_through_no_table(traced: TracedPair, read_bytes: int) -> None:
    """Accesses are recorded all the same, by signals, and rings in the page work."""
    traced.may_miss = True
    traced.trace()
    traced.server("unseen_server", 2, "data/vchan", read_bytes, 2048)
    traced.client("client", 1, "/local/domain/1/data/vchan", True)
    traced.client("write_all", b"abc" * 200, [600])
    assert traced.server("unseen_read", 600) == b"abc" * 200
    assert traced.server("unseen_write", b"z" * 500) == 500
    assert traced.client("read_all", 500, 500) == b"z" * 500
    traced.client("close")
    traced.server("unseen_close")
    server, client = traced.end()
    assert (server.missed > 0, client.missed) == (traced.manner["variant"] == "translation", 0)
    assert Kind.CALL_ENTER not in kinds(server)
    assert kinds(server)[-1] == Kind.DETACH
    moves = server.records[server.records["kind"] == Kind.RMW_PLAIN]
    assert moves[["offset", "old", "new"]].tolist() == [
        (Cell.LEFT_CONS, 0, 600),
        (Cell.RIGHT_PROD, 0, 500),
    ]


def test_an_unknown_instruction_ends_the_process_and_says_so(
    dying: Domains, application: Path, tmp_path: Path
) -> None:
    script = HERE.parent / "processes" / "traced_end.py"
    environment = {**os.environ, **dying.world.environment(1)}
    process = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    calls = [
        ("trace", [str(tmp_path / "t"), "server", "{}"]),
        ("load_application", [str(application)]),
        ("server", [2, "data/vchan", 4096, 4096, True]),
        ("apply", ["app_vector_load"]),
    ]
    requests = "".join(json.dumps({"call": c, "arguments": a}) + "\n" for c, a in calls)
    _, errors = process.communicate(requests, timeout=SECONDS_MAX)
    assert process.returncode == -signal.SIGABRT
    assert "cannot emulate the instruction 0f 10 0" in errors
    assert "of the application" in errors
    assert read_trace(tmp_path / "t").ending == "cut"


@pytest.mark.parametrize("when", ["before", "after the trace began", "in the channel's life"])
def test_beside_pythons_own_handler(dying: Domains, tmp_path: Path, when: str) -> None:
    """Accesses are ours, a crash is told by Python, and the process dies of it."""
    ends = [dying.process("traced_end.py", domid, PART=when) for domid in (1, 2)]
    server, client = ends
    paths = [tmp_path / "server.vtrace", tmp_path / "client.vtrace"]
    if when == "before":
        server("handle_faults")
    server("trace", str(paths[0]), "server", "{}")
    client("trace", str(paths[1]), "client", "{}")
    if when == "after the trace began":
        server("handle_faults")
    server("server", 2, "data/vchan", 4096, 4096, True)
    client("client", 1, "/local/domain/1/data/vchan", True)
    if when == "in the channel's life":
        server("handle_faults")
    client("write_all", b"x" * 3000, [100])
    assert server("read_all", 3000, 70) == b"x" * 3000
    server.start("crash")
    ended = os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGSEGV
    # Counting waits until the host has cleaned up after the dead.
    dying.world.counts()
    assert client("call", "is_open") == 0
    client("close")
    client("end_trace")
    traces = read_trace(paths[0]), read_trace(paths[1])
    assert [trace.ending for trace in traces] == ["cut", "complete"]
    assert check_pair(*traces) == []


def test_a_thread_that_blocks_sigsegv(dying: Domains, tmp_path: Path) -> None:
    """A fault whose signal is blocked would end the process: it is let through for the call."""
    server = dying.process("traced_end.py", 1, PART="blocked")
    client = dying.process("traced_end.py", 2, PART="blocked")
    paths = [tmp_path / "server.vtrace", tmp_path / "client.vtrace"]
    server("trace", str(paths[0]), "server", "{}")
    client("trace", str(paths[1]), "client", "{}")
    server("block_faults")
    server("server", 2, "data/vchan", 4096, 4096, True)
    client("client", 1, "/local/domain/1/data/vchan", True)
    client("write_all", b"x" * 3000, [100])
    assert server("read_all", 2000, 70) == b"x" * 2000
    assert server("blocked") == [signal.SIGSEGV]
    # The trace ends before the channel does: its accesses fault all the same.
    server("end_trace")
    assert server("read_all", 1000, 70) == b"x" * 1000
    client("close")
    server("close")
    assert server("blocked") == [signal.SIGSEGV]
    client("end_trace")
    first, second = read_trace(paths[0]), read_trace(paths[1])
    assert (first.ending, second.ending) == ("complete", "complete")
    assert len(first.records) > 100


def test_pythons_own_handler_switched_on_behind_a_trace(traced: TracedPair) -> None:
    """A channel that outlives its trace still faults, and these faults are still ours."""
    traced.trace()
    traced.connect()
    traced.server("end_trace")
    traced.server("handle_faults")
    traced.client("write_all", b"x" * 100, [100])
    assert traced.server("read_all", 100, 100) == b"x" * 100
    traced.client("close")
    traced.server("close")
    traced.client("end_trace")


def test_a_child_does_not_write_into_its_parents_trace(traced: TracedPair) -> None:
    traced.trace()
    traced.connect()
    before = look(traced.server)["records"]
    assert traced.server("fork_and_use") == 0
    assert look(traced.server)["records"] == before
    traced.client("write_all", b"x" * 10, [10])
    assert traced.server("read_all", 10, 10) == b"x" * 10
    server, client = traced.end()
    assert server.ending == "complete"
    assert check_pair(server, client) == []


# ---- faults, kills, room ----


def wait_in_read(remote: Remote) -> None:
    """Until it blocks for an event with none to be read."""
    remote.wait_until_blocked_in_read(remote_fd(remote))


def remote_fd(remote: Remote) -> int:
    call = Path(f"/proc/{remote.pid}/syscall")
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        fields = call.read_text().split()
        if fields[0] == "0" and int(fields[1], 16) > 2:
            return int(fields[1], 16)
    raise AssertionError(f"process {remote.pid} does not block")


def is_silent(remote: Remote) -> bool:
    """No answer within a while: bounded, and over at once when there is one."""
    return not select.select([remote._answers], [], [], PATIENCE_SECONDS)[0]


def test_a_dropped_data_event_leaves_data_unread(dying: Domains, tmp_path: Path) -> None:
    server = dying.process("traced_end.py", 1, PART="data")
    client = dying.process("traced_end.py", 2, PART="data")
    options = faults({"side": "client", "at": "w_raise", "do": "drop"})
    server("trace", str(tmp_path / "server.vtrace"), "server", "{}")
    client("trace", str(tmp_path / "client.vtrace"), "client", json.dumps(options["client"]))
    server("server", 2, "data/vchan", 4096, 4096, True)
    client("client", 1, "/local/domain/1/data/vchan", True)
    server.start("call", "read", 64)
    wait_in_read(server)
    assert client("call", "write", b"x" * 64) == 64
    assert is_silent(server)
    page = bytes.fromhex(look(client)["page"])
    assert (page[Cell.LEFT_CONS], page[Cell.LEFT_PROD]) == (0, 64)
    assert page[Cell.CLI_NOTIFY] & 1 == 0
    server.kill()
    client("close")
    client("end_trace")
    traces = read_trace(tmp_path / "server.vtrace"), read_trace(tmp_path / "client.vtrace")
    assert check_pair(*traces) == []
    assert kinds(traces[0])[-1] == Kind.PENDING_ENTER
    records = traces[1].records
    at = int(np.flatnonzero(records["kind"] == Kind.FAULT)[0])
    assert records[["kind", "old", "new"]][at].tolist() == (Kind.FAULT, 0, 1)
    assert records[["kind", "flags", "new"]][at + 1].tolist() == (
        Kind.NOTIFY,
        Flag.FAULT_INJECTED,
        0,
    )
    assert (records["flags"] & Flag.FAULT_INJECTED).sum() == 1


def test_a_dropped_space_event_leaves_the_writer_waiting(dying: Domains, tmp_path: Path) -> None:
    server = dying.process("traced_end.py", 1, PART="space")
    client = dying.process("traced_end.py", 2, PART="space")
    options = faults({"side": "server", "at": "r_raise", "do": "drop"})
    server("trace", str(tmp_path / "server.vtrace"), "server", json.dumps(options["server"]))
    client("trace", str(tmp_path / "client.vtrace"), "client", "{}")
    server("server", 2, "data/vchan", 4096, 4096, True)
    client("client", 1, "/local/domain/1/data/vchan", True)
    client.start("call", "write", b"x" * 5000)
    wait_in_read(client)
    assert server("call", "read", 4096) == b"x" * 4096
    assert is_silent(client)
    client.kill()
    server("close")
    server("end_trace")
    traces = read_trace(tmp_path / "server.vtrace"), read_trace(tmp_path / "client.vtrace")
    assert check_pair(*traces) == []
    assert Kind.FAULT in kinds(traces[0])


def test_records_without_room_are_counted(traced: TracedPair) -> None:
    room = layout.HEADER_BYTES + 2 * layout.BLOCK_BYTES
    traced.trace(client={"bytes_max": room})
    traced.connect()
    traced.client.start("write_all", b"x" * 40000, [100])
    assert traced.server("read_all", 40000, 100) == b"x" * 40000
    traced.client.finish()
    seen = look(traced.client)["records"]
    server, client = traced.end()
    assert len(client.records) == 2 * layout.RECORDS_PER_BLOCK
    assert client.dropped > 0
    assert client.dropped + len(client.records) > seen > len(client.records)
    assert client.notes == (f"{client.dropped} records found no room in the file.",)
    assert [(p.endpoint, p.rule) for p in check_pair(server, client)] == [("client", "log")]


def test_the_doorbell_rings_for_full_blocks(traced: TracedPair) -> None:
    bell = traced.server("trace", str(traced.path("server")), "server", "{}")
    traced.client("trace", str(traced.path("client")), "client", "{}")
    traced.connect()
    opened = os.pidfd_open(traced.server.pid)
    copy = -1
    try:
        copy = _descriptor_of(opened, bell)
        traced.client.start("write_all", b"x" * 20000, [100])
        traced.server("read_all", 20000, 100)
        traced.client.finish()
        assert select.select([copy], [], [], 30)[0]
        rung = int.from_bytes(os.read(copy, 8), "little")
        # Once for all that were full when the keeper looked.
        assert 0 < rung <= look(traced.server)["records"] // layout.RECORDS_PER_BLOCK
    finally:
        os.close(opened)
        if copy >= 0:
            os.close(copy)
    traced.end()


def _descriptor_of(pidfd: int, number: int) -> int:
    """pidfd_getfd, which Python does not have."""
    import ctypes

    got = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    assert got >= 0, os.strerror(ctypes.get_errno())
    return int(got)


def test_killed_at_any_time_it_loses_no_record_that_was_complete(
    dying: Domains, tmp_path: Path
) -> None:
    for run in range(8):
        kill_one(dying, tmp_path / str(run), run)


def kill_one(domains: Domains, folder: Path, run: int) -> None:
    folder.mkdir()
    victim, other = ("client", "server") if run % 2 else ("server", "client")
    ends = {
        "server": domains.process("traced_end.py", 1, PART=f"kill {run}"),
        "client": domains.process("traced_end.py", 2, PART=f"kill {run}"),
    }
    for role, end in ends.items():
        end("trace", str(folder / f"{role}.vtrace"), role, "{}")
    ends["server"]("server", 2, "data/vchan", 4096, 4096, True)
    ends["client"]("client", 1, "/local/domain/1/data/vchan", True)
    ends["client"]("background", "", "write_all", b"x" * 4_000_000, [100 + run])
    ends["server"]("background", "", "read_all", 4_000_000, 333)
    # Not a time but a number of records: the kill falls somewhere behind it.
    deadline = time.monotonic() + SECONDS_MAX
    while (seen := look(ends[victim])["records"]) < 500 * (run + 1):
        assert time.monotonic() < deadline
    ends[victim].kill()
    wait_until_dead_is_seen(ends[other], victim)
    ends[other].kill()
    traces = {role: read_trace(folder / f"{role}.vtrace") for role in ends}
    assert len(traces[victim].records) >= seen
    assert traces[victim].ending == "cut"
    assert not any("torn" in note for note in traces[victim].notes)
    assert check_pair(traces["server"], traces["client"]) == []
    assert_at_most_one_access_is_missing(traces[victim], traces[other])


def wait_until_dead_is_seen(end: Remote, victim: str) -> None:
    cell = Cell.CLI_LIVE if victim == "client" else Cell.SRV_LIVE
    deadline = time.monotonic() + SECONDS_MAX
    while bytes.fromhex(look(end)["page"])[cell]:
        assert time.monotonic() < deadline


def assert_at_most_one_access_is_missing(victim: Trace, other: Trace) -> None:
    """The index that the other side read last is the last one logged, or one step on."""
    cell = Cell.LEFT_PROD if victim.header.role == "client" else Cell.LEFT_CONS
    wrote = victim.records[
        (victim.records["offset"] == cell) & (victim.records["kind"] == Kind.RMW_PLAIN)
    ]
    saw = other.records[(other.records["offset"] == cell) & (other.records["kind"] == Kind.LOAD)]
    beyond = int(saw["old"][-1]) - int(wrote["new"][-1])
    assert beyond <= 4096
    following = victim.records[int(np.flatnonzero(victim.records["seq"] == wrote["seq"][-1])[0]) :]
    if beyond > 0:
        # It was moved and not written down: then nothing was written down after it.
        assert Kind.COPY in [Kind(kind) for kind in following["kind"][-3:]]
