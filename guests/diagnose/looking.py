"""Finds the channels and takes a look at each: from processes here, and from xenstore."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from vchan_testbed.errors import InputError
from vchan_testbed.guests.diagnose.page import parse, plausible
from vchan_testbed.guests.diagnose.places import SIDES
from vchan_testbed.guests.diagnose.processes import (
    LOOPBACK,
    Devices,
    Found,
    began,
    find,
    look,
    read_memory,
)
from vchan_testbed.guests.diagnose.processes import XEN as DEVICES
from vchan_testbed.guests.diagnose.sight import End, Port, Sight
from vchan_testbed.guests.diagnose.xen import Keys, Xen, domain_states, published

NOTHING = End(None, None, None, None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: processes, the two domains, or everything."""

    pids: tuple[int, ...] = ()
    domids: tuple[int, int] | None = None
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel, and where its page is read: in processes, or by its grant."""

    name: str
    keys: Keys | None
    peer: int | None
    frame: int | None
    found: tuple[Found, ...]


def channels(wanted: Wanted, xen: Xen | None) -> list[Channel]:
    """All channels that are asked for. Raises InputError when a process has none."""
    devices = _devices(wanted)
    found = find(devices, list(wanted.pids) or None)
    bare = [pid for pid in wanted.pids if not any(one.pid == pid for one in found)]
    if bare:
        raise InputError(
            f"The process {bare[0]} maps no page of a vchan that can be read.",
            next_step="Run it as root, in the domain of the process, and name the process that "
            "uses libxenvchan itself.",
        )
    kept = [] if xen is None or wanted.pids else _published(wanted, xen)
    pairs = _pairs(found) if wanted.domids is None else []
    return [*kept, *(_of_processes(ends) for ends in pairs)]


def _devices(wanted: Wanted) -> Devices:
    return LOOPBACK if wanted.loopback else DEVICES


def _pairs(found: list[Found]) -> list[list[Found]]:
    """Both ends of a channel map one page: where both are seen they are one channel."""
    by_place: dict[object, list[Found]] = {}
    for one in found:
        # Pages of a device have offsets of their own in each process.
        key = one.place if one.role is None else (one.pid, one.address)
        by_place.setdefault(key, []).append(one)
    return list(by_place.values())


def _of_processes(found: list[Found]) -> Channel:
    ends = ", ".join(f"{one.pid} ({one.role or 'an end'})" for one in found)
    return Channel(f"process {ends}", None, None, None, tuple(found))


def _published(wanted: Wanted, xen: Xen) -> list[Channel]:
    kept = []
    for keys in published():
        grant = xen.grant(keys.domid, keys.grant) if keys.domid else None
        if wanted.domids is not None:
            ends = {keys.domid, grant.peer if grant else None}
            if not ends <= set(wanted.domids):
                continue
        peer, frame = (grant.peer, grant.frame) if grant else (None, None)
        kept.append(Channel(keys.path, keys, peer, frame, ()))
    return kept


def sight_of(channel: Channel, wanted: Wanted, xen: Xen | None) -> Sight | None:
    """One look; None where the page is not to be had any more."""
    data = page_of(channel, xen)
    if data is None or not plausible(data):
        return None
    ends = dict.fromkeys(SIDES, NOTHING)
    for one in channel.found:
        side = one.role or _role_by_order(channel, one)
        ends[side] = replace(ends[side], process=look(one.pid, _devices(wanted)))
    if channel.keys is not None and xen is not None:
        ends = _with_domains(ends, channel, channel.keys, xen)
    return Sight(channel.name, time.monotonic(), parse(data), ends)


def _role_by_order(channel: Channel, one: Found) -> str:
    """Of a loopback host's: both map one file, and the server's process was there first."""
    first = min(channel.found, key=lambda other: began(other.pid))
    return "server" if one == first else "client"


def page_of(channel: Channel, xen: Xen | None) -> bytes | None:
    """A copy of the channel's page; None where it is not to be had."""
    for one in channel.found:
        data = read_memory(one.pid, one.address)
        if data is not None:
            return data
    if xen is not None and channel.keys is not None and channel.frame is not None:
        return xen.page(channel.keys.domid, channel.frame)
    return None


def _with_domains(ends: dict[str, End], channel: Channel, keys: Keys, xen: Xen) -> dict[str, End]:
    states = domain_states()
    here, there = xen.port(keys.domid, keys.port)
    ports: dict[str, Port | None] = {"server": here, "client": there}
    domids = {"server": keys.domid, "client": channel.peer}
    return {
        side: replace(
            ends[side],
            domid=domids[side],
            domain=_state(states, domids[side]),
            port=ports[side],
        )
        for side in SIDES
    }


def _state(states: dict[int, str], domid: int | None) -> str | None:
    return None if domid is None else states.get(domid, "gone")
