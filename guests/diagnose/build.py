"""Builds `diagnose` as one file, which Python 3.11 or newer runs with nothing else installed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import vchan_testbed

PACKAGE = Path(vchan_testbed.__file__).parent
OURS = (
    "__init__.py",
    "errors.py",
    "guests/__init__.py",
    "guests/diagnose",
    "specs/places.json",
)
"""What of our package goes in."""
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""A zip file's earliest time: the true ones would make each build another file."""


def build_zipapp(path: Path) -> None:
    """Write the file; the same bytes each time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in _files():
            entry = zipfile.ZipInfo(name, _OLDEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, source.read_bytes())


def _files() -> Iterator[tuple[str, Path]]:
    yield "__main__.py", PACKAGE / "guests/diagnose/__main__.py"
    for part in OURS:
        place = PACKAGE / part
        paths = sorted(place.glob("*.py")) if place.is_dir() else [place]
        for path in paths:
            yield f"vchan_testbed/{path.relative_to(PACKAGE)}", path
