"""Saved states of a booted test bed: its domains made, idle, waiting for agents to be asked for.

A state belongs to everything that it was made with: QEMU, this machine's CPU, the machine's
command line with its images, and the domains. It is only ever read: any number of runs can start
from it at once.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from vchan_testbed.cache import cache_dir, cached, key_of
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.hosts.accelerator import cpu_of_machine, qemu_version
from vchan_testbed.guests.hosts.machine import END_SECONDS_MAX, Machine, Qemu

KIND = "warm"
KEPT_MAX = 3
SAVES_MAX = 3
FREE_BYTES_MIN = 3 << 30
_STATE = "state"
_COUNTS = "counts.json"
_FORMAT = "2"
_SSH_KEY = "ssh_key"


class NotSaved(TestbedError):
    """The machine runs, but its state could not be kept."""


def key_of_state(machine: Machine, experiment: Experiment) -> str:
    """The key of a state of `machine` with the domains of `experiment`."""
    domains = [asdict(experiment.domain(endpoint)) for endpoint in ENDPOINTS]
    return key_of(
        _FORMAT,
        qemu_version(),
        cpu_of_machine(),
        platform.release(),
        machine.images.key,
        *machine.arguments(ssh_key=""),
        json.dumps(domains, sort_keys=True),
    )


def state_or_build(
    key: str, build: Callable[[Path], None], on_wait: Callable[[], None] = lambda: None
) -> Path:
    """The folder of a state; `build` makes a machine and calls `save` if there is none yet.

    Two runs at once make it once: the second waits, and says so by `on_wait`. What `build` raises
    goes through.
    """
    return cached(KIND, key, build, kept_max=KEPT_MAX, on_wait=on_wait)


def save(
    qemu: Qemu,
    target: Path,
    ssh_key: Path,
    baseline: Mapping[str, int],
    check: Callable[[Path], None],
) -> None:
    """Write the machine's state and its key into the folder `target`; the machine goes on.

    `baseline` is what was in use in it before its domains were made. `check` raises TestbedError
    for a state that does not come back: QEMU (7.2, TCG) takes none in which a CPU was inside of a
    PVH guest in the moment of saving, and in that a second try differs. Raises NotSaved.
    """
    free_bytes = shutil.disk_usage(target).free
    if free_bytes < FREE_BYTES_MIN:
        raise NotSaved(f"{cache_dir()} has only {free_bytes >> 20} MiB left")
    try:
        (target / _COUNTS).write_text(json.dumps(dict(baseline)))
        shutil.copy(ssh_key, target / _SSH_KEY)
        shutil.copy(ssh_key.with_name(f"{ssh_key.name}.pub"), target / f"{_SSH_KEY}.pub")
        _save_what_comes_back(qemu, target, check)
    except OSError as error:
        raise NotSaved(str(error)) from error


def load(qemu: Qemu, place: Path, *, go_on: bool = True) -> None:
    """Give an empty machine the state in `place`. Raises TestbedError when it does not fit."""
    try:
        with qemu.qmp() as qmp, (place / _STATE).open("rb") as file:
            qmp.load_state(file.fileno(), go_on=go_on)
    except OSError as error:
        raise TestbedError(f"the saved state cannot be read: {error}") from error
    except TestbedError as error:
        # What does not fit, QEMU says on its standard error, and ends.
        if qemu.wait_for_end(END_SECONDS_MAX):
            raise qemu.failure("the saved state does not fit") from error
        raise


def _save_what_comes_back(qemu: Qemu, target: Path, check: Callable[[Path], None]) -> None:
    failure: TestbedError | None = None
    for _ in range(SAVES_MAX):
        try:
            with qemu.qmp() as qmp, (target / _STATE).open("wb") as file:
                qmp.save_state(file.fileno())
            check(target)
        except TestbedError as error:
            failure = error
        else:
            return
    assert failure is not None
    raise NotSaved(failure.message) from failure


def ssh_key_of(place: Path) -> Path:
    """The private key that the dom0 of this state lets in."""
    return place / _SSH_KEY


def baseline_of(place: Path) -> dict[str, int]:
    """What was in use in that machine before its domains were made. Raises TestbedError."""
    try:
        found: dict[str, int] = json.loads((place / _COUNTS).read_text())
    except (OSError, ValueError) as error:
        raise TestbedError(f"the saved state is not whole: {error}") from error
    return found
