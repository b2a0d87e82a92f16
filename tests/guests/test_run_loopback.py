"""Whole runs on the loopback host: how they end, and what is left of them."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests import attempt
from vchan_testbed.guests.collect import Side
from vchan_testbed.guests.experiment import (
    ENDPOINTS,
    Experiment,
    default_path,
    load_experiment,
    parse_experiment,
)
from vchan_testbed.guests.fault_rules import Injection
from vchan_testbed.guests.frames import Frame, Kind, Message, message_frame
from vchan_testbed.guests.hosts.loopback import LoopbackHost, ProcessLink
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.runner import PAIRS_ANEW_MAX, run_experiment
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import RunDirectory, create_run
from vchan_testbed.tracer import layout
from vchan_testbed.tracer.checks import check_pair
from vchan_testbed.tracer.faults import FaultPlan
from vchan_testbed.tracer.reader import Trace, read_trace

NOTHING = {"grants": 0, "ports": 0, "keys": 0, "handles": 0, "processes": 0}
SEED = 11


@pytest.fixture(scope="module")
def host() -> Iterator[LoopbackHost]:
    with LoopbackHost() as host:
        yield host


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(tmp_path / "run", "test", run_id="ab" * 16, messages=[])


def quick(name: str) -> Experiment:
    """An experiment of the project that is looked at after less time."""
    experiment = load_experiment(default_path().parent / f"{name}.yaml")
    return replace(experiment, timeouts=replace(experiment.timeouts, settle_seconds=0.4))


def perform(host: LoopbackHost, experiment: Experiment, run: RunDirectory) -> dict[str, Any]:
    run_experiment(host, experiment, run, SEED, Quiet())
    return run.facts()


def traces(run: RunDirectory) -> tuple[Trace, Trace]:
    return read_trace(run.trace("server")), read_trace(run.trace("client"))


@pytest.mark.parametrize("name", ["default", "blocking", "ping-pong"])
def test_an_experiment_ends_and_both_traces_are_whole(
    name: str, host: LoopbackHost, run: RunDirectory
) -> None:
    before = host.counts()
    experiment = quick(name)
    facts = perform(host, experiment, run)
    assert facts["outcome"] == "finished"
    assert facts["quiescence"] is None
    for end in ("server", "client"):
        summary = facts["endpoints"][end]
        assert summary["ended"] == "finished"
        assert summary["result"]["mismatches"] == []
        assert summary["result"]["ended_early"] == []
        written = sum(o.bytes for o in experiment.operations(end) if o.do in ("write", "send"))
        assert summary["result"]["written_bytes"] == written
    server, client = traces(run)
    assert (server.ending, client.ending) == ("complete", "complete")
    assert (server.dropped, client.dropped) == (0, 0)
    assert server.header.run_id == client.header.run_id == bytes.fromhex("ab" * 16)
    assert check_pair(server, client) == []
    assert before == NOTHING
    assert host.counts() == NOTHING


def test_the_same_seed_makes_the_same_calls(host: LoopbackHost, tmp_path: Path) -> None:
    sizes = []
    for name in ("one", "two"):
        run = create_run(tmp_path / name, "test", run_id="ab" * 16)
        perform(host, quick("blocking"), run)
        records = traces(run)[1].records
        writes = (records["kind"] == layout.Kind.CALL_ENTER) & (
            records["call"] == layout.Call.WRITE
        )
        sizes.append(records["old"][writes].tolist())
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) > 10


def test_a_dropped_event_is_seen_as_a_run_that_stands_still(
    host: LoopbackHost, run: RunDirectory
) -> None:
    facts = perform(host, quick("hangs/dropped-event"), run)
    assert facts["outcome"] == "stood still"
    quiescence = facts["quiescence"]
    assert quiescence["quiescent"] is True
    first, second = quiescence["looks"]
    assert second["at_seconds"] > first["at_seconds"]
    for end in ("server", "client"):
        look = second["endpoints"][end]
        assert look["alive"] is True
        assert look["in_call"] == "read"
        assert look["event_fd_readable"] is False
        assert all(thread["blocked_in_kernel"] for thread in look["threads"])
        assert look["records"] == first["endpoints"][end]["records"]
        assert facts["endpoints"][end]["ended"] == "killed"
    pages = {second["endpoints"][end]["page"] for end in ("server", "client")}
    assert len(pages) == 1
    assert len(bytes.fromhex(pages.pop())) == 24
    server, client = traces(run)
    assert (server.ending, client.ending) == ("cut", "cut")
    assert len(server.records) == second["endpoints"]["server"]["records"]
    assert len(client.records) == second["endpoints"]["client"]["records"]


class Dropping:
    """A link that lets no answer to a look through."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link
        self.domid = link.domid
        self.events: queue.Queue[Frame | None] = queue.Queue()
        self.send = link.send
        self.close = link.close
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        while (frame := self._link.events.get()) is not None:
            if frame.kind is not Kind.MESSAGE or frame.message()["type"] != "look":
                self.events.put(frame)
        self.events.put(None)


