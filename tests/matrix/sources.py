"""What the rows of a sweep depend on: rows of other code are not taken for this one's."""

from __future__ import annotations

import hashlib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("bindings", "guests", "tracer", "validate", "specs", "tests/matrix")
ENDINGS = (".py", ".c", ".h", ".S", ".tla", ".yaml", ".j2", ".java")


def source_key() -> str:
    """Twelve digits of all that makes a run and judges it."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in ENDINGS and path.is_file():
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
