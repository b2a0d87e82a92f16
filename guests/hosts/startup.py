"""Starting Xen in QEMU: cold, with its domains made and the state saved, or from that state."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vchan_testbed.cache import discard
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import Experiment
from vchan_testbed.guests.hosts import warm
from vchan_testbed.guests.hosts.carrier import SocketCarrier
from vchan_testbed.guests.hosts.client import HelperClient
from vchan_testbed.guests.hosts.machine import Machine, Qemu, Watchdog, make_ssh_key, public_part
from vchan_testbed.guests.hosts.xen import XenHost, on_the_host
from vchan_testbed.progress import Progress

# Idle: dom0 answers after 13 s, 1.5 s after a restore. Many times that for machines that are slow
# or busy: what counts is that the console goes on.
BOOT_SILENCE_SECONDS_MAX = 180.0
BOOT_SECONDS_MAX = 1200.0
RESTORE_SECONDS_MAX = 180.0
_ENTROPY_BYTES = 64


@dataclass(frozen=True)
class Running:
    """A machine that runs, and its host with an open session."""

    qemu: Qemu
    host: XenHost
    ssh_key: Path
    """The private key that dom0 lets in."""
    warm: bool
    """Whether it came from a saved state."""

    def end(self) -> None:
        """End the machine; what is in it need not be taken apart first."""
        try:
            self.host.client.close()
        finally:
            self.qemu.end()


@dataclass(frozen=True)
class Starter:
    """Starts `machine` for `experiment`; Xen and dom0 write to the file `console`."""

    machine: Machine
    experiment: Experiment
    console: Path
    progress: Progress

    def start(self, folder: Path, *, allow_warm: bool = True) -> Running:
        """Start it, from a saved state if there is one, else so that there is one next time.

        The key of a machine that boots is written to `folder`. Raises TestbedError.
        """
        if not allow_warm:
            return self.cold(folder)
        made: list[Running] = []
        place: Path | None = None
        try:
            place = warm.state_or_build(
                warm.key_of_state(self.machine, self.experiment),
                lambda target: self._cold_and_save(folder, target, made),
                on_wait=lambda: self.progress.note(
                    "Another run boots the same machine and saves its state: waiting for that."
                ),
            )
        except warm.NotSaved as error:
            self.progress.note(f"The next run starts cold as well: {error.message}.")
        except BaseException:
            for running in made:
                running.end()
            raise
        if made:
            return self._with_new_session(made[0])
        assert place is not None
        try:
            return self.from_state(place)
        except TestbedError as error:
            discard(place)
            self.progress.note(f"The saved state did not come back, so Xen boots: {error.message}")
        return self.cold(folder)

    def cold(self, folder: Path) -> Running:
        """Boot it. Raises TestbedError with the console's last lines when it does not come up."""
        ssh_key = folder / "ssh_key"
        make_ssh_key(ssh_key)
        with self.progress.step(f"Boot Xen in QEMU ({self.machine.accelerator.name})"):
            qemu = Qemu(self.machine, self.console, public_part(ssh_key))
            watchdog = Watchdog(BOOT_SILENCE_SECONDS_MAX, BOOT_SECONDS_MAX)
            host = self._session(qemu, watchdog)
        return Running(qemu, host, ssh_key, warm=False)

    def from_state(self, place: Path) -> Running:
        """Go on from the saved state in `place`. Raises TestbedError when it does not come back."""
        ssh_key, baseline = warm.ssh_key_of(place), warm.baseline_of(place)
        with self.progress.step("Go on from the saved state of Xen in QEMU"):
            qemu = Qemu(self.machine, self.console, public_part(ssh_key), wait_for_state=True)
            try:
                warm.load(qemu, place)
            except BaseException:
                qemu.end()
                raise
            watchdog = Watchdog(RESTORE_SECONDS_MAX, RESTORE_SECONDS_MAX)
            host = self._session(qemu, watchdog, baseline)
            try:
                refresh(host.client)
            except BaseException:
                qemu.end()
                raise
        return Running(qemu, host, ssh_key, warm=True)

    def _cold_and_save(self, folder: Path, target: Path, made: list[Running]) -> None:
        running = self.cold(folder)
        made.append(running)
        # The domains are made, and their agents are known to answer, before the state is saved.
        try:
            links = running.host.endpoints(self.experiment)
        except TestbedError as error:
            # The run makes the pair anew, and counts how often.
            if lost := running.host.lost_guests():
                raise warm.NotSaved(" ".join(lost)) from error
            raise
        for link in links.values():
            link.close()
        running.host.client.close()
        with self.progress.step("Save the state for the next run"):
            baseline = running.host.baseline()
            warm.save(running.qemu, target, running.ssh_key, baseline, self._load_and_drop)

    def _load_and_drop(self, place: Path) -> None:
        """Try a state: a machine takes it and ends. Raises TestbedError when it does not."""
        key = public_part(warm.ssh_key_of(place))
        with (
            tempfile.TemporaryDirectory(prefix="vchan-try-") as folder,
            Qemu(self.machine, Path(folder) / "console.txt", key, wait_for_state=True) as qemu,
        ):
            warm.load(qemu, place, go_on=False)

    def _with_new_session(self, running: Running) -> Running:
        running.host.client.close()
        watchdog = Watchdog(RESTORE_SECONDS_MAX, RESTORE_SECONDS_MAX)
        host = self._session(running.qemu, watchdog, running.host.baseline())
        return replace(running, host=host)

    def _session(
        self, qemu: Qemu, watchdog: Watchdog, baseline: Mapping[str, int] | None = None
    ) -> XenHost:
        """Say hello to the helper in dom0; ends the machine when there is no answer.

        With a `baseline` the domains that are there are kept: it was counted before them.
        """

        def connect() -> HelperClient:
            connection = qemu.connect("helper")
            return HelperClient(
                SocketCarrier(connection),
                keep_domains=baseline is not None,
                while_waiting=lambda: qemu.wait_for_data(connection, watchdog),
            )

        host = XenHost(
            "qemu",
            connect,
            on_the_host,
            self.progress,
            accelerator=self.machine.accelerator.name,
            baseline=baseline,
        )
        try:
            return host.__enter__()
        except BaseException:
            qemu.end()
            raise


def refresh(client: HelperClient) -> None:
    """Give a restored dom0 the time of day and randomness of its own: it has the state's."""
    client.ask("clock", realtime_ns=time.time_ns(), entropy=secrets.token_hex(_ENTROPY_BYTES))