class Silent(LoopbackHost):
    """A host on which the client's agent answers no look: its domain is not run, say."""

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        links = super().endpoints(experiment)
        return {**links, "client": Dropping(links["client"])}


def test_an_end_that_does_not_answer_is_not_standing_still(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server alone, which waits for it, would be evidence against it."""
    monkeypatch.setattr(attempt, "LOOK_SECONDS_MAX", 0.2)
    experiment = quick("hangs/dropped-event")
    experiment = replace(experiment, timeouts=replace(experiment.timeouts, run_seconds_max=4))
    with Silent() as host:
        facts = perform(host, experiment, run)
    assert facts["outcome"] == "stopped while moving"
    assert facts["quiescence"] is None


def test_writing_past_each_other_stands_still(host: LoopbackHost, run: RunDirectory) -> None:
    facts = perform(host, quick("hangs/mutual-writes"), run)
    assert facts["outcome"] == "stood still"
    assert facts["quiescence"]["quiescent"] is True
    look = facts["quiescence"]["looks"][1]["endpoints"]
    assert (look["server"]["in_call"], look["client"]["in_call"]) == ("write", "write")


PAUSING = """\
name: pausing
server:
  - read: {bytes: 24, sizes: 8}
client:
  - write: {bytes: 24, sizes: 8, pause_seconds: %s}
  - read_to_end: {sizes: 8}
timeouts: {settle_seconds: 0.2, run_seconds_max: %s}
"""


def test_a_pause_longer_than_the_settle_time_is_not_a_stand_still(
    host: LoopbackHost, run: RunDirectory
) -> None:
    facts = perform(host, parse_experiment(PAUSING % (0.5, 60), "pausing"), run)
    assert facts["outcome"] == "finished"
    assert facts["quiescence"] is None


def test_nor_is_one_that_does_not_end_in_time(host: LoopbackHost, run: RunDirectory) -> None:
    facts = perform(host, parse_experiment(PAUSING % (600, 1), "pausing"), run)
    assert facts["outcome"] == "stopped while moving"
    assert facts["quiescence"]["quiescent"] is False


STEADY = """\
name: steady
server:
  - read: {bytes: 400000000, sizes: 4096}
  - read_to_end: {sizes: 8}
client:
  - write: {bytes: 400000000, sizes: 4096}
  - read_to_end: {sizes: 8}
timeouts: {settle_seconds: 5, run_seconds_max: %s}
expect: {progress: INCONCLUSIVE}
"""


def test_a_run_that_moves_for_too_long_is_stopped(host: LoopbackHost, run: RunDirectory) -> None:
    facts = perform(host, parse_experiment(STEADY % 1, "steady"), run)
    assert facts["outcome"] == "stopped while moving"
    assert facts["quiescence"] is None
    assert {end["ended"] for end in facts["endpoints"].values()} == {"killed"}


HELD = """\
name: held
server:
  - read: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
client:
  - await_hold: {}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
faults:
  - {side: server, at: r_live, nth: 1, do: delay, until: {%s}, seconds_max: %s}
timeouts: {settle_seconds: 0.2, run_seconds_max: %s}
expect: {progress: INCONCLUSIVE}
"""


def test_a_held_end_is_not_standing_still(host: LoopbackHost, run: RunDirectory) -> None:
    """It sleeps, and so does the other one: but it sleeps in the tracer, and will go on."""
    facts = perform(host, parse_experiment(HELD % ("cli_live: 0", 60, 1.5), "held"), run)
    assert facts["outcome"] == "stopped while moving"
    assert facts["quiescence"]["quiescent"] is False
    server, client = (facts["quiescence"]["looks"][1]["endpoints"][end] for end in ENDPOINTS)
    (thread,) = (thread for thread in server["threads"] if thread["in_call"] == "read")
    assert (thread["held"], thread["blocked_in_kernel"]) == (True, False)
    (thread,) = (thread for thread in client["threads"] if thread["in_call"] == "read")
    assert (thread["held"], thread["blocked_in_kernel"]) == (False, True)


@pytest.mark.parametrize(
    ("until", "seconds_max", "became"),
    [("left_prod: 8", 60, "done"), ("cli_live: 9", 1, "in vain")],
)
def test_what_became_of_a_hold_is_told(
    until: str, seconds_max: int, became: str, host: LoopbackHost, run: RunDirectory
) -> None:
    """The server is held before there is a client: it hears of it when it has started."""
    text = HELD.replace("  - read_to_end: {sizes: 8}\nclient", "  - close\nclient")
    experiment = parse_experiment(text % (until, seconds_max, 60), "held")
    facts = perform(host, experiment, run)
    assert facts["outcome"] == "finished"
    assert facts["endpoints"]["server"]["result"]["faults"] == [became]
    assert facts["endpoints"]["server"]["result"]["read_bytes"] == 8
    assert facts["endpoints"]["client"]["result"]["faults"] == []
    assert check_pair(*traces(run)) == []


AWAITED_IN_VAIN = """\
name: awaited
server:
  - read: {bytes: 8, sizes: 8}
  - close
client:
  - write: {bytes: 8, sizes: 8}
  - await_hold: {}
  - read_to_end: {sizes: 8}
faults:
  - {side: server, at: r_live, nth: 1000, do: delay, until: {cli_live: 0}}
expect: {progress: INCONCLUSIVE}
"""


def test_who_awaits_a_hold_that_does_not_come_ends_with_its_peer(
    host: LoopbackHost, run: RunDirectory
) -> None:
    facts = perform(host, parse_experiment(AWAITED_IN_VAIN, "awaited"), run)
    assert facts["outcome"] == "finished"
    assert facts["endpoints"]["server"]["result"]["faults"] == ["not yet"]
    (early,) = facts["endpoints"]["client"]["result"]["ended_early"]
    assert "operation 2: await_hold: the peer has gone" in early


def test_a_late_answer_to_a_look_is_not_taken_for_the_next_one(run: RunDirectory) -> None:
    asked: list[int] = []

    class Link:
        domid = 1
        events: queue.Queue[Frame | None] = queue.Queue()

        def send(self, message: Message) -> None:
            asked.append(message["number"])

        def close(self) -> None:
            """Nothing is held."""

    side = Side("server", Link(), run)
    side.ask_for_look()
    side.ask_for_look()
    side.take(message_frame({"type": "look", "number": asked[0], "alive": True}))
    assert side.look is None
    side.take(message_frame({"type": "look", "number": asked[1], "alive": True}))
    assert side.look is not None


class Tapped:
    """A link that acts on its agent once the agent has sent enough of its trace."""

    def __init__(
        self, link: ProcessLink, act: Callable[[ProcessLink], None], enough_bytes: int
    ) -> None:
        self._link = link
        self._left_bytes = enough_bytes
        self.domid = link.domid
        self.events: queue.Queue[Frame | None] = queue.Queue()
        self.send = link.send
        self.close = link.close
        threading.Thread(target=self._pass_on, args=(act,), daemon=True).start()

    def _pass_on(self, act: Callable[[ProcessLink], None]) -> None:
        while (frame := self._link.events.get()) is not None:
            self.events.put(frame)
            if frame.kind is Kind.DATA and self._left_bytes > 0:
                self._left_bytes -= len(frame.payload)
                if self._left_bytes <= 0:
                    act(self._link)
        self.events.put(None)


class Sabotaged(LoopbackHost):
    """A loopback host on which something happens to the agents of the first `times` pairs.

    It happens when `enough_bytes` of trace have come from there. `lost` says whether it calls that
    the emulator's doing.
    """

    def __init__(
        self,
        act: Callable[[ProcessLink], None],
        *,
        end: str,
        times: int = 99,
        lost: bool = False,
        enough_bytes: int = 1_000_000,
    ) -> None:
        super().__init__()
        self._enough_bytes = enough_bytes
        self._act = act
        self._end = end
        self._times = times
        self._lost = lost
        self.pairs = 0

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        links = super().endpoints(experiment)
        self.pairs += 1
        link = links[self._end]
        assert isinstance(link, ProcessLink)
        if self.pairs <= self._times:
            links[self._end] = Tapped(link, self._act, self._enough_bytes)
        return links

    def lost_guests(self) -> list[str]:
        return ["d1v0 Triple fault"] if self._lost and self.pairs <= self._times else []


def worker_of(link: ProcessLink) -> int:
    """The agent's worker process."""
    return int(Path(f"/proc/{link.pid}/task/{link.pid}/children").read_text().split()[0])


def kill_agent(link: ProcessLink) -> None:
    os.kill(link.pid, signal.SIGKILL)


class Witness:
    """Kills a worker and keeps what it had written: its file, which is the memory it wrote to.

    What the host is told of is that a block is full. So it waits until there are `records` in the
    newest block; the worker goes on meanwhile and may be at any instruction.
    """

    def __init__(self, records: int) -> None:
        self._wanted = records
        self._file = -1

    def kill(self, link: ProcessLink) -> None:
        worker = worker_of(link)
        mapped = Path(f"/proc/{worker}/maps").read_text().splitlines()
        path = next(line.split()[-1] for line in mapped if line.endswith("trace.vtrace"))
        self._file = os.open(path, os.O_RDONLY)
        while not self._u32(_block(self._begun()) + self._wanted * layout.RECORD_BYTES + 40):
            pass
        os.kill(worker, signal.SIGKILL)

    def records(self) -> dict[int, bytes]:
        """The complete records by their places in the file, as far as they are still in memory.

        A block that was closed and has been sent is given back: zeros.
        """
        found = {}
        for block in range(self._blocks()):
            data = os.pread(self._file, layout.RECORDS_PER_BLOCK * RECORD, _block(block))
            for at in range(0, len(data), RECORD):
                record = data[at : at + RECORD]
                if layout.record_check(record) == int.from_bytes(record[60:], "little"):
                    found[_block(block) + at] = record
        return found

    def newest(self) -> int:
        """The number of the last complete record, by the process's one thread that makes any."""
        return max(int.from_bytes(record[40:44], "little") for record in self.records().values())

    def close(self) -> None:
        os.close(self._file)

    def _blocks(self) -> int:
        return self._u32(24)

    def _begun(self) -> int:
        """The newest block that is in use; those behind it are kept ready."""
        numbers = range(self._blocks() - 1, 0, -1)
        starts = ((number, _block(number) - layout.BLOCK_HEADER_BYTES) for number in numbers)
        return next((n for n, at in starts if self._u32(at) == layout.BLOCK_MAGIC), 0)

    def _u32(self, at: int) -> int:
        return int.from_bytes(os.pread(self._file, 4, at), "little")


RECORD = layout.RECORD_BYTES


def _block(number: int) -> int:
    """Where a block's records begin."""
    return layout.HEADER_BYTES + number * layout.BLOCK_BYTES + layout.BLOCK_HEADER_BYTES


MOMENTS = random.Random(1)
KILLS = [
    (end, MOMENTS.randrange(100_000, 2_500_000), MOMENTS.randrange(layout.RECORDS_PER_BLOCK))
    for end in ENDPOINTS
    for _ in range(4)
]


@pytest.mark.parametrize(("end", "enough_bytes", "records"), KILLS)
def test_kill_9_of_an_endpoint_loses_no_complete_record(
    end: str, enough_bytes: int, records: int, run: RunDirectory
) -> None:
    witness = Witness(records)
    with Sabotaged(witness.kill, end=end, enough_bytes=enough_bytes) as host:
        facts = perform(host, parse_experiment(STEADY % 60, "steady"), run)
        counts = host.counts()
    arrived = run.trace(end).read_bytes()
    for place, record in witness.records().items():
        assert arrived[place : place + RECORD] == record
    newest = witness.newest()
    witness.close()
    assert facts["outcome"] == "endpoint died"
    assert facts["endpoints"][end]["ended"] == "died"
    assert facts["endpoints"][end]["signal"] == signal.SIGKILL
    server, client = traces(run)
    killed, other = (server, client) if end == "server" else (client, server)
    assert (killed.ending, other.ending) == ("cut", "complete")
    assert list(killed.records["seq"]) == list(range(1, newest + 1))
    index = layout.Cell.LEFT_CONS if end == "server" else layout.Cell.LEFT_PROD
    moves = (layout.Kind.STORE, layout.Kind.RMW_LOCKED, layout.Kind.RMW_PLAIN)
    stored = values(killed, index, moves)
    seen = values(other, index, (layout.Kind.LOAD,))
    # At most one store can have been made and not yet recorded when the kill came.
    assert len(set(seen) - set(stored) - {0}) <= 1
    assert len(stored) > 10
    assert counts == NOTHING


def values(trace: Trace, offset: int, kinds: tuple[layout.Kind, ...]) -> list[int]:
    """The new values of the records of these kinds at an offset of the shared page."""
    records = trace.records
    chosen = (records["offset"] == offset) & np.isin(records["kind"], kinds)
    return [int(value) for value in records["new"][chosen]]


def test_a_domain_that_goes_away_leaves_what_it_had_sent(run: RunDirectory) -> None:
    with Sabotaged(kill_agent, end="client") as host:
        facts = perform(host, parse_experiment(STEADY % 60, "steady"), run)
    assert facts["outcome"] == "domain died"
    assert facts["endpoints"]["client"]["ended"] == "lost"
    assert facts["endpoints"]["server"]["ended"] == "finished"
    server, client = traces(run)
    assert server.ending == "complete"
    assert client.ending == "cut"
    assert len(client.records) > 100


def test_a_pair_that_the_emulator_loses_is_made_anew(run: RunDirectory) -> None:
    experiment = parse_experiment(STEADY % 4, "steady")
    with Sabotaged(kill_agent, end="server", times=1, lost=True) as host:
        facts = perform(host, experiment, run)
        assert host.pairs == 2
    assert facts["outcome"] == "stopped while moving"
    at = facts["messages"].index("d1v0 Triple fault")
    # It may be lost before it has said a word.
    assert facts["messages"][:at] in ([], ["The server's agent is gone."])
    assert "made anew" in facts["messages"][at + 1]
    server, client = traces(run)
    assert abs(server.header.start_realtime_ns - client.header.start_realtime_ns) < 60e9


def test_a_pair_that_is_lost_every_time_is_the_test_beds_failure(run: RunDirectory) -> None:
    with Sabotaged(kill_agent, end="server", lost=True) as host:
        with pytest.raises(TestbedError, match="emulator lost a guest 4 times") as error:
            perform(host, parse_experiment(STEADY % 60, "steady"), run)
        assert host.pairs == 1 + PAIRS_ANEW_MAX
    assert "--domain-type pv" in error.value.next_step


def test_a_self_test_that_failed_is_the_test_beds_failure(
    tmp_path: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("ok at boot\nfailed registers: xmm3 changed\n")
    monkeypatch.setenv("VCHAN_SELFTEST_FILE", str(tmp_path / "status"))
    with LoopbackHost() as host, pytest.raises(TestbedError, match="xmm3") as error:
        perform(host, quick("ping-pong"), run)
    assert "counts" in error.value.next_step
    assert run.facts()["selftest"]["server"]["ok"] is False


class Unsound(LoopbackHost):
    """A host whose own domain's self-test fails when it is asked for the last time."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0

    def selftest(self) -> dict[str, Any]:
        self._asked += 1
        if self._asked == 1:
            return {"ok": True, "detail": "ok registers, memory and clocks held"}
        return {"ok": False, "detail": "failed memory: word 7 changed"}


def test_so_is_one_in_the_domain_of_the_host(run: RunDirectory) -> None:
    with Unsound() as host, pytest.raises(TestbedError, match=r"of dom0 failed: .* word 7"):
        perform(host, quick("ping-pong"), run)
    facts = run.facts()
    assert facts["selftest"]["host"]["ok"] is False
    assert facts["outcome"] == "finished"


def test_what_an_endpoint_reports_is_raised_and_the_rest_is_kept(
    host: LoopbackHost, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {"server": FaultPlan(), "client": FaultPlan(faults=1)}
    monkeypatch.setattr(attempt, "injection_of", lambda *_: Injection(plans))
    with pytest.raises(TestbedError, match="cannot inject this plan") as error:
        perform(host, quick("ping-pong"), run)
    assert error.value.next_step
    assert run.facts()["state"] == "incomplete"
    assert len(read_trace(run.trace("server")).records) > 10
    assert host.counts() == NOTHING
