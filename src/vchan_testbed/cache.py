"""The cache: what is expensive to build, built once, outside the repository.

The folder is `$VCHAN_TESTBED_CACHE`, else `vchan-testbed` in the XDG cache folder. An entry is a
directory named after the hash of everything that went into it, so it is never stale and never
edited: it is built in a temporary directory beside its place, under a file lock, and renamed into
place when it is whole. Two runs at once wait for each other; a build that is killed leaves only a
temporary directory, which the next build of that kind sweeps up. Of each kind the entries used last
stay, so that the folder does not grow with every change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from vchan_testbed.errors import TestbedError, refused

KEPT_MAX = 4
"""Of the entries of one kind: enough for two versions of the project side by side."""
_PART = ".part"
_ELSEWHERE = "Set VCHAN_TESTBED_CACHE to a folder that you may write to."
_FREE_BYTES_MIN = 16 << 20


def cache_dir() -> Path:
    """The cache folder, made if it is not there.

    It may be one that can only be read: then what it holds can be used, and no more. Raises
    TestbedError when it cannot be made.
    """
    folder = _cache_place()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TestbedError(
            f"The cache folder {folder} cannot be made: {error.strerror}.", next_step=_ELSEWHERE
        ) from error
    return folder


def key_of(*parts: str | bytes | Path) -> str:
    """Hash of inputs, 32 hexadecimal digits.

    Text and bytes count as they are; a file counts with its name and content, a folder with
    everything below it. Raises OSError for a path that is not there.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for label, content in _contents(part):
                _feed(digest, label.encode())
                _feed(digest, content)
        else:
            _feed(digest, part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:32]


def cached(
    kind: str,
    key: str,
    build: Callable[[Path], None],
    *,
    kept_max: int = KEPT_MAX,
    on_wait: Callable[[], None] = lambda: None,
) -> Path:
    """The entry `kind`/`key`; `build` fills an empty directory when there is none yet.

    The `kept_max` entries of the kind that were used last stay, this one among them. `on_wait` is
    called when another process is building the entry, before that is waited for. What `build`
    raises goes through, and nothing of its work stays. Raises TestbedError when the folder cannot
    be written to, or is full.
    """
    place = cache_dir() / kind / key
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with locked(_lock_of(place.parent, key), on_wait):
                if not place.is_dir():
                    _sweep(place)
                    _build(place, build)
        except OSError as error:
            raise refused(error, place.parent) from error
    _keep_newest(place, kept_max)
    return place


def discard(place: Path) -> None:
    """Delete an entry: whoever wants it builds it anew.

    Who has a file of it open can go on reading it.
    """
    # Renamed first: nobody finds half an entry.
    grave = place.with_name(f".{place.name}.{secrets.token_hex(4)}{_PART}")
    # Another process may have been faster, or the folder can only be read.
    with contextlib.suppress(OSError):
        place.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def _build(place: Path, build: Callable[[Path], None]) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=_PART, dir=place.parent))
    work.chmod(0o755)
    try:
        build(work)
        work.rename(place)
    except BaseException as error:
        full = shutil.disk_usage(place.parent).free < _FREE_BYTES_MIN
        shutil.rmtree(work, ignore_errors=True)
        if full and (type(error) is TestbedError or isinstance(error, OSError)):
            # A compiler or an archiver says it in its own words, and is not to blame.
            raise TestbedError(
                f"The cache folder {cache_dir()} has no room left.",
                next_step="Make room there, or set VCHAN_TESTBED_CACHE to a folder that has some.",
            ) from error
        raise


def _cache_place() -> Path:
    named = os.environ.get("VCHAN_TESTBED_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "vchan-testbed"
    except RuntimeError as error:
        raise TestbedError(f"There is no cache folder: {error}", next_step=_ELSEWHERE) from error


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel lets go of it when the process ends.

    `on_wait` is called if somebody else holds it now.
    """
    with path.open("w") as file:
        if not _lock_at_once(file):
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(place: Path) -> None:
    """Delete what killed processes left of this kind: of any key, as keys come and go.

    The lock on `place` is held by the caller; of other keys only what nobody builds now is taken.
    """
    for left_over in place.parent.glob(f".*{_PART}"):
        key = left_over.name[1:].partition(".")[0]
        if key == place.name:
            shutil.rmtree(left_over, ignore_errors=True)
            continue
        with _lock_of(place.parent, key).open("w") as file:
            if _lock_at_once(file):
                shutil.rmtree(left_over, ignore_errors=True)


def _keep_newest(entry: Path, count: int) -> None:
    """Mark `entry` as used now; delete all but the `count` entries of its kind used last."""
    # A folder that can only be read does not grow.
    with contextlib.suppress(OSError):
        os.utime(entry)
    entries = [path for path in entry.parent.iterdir() if path.is_dir() and path.name[0] != "."]
    for old in sorted(entries, key=_used_at, reverse=True)[count:]:
        discard(old)


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _lock_of(folder: Path, key: str) -> Path:
    return folder / f".{key}.lock"


def _lock_at_once(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_dir():
        yield path.name, path.read_bytes()
        return
    for below in sorted(path.rglob("*")):
        if below.is_file() and "__pycache__" not in below.parts:
            yield str(below.relative_to(path)), below.read_bytes()


def _feed(digest: hashlib._Hash, data: bytes) -> None:
    # The length goes first: otherwise ("ab", "c") and ("a", "bc") would share a key.
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
