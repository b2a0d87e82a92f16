"""xenstore of the loopback host: paths, permissions, transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Domains, Remote

NONE, READ, WRITE = 0, 1, 2


class Store:
    """A process in a domain with an open xenstore handle."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.handle = remote("xs_open", 0)

    def read(self, path: str, transaction: int = 0) -> bytes:
        value = self.remote("read_key", self.handle, transaction, path)
        assert isinstance(value, bytes)
        return value

    def write(self, path: str, value: bytes, transaction: int = 0) -> None:
        self.remote("write_key", self.handle, transaction, path, value)

    def rm(self, path: str, transaction: int = 0) -> None:
        self.remote("xs_rm", self.handle, transaction, path)

    def names(self, path: str, transaction: int = 0) -> list[str]:
        found: list[str] = self.remote("list_keys", self.handle, transaction, path)
        return found

    def share(self, path: str, *entries: tuple[int, int], transaction: int = 0) -> None:
        self.remote("set_permissions", self.handle, transaction, path, entries)

    def begin(self) -> int:
        return int(self.remote("xs_transaction_start", self.handle))

    def end(self, transaction: int, *, abort: bool = False) -> None:
        self.remote("xs_transaction_end", self.handle, transaction, abort)

    def close(self) -> None:
        self.remote("xs_close", self.handle)


def refused(call: Callable[..., object], *arguments: object, **named: object) -> str:
    """The errno's name of a call that must fail."""
    with pytest.raises(Exception, match="xs_") as raised:
        call(*arguments, **named)
    name = getattr(raised.value, "errno_name", "")
    assert isinstance(name, str)
    return name


@pytest.fixture
def stores(domains: Domains) -> Iterator[dict[int, Store]]:
    """xenstore as domains 0 to 3 see it; their data is removed afterwards."""
    found = {domid: Store(domains.process("xen_calls.py", domid)) for domid in range(4)}
    yield found
    for domid in found:
        found[0].rm(f"/local/domain/{domid}/data")
        found[0].remote("xs_mkdir", found[0].handle, 0, f"/local/domain/{domid}/data")
        found[0].share(f"/local/domain/{domid}/data", (domid, NONE))
    for store in found.values():
        store.close()


def test_a_relative_path_starts_at_the_own_home(stores: dict[int, Store]) -> None:
    assert stores[1].read("domid") == b"1"
    assert stores[0].read("domid") == b"0"
    assert stores[2].read("/local/domain/2/domid") == b"2"
    stores[1].write("data/key", b"value")
    assert stores[1].read("/local/domain/1/data/key") == b"value"
    assert stores[0].read("/local/domain/1/data/key") == b"value"


def test_values_are_bytes(stores: dict[int, Store]) -> None:
    every = bytes(range(256))
    stores[1].write("data/key", every)
    assert stores[1].read("data/key") == every
    stores[1].write("data/key", b"")
    assert stores[1].read("data/key") == b""
    assert refused(stores[1].write, "data/key", bytes(4097)) == "ENOSPC"


def test_a_domain_writes_below_its_own_data_only(stores: dict[int, Store]) -> None:
    assert refused(stores[1].write, "elsewhere", b"") == "EACCES"
    assert refused(stores[1].write, "domid", b"9") == "EACCES"
    assert refused(stores[1].write, "/local/domain/2/data/key", b"") == "EACCES"
    assert refused(stores[1].write, "/key", b"") == "EACCES"
    stores[0].write("/local/domain/2/data/key", b"")


def test_missing_is_enoent_only_to_who_may_look(stores: dict[int, Store]) -> None:
    assert refused(stores[1].read, "data/missing") == "ENOENT"
    assert refused(stores[1].read, "missing") == "ENOENT"
    assert refused(stores[0].read, "/local/domain/1/data/missing/key") == "ENOENT"
    # xenstored does not tell a stranger whether a path is there.
    assert refused(stores[2].read, "/local/domain/1/data/missing") == "EACCES"
    assert refused(stores[2].read, "/local/domain/9/data/missing") == "EACCES"


def test_a_key_is_private_until_it_is_shared(stores: dict[int, Store]) -> None:
    path = "/local/domain/1/data/key"
    stores[1].write("data/key", b"value")
    assert refused(stores[2].read, path) == "EACCES"
    stores[1].share("data/key", (1, NONE), (2, READ))
    assert stores[2].read(path) == b"value"
    assert refused(stores[3].read, path) == "EACCES"
    assert refused(stores[2].write, path, b"other") == "EACCES"
    assert refused(stores[2].rm, path) == "EACCES"
    stores[1].share("data/key", (1, READ), (3, WRITE))
    assert stores[2].read(path) == b"value"
    assert refused(stores[3].read, path) == "EACCES"
    stores[3].write(path, b"other")
    assert stores[1].read(path) == b"other"


def test_permissions_are_kept_and_inherited(stores: dict[int, Store]) -> None:
    stores[1].write("data/a/b", b"")
    stores[1].share("data/a", (1, NONE), (2, READ))
    stores[1].write("data/a/c", b"")
    own = stores[1].remote
    assert own("get_permissions", stores[1].handle, "data/a/b") == [[1, NONE]]
    assert own("get_permissions", stores[1].handle, "data/a/c") == [[1, NONE], [2, READ]]
    assert stores[2].read("/local/domain/1/data/a/c") == b""


