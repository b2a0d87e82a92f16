"""KVM where Xen really boots in it, else TCG: found out by booting, as /dev/kvm says too little.

On a machine whose own virtualisation is shared by its owner, /dev/kvm opens and Xen dies in it at
once (seen with Debian 12 on a cloud machine). The answer is kept for this machine and this QEMU.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from vchan_testbed.cache import cache_dir, cached, key_of
from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.hosts.machine import KVM, QEMU, TCG, Accelerator, Machine, Qemu, Watchdog
from vchan_testbed.progress import Progress

CHOICE = "VCHAN_TESTBED_ACCELERATOR"
PROBE_SILENCE_SECONDS_MAX = 20.0
PROBE_SECONDS_MAX = 90.0
_DEVICE = Path("/dev/kvm")
_NO_KEY = "A" * 68
_ANSWER = "answer.json"


@dataclass(frozen=True)
class Choice:
    """An accelerator and why it is that one."""

    accelerator: Accelerator
    reason: str


def choose(machine: Machine, progress: Progress) -> Choice:
    """Return the accelerator for `machine`; the first time this boots it under KVM if there is one.

    The environment variable VCHAN_TESTBED_ACCELERATOR, "kvm" or "tcg", decides instead if set.
    """
    wanted = os.environ.get(CHOICE, "")
    if wanted:
        for accelerator in (TCG, KVM):
            if accelerator.name == wanted:
                return Choice(accelerator, f"{CHOICE}={wanted}")
        raise InputError(f"{CHOICE}={wanted}: it can be kvm or tcg", next_step=f"unset {CHOICE}")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Choice(TCG, f"{_DEVICE} cannot be opened")

    def probe(target: Path) -> None:
        with progress.step("Try whether Xen boots under KVM"):
            (target / _ANSWER).write_text(json.dumps(_boot_under_kvm(machine)))

    return _read(cached("kvm", _key(), probe))


def kept_answer() -> Choice | None:
    """What an earlier `choose` found out on this machine; None if none did."""
    place = cache_dir() / "kvm" / _key()
    return _read(place) if place.is_dir() else None


def qemu_version() -> str:
    """QEMU's version with its packager's. Raises TestbedError when there is no QEMU."""
    try:
        said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        absent = isinstance(error, FileNotFoundError)
        raise TestbedError(
            f"{QEMU} is not installed" if absent else f"{QEMU} cannot be run: {error}",
            next_step="sudo apt-get install --no-install-recommends qemu-system-x86"
            " (make setup does it)",
        ) from error
    return said.stdout.splitlines()[0].removeprefix("QEMU emulator version ")


def cpu_of_machine() -> str:
    """Model and features of this machine's first CPU: a saved state does not go to another."""
    text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    wanted = re.findall(r"^(?:model name|flags)\s*:\s*(.*)$", text, re.MULTILINE)
    return "\n".join(wanted)


def _key() -> str:
    return key_of(qemu_version(), cpu_of_machine(), platform.release())


def _read(place: Path) -> Choice:
    answer = json.loads((place / _ANSWER).read_text())
    return Choice(KVM if answer["works"] else TCG, answer["reason"])


def _boot_under_kvm(machine: Machine) -> dict[str, bool | str]:
    with tempfile.TemporaryDirectory(prefix="vchan-kvm-") as folder:
        console = Path(folder) / "console.txt"
        try:
            with Qemu(replace(machine, accelerator=KVM), console, _NO_KEY) as qemu:
                shell = qemu.connect("shell")
                shell.sendall(b"echo up\n")
                qemu.wait_for_data(shell, Watchdog(PROBE_SILENCE_SECONDS_MAX, PROBE_SECONDS_MAX))
                shell.close()
        except TestbedError as error:
            said = error.message.splitlines()[0]
            return {"works": False, "reason": f"Xen does not boot under KVM: {said}"}
    return {"works": True, "reason": "Xen boots under KVM"}
