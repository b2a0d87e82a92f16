"""Deaths in the middle of a run on real Xen: of a process, of a domain, of the whole machine."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vchan_testbed.cli import main
from vchan_testbed.commands import run as run_command
from vchan_testbed.errors import ExitStatus
from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.frames import Frame, Kind
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.progress import Progress
from vchan_testbed.tracer.reader import Trace, read_trace

pytestmark = pytest.mark.xen

ENOUGH_BYTES = 400_000
"""Of a trace: the run is under way then, and far from its end."""

STEADY = """\
name: steady
server:
  - read: {bytes: 400000000, sizes: 4096}
  - read_to_end: {sizes: 8}
client:
  - write: {bytes: 400000000, sizes: 4096}
  - read_to_end: {sizes: 8}
timeouts: {settle_seconds: 5, run_seconds_max: 600}
expect: {progress: INCONCLUSIVE}
"""

Act = Callable[[QemuHost, AgentLink], None]


class Tapped:
    """A link to an agent of which `act` happens once enough of its trace has come."""

    def __init__(self, link: AgentLink, act: Callable[[], None]) -> None:
        self._link = link
        self.domid = link.domid
        self.events: queue.Queue[Frame | None] = queue.Queue()
        self.send = link.send
        self.close = link.close
        threading.Thread(target=self._pass_on, args=(act,), daemon=True).start()

    def _pass_on(self, act: Callable[[], None]) -> None:
        left = ENOUGH_BYTES
        while (frame := self._link.events.get()) is not None:
            self.events.put(frame)
            if frame.kind is Kind.DATA and left > 0:
                left -= len(frame.payload)
                if left <= 0:
                    act()
        self.events.put(None)


class Sabotaged(QemuHost):
    """Xen in QEMU; `act` happens to the client in the middle of the run."""

    def __init__(self, experiment: Experiment, progress: Progress, act: Act) -> None:
        super().__init__(experiment, progress)
        self._act = act

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        links = super().endpoints(experiment)
        client = links["client"]
        return {**links, "client": Tapped(client, lambda: self._act(self, client))}


def kill_worker(_: QemuHost, client: AgentLink) -> None:
    """The supervisor sends its worker SIGKILL; the kernel gives back what it had."""
    client.send({"type": "kill"})


def destroy_domain(host: QemuHost, client: AgentLink) -> None:
    """As anybody may in dom0, past the helper."""
    with host.running.qemu.connect("shell") as shell:
        shell.sendall(f"xl destroy {client.domid}\necho done-$?\n".encode())
        said = b""
        while b"done-" not in said and (data := shell.recv(4096)):
            said += data


def end_machine(host: QemuHost, _: AgentLink) -> None:
    """The whole machine goes, as in a power cut."""
    with host.running.qemu.qmp() as qmp:
        qmp.execute("quit")


Perform = Callable[[Act], tuple[Result, dict[str, Any]]]


@pytest.fixture
def perform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perform:
    """Run the command; what it said, and run.json."""

    def run(act: Act) -> tuple[Result, dict[str, Any]]:
        (tmp_path / "steady.yaml").write_text(STEADY)
        monkeypatch.setattr(
            run_command,
            "open_host",
            lambda name, experiment, progress: Sabotaged(experiment, progress, act),
        )
        arguments = ["run", str(tmp_path / "steady.yaml"), "--out", str(tmp_path / "run")]
        # What fails in `act` is told as what it is.
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert "Traceback" not in result.output
        return result, json.loads((tmp_path / "run/run.json").read_text())

    return run


def traces(run: Path) -> tuple[Trace, Trace]:
    """The server's and the client's."""
    return read_trace(run / "traces/server.vtrace"), read_trace(run / "traces/client.vtrace")


def test_a_killed_process_is_noticed_by_its_peer(perform: Perform, tmp_path: Path) -> None:
    result, facts = perform(kill_worker)
    assert facts["outcome"] == "endpoint died"
    assert facts["endpoints"]["client"]["ended"] == "died"
    # Xen's kernel has cleared the live byte and raised an event: the server's read ended.
    assert facts["endpoints"]["server"]["ended"] == "finished"
    assert facts["counts"]["before"] == facts["counts"]["after"]
    server, client = traces(tmp_path / "run")
    assert (server.ending, client.ending) == ("complete", "cut")
    assert list(client.records["seq"]) == list(range(1, len(client.records) + 1))
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    # It may have written once more after the server had found the ring empty: that is L1.
    assert verdict["conformance"] in ("ACCEPTED", "KNOWN"), result.output
    assert set(verdict["known"]) <= {"L1"}
    # What it still had to write was not written, whatever nobody owes to the dead.
    assert verdict["progress"] == "INCONCLUSIVE"
    assert "The client died" in verdict["progress_reason"]
    assert "The client's process was ended by SIGKILL in the middle of the run." in result.output
    assert result.exit_code == ExitStatus.EXPECTED


def test_a_destroyed_domain_leaves_what_it_had_sent(perform: Perform, tmp_path: Path) -> None:
    result, facts = perform(destroy_domain)
    assert facts["endpoints"]["client"]["ended"] == "lost"
    assert any("is gone" in message for message in facts["messages"]), facts["messages"]
    assert facts["counts"]["before"] == facts["counts"]["after"]
    _, client = traces(tmp_path / "run")
    assert client.ending == "cut"
    assert len(client.records) > 1000
    verdict = json.loads((tmp_path / "run/verdict.json").read_text())
    assert (verdict["conformance"], verdict["progress"]) == ("ACCEPTED", "INCONCLUSIVE")
    assert "is gone" in result.output
    assert result.exit_code == ExitStatus.EXPECTED


def test_a_machine_that_goes_is_an_error_with_what_was_collected(
    perform: Perform, tmp_path: Path
) -> None:
    result, facts = perform(end_machine)
    assert result.exit_code == ExitStatus.TESTBED_FAILED
    assert "Next:" in result.output
    assert f"What was collected is in {tmp_path / 'run'}" in result.output
    assert facts["state"] == "incomplete"
    server, client = traces(tmp_path / "run")
    assert len(server.records) > 0
    assert len(client.records) > 0
