"""The cache: keys, two processes at once, and builds that do not come to their end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from vchan_testbed.cache import cache_dir, cached, discard, key_of, locked
from vchan_testbed.errors import InputError, TestbedError

USER = Path(__file__).resolve().parents[1] / "processes" / "cache_user.py"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_variable_names_the_folder(own_cache: Path) -> None:
    assert cache_dir() == own_cache
    assert own_cache.is_dir()


def test_without_it_the_xdg_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VCHAN_TESTBED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "vchan-testbed"


def test_a_folder_that_cannot_be_made_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(TestbedError) as error:
        cache_dir()
    assert "VCHAN_TESTBED_CACHE" in error.value.next_step


def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "kind").write_text("a file where a folder should be")
    with pytest.raises(TestbedError) as raised:
        cached("kind", "key", lambda folder: None)
    assert str(own_cache / "kind") in raised.value.message
    assert raised.value.next_step


def test_a_full_disk_is_not_the_fault_of_what_is_built(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(own_cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))

    def compile_it(folder: Path) -> None:
        raise TestbedError("The compiler failed.", next_step="Mend the sources.")

    def refuse(folder: Path) -> None:
        raise InputError("The wrong sources.")

    with pytest.raises(TestbedError, match=f"{own_cache} has no room left") as raised:
        cached("kind", "key", compile_it)
    assert "VCHAN_TESTBED_CACHE" in raised.value.next_step
    with pytest.raises(InputError, match="wrong sources"):
        cached("kind", "key", refuse)
    assert not list((own_cache / "kind").glob("*.part"))


def test_an_entry_is_built_once() -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "it").write_text("whole")

    first = cached("kind", "key", build)
    assert cached("kind", "key", build) == first
    assert len(built) == 1
    assert (first / "it").read_text() == "whole"


def test_the_key_depends_on_every_part_and_where_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.c"
    file.write_text("1")
    keys = {key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of(b"ab", file), key_of(file)}
    file.write_text("2")
    keys.add(key_of(file))
    (tmp_path / "b.c").write_text("1")
    keys.add(key_of(tmp_path))
    assert len(keys) == 7


def test_a_build_that_fails_leaves_nothing(own_cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("")
        raise TestbedError("no compiler")

    with pytest.raises(TestbedError, match="no compiler"):
        cached("kind", "key", build)
    assert entries(own_cache) == []


def start(what: str, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(USER), what, str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    both = [start("build", tmp_path / "log") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in both] == ["whole\n", "whole\n"]
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_build_that_is_killed_is_swept_up_by_the_next(own_cache: Path, tmp_path: Path) -> None:
    process = start("die", tmp_path / "log")
    process.communicate("go\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (own_cache / "kind" / "key").exists()
    assert len(entries(own_cache)) == 1, "a temporary folder is left"
    process = start("build", tmp_path / "log")
    assert process.communicate("go\n", timeout=60)[0].split() == ["ready", "whole"]
    assert entries(own_cache) == ["key"]


def test_so_is_one_of_another_key_that_is_never_built_again(
    own_cache: Path, tmp_path: Path
) -> None:
    process = start("die", tmp_path / "log")
    process.communicate("go\n", timeout=60)
    assert len(entries(own_cache)) == 1
    cached("kind", "other", lambda folder: None)
    assert entries(own_cache) == ["other"]


def test_what_another_process_builds_now_is_not_swept_up(own_cache: Path) -> None:
    with locked_entry(own_cache, "slow"):
        (own_cache / "kind" / ".slow.one.part").mkdir()
        cached("kind", "other", lambda folder: None)
        assert entries(own_cache) == [".slow.one.part", "other"]
    cached("kind", "third", lambda folder: None)
    assert entries(own_cache) == ["other", "third"]


@contextmanager
def locked_entry(cache: Path, key: str) -> Iterator[None]:
    """A process that builds an entry holds this lock."""
    (cache / "kind").mkdir(parents=True)
    with locked(cache / "kind" / f".{key}.lock"):
        yield


def test_who_has_to_wait_says_so(tmp_path: Path) -> None:
    building, waits = threading.Event(), threading.Event()

    def build(folder: Path) -> None:
        building.set()
        # It goes on only when the other one has said that it waits.
        assert waits.wait(60)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(cached, "kind", "key", build, on_wait=lambda: None)
        assert building.wait(60)
        second = pool.submit(cached, "kind", "key", build, on_wait=waits.set)
        assert first.result(60) == second.result(60)


def test_the_entries_used_last_stay(own_cache: Path) -> None:
    for number, key in enumerate(["a", "b", "c"]):
        place = cached("kind", key, lambda folder: None, kept_max=3)
        os.utime(place, (number, number))
    cached("kind", "a", lambda folder: None, kept_max=3)
    cached("kind", "d", lambda folder: None, kept_max=3)
    assert entries(own_cache) == ["a", "c", "d"]


def test_what_is_discarded_is_built_anew(own_cache: Path) -> None:
    built: list[Path] = []
    place = cached("kind", "key", built.append)
    discard(place)
    discard(place)
    assert entries(own_cache) == []
    cached("kind", "key", built.append)
    assert len(built) == 2


def entries(cache: Path) -> list[str]:
    """What lies in the cache but for locks."""
    return sorted(p.name for p in (cache / "kind").iterdir() if p.suffix != ".lock")
