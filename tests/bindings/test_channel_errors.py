"""What cannot become a channel: each error names the call, its errno and what to check."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vchan_testbed.bindings import under
from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.bindings.errors import NoDevice, OwnDomain
from vchan_testbed.errors import ExitStatus, InputError

if TYPE_CHECKING:
    from conftest import Domains

PATH = "data/channel"
SERVER_PATH = "/local/domain/1/data/channel"


@pytest.fixture
def no_xen(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is in no domain: neither in Xen's nor on a loopback host."""
    for name in ("VCHAN_LOOPBACK_DIR", "VCHAN_LOOPBACK_DOMID"):
        monkeypatch.delenv(name, raising=False)
    if os.path.exists("/dev/xen/evtchn"):
        pytest.fail("these tests want a machine that is not a Xen domain")


@pytest.mark.usefixtures("no_xen")
def test_a_server_without_xen_names_the_device() -> None:
    with pytest.raises(NoDevice, match="xengntshr_open: /dev/xen/gntalloc") as raised:
        Server(1, PATH, 4096, 4096)
    assert raised.value.errno == errno.ENOENT
    assert "modprobe xen-gntalloc" in raised.value.next_step
    assert raised.value.exit_status == ExitStatus.TESTBED_FAILED


@pytest.mark.usefixtures("no_xen")
def test_a_client_without_xen_names_xenstore() -> None:
    with pytest.raises(NoDevice, match="xs_open: xenstore does not answer") as raised:
        Client(1, SERVER_PATH)
    assert raised.value.errno in (errno.ENOENT, errno.ENODEV, errno.ECONNREFUSED)
    assert "xenbus" in raised.value.next_step


@pytest.mark.usefixtures("no_xen")
def test_the_own_domid_is_unknown_without_xen() -> None:
    assert under.own_domid() is None


@pytest.mark.usefixtures("no_xen")
@pytest.mark.parametrize("sizes", [(0, 4096), (4096, -1), ((1 << 20) + 1, 4096), (4096, 1 << 31)])
def test_ring_sizes_out_of_range_are_refused_first(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"ring_bytes of .* out of range") as raised:
        Server(1, PATH, *sizes)
    assert "1 to 1048576" in raised.value.next_step


@pytest.mark.usefixtures("no_xen")
@pytest.mark.parametrize("path", ["", "data/" + "x" * 45, "data/\0"])
def test_paths_that_the_library_would_cut_are_refused_first(path: str) -> None:
    with pytest.raises(InputError, match="xenstore path"):
        Server(1, path, 4096, 4096)
    with pytest.raises(InputError, match="xenstore path"):
        Client(1, path)


@pytest.mark.usefixtures("no_xen")
def test_the_own_domain_is_refused_before_the_library_is_called() -> None:
    with pytest.raises(OwnDomain, match="Domain 3 is this domain"):
        Server(3, PATH, 4096, 4096, own_domid=3)
    with pytest.raises(OwnDomain, match="Domain 3 is this domain"):
        Client(3, SERVER_PATH, own_domid=3)


def test_the_own_domain_is_found_out_from_xenstore(domains: Domains) -> None:
    remote = domains.process("channel_end.py", 1)
    assert remote("own_domid") == 1
    assert remote.fails("server", 1, PATH, 4096, 4096, True).type == "OwnDomain"
    assert remote.fails("client", 1, SERVER_PATH, True).type == "OwnDomain"


def test_the_longest_path_that_fits_works(domains: Domains) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    path = "/local/domain/1/data/".ljust(49, "x")
    server("server", 2, path, 4096, 4096, True)
    client("client", 1, path, True)
    client("close")
    server("close")


@pytest.mark.parametrize("domid", [2, 0])
def test_a_path_without_keys_is_no_such_path(domains: Domains, domid: int) -> None:
    domains.world.environment(1)
    client = domains.process("channel_end.py", domid)
    error = client.fails("client", 1, SERVER_PATH, True)
    # xenstored tells only dom0 that nothing is there; a guest may not look.
    wanted = errno.ENOENT if domid == 0 else errno.EACCES
    assert (error.type, error.call, error.errno) == ("NoSuchPath", "xs_read", wanted)
    assert "Is the server up, in domain 1" in error.message


