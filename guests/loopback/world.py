"""One loopback "host": its state folder, its guardian, its domains and what is counted on it."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.loopback.build import GUARDIAN, build_standins

DOMID_MAX = 63
ANSWER_SECONDS_MAX = 20.0
"""How long the guardian may take; it answers within milliseconds."""
STATE_FILES = ("state", "pages", "guardian")
STATE_FOLDERS = ("events", "store")


class LoopbackWorld:
    """A host without Xen on which the unmodified libxenvchan runs over the stand-ins.

    `folder` holds its state (made if missing, and no host may live in it); up to a few MiB of
    shared pages are written there. The guardian lives as long as the context. On leaving, the
    state is removed; processes that still use it are the caller's to end first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._libraries: Path | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LoopbackWorld:
        self._libraries = build_standins()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._guardian = subprocess.Popen(
            [self._libraries / GUARDIAN, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            self._wait_until_ready(self._guardian)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        for name in STATE_FILES:
            (self.folder / name).unlink(missing_ok=True)
        for name in STATE_FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @property
    def guardian_pid(self) -> int:
        """Process id of the guardian."""
        return self._running().pid

    def environment(self, domid: int) -> dict[str, str]:
        """The variables that put a process into domain `domid`, which exists from then on.

        Add them to the process's environment. Raises TestbedError when the guardian is gone or
        domid is not within 0..63.
        """
        self._ask(f"D {domid}")
        assert self._libraries is not None
        searched = [str(self._libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {
            "LD_LIBRARY_PATH": ":".join(searched),
            "VCHAN_LOOPBACK_DIR": str(self.folder),
            "VCHAN_LOOPBACK_DOMID": str(domid),
        }

    def counts(self) -> dict[str, int]:
        """Grants, ports, xenstore keys (nodes with a value) and handles in use.

        Processes that were dead before the call have been cleaned up after in it.
        """
        return {
            name: int(value)
            for name, _, value in (word.partition("=") for word in self._ask("C").split())
        }

    def _running(self) -> subprocess.Popen[bytes]:
        if self._guardian is None:
            raise TestbedError(
                "The loopback host is not running.",
                next_step="Use LoopbackWorld as a context manager.",
            )
        return self._guardian

    def _wait_until_ready(self, guardian: subprocess.Popen[bytes]) -> None:
        assert guardian.stdout is not None
        assert guardian.stderr is not None
        readable, _, _ = select.select([guardian.stdout], [], [], ANSWER_SECONDS_MAX)
        if readable and guardian.stdout.readline() == b"ready\n":
            return
        guardian.kill()
        raise TestbedError(
            f"The loopback host in {self.folder} does not start.",
            next_step="Use an empty folder that you may write to.",
            console=guardian.stderr.read().decode(errors="replace"),
        )

    def _ask(self, request: str) -> str:
        self._running()
        folder_fd = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(ANSWER_SECONDS_MAX)
                # A socket's name may have 108 bytes only; the folder's may be longer.
                link.connect(f"/proc/self/fd/{folder_fd}/guardian")
                link.sendall(f"{request}\n".encode())
                answer = link.makefile("r").readline()
        except OSError as error:
            raise TestbedError(
                f"The guardian of the loopback host in {self.folder} does not answer: {error}.",
                next_step="Start the run again; nothing else may end or stop the guardian.",
            ) from error
        finally:
            os.close(folder_fd)
        if not answer.startswith("+"):
            raise TestbedError(
                f"The loopback host refuses {request!r}: {answer[1:].strip() or 'no answer'}.",
                next_step=f"A domid on the loopback host lies within 0..{DOMID_MAX}.",
            )
        return answer[1:].strip()

    def _stop(self) -> None:
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        for stream in (guardian.stdin, guardian.stdout, guardian.stderr):
            if stream is not None:
                stream.close()
        try:
            guardian.wait(ANSWER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()
