"""Watches on the loopback host's xenstore, and what its libxenctrl tells of domains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Domains, Remote

HOME = "/local/domain/1/data"


class Watcher:
    """A process in a domain that watches, with one handle."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.handle = remote("xs_open", 0)

    def watch(self, path: str, token: str) -> None:
        self.remote("xs_watch", self.handle, path, token)
        assert self.next() == [path, token]

    def next(self) -> list[str]:
        found: list[str] = self.remote("read_watch", self.handle)
        return found

    def nothing(self) -> bool:
        with pytest.raises(Exception, match="Resource temporarily unavailable"):
            self.remote("check_watch", self.handle)
        return True

    def write(self, path: str, value: bytes) -> None:
        self.remote("write_key", self.handle, 0, path, value)


@pytest.fixture
def ends(domains: Domains) -> Iterator[tuple[Watcher, Watcher]]:
    """Domain 2, which watches, and domain 1, which writes into its own home."""
    watcher, writer = (Watcher(domains.process("xen_calls.py", domid)) for domid in (2, 1))
    writer.write(f"{HOME}/here", b"")
    yield watcher, writer
    writer.remote("xs_rm", writer.handle, 0, f"{HOME}/here")
    for one in (watcher, writer):
        one.remote("xs_close", one.handle)


def test_a_watch_fires_when_it_is_made_and_then_when_something_changes(
    ends: tuple[Watcher, Watcher],
) -> None:
    watcher, writer = ends
    watcher.watch(f"{HOME}/here", "token")
    assert watcher.nothing()
    writer.write(f"{HOME}/here", b"1")
    assert watcher.next() == [f"{HOME}/here", "token"]
    assert watcher.nothing()


def test_what_is_below_belongs_to_it_and_what_is_beside_does_not(
    ends: tuple[Watcher, Watcher],
) -> None:
    watcher, writer = ends
    watcher.watch(f"{HOME}/here", "t")
    writer.write(f"{HOME}/elsewhere", b"1")
    assert watcher.nothing()
    writer.write(f"{HOME}/here/below/deep", b"1")
    assert watcher.next() == [f"{HOME}/here", "t"]
    writer.remote("xs_rm", writer.handle, 0, f"{HOME}/here/below")
    assert watcher.next() == [f"{HOME}/here", "t"]
    writer.remote("xs_rm", writer.handle, 0, f"{HOME}/elsewhere")


def test_who_waits_is_woken(ends: tuple[Watcher, Watcher]) -> None:
    watcher, writer = ends
    watcher.watch(f"{HOME}/here/later", "t")
    watcher.remote.start("read_watch", watcher.handle)
    writer.write(f"{HOME}/here/later", b"now")
    assert watcher.remote.finish() == [f"{HOME}/here/later", "t"]


def test_several_watches_fire_each_for_itself(ends: tuple[Watcher, Watcher]) -> None:
    watcher, writer = ends
    for token in ("one", "two"):
        watcher.watch(f"{HOME}/here", token)
    writer.write(f"{HOME}/here", b"1")
    assert [watcher.next()[1], watcher.next()[1]] == ["one", "two"]
    watcher.remote("xs_unwatch", watcher.handle, f"{HOME}/here", "one")
    writer.write(f"{HOME}/here", b"2")
    assert watcher.next()[1] == "two"
    assert watcher.nothing()
    with pytest.raises(Exception, match="No such file"):
        watcher.remote("xs_unwatch", watcher.handle, f"{HOME}/here", "one")


def test_a_name_of_a_happening_fires_once(ends: tuple[Watcher, Watcher]) -> None:
    watcher, writer = ends
    watcher.watch("@releaseDomain", "gone")
    writer.write(f"{HOME}/here", b"1")
    assert watcher.nothing()


def test_a_relative_path_is_told_as_it_was_given(ends: tuple[Watcher, Watcher]) -> None:
    _, writer = ends
    writer.watch("data/here", "t")
    writer.write(f"{HOME}/here", b"1")
    assert writer.next() == ["data/here", "t"]


def test_libxenctrl_tells_which_domains_are_there(domains: Domains) -> None:
    for domid in (1, 2):
        domains.process("xen_calls.py", domid)
    remote = domains.process("xen_calls.py", 0)
    assert [remote("first_domain", first) for first in (1, 2, 63)] == [1, 2, -1]
