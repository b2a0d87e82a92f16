"""One QEMU process that runs Xen: its command line, its sockets, its console, its end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.hosts import guard
from vchan_testbed.guests.hosts.qmp import Qmp
from vchan_testbed.guests.images import Images

QEMU = "qemu-system-x86_64"
LIFE_SECONDS_MAX = 4 * 3600.0
SOCKET_SECONDS_MAX = 60.0
END_SECONDS_MAX = 30.0
_LOOK_SECONDS = 0.5
_CONSOLE_LINES = 25

DOM0_MEMORY_MIB = 1024
XEN_MEMORY_MIB = 256
MEMORY_MIB_MIN = 3072


@dataclass(frozen=True)
class Accelerator:
    """How QEMU runs the machine's CPUs."""

    name: str
    options: tuple[str, ...]


# XSAVE off: with it, registers change under the feet of programs as soon as a guest runs
# (QEMU 7.2 and 10.0 with Xen 4.17 and 4.20). SMAP on: dom0 crashes while it boots.
TCG = Accelerator("tcg", ("-accel", "tcg,thread=multi", "-cpu", "max,-smap,-xsave"))
KVM = Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"))


@dataclass(frozen=True)
class Machine:
    """What a test bed is started with; all of it belongs to the key of a saved state."""

    images: Images
    accelerator: Accelerator = TCG
    memory_mib: int = MEMORY_MIB_MIN
    dom0_pinned: bool = False
    """Keep dom0 on its CPU: PVH guests under TCG live longer beside it."""

    def arguments(self, ssh_key: str) -> list[str]:
        """QEMU's arguments but for the places of sockets and files of one run.

        `ssh_key` is the base64 part of an ed25519 public key, the only one that dom0 lets in.
        """
        xen = (
            f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MEMORY_MIB}M,max:{DOM0_MEMORY_MIB}M"
            # Scrubbing would touch, and so take, all of the machine's memory.
            " dom0_max_vcpus=1 bootscrub=0"
        )
        if self.dom0_pinned:
            xen += " dom0_vcpus_pin"
        linux = f"console=hvc0 vchan.ssh_key={ssh_key}"
        return [
            *self.accelerator.options,
            *("-machine", "q35", "-smp", "2", "-m", str(self.memory_mib)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(self.images.xen), "-append", xen),
            *("-initrd", f"{self.images.kernel} {linux},{self.images.dom0}"),
            *("-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=helper,name=vchan.helper"),
            *("-device", "virtserialport,chardev=shell,name=vchan.shell"),
            *("-serial", "chardev:console"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            # An empty address in hostfwd would listen on all of this machine's interfaces.
            *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
        ]


class Qemu:
    """A running machine. It never outlives this process, nor LIFE_SECONDS_MAX.

    With `wait_for_state` it is an empty one that waits for `Qmp.load_state`. Raises TestbedError
    when QEMU does not start.
    """

    def __init__(
        self, machine: Machine, console: Path, ssh_key: str, *, wait_for_state: bool = False
    ) -> None:
        # Paths of Unix sockets have at most 107 bytes: so not below the run directory.
        self._folder = tempfile.TemporaryDirectory(prefix="vchan-qemu-")
        self.console = console
        self._errors = self.folder / "qemu.log"
        command = [
            *(QEMU, *machine.arguments(ssh_key)),
            *("-chardev", f"file,id=console,path={console}"),
            *("-chardev", f"socket,id=helper,path={self.folder}/helper,server=on,wait=off"),
            *("-chardev", f"socket,id=shell,path={self.folder}/shell,server=on,wait=off"),
            *("-qmp", f"unix:{self.folder}/qmp,server=on,wait=off"),
            *(("-incoming", "defer") if wait_for_state else ()),
        ]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(LIFE_SECONDS_MAX), *command],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
            )
        self._exited = os.pidfd_open(self._process.pid)
        self.ssh_port = self._wait_for_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def _wait_for_start(self) -> int:
        """Return the port that leads to dom0's sshd."""
        try:
            with self.qmp() as qmp:
                return qmp.forwarded_port()
        except TestbedError as error:
            failure = self.failure("QEMU ended at once") if self.wait_for_end(1) else error
            self.end()
            raise failure from error
        except BaseException:
            self.end()
            raise

    @property
    def folder(self) -> Path:
        """Where this machine's sockets are."""
        return Path(self._folder.name)

    @property
    def running(self) -> bool:
        """Whether QEMU lives."""
        return self._process.poll() is None

    def end(self) -> None:
        """End QEMU and take its files away; the console's file stays."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._exited)
        self._folder.cleanup()

    def qmp(self) -> Qmp:
        """A connection to QEMU's monitor. Raises TestbedError when QEMU did not start."""
        path = self.folder / "qmp"
        deadline = time.monotonic() + SOCKET_SECONDS_MAX
        while True:
            try:
                return Qmp(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline or self.wait_for_end(0.02):
                    raise self.failure("QEMU did not start") from None

    def connect(self, port: str) -> socket.socket:
        """Connect to a virtio-serial port, "helper" or "shell"; dom0 need not be up yet."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.folder / port))
        return connection

    def wait_for_end(self, seconds_max: float) -> bool:
        """Wait until QEMU has ended, not longer than `seconds_max`; return whether it has."""
        return bool(select.select([self._exited], [], [], seconds_max)[0])

    def wait_for_data(self, connection: socket.socket, watchdog: Watchdog) -> None:
        """Wait until there is something to read.

        Raises TestbedError with the last console lines when QEMU ends before, or when the
        watchdog has seen nothing new for too long.
        """
        while True:
            ready, _, _ = select.select([connection.fileno(), self._exited], [], [], _LOOK_SECONDS)
            # Its sockets close before QEMU has ended: readable may also mean that it is going.
            if connection.fileno() in ready and not _is_at_end(connection):
                return
            if ready:
                self.wait_for_end(END_SECONDS_MAX)
                raise self.failure("Xen or dom0 ended while it booted")
            if not watchdog.look(self.console_bytes()):
                raise self.failure(f"dom0 {watchdog.complaint}")

    def console_bytes(self) -> int:
        """How much Xen and dom0 have said so far."""
        return self.console.stat().st_size if self.console.exists() else 0

    def console_text(self) -> str:
        """What Xen and dom0 have said so far."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def failure(self, message: str) -> TestbedError:
        """The error for a machine that failed: with what QEMU or the console said last."""
        lines = self.console_text().splitlines()[-_CONSOLE_LINES:]
        said = self._errors.read_text(errors="replace").strip() if self._errors.exists() else ""
        return TestbedError(
            f"{message}: {said}" if said else message,
            next_step=f"The whole console is in {self.console}; `vchan-testbed doctor` says what"
            " this machine lacks.",
            console="\n".join(lines),
            log=self.console,
        )


class Watchdog:
    """Tells a slow machine from a dead one: what still writes to its console is alive."""

    def __init__(self, silence_seconds_max: float, seconds_max: float) -> None:
        self._silence_seconds_max = silence_seconds_max
        self._seconds_max = seconds_max
        self._ends = time.monotonic() + seconds_max
        self._seen = -1
        self._seen_at = 0.0

    def look(self, console_bytes: int) -> bool:
        """Take note of the console's size; return whether there is still hope."""
        now = time.monotonic()
        if console_bytes != self._seen:
            self._seen, self._seen_at = console_bytes, now
        return now < self._ends and now - self._seen_at < self._silence_seconds_max

    @property
    def complaint(self) -> str:
        """Why there is no hope any more."""
        if time.monotonic() < self._ends:
            return f"gave no sign of life for {self._silence_seconds_max:.0f} s"
        return f"was not up after {self._seconds_max:.0f} s, though it goes on writing"


def _is_at_end(connection: socket.socket) -> bool:
    """Whether nothing will come any more from a socket that is readable."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        return True


def make_ssh_key(path: Path) -> None:
    """Write a new ed25519 key pair to `path` and `path`.pub."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def public_part(path: Path) -> str:
    """The base64 part of the public key that belongs to the private key `path`."""
    return path.with_name(f"{path.name}.pub").read_text().split()[1]