def test_a_new_key_belongs_to_its_maker_unless_that_is_dom0(stores: dict[int, Store]) -> None:
    path = "/local/domain/1/data/key"
    stores[1].write("data/key", b"")
    stores[1].share("data/key", (1, NONE), (3, WRITE))
    stores[3].write(f"{path}/theirs", b"")
    stores[0].write(f"{path}/made-for-1", b"")
    permissions = stores[0].remote
    handle = stores[0].handle
    assert permissions("get_permissions", handle, f"{path}/theirs") == [[3, NONE], [3, WRITE]]
    assert permissions("get_permissions", handle, f"{path}/made-for-1") == [[1, NONE], [3, WRITE]]


def test_only_the_owner_sets_permissions(stores: dict[int, Store]) -> None:
    path = "/local/domain/1/data/key"
    stores[1].write("data/key", b"")
    assert refused(stores[2].share, path, (2, NONE)) == "EACCES"
    assert refused(stores[1].share, path, (2, NONE)) == "EPERM"  # gives it away
    assert refused(stores[1].share, path) == "EINVAL"
    stores[0].share(path, (2, NONE))
    assert stores[2].read(path) == b""
    assert refused(stores[1].read, path) == "EACCES"


def test_rm_takes_the_whole_subtree(stores: dict[int, Store]) -> None:
    for name in ("data/a", "data/a/b/c", "data/a/d"):
        stores[1].write(name, b"x")
    stores[1].rm("data/a")
    assert refused(stores[1].read, "data/a/b/c") == "ENOENT"
    assert stores[1].names("data") == []
    stores[1].rm("data/a")  # not there any more, but its parent is
    assert refused(stores[1].rm, "data/a/b") == "ENOENT"


def test_directory_lists_the_children(stores: dict[int, Store]) -> None:
    for name in ("data/a", "data/b/c"):
        stores[1].write(name, b"x")
    assert stores[1].names("data") == ["a", "b"]
    assert stores[1].names("data/a") == []
    assert refused(stores[2].names, "/local/domain/1/data") == "EACCES"
    assert refused(stores[1].names, "data/none") == "ENOENT"


@pytest.mark.parametrize(
    "path", ["data/", "data//a", "data/a b", "data/ä", "//", "data/" + "x" * 4000]
)
def test_bad_paths_are_refused(stores: dict[int, Store], path: str) -> None:
    assert refused(stores[1].write, path, b"") == "EINVAL"


def test_a_transaction_is_seen_at_its_end(stores: dict[int, Store]) -> None:
    path = "/local/domain/1/data/key"
    transaction = stores[1].begin()
    stores[1].write("data/key", b"new", transaction)
    stores[1].share("data/key", (1, NONE), (2, READ), transaction=transaction)
    assert stores[1].read("data/key", transaction) == b"new"
    assert refused(stores[1].read, "data/key") == "ENOENT"
    assert refused(stores[2].read, path) == "EACCES"
    stores[1].end(transaction)
    assert stores[2].read(path) == b"new"


def test_an_aborted_transaction_leaves_nothing(stores: dict[int, Store]) -> None:
    stores[1].write("data/old", b"old")
    transaction = stores[1].begin()
    stores[1].write("data/key", b"new", transaction)
    stores[1].rm("data/old", transaction)
    assert stores[1].names("data", transaction) == ["key"]
    stores[1].end(transaction, abort=True)
    assert stores[1].names("data") == ["old"]
    assert refused(stores[1].end, transaction) == "ENOENT"
    assert refused(stores[1].read, "data/old", transaction) == "ENOENT"


@pytest.mark.parametrize("look", ["read", "write"])
def test_a_conflict_is_eagain_and_the_second_try_succeeds(
    stores: dict[int, Store], look: str
) -> None:
    stores[1].write("data/key", b"1")
    transaction = stores[1].begin()
    if look == "read":
        assert stores[1].read("data/key", transaction) == b"1"
    else:
        stores[1].write("data/key", b"2", transaction)
    stores[1].write("data/other", b"mine", transaction)
    stores[0].write("/local/domain/1/data/key", b"3")
    assert refused(stores[1].end, transaction) == "EAGAIN"
    assert stores[1].names("data") == ["key"]
    again = stores[1].begin()
    assert stores[1].read("data/key", again) == b"3"
    stores[1].write("data/other", b"mine", again)
    stores[1].end(again)
    assert stores[1].read("data/other") == b"mine"


def test_a_transaction_that_found_nothing_conflicts_with_a_creation(
    stores: dict[int, Store],
) -> None:
    transaction = stores[1].begin()
    assert refused(stores[1].read, "data/key", transaction) == "ENOENT"
    stores[1].write("data/other", b"", transaction)
    stores[1].write("data/key", b"meanwhile")
    assert refused(stores[1].end, transaction) == "EAGAIN"


def test_transactions_on_different_keys_do_not_conflict(stores: dict[int, Store]) -> None:
    for name in ("data/a", "data/b"):
        stores[1].write(name, b"1")
    first, second = stores[1].begin(), stores[1].begin()
    stores[1].write("data/a", b"2", first)
    stores[1].write("data/b", b"2", second)
    stores[1].end(first)
    stores[1].end(second)
    assert [stores[1].read(name) for name in ("data/a", "data/b")] == [b"2", b"2"]


def test_a_subtree_removed_and_made_anew_in_a_transaction(stores: dict[int, Store]) -> None:
    for name in ("data/a/b", "data/a/c/d"):
        stores[1].write(name, b"old")
    transaction = stores[1].begin()
    stores[1].rm("data/a", transaction)
    stores[1].write("data/a/e", b"new", transaction)
    assert stores[1].names("data/a", transaction) == ["e"]
    assert stores[1].names("data/a") == ["b", "c"]
    stores[1].end(transaction)
    assert stores[1].names("data/a") == ["e"]
