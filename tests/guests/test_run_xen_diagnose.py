"""A look from dom0 at channels between domains of real Xen, by one file carried there."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.diagnose.build import build_zipapp
from vchan_testbed.guests.experiment import (
    Experiment,
    default_path,
    load_experiment,
    parse_experiment,
)
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.guests.runner import run_experiment
from vchan_testbed.progress import Quiet
from vchan_testbed.rundir import create_run

pytestmark = pytest.mark.xen

HANGS = default_path().parent / "hangs"
SECONDS_MAX = 600.0
SETTLE_SECONDS = 120.0
"""Longer than all looks take: the run goes on until then, or until a domain is destroyed."""
FROM_DOM0 = """\
name: from-dom0
domains: {server: {type: dom0}}
server:
  - read: {bytes: 64, sizes: 64}
  - read: {bytes: 64, sizes: 64}
client:
  - write: {bytes: 64, sizes: 64}
  - read: {bytes: 64, sizes: 64}
expect: {progress: INCONCLUSIVE}
"""


class Dom0:
    """Where the looks are taken."""

    def __init__(self, machine: QemuHost, in_dom0: Callable[..., str], folder: Path) -> None:
        self._machine = machine
        self._in_dom0 = in_dom0
        build_zipapp(folder / "diagnose.pyz")
        text = folder / "diagnose.base64"
        text.write_bytes(base64.encodebytes((folder / "diagnose.pyz").read_bytes()))
        in_dom0(machine.ssh(), "base64 -d >/run/diagnose.pyz", text)

    def do(self, command: str) -> str:
        """What a command prints."""
        return self._in_dom0(self._machine.ssh(), command)

    def look(self, options: str = "") -> list[dict[str, Any]]:
        """What `diagnose` says as soon as something rests."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            said = self.do(f"python3 /run/diagnose.pyz --json --seconds 2 {options}; exit 0")
            found: list[dict[str, Any]] = json.loads(said) if said else []
            if found and all(one["verdict"]["word"] != "moving" for one in found):
                return found
        raise AssertionError("it does not come to rest")


@contextmanager
def under_way(machine: QemuHost, experiment: Experiment, folder: Path) -> Iterator[None]:
    """The experiment, in a thread; it has to be ended from outside."""

    def perform() -> None:
        run = create_run(folder / "run", "test", run_id="ab" * 16, messages=[])
        with contextlib.suppress(TestbedError):
            run_experiment(machine, experiment, run, 1, Quiet())

    thread = threading.Thread(target=perform)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def long_settled(experiment: Experiment) -> Experiment:
    timeouts = replace(experiment.timeouts, settle_seconds=SETTLE_SECONDS)
    return replace(experiment, timeouts=timeouts)


def test_a_deadlock_between_two_domains_and_then_one_of_them_is_no_more(
    tmp_path: Path, in_dom0: Callable[..., str]
) -> None:
    experiment = long_settled(load_experiment(HANGS / "mutual-writes.yaml"))
    with QemuHost(experiment, Quiet()) as machine:
        dom0 = Dom0(machine, in_dom0, tmp_path)
        with under_way(machine, experiment, tmp_path):
            (said,) = dom0.look()
            server, client = said["ends"]["server"], said["ends"]["client"]
            assert server["domid"] != client["domid"]
            assert {end["domain"] for end in (server, client)} == {"alive"}
            assert server["port"]["status"] == client["port"]["status"] == "interdomain"
            assert said["page"]["left"]["filled"] == said["page"]["right"]["filled"] == "full"
            # What the processes do is not seen from here: it is one of those that fit.
            assert "both ends wait for room" in said["verdict"]["why"]
            again = dom0.look(f"--domains {client['domid']} {server['domid']}")
            assert again[0]["page"] == said["page"]
            dom0.do(f"xl destroy {client['domid']}")
            (said,) = dom0.look()
            assert said["verdict"]["word"] == "peer gone"
            assert "L9" in said["verdict"]["why"]


def test_dom0_sees_its_own_end_by_its_process(tmp_path: Path, in_dom0: Callable[..., str]) -> None:
    experiment = long_settled(parse_experiment(FROM_DOM0, "from-dom0"))
    with QemuHost(experiment, Quiet()) as machine:
        dom0 = Dom0(machine, in_dom0, tmp_path)
        with under_way(machine, experiment, tmp_path):
            pid = worker_in(dom0)
            (said,) = dom0.look(f"--pid {pid}")
            assert said["verdict"]["word"] == "idle"
            process = said["ends"]["server"]["process"]
            assert (process["pid"], process["asleep"], process["readable"]) == (pid, True, False)
            assert process["interrupts"] is not None
            dom0.do(f"kill -STOP {pid}")
            (said,) = dom0.look(f"--pid {pid}")
            assert said["ends"]["server"]["process"]["state"] == "T"
            dom0.do(f"kill -KILL {pid}")


def worker_in(dom0: Dom0) -> int:
    """The process in dom0 that has an end: the one that maps what it has granted."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        found = dom0.do("grep -l /dev/xen/gntalloc /proc/[0-9]*/maps 2>/dev/null; exit 0").split()
        if found:
            return int(found[0].split("/")[2])
    raise AssertionError("nobody in dom0 has granted anything")
