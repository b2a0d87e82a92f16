"""Real Xen on a machine that has none: booted in QEMU from the project's own images.

Once it runs it is a host like another: the same helper, the same client. What is special is how
it starts (`startup`) and what it starts from (`machine`, `accelerator`, `warm`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vchan_testbed.cache import cache_dir
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.hosts.accelerator import Choice, choose, qemu_version
from vchan_testbed.guests.hosts.client import HelperGone
from vchan_testbed.guests.hosts.machine import (
    DOM0_MEMORY_MIB,
    END_SECONDS_MAX,
    MEMORY_MIB_MIN,
    XEN_MEMORY_MIB,
    Accelerator,
    Machine,
)
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu_doctor import doctor_findings
from vchan_testbed.guests.hosts.startup import Running, Starter
from vchan_testbed.guests.images import Images, build
from vchan_testbed.progress import Progress

__all__ = ["QemuHost", "SshAccess", "doctor_findings"]

CONSOLES_KEPT_MAX = 10


@dataclass(frozen=True)
class SshAccess:
    """How to log in to dom0 as root, from this machine only."""

    port: int
    key: Path


class QemuHost:
    """Xen in QEMU, for the domains that `experiment` names."""

    kind = "qemu"

    def __init__(
        self, experiment: Experiment, progress: Progress, *, allow_warm: bool = True
    ) -> None:
        self._experiment = experiment
        self._progress = progress
        self._allow_warm = allow_warm
        self._exit = contextlib.ExitStack()
        self._choice: Choice | None = None
        self._images: Images | None = None
        self._running_if_open: Running | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Before minutes are spent on images for it: is there a QEMU?
            qemu_version()
            self._images = build(self._progress)
            machine = Machine(self._images, memory_mib=memory_mib(self._experiment))
            self._choice = choose(machine, self._progress)
            machine = replace(
                machine,
                accelerator=self._choice.accelerator,
                dom0_pinned=dom0_pinned(self._experiment, self._choice.accelerator),
            )
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vchan-key-")))
            console = new_console()
            starter = Starter(machine, self._experiment, console, self._progress)
            running = starter.start(folder, allow_warm=self._allow_warm)
            stack.callback(running.end)
            self._running_if_open = running
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        console = self._running.qemu.console
        self._running_if_open = None
        self._exit.close()
        # Of a machine that did not start the console stays: its error names the file.
        console.unlink(missing_ok=True)

    def facts(self) -> dict[str, Any]:
        """Xen's and dom0's; QEMU's version, why this accelerator, whether it started warm."""
        assert self._choice is not None
        assert self._images is not None
        return {
            **self._running.host.facts(),
            "kind": self.kind,
            "accelerator": self._choice.accelerator.name,
            "accelerator_reason": self._choice.reason,
            "qemu_version": qemu_version(),
            "qemu_options": list(self._choice.accelerator.options),
            "images": self._images.key,
            "packages": self._images.versions,
            "warm_start": self._running.warm,
        }

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        """The domains of the experiment with an agent in each; asked again, a new pair."""
        return self._running.host.endpoints(experiment)

    def act(self, domid: int, do: str) -> None:
        """Pause, unpause or destroy the domain of an endpoint. Raises TestbedError."""
        self._running.host.act(domid, do)

    def look(self, domids: Sequence[int], *, dump: bool) -> dict[int, dict[str, Any]]:
        """States of domains, and with `dump` the ports that Xen has of each."""
        return self._running.host.look(domids, dump=dump)

    def lost_guests(self) -> list[str]:
        """Guests that died of a triple fault: under TCG that is the emulator's failure.

        Raises TestbedError when the whole machine has ended.
        """
        try:
            return self._running.host.lost_guests()
        except HelperGone as error:
            qemu = self._running.qemu
            if not qemu.wait_for_end(END_SECONDS_MAX):
                raise
            raise TestbedError(
                "The machine in QEMU ended in the middle of the run.",
                next_step="Its last lines are in console/serial-line.log of the run directory; the"
                " kernel log of this machine says whether it was killed for lack of memory",
                console=qemu.failure("").console,
            ) from error

    def selftest(self) -> dict[str, Any]:
        """What the self-test in dom0 says."""
        return self._running.host.selftest()

    def counts(self) -> dict[str, int]:
        """What is in use in there (helper/counts.py)."""
        return self._running.host.counts()

    def baseline(self) -> dict[str, int]:
        """Counted when this machine, or the one whose state was saved, had no domain yet."""
        return self._running.host.baseline()

    def give_back(self) -> dict[str, int]:
        """End the agents and the domains, and count again."""
        return self._running.host.give_back()

    def consoles(self) -> dict[str, str]:
        """The host's, and the serial line of the machine: that one is there whatever died."""
        serial_line = self._running.qemu.console_text()
        return {**self._running.host.consoles(), "serial-line": serial_line}

    def ssh(self) -> SshAccess:
        """The way into this dom0 by ssh."""
        return SshAccess(self._running.qemu.ssh_port, self._running.ssh_key)

    @property
    def running(self) -> Running:
        """The machine, for tests and for looking around by hand."""
        return self._running

    @property
    def _running(self) -> Running:
        if self._running_if_open is None:
            raise TestbedError("The host is not open.", next_step="Use it in a `with` statement.")
        return self._running_if_open


def memory_mib(experiment: Experiment) -> int:
    """How much memory the machine gets for Xen, dom0 and the domains of the experiment."""
    domains = (experiment.domain(endpoint) for endpoint in ENDPOINTS)
    guests_mib = sum(domain.memory_mib for domain in domains if domain.type != "dom0")
    return max(MEMORY_MIB_MIN, XEN_MEMORY_MIB + DOM0_MEMORY_MIB + guests_mib)


def dom0_pinned(experiment: Experiment, accelerator: Accelerator) -> bool:
    """Whether dom0 stays on its CPU: where PVH guests are emulated."""
    types = {experiment.domain(endpoint).type for endpoint in ENDPOINTS}
    return accelerator.name == "tcg" and "pvh" in types


def new_console() -> Path:
    """A file for a machine's console, in the cache folder; old ones are deleted."""
    folder = cache_dir() / "consoles"
    folder.mkdir(exist_ok=True)
    kept = sorted(folder.iterdir(), key=_written_at)
    for path in kept[: 1 - CONSOLES_KEPT_MAX]:
        path.unlink(missing_ok=True)
    return folder / f"{os.getpid()}-{secrets.token_hex(4)}.txt"


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        # Another run has deleted it in this moment.
        return 0.0
