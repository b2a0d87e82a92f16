"""A guest's initramfs with more files in it: another archive behind the first one.

Linux unpacks one after the other (Documentation/driver-api/early-userspace/buffer-format.rst); each
begins at a multiple of four bytes, and a file of a later one takes the place of an earlier one's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LIBGCC = f"{LIBRARIES}/libgcc_s.so.1"
OWN = "usr/lib/vchan-testbed"
SERVE = f"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin PYTHONPATH=/{OWN}/python:/{OWN}/proxied
exec python3 /{OWN}/listen.py 7117 MODULE
"""
MODE_FILE, MODE_FOLDER = 0o100755, 0o040755
END = "TRAILER!!!"


def guest_with(
    domu: Path, root: Path, program: Path, name: str, module: Path, target: Path
) -> Path:
    """The guests' image `domu` with a program at `name`, what it needs of the Debian root, and a
    module that answers in the agent's place.
    """
    files = {
        name: program.read_bytes(),
        # libxenstore ends its thread, and libc loads this by name for that.
        LIBGCC: (root / LIBGCC).read_bytes(),
        f"{OWN}/serve-agents": SERVE.replace("MODULE", module.stem).encode(),
        f"{OWN}/proxied/{module.name}": module.read_bytes(),
    }
    return extended(domu, {**needed(root, program), **files}, target)


def extended(initramfs: Path, files: Mapping[str, bytes], target: Path) -> Path:
    """`target` becomes `initramfs` and these files, by their paths in the guest."""
    whole = initramfs.read_bytes()
    target.write_bytes(_padded(whole) + b"".join(_entries(files)))
    return target


def needed(root: Path, program: Path) -> dict[str, bytes]:
    """The shared libraries of a Debian root that a program in it needs, and those need."""
    found: dict[str, bytes] = {}
    waiting = [program]
    while waiting:
        listing = subprocess.run(
            ["readelf", "--dynamic", waiting.pop()], capture_output=True, text=True, check=True
        ).stdout
        for line in listing.splitlines():
            if "(NEEDED)" in line:
                name = line.partition("[")[2].rstrip("]")
                path = root / LIBRARIES / name
                place = f"{LIBRARIES}/{name}"
                if path.exists() and place not in found:
                    found[place] = path.read_bytes()
                    waiting.append(path)
    return found


def _entries(files: Mapping[str, bytes]) -> Iterator[bytes]:
    folders = {str(parent) for name in files for parent in Path(name).parents}
    for name in sorted(folders - {"."}):
        yield _entry(name, MODE_FOLDER, b"")
    for name, data in files.items():
        yield _entry(name, MODE_FILE, data)
    yield _entry(END, 0, b"")


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """The format "newc": thirteen numbers of eight hexadecimal digits, name, data."""
    name_bytes = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name_bytes), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(head + name_bytes) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
