"""Granted pages of the loopback host: sharing, mapping, unmap notifies, limits, deaths."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Domains, Remote

READ = mmap.PROT_READ
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
LIVE_OFFSET = 21


@dataclass(frozen=True)
class Devices:
    """A process in domain 1 that grants, one in domain 2 that maps, and an event channel."""

    sharer: Remote
    shares: int
    sharer_events: int
    sharer_port: int
    mapper: Remote
    maps: int
    mapper_events: int
    mapper_port: int


@pytest.fixture
def devices(domains: Domains) -> Iterator[Devices]:
    """Open devices at both ends; closed afterwards at the ends that live."""
    sharer, mapper = domains.process("xen_calls.py", 1), domains.process("xen_calls.py", 2)
    sharer_events = sharer("xenevtchn_open", None, 0)
    mapper_events = mapper("xenevtchn_open", None, 0)
    sharer_port = sharer("xenevtchn_bind_unbound_port", sharer_events, 2)
    mapper_port = mapper("xenevtchn_bind_interdomain", mapper_events, 1, sharer_port)
    mapper("events", mapper_events)
    shares, maps = sharer("xengntshr_open", None, 0), mapper("xengnttab_open", None, 0)
    yield Devices(
        sharer, shares, sharer_events, sharer_port, mapper, maps, mapper_events, mapper_port
    )
    if mapper.alive:
        mapper("xengnttab_close", maps)
        mapper("xenevtchn_close", mapper_events)
    if sharer.alive:
        sharer("xengntshr_close", shares)
        sharer("xenevtchn_close", sharer_events)


def grants(domains: Domains) -> int:
    return domains.world.counts()["grants"]


def test_both_ends_see_the_same_page(devices: Devices) -> None:
    ours, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    assert ref >= 8
    theirs = devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, ref, READ_WRITE)
    devices.sharer("poke", ours, b"ping")
    assert devices.mapper("peek", theirs, 4) == b"ping"
    devices.mapper("poke", theirs + 4092, b"pong")
    assert devices.sharer("peek", ours + 4092, 4) == b"pong"


def test_pages_come_zeroed_although_they_were_used(devices: Devices) -> None:
    ours, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    devices.sharer("poke", ours, b"\xff" * 4096)
    devices.sharer("xengntshr_unshare", devices.shares, ours, 1)
    again, [second] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    assert second == ref
    assert devices.sharer("peek", again, 4096) == bytes(4096)


def test_pages_that_are_not_neighbours_are_mapped_in_the_order_asked_for(devices: Devices) -> None:
    refs = []
    for letter in (b"a", b"b", b"c", b"d"):
        ours, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
        devices.sharer("poke", ours, letter * 4096)
        refs.append(ref)
    order = [refs[2], refs[0], refs[1], refs[3]]
    theirs = devices.mapper("map_domain_refs", devices.maps, 1, order, READ)
    seen = devices.mapper("peek", theirs, 4 * 4096)
    assert seen == b"".join(letter * 4096 for letter in (b"c", b"a", b"b", b"d"))
    both = devices.mapper("map_refs", devices.maps, [1, 1], [refs[3], refs[0]], READ)
    assert devices.mapper("peek", both + 4095, 2) == b"da"


def test_protections_are_those_asked_for(devices: Devices) -> None:
    _, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    _, [read_only] = devices.sharer("share_pages", devices.shares, 2, 1, 0)
    for wanted, seen in ((READ, "r--s"), (READ_WRITE, "rw-s")):
        address = devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, ref, wanted)
        assert devices.mapper("protection", address) == seen
    devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, read_only, READ)
    call = "xengnttab_map_grant_ref"
    assert devices.mapper.fails(call, devices.maps, 1, read_only, READ_WRITE).errno_name == "EINVAL"


def test_mapping_is_refused_as_xen_does(devices: Devices, domains: Domains) -> None:
    ours, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    stranger = domains.process("xen_calls.py", 3)
    handle = stranger("xengnttab_open", None, 0)
    call = "xengnttab_map_grant_ref"
    assert stranger.fails(call, handle, 1, ref, READ).errno_name == "EINVAL"  # granted to domain 2
    assert devices.mapper.fails(call, devices.maps, 3, ref, READ).errno_name == "EINVAL"  # not by 3
    assert (
        devices.mapper.fails(call, devices.maps, 2, ref, READ).errno_name == "EINVAL"
    )  # own domain
    for nonsense in (0, 7, ref + 1, 1 << 20):
        assert devices.mapper.fails(call, devices.maps, 1, nonsense, READ).errno_name == "EINVAL"
    devices.sharer("xengntshr_unshare", devices.shares, ours, 1)
    assert devices.mapper.fails(call, devices.maps, 1, ref, READ).errno_name == "EINVAL"
    assert devices.sharer.fails("share_pages", devices.shares, 1, 1, 1).errno_name == "EINVAL"
    stranger("xengnttab_close", handle)


def test_a_mapping_that_fails_half_way_leaves_nothing(devices: Devices, domains: Domains) -> None:
    ours, refs = devices.sharer("share_pages", devices.shares, 2, 3, 1)
    wanted = [*refs, 4000]
    assert (
        devices.mapper.fails("map_domain_refs", devices.maps, 1, wanted, READ).errno_name
        == "EINVAL"
    )
    devices.sharer("xengntshr_unshare", devices.shares, ours, 3)
    assert grants(domains) == 0


def test_a_grant_stays_while_it_is_mapped(devices: Devices, domains: Domains) -> None:
    ours, refs = devices.sharer("share_pages", devices.shares, 2, 2, 1)
    theirs = devices.mapper("map_domain_refs", devices.maps, 1, refs, READ_WRITE)
    devices.sharer("poke", ours, b"last words")
    devices.sharer("xengntshr_unshare", devices.shares, ours, 2)
    assert grants(domains) == 2
    other, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    assert ref not in refs
    assert devices.mapper("peek", theirs, 10) == b"last words"
    devices.mapper("xengnttab_unmap", devices.maps, theirs, 2)
    assert grants(domains) == 1
    devices.sharer("xengntshr_unshare", devices.shares, other, 1)
    assert grants(domains) == 0


def test_munmap_alone_leaves_the_grant_until_the_handle_is_closed(
    devices: Devices, domains: Domains
) -> None:
    ours, refs = devices.sharer("share_pages", devices.shares, 2, 4, 1)
    handle = devices.mapper("xengnttab_open", None, 0)
    theirs = devices.mapper("map_domain_refs", handle, 1, refs, READ)
    devices.mapper("munmap", theirs, 4)
    assert devices.mapper("protection", theirs) != "r--s"
    devices.sharer("xengntshr_unshare", devices.shares, ours, 4)
    assert grants(domains) == 4
    devices.mapper("xengnttab_close", handle)
    assert grants(domains) == 0


def test_unmap_wants_the_whole_area(devices: Devices) -> None:
    ours, refs = devices.sharer("share_pages", devices.shares, 2, 4, 1)
    theirs = devices.mapper("map_domain_refs", devices.maps, 1, refs, READ)
    assert devices.mapper.fails("xengnttab_unmap", devices.maps, theirs, 3).errno_name == "EINVAL"
    assert (
        devices.mapper.fails("xengnttab_unmap", devices.maps, theirs + 4096, 3).errno_name
        == "EINVAL"
    )
    assert devices.sharer.fails("xengntshr_unshare", devices.shares, ours, 3).errno_name == "EINVAL"
    devices.mapper("xengnttab_unmap", devices.maps, theirs, 4)
    assert devices.mapper.fails("xengnttab_unmap", devices.maps, theirs, 4).errno_name == "EINVAL"


def test_unshare_clears_the_byte_and_then_raises_the_event(devices: Devices) -> None:
    share = ("share_page_notify", devices.shares, 2, LIVE_OFFSET, devices.sharer_port)
    ours, ref = devices.sharer(*share)
    theirs = devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, ref, READ_WRITE)
    devices.sharer("poke", ours, b"\x07" * 64)
    devices.sharer("xengntshr_unshare", devices.shares, ours, 1)
    expected = bytes(0 if i == LIVE_OFFSET else 7 for i in range(64))
    assert devices.mapper("peek", theirs, 64) == expected
    assert devices.mapper("events", devices.mapper_events) == [devices.mapper_port]
    assert not devices.sharer("readable", devices.sharer_events)


def test_unmap_clears_the_byte_and_then_raises_the_event(devices: Devices) -> None:
    ours, [ref] = devices.sharer("share_pages", devices.shares, 2, 1, 1)
    call = "xengnttab_map_grant_ref_notify"
    port = devices.mapper_port
    theirs = devices.mapper(call, devices.maps, 1, ref, READ_WRITE, LIVE_OFFSET, port)
    devices.sharer("poke", ours, b"\x07" * 64)
    devices.mapper("xengnttab_unmap", devices.maps, theirs, 1)
    assert devices.sharer("peek", ours + LIVE_OFFSET - 1, 3) == b"\x07\x00\x07"
    assert devices.sharer("events", devices.sharer_events) == [devices.sharer_port]


def test_an_offset_outside_of_the_page_means_no_byte(devices: Devices) -> None:
    share = ("share_page_notify", devices.shares, 2, 0xFFFFFFFF, devices.sharer_port)
    ours, ref = devices.sharer(*share)
    theirs = devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, ref, READ)
    devices.sharer("poke", ours, b"\x07" * 64)
    devices.sharer("xengntshr_unshare", devices.shares, ours, 1)
    assert devices.mapper("peek", theirs, 64) == b"\x07" * 64
    assert devices.mapper("events", devices.mapper_events) == [devices.mapper_port]


def test_a_notify_through_a_foreign_port_is_refused(devices: Devices, domains: Domains) -> None:
    share = ("share_page_notify", devices.shares, 2, LIVE_OFFSET, devices.mapper_port)
    assert devices.sharer.fails(*share).errno_name == "EINVAL"
    assert grants(domains) == 0


def test_a_notify_holds_its_port_open(devices: Devices) -> None:
    """Closing the event channel before the page still lets the peer know."""
    handle = devices.sharer("xenevtchn_open", None, 0)
    port = devices.sharer("xenevtchn_bind_unbound_port", handle, 2)
    peer = devices.mapper("xenevtchn_bind_interdomain", devices.mapper_events, 1, port)
    assert devices.mapper("events", devices.mapper_events) == [peer]
    ours, _ = devices.sharer("share_page_notify", devices.shares, 2, LIVE_OFFSET, port)
    devices.sharer("xenevtchn_close", handle)
    assert not devices.mapper("readable", devices.mapper_events)
    devices.sharer("xengntshr_unshare", devices.shares, ours, 1)
    assert devices.mapper("events", devices.mapper_events) == [peer]
    devices.mapper("xenevtchn_unbind", devices.mapper_events, peer)


def test_the_limit_of_shared_pages_is_exact(devices: Devices, domains: Domains) -> None:
    poor = domains.process("xen_calls.py", 4, VCHAN_LOOPBACK_GNTALLOC_LIMIT="5")
    handle = poor("xengntshr_open", None, 0)
    assert poor.fails("share_pages", handle, 2, 6, 1).errno_name == "ENOSPC"
    first, _ = poor("share_pages", handle, 2, 3, 1)
    assert poor.fails("share_pages", handle, 2, 3, 1).errno_name == "ENOSPC"
    poor("share_pages", handle, 2, 2, 1)
    assert poor.fails("share_pages", handle, 2, 1, 1).errno_name == "ENOSPC"
    poor("xengntshr_unshare", handle, first, 3)
    poor("share_pages", handle, 2, 3, 1)
    assert grants(domains) == 5
    devices.sharer("share_pages", devices.shares, 2, 1024, 1)  # another domain, gntalloc's default
    assert devices.sharer.fails("share_pages", devices.shares, 2, 1, 1).errno_name == "ENOSPC"
    poor("xengntshr_close", handle)


def test_a_killed_sharer_is_announced_and_its_pages_freed(
    devices: Devices, domains: Domains
) -> None:
    share = ("share_page_notify", devices.shares, 2, LIVE_OFFSET, devices.sharer_port)
    ours, ref = devices.sharer(*share)
    devices.sharer("poke", ours, b"\x07" * 64)
    theirs = devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, ref, READ)
    fd = devices.mapper("xenevtchn_fd", devices.mapper_events)
    devices.mapper.start("xenevtchn_pending", devices.mapper_events)
    devices.mapper.wait_until_blocked_in_read(fd)
    devices.sharer.kill()
    assert devices.mapper.finish() == devices.mapper_port
    assert devices.mapper("peek", theirs + LIVE_OFFSET - 1, 3) == b"\x07\x00\x07"
    assert domains.world.counts() == {"grants": 1, "ports": 1, "keys": 0, "handles": 2}
    devices.mapper("xengnttab_unmap", devices.maps, theirs, 1)
    assert grants(domains) == 0


def test_a_killed_mapper_is_announced_and_its_mappings_go(
    devices: Devices, domains: Domains
) -> None:
    ours, refs = devices.sharer("share_pages", devices.shares, 2, 2, 1)
    devices.sharer("poke", ours, b"\x07" * 64)
    notify = (READ_WRITE, LIVE_OFFSET, devices.mapper_port)
    devices.mapper("xengnttab_map_grant_ref_notify", devices.maps, 1, refs[0], *notify)
    devices.mapper("xengnttab_map_grant_ref", devices.maps, 1, refs[1], READ)
    fd = devices.sharer("xenevtchn_fd", devices.sharer_events)
    devices.sharer.start("xenevtchn_pending", devices.sharer_events)
    devices.sharer.wait_until_blocked_in_read(fd)
    devices.mapper.kill()
    assert devices.sharer.finish() == devices.sharer_port
    assert devices.sharer("peek", ours + LIVE_OFFSET - 1, 3) == b"\x07\x00\x07"
    devices.sharer("xengntshr_unshare", devices.shares, ours, 2)
    assert grants(domains) == 0


def test_both_ends_killed_leave_nothing(devices: Devices, domains: Domains) -> None:
    share = ("share_page_notify", devices.shares, 2, LIVE_OFFSET, devices.sharer_port)
    _, ref = devices.sharer(*share)
    notify = (READ_WRITE, LIVE_OFFSET - 1, devices.mapper_port)
    devices.mapper("xengnttab_map_grant_ref_notify", devices.maps, 1, ref, *notify)
    devices.sharer.kill()
    devices.mapper.kill()
    assert domains.world.counts() == {"grants": 0, "ports": 0, "keys": 0, "handles": 0}
