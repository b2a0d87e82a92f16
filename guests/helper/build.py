"""Builds the helper's one file: our modules, pyroute2 and PyYAML, as Python runs them from a zip.

The bytes depend on nothing but the files that go in and the Python that compiles them. Byte code
lies beside each source: an emulated CPU needs 20 s to compile pyroute2. A Python of another
release passes over it and takes the source.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import vchan_testbed
from vchan_testbed.cache import cached, key_of

PACKAGE = Path(vchan_testbed.__file__).parent
OURS = (
    "__init__.py",
    "errors.py",
    "guests/__init__.py",
    "guests/frames.py",
    "guests/ground.py",
    "guests/helper",
)
"""What of our package goes in."""
NOT_NEEDED_THERE = ("build.py", "__pycache__")
LIBRARIES = {"pyroute2": "pyroute2", "yaml": "PyYAML"}
"""Pure Python: package and distribution. PyYAML does without its C part."""
NAME = "helper.pyz"

_OLDEST = (1980, 1, 1, 0, 0, 0)
"""A zip file's earliest time: the true ones would make each build another file."""


def helper_zipapp() -> Path:
    """The helper's file, out of the cache."""
    versions = [f"{name} {version(name)}" for name in LIBRARIES.values()]
    names = [text for name, path in _files() for text in (name, path) if _is_ours(name)]
    key = key_of(Path(__file__), sys.version, *versions, *names)
    return cached("helper", key, lambda place: _write(place / NAME)) / NAME


def build_zipapp(path: Path) -> None:
    """Write the helper's file to `path`."""
    shutil.copyfile(helper_zipapp(), path)


def _is_ours(name: str) -> bool:
    return name.startswith(("vchan_testbed/", "__main__"))


def _write(path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        for inside, source in _files():
            (stage / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, stage / inside)
        # pyroute2's own __init__ loads all of it, and with it sqlite3: modules are named in full.
        (stage / "pyroute2/__init__.py").write_text("")
        # In a process of its own: what else was loaded would show in the byte code.
        compiler = [sys.executable, "-I", "-m", "compileall", "-q", "-b", "-s", name]
        subprocess.run([*compiler, "--invalidation-mode=unchecked-hash", stage], check=True)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(stage.rglob("*")):
                if file.is_file():
                    _add(archive, str(file.relative_to(stage)), file.read_bytes())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _OLDEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _files() -> Iterator[tuple[str, Path]]:
    yield "__main__.py", PACKAGE / "guests/helper/__main__.py"
    for part in OURS:
        yield from _below(PACKAGE / part, f"vchan_testbed/{part}")
    for library in LIBRARIES:
        spec = find_spec(library)
        assert spec is not None
        assert spec.origin is not None
        for name, path in _below(Path(spec.origin).parent, library):
            if path.suffix == ".py":
                yield name, path


def _below(place: Path, name: str) -> Iterator[tuple[str, Path]]:
    if place.is_file():
        yield name, place
        return
    for path in sorted(place.rglob("*")):
        if path.is_file() and not any(part in NOT_NEEDED_THERE for part in path.parts):
            yield f"{name}/{path.relative_to(place)}", path
