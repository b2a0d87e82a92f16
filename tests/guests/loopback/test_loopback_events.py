"""Event channels of the loopback host: pending, masked, queued, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Domains, Remote


@dataclass(frozen=True)
class Bound:
    """An event channel: a process, its handle and its port at each end; no event is there."""

    server: Remote
    server_handle: int
    server_port: int
    client: Remote
    client_handle: int
    client_port: int

    def raise_client(self) -> None:
        self.server("xenevtchn_notify", self.server_handle, self.server_port)

    def client_take(self) -> int:
        assert self.client("readable", self.client_handle)
        return int(self.client("xenevtchn_pending", self.client_handle))

    def client_unmask(self) -> None:
        self.client("xenevtchn_unmask", self.client_handle, self.client_port)

    def client_readable(self) -> bool:
        return bool(self.client("readable", self.client_handle))


@pytest.fixture
def bound(domains: Domains) -> Iterator[Bound]:
    """An event channel between domains 1 and 2, its bind event taken."""
    server, client = domains.process("xen_calls.py", 1), domains.process("xen_calls.py", 2)
    server_handle = server("xenevtchn_open", None, 0)
    client_handle = client("xenevtchn_open", None, 0)
    server_port = server("xenevtchn_bind_unbound_port", server_handle, 2)
    client_port = client("xenevtchn_bind_interdomain", client_handle, 1, server_port)
    assert client("events", client_handle) == [client_port]
    yield Bound(server, server_handle, server_port, client, client_handle, client_port)
    if client.alive:
        client("xenevtchn_close", client_handle)
    if server.alive:
        server("xenevtchn_close", server_handle)


def test_bind_leaves_the_own_port_pending_and_only_that(domains: Domains) -> None:
    server, client = domains.process("xen_calls.py", 1), domains.process("xen_calls.py", 2)
    ours, theirs = server("xenevtchn_open", None, 0), client("xenevtchn_open", None, 0)
    port = server("xenevtchn_bind_unbound_port", ours, 2)
    assert not server("readable", ours)
    bound = client("xenevtchn_bind_interdomain", theirs, 1, port)
    assert client("readable", theirs)
    assert not server("readable", ours)
    assert client("events", theirs) == [bound]
    assert not client("readable", theirs)
    client("xenevtchn_close", theirs)
    server("xenevtchn_close", ours)


def test_an_event_arrives_at_the_other_end_only(bound: Bound) -> None:
    bound.raise_client()
    assert bound.client_readable()
    assert not bound.server("readable", bound.server_handle)
    assert bound.client_take() == bound.client_port
    bound.client("xenevtchn_notify", bound.client_handle, bound.client_port)
    assert bound.server("events", bound.server_handle) == [bound.server_port]


def test_events_that_nobody_took_coalesce_into_one_more(bound: Bound) -> None:
    for _ in range(5):
        bound.raise_client()
    # The first is queued, the other four are one pending bit.
    assert bound.client("events", bound.client_handle) == [bound.client_port] * 2
    assert not bound.client_readable()


def test_a_taken_port_stays_masked_until_unmask(bound: Bound) -> None:
    bound.raise_client()
    bound.client_take()
    bound.raise_client()
    bound.raise_client()
    assert not bound.client_readable()
    bound.client_unmask()
    assert bound.client_readable()
    bound.client_take()
    bound.client_unmask()
    assert not bound.client_readable()


def test_queued_and_pending_gives_two_reads(bound: Bound) -> None:
    bound.raise_client()
    bound.raise_client()
    bound.client_take()
    assert not bound.client_readable()
    bound.client_unmask()
    bound.client_take()
    bound.client_unmask()
    assert not bound.client_readable()


def test_a_port_that_unmask_queued_again_is_masked(bound: Bound) -> None:
    bound.raise_client()
    bound.client_take()
    bound.raise_client()
    bound.client_unmask()
    bound.raise_client()
    bound.client_take()
    assert not bound.client_readable()
    bound.client_unmask()
    assert bound.client("events", bound.client_handle) == [bound.client_port]


def test_unmask_of_a_port_that_is_not_masked_changes_nothing(bound: Bound) -> None:
    bound.client_unmask()
    bound.client_unmask()
    assert not bound.client_readable()
    bound.raise_client()
    assert bound.client("events", bound.client_handle) == [bound.client_port]


def test_unmask_of_a_queued_port_lets_it_be_queued_again(bound: Bound) -> None:
    bound.raise_client()
    bound.client_unmask()
    bound.raise_client()
    assert bound.client_take() == bound.client_port
    assert bound.client_take() == bound.client_port


def test_unmask_of_a_foreign_port_is_passed_over(bound: Bound) -> None:
    bound.raise_client()
    bound.client_take()
    bound.server("xenevtchn_unmask", bound.server_handle, bound.client_port)
    bound.raise_client()
    assert not bound.client_readable()
    bound.client_unmask()
    assert bound.client("events", bound.client_handle) == [bound.client_port]


def test_pending_blocks_in_read_until_an_event_comes(bound: Bound) -> None:
    fd = bound.client("xenevtchn_fd", bound.client_handle)
    bound.client.start("xenevtchn_pending", bound.client_handle)
    bound.client.wait_until_blocked_in_read(fd)
    bound.raise_client()
    assert bound.client.finish() == bound.client_port


def test_two_ports_of_one_handle_are_told_apart(bound: Bound) -> None:
    port = bound.server("xenevtchn_bind_unbound_port", bound.server_handle, 2)
    other = bound.client("xenevtchn_bind_interdomain", bound.client_handle, 1, port)
    assert bound.client("events", bound.client_handle) == [other]
    bound.server("xenevtchn_notify", bound.server_handle, port)
    bound.raise_client()
    assert bound.client("events", bound.client_handle) == [other, bound.client_port]


def test_notify_through_an_unbound_port_is_dropped(bound: Bound) -> None:
    port = bound.server("xenevtchn_bind_unbound_port", bound.server_handle, 2)
    bound.server("xenevtchn_notify", bound.server_handle, port)
    other = bound.client("xenevtchn_bind_interdomain", bound.client_handle, 1, port)
    assert bound.client("events", bound.client_handle) == [other]


def test_close_of_one_end_is_silent_and_leaves_the_other_unbound(bound: Bound) -> None:
    bound.client("xenevtchn_unbind", bound.client_handle, bound.client_port)
    assert not bound.server("readable", bound.server_handle)
    bound.raise_client()
    again = bound.client("xenevtchn_bind_interdomain", bound.client_handle, 1, bound.server_port)
    assert bound.client("events", bound.client_handle) == [again]
    bound.raise_client()
    assert bound.client("events", bound.client_handle) == [again]


def test_unbound_ports_are_refused(bound: Bound) -> None:
    bound.client("xenevtchn_unbind", bound.client_handle, bound.client_port)
    for call in ("xenevtchn_notify", "xenevtchn_unbind"):
        assert (
            bound.client.fails(call, bound.client_handle, bound.client_port).errno_name
            == "ENOTCONN"
        )


def test_ports_of_another_handle_are_refused(bound: Bound) -> None:
    other = bound.client("xenevtchn_open", None, 0)
    assert bound.client.fails("xenevtchn_notify", other, bound.client_port).errno_name == "ENOTCONN"
    bound.client("xenevtchn_close", other)


def test_bind_is_refused_as_xen_does(bound: Bound, domains: Domains) -> None:
    stranger = domains.process("xen_calls.py", 3)
    handle = stranger("xenevtchn_open", None, 0)
    waiting = bound.server("xenevtchn_bind_unbound_port", bound.server_handle, 2)
    bind = "xenevtchn_bind_interdomain"
    assert stranger.fails(bind, handle, 1, waiting).errno_name == "EINVAL"  # it waits for domain 2
    assert stranger.fails(bind, handle, 9, waiting).errno_name == "ESRCH"  # no such domain
    assert stranger.fails(bind, handle, 3, waiting).errno_name == "EINVAL"  # the own domain
    client, client_handle = bound.client, bound.client_handle
    assert (
        client.fails(bind, client_handle, 1, bound.server_port).errno_name == "EINVAL"
    )  # bound already
    assert client.fails(bind, client_handle, 1, 4000).errno_name == "EINVAL"
    assert client.fails(bind, client_handle, 1, 0).errno_name == "EINVAL"
    unbound = "xenevtchn_bind_unbound_port"
    assert client.fails(unbound, client_handle, 2).errno_name == "EINVAL"  # the own domain
    stranger("xenevtchn_close", handle)


def test_a_port_may_wait_for_a_domain_that_is_not_there_yet(bound: Bound, domains: Domains) -> None:
    port = bound.server("xenevtchn_bind_unbound_port", bound.server_handle, 31)
    late = domains.process("xen_calls.py", 31)
    handle = late("xenevtchn_open", None, 0)
    assert late("xenevtchn_bind_interdomain", handle, 1, port) > 0
    late("xenevtchn_close", handle)


def test_close_frees_the_ports(bound: Bound, domains: Domains) -> None:
    before = domains.world.counts()["ports"]
    handle = bound.server("xenevtchn_open", None, 0)
    for _ in range(3):
        bound.server("xenevtchn_bind_unbound_port", handle, 2)
    assert domains.world.counts()["ports"] == before + 3
    bound.server("xenevtchn_close", handle)
    assert domains.world.counts()["ports"] == before


def test_a_killed_process_loses_its_ports(bound: Bound, domains: Domains) -> None:
    bound.client.kill()
    assert domains.world.counts()["ports"] == 1
    bound.raise_client()
    successor = domains.process("xen_calls.py", 2)
    handle = successor("xenevtchn_open", None, 0)
    successor("xenevtchn_bind_interdomain", handle, 1, bound.server_port)
    successor("xenevtchn_close", handle)


def test_a_process_killed_while_it_blocks_in_read_is_buried(bound: Bound, domains: Domains) -> None:
    fd = bound.client("xenevtchn_fd", bound.client_handle)
    bound.client.start("xenevtchn_pending", bound.client_handle)
    bound.client.wait_until_blocked_in_read(fd)
    bound.client.kill()
    assert domains.world.counts()["handles"] == 1


def test_a_process_killed_inside_a_call_leaves_the_lock(bound: Bound, domains: Domains) -> None:
    # The lock stands behind magic, version and next_handle_id, see guests/loopback/host.h.
    assert bound.client("take_host_lock", 16) == 0
    bound.client.kill()
    bound.raise_client()
    assert domains.world.counts()["handles"] == 1
