"""The exceptions of the binding: which call failed, with which errno, and what to check."""

from __future__ import annotations

import errno as errno_names
import os

from vchan_testbed.errors import InputError, TestbedError


class VchanError(TestbedError):
    """A call of libxenvchan, or of a library under it, failed.

    `call` is the C function, `errno` what it left there (0: nothing), `next_step` what to check.
    """

    def __init__(self, call: str, errno: int, what: str, *, check: str = "") -> None:
        self.call = call
        self.errno = errno
        name = errno_names.errorcode.get(errno, str(errno))
        reason = f"{name}: {os.strerror(errno)}" if errno else "it leaves no errno"
        super().__init__(f"{call}: {what} ({reason})", next_step=check)


class PeerGone(VchanError):
    """The peer has closed the channel or its process has died."""


class ChannelClosed(VchanError):
    """This end was closed before."""


class Interrupted(VchanError):
    """A signal ended a wait. Of a blocking write an unknown part was put: do not repeat it."""


class NoDevice(VchanError):
    """A device of Xen's is not there, or this user may not open it."""


class NoSuchPath(VchanError):
    """The server's keys are not there (yet), or this domain may not read them.

    xenstored does not tell the two apart for a path in another domain's home.
    """


class NoSuchDomain(VchanError):
    """The peer's domain does not exist."""


class OwnDomain(InputError):
    """A channel to the own domain was asked for: a kernel has died of it, so it is refused."""
