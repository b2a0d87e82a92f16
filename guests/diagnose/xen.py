"""What dom0 knows: keys in xenstore, pages through the grant table, ports, domains. Reads only.

Through Xen's own libraries (ctypes: nothing has to be compiled there) and programs. A page is
mapped, copied and unmapped at each look: else a dead domain would stay as a zombie.
"""

from __future__ import annotations

import ctypes
import glob
import mmap
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.diagnose.page import PAGE_BYTES
from vchan_testbed.guests.diagnose.sight import Port

LINE = re.compile(r'^(/\S+) = "(.*)"')
OTHERS = re.compile(r"/(device|backend)(/|$)")
"""Front ends of disks and networks have keys of the same names."""
OWNER = re.compile(r"^/local/domain/(\d+)/")
COMMAND_SECONDS_MAX = 120.0
ELSEWHERE = "In dom0 it comes with Xen's tools. In another domain look at processes: --pid."
GRANT_TABLE = 1
"""XENMEM_resource_grant_table (xen/include/public/memory.h)."""
SHARED_FRAMES = 0
V1_BYTES, V2_BYTES = 8, 16
PERMIT_ACCESS = 1
STATUSES = ("closed", "unbound", "interdomain", "pirq", "virq", "ipi")
DOMAIN_STATES = {"d": "dying", "c": "crashed", "s": "dying", "p": "paused"}
PLACES = ("/usr/lib/*", "/usr/lib", "/usr/lib64", "/usr/lib/xen-*/lib", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Keys:
    """A channel in xenstore: its path, and the server's domid, grant and port."""

    path: str
    domid: int
    grant: int
    port: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Whom a page is granted to, and its frame."""

    peer: int
    frame: int


class QuerySize(ctypes.Structure):
    """struct gnttab_query_size (xen/include/public/grant_table.h)."""

    _fields_ = (
        ("dom", ctypes.c_uint16),
        ("nr_frames", ctypes.c_uint32),
        ("max_nr_frames", ctypes.c_uint32),
        ("status", ctypes.c_int16),
    )


class PortStatus(ctypes.Structure):
    """struct evtchn_status (xen/include/public/event_channel.h), a port bound to a domain."""

    _fields_ = (
        ("dom", ctypes.c_uint16),
        ("port", ctypes.c_uint32),
        ("status", ctypes.c_uint32),
        ("vcpu", ctypes.c_uint32),
        ("peer_dom", ctypes.c_uint16),
        ("peer_port", ctypes.c_uint32),
    )


def published() -> list[Keys]:
    """The channels whose keys are in xenstore. Raises TestbedError where there is no xenstore."""
    values = {}
    for line in command("xenstore-ls", "-f").splitlines():
        match = LINE.match(line)
        if match:
            values[match[1]] = match[2]
    found = []
    for key, grant in values.items():
        path, _, last = key.rpartition("/")
        owner, port = OWNER.match(key), values.get(f"{path}/event-channel", "")
        if last != "ring-ref" or OTHERS.search(path) or owner is None:
            continue
        if grant.isdigit() and port.isdigit():
            found.append(Keys(path, int(owner[1]), int(grant), int(port)))
    return found


def domain_states() -> dict[int, str]:
    """Each domain's state; one that is not here is gone."""
    states = {}
    for line in command("xl", "list").splitlines()[1:]:
        words = line.rsplit(maxsplit=5)
        letters = [letter for letter in words[4] if letter in DOMAIN_STATES]
        states[int(words[1])] = DOMAIN_STATES[letters[0]] if letters else "alive"
    return states


class Xen:
    """Xen's libraries, open for as long as the context lasts."""

    def __init__(self) -> None:
        self._control = _library("xenctrl")
        self._foreign = _library("xenforeignmemory")
        self._control.xc_interface_open.restype = ctypes.c_void_p
        self._foreign.xenforeignmemory_open.restype = ctypes.c_void_p
        self._xc = ctypes.c_void_p(self._control.xc_interface_open(None, None, 0))
        self._fmem = ctypes.c_void_p(self._foreign.xenforeignmemory_open(None, 0))
        if not self._xc or not self._fmem:
            self.close()
            raise TestbedError(
                "Xen does not answer this process.", next_step="Run it as root, in dom0."
            )
        for name in ("map", "map_resource"):
            getattr(self._foreign, f"xenforeignmemory_{name}").restype = ctypes.c_void_p

    def __enter__(self) -> Xen:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the libraries."""
        if self._xc:
            self._control.xc_interface_close(self._xc)
        if self._fmem:
            self._foreign.xenforeignmemory_close(self._fmem)

    def port(self, domid: int, port: int) -> tuple[Port, Port | None]:
        """A port, and the one that it is bound to."""
        status = PortStatus(dom=domid, port=port)
        if self._control.xc_evtchn_status(self._xc, ctypes.byref(status)) < 0:
            return Port(domid, port, "closed"), None
        here = Port(domid, port, STATUSES[status.status])
        if here.status != "interdomain":
            return here, None
        return here, Port(status.peer_dom, status.peer_port, "interdomain")

    def grant(self, domid: int, reference: int) -> Grant | None:
        """A domain's grant; None if the table has no such entry, or nobody is granted anything."""
        version = self._control.xc_gnttab_get_version(self._xc, ctypes.c_uint32(domid))
        entry_bytes = V2_BYTES if version == 2 else V1_BYTES
        frame, place = divmod(reference * entry_bytes, PAGE_BYTES)
        size = QuerySize(dom=domid)
        # Asked first: to ask for a frame beyond the table makes the table grow.
        asked = self._control.xc_gnttab_query_size(self._xc, ctypes.byref(size))
        if asked != 0 or size.status != 0 or frame >= size.nr_frames:
            return None
        data = self._table_frame(domid, frame)
        if data is None:
            return None
        entry = data[place : place + entry_bytes]
        flags, peer = (int.from_bytes(entry[at : at + 2], "little") for at in (0, 2))
        if flags & 3 != PERMIT_ACCESS:
            return None
        return Grant(peer, int.from_bytes(entry[8:16] if version == 2 else entry[4:8], "little"))

    def page(self, domid: int, frame: int) -> bytes | None:
        """A copy of a domain's page; None if Xen refuses it."""
        frames, errors = (ctypes.c_ulong * 1)(frame), (ctypes.c_int * 1)()
        address = self._foreign.xenforeignmemory_map(
            self._fmem, ctypes.c_uint32(domid), mmap.PROT_READ, ctypes.c_size_t(1), frames, errors
        )
        if not address:
            return None
        try:
            return ctypes.string_at(address, PAGE_BYTES) if errors[0] == 0 else None
        finally:
            self._foreign.xenforeignmemory_unmap(
                self._fmem, ctypes.c_void_p(address), ctypes.c_size_t(1)
            )

    def _table_frame(self, domid: int, frame: int) -> bytes | None:
        address = ctypes.c_void_p()
        resource = self._foreign.xenforeignmemory_map_resource(
            self._fmem,
            ctypes.c_uint16(domid),
            GRANT_TABLE,
            SHARED_FRAMES,
            ctypes.c_ulong(frame),
            ctypes.c_ulong(1),
            ctypes.byref(address),
            mmap.PROT_READ,
            0,
        )
        if not resource or not address.value:
            return None
        try:
            return ctypes.string_at(address.value, PAGE_BYTES)
        finally:
            self._foreign.xenforeignmemory_unmap_resource(self._fmem, ctypes.c_void_p(resource))


def _library(name: str) -> Any:
    """A library of Xen's by its name without version: each release has another one."""
    for folder in PLACES:
        for path in sorted(glob.glob(f"{folder}/lib{name}.so.*"), reverse=True):
            return ctypes.CDLL(path, use_errno=True)
    raise TestbedError(
        f"lib{name} is not there.",
        next_step=ELSEWHERE,
    )


def command(*words: str) -> str:
    """What a program of Xen's prints. Raises TestbedError if it is not there, or fails."""
    program = shutil.which(words[0], path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/xen/bin")
    if program is None:
        raise TestbedError(
            f"{words[0]} is not there.",
            next_step=ELSEWHERE,
        )
    try:
        ran = subprocess.run(
            [program, *words[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        raise TestbedError(
            f"{words[0]} did not answer within {COMMAND_SECONDS_MAX:.0f} s.",
            next_step="Look whether xenstored runs.",
        ) from None
    if ran.returncode != 0:
        raise TestbedError(
            f"{' '.join(words)} failed: {ran.stderr.strip()}",
            next_step="Run it as root, in dom0.",
        )
    return ran.stdout
