"""The exceptions of the binding: which call failed, with which errno, and what to check."""

from __future__ import annotations

import errno as errno_names
import os

from vchan_testbed.errors import InputError, TestbedError


class VchanError(TestbedError):
    """A call of libxenvchan failed.

    `call` is the C function, `errno` what it left there (0: nothing), `next_step` what to check.
    """

    def __init__(self, call: str, errno: int, what: str, *, check: str = "") -> None:
        self.call = call
        self.errno = errno
        name = errno_names.errorcode.get(errno, "no errno")
        reason = f"{name}: {os.strerror(errno)}" if errno else name
        super().__init__(f"{call}: {what} ({reason})", next_step=check)


class PeerGone(VchanError):
    """The peer has closed the channel or its process has died."""


class NoDevice(VchanError):
    """A device of Xen's is not there, or this user may not open it."""


class NoSuchPath(VchanError):
    """The server has not written its xenstore keys (yet)."""


class OwnDomain(InputError):
    """A channel to the own domain was asked for: a kernel has died of it, so it is refused."""