def test_keys_for_another_domain_are_no_such_path(domains: Domains) -> None:
    server, stranger = domains.process("channel_end.py", 1), domains.process("channel_end.py", 3)
    domains.world.environment(2)
    server("server", 2, PATH, 4096, 4096, True)
    error = stranger.fails("client", 1, SERVER_PATH, True)
    assert (error.type, error.errno) == ("NoSuchPath", errno.EACCES)
    server("close")


def test_dom0_in_the_place_of_the_peer_is_refused_by_the_port(domains: Domains) -> None:
    server, dom0 = domains.process("channel_end.py", 1), domains.process("channel_end.py", 0)
    domains.world.environment(2)
    server("server", 2, PATH, 4096, 4096, True)
    error = dom0.fails("client", 1, SERVER_PATH, True)
    assert (error.type, error.call) == ("VchanError", "libxenvchan_client_init")
    assert error.errno == errno.EINVAL
    assert "named this domain as its peer" in error.message
    server("close")


def test_a_second_client_at_once_is_refused(domains: Domains) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    second = domains.process("channel_end.py", 2)
    server("server", 2, PATH, 4096, 4096, True)
    client("client", 1, SERVER_PATH, True)
    error = second.fails("client", 1, SERVER_PATH, True)
    assert (error.type, error.errno) == ("VchanError", errno.EINVAL)
    assert "no other client connected" in error.message
    client("close")
    server("close")


def test_keys_of_a_dead_server_are_told_of(domains: Domains) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    server("server", 2, PATH, 4096, 4096, True)
    server.kill()
    domains.world.counts()
    error = client.fails("client", 1, SERVER_PATH, True)
    assert (error.type, error.errno) == ("VchanError", errno.EINVAL)
    assert "left over from a server that died" in error.message
    heir = domains.process("channel_end.py", 1)
    heir("server", 2, PATH, 4096, 4096, True)
    heir("close")


def test_a_domain_that_does_not_exist_is_named(domains: Domains) -> None:
    server, client = domains.process("channel_end.py", 1), domains.process("channel_end.py", 2)
    server("server", 2, PATH, 4096, 4096, True)
    error = client.fails("client", 57, SERVER_PATH, True)
    assert (error.type, error.call) == ("NoSuchDomain", "libxenvchan_client_init")
    assert error.errno == errno.ESRCH
    assert "xl list" in error.message
    server("close")


@pytest.mark.parametrize(
    ("limit", "rings", "pages"),
    [("0", (1024, 2048), 1), ("1", (4096, 1024), 2), ("512", (1 << 20, 1 << 20), 513)],
)
def test_gntallocs_limit_does_not_crash_the_server(
    domains: Domains, limit: str, rings: tuple[int, int], pages: int
) -> None:
    domains.world.environment(2)
    poor = domains.process("channel_end.py", 5, VCHAN_LOOPBACK_GNTALLOC_LIMIT=limit)
    error = poor.fails("server", 2, PATH, *rings, True)
    assert (error.type, error.call) == ("VchanError", "xengntshr_share_pages")
    assert error.errno == errno.ENOSPC
    assert f"{pages} granted pages" in error.message
    assert poor.alive
    just_enough = domains.process("channel_end.py", 5, VCHAN_LOOPBACK_GNTALLOC_LIMIT=str(pages))
    just_enough("server", 2, PATH, *rings, True)
    just_enough("close")


def test_a_path_that_may_not_be_written_is_named(domains: Domains) -> None:
    domains.world.environment(2)
    server = domains.process("channel_end.py", 1)
    error = server.fails("server", 2, "/local/domain/2/data/x", 4096, 4096, True)
    assert (error.type, error.call) == ("VchanError", "libxenvchan_server_init")
    assert error.errno == errno.EACCES
    assert "May this domain write" in error.message


def test_blocking_is_set_whatever_memory_holds(domains: Domains) -> None:
    """Neither init sets it: memory that malloc gives back dirty must not decide."""
    environment = {
        **os.environ,
        **domains.world.environment(1),
        "GLIBC_TUNABLES": "glibc.malloc.perturb=0x55",
    }
    domains.world.environment(2)
    script = (
        "from vchan_testbed.bindings.channel import Server;"
        "server = Server(2, 'data/channel', 4096, 4096, blocking=False);"
        "assert server.read(1) == b'' and server.blocking is False;"
        "server.close()"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=30)
