"""Keeps the cache small: of what is built anew with every change, only the newest few stay."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def keep_newest(entry: Path, count: int) -> None:
    """Mark `entry` as used now; delete all but the `count` entries of its kind used last.

    Who has a deleted file open can go on reading it; who comes too late for one builds it anew.
    """
    with contextlib.suppress(FileNotFoundError):
        os.utime(entry)
    entries = [path for path in entry.parent.iterdir() if path.is_dir() and path.name[0] != "."]
    for old in sorted(entries, key=_used_at, reverse=True)[count:]:
        # Renamed first: nobody finds half an entry.
        grave = old.with_name(f".{old.name}.old.part")
        with contextlib.suppress(OSError):
            old.rename(grave)
            shutil.rmtree(grave)


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0
