"""Cut one initramfs out of the Debian root: runs inside that root, on its own Python.

    python3 cut.py WISHES.json STAGE ARCHIVE

Reads a list of what the image takes (see `contents.py`), adds the shared libraries that the
programs and extensions among it need, and the modules that its kernel modules need, copies all
of it to the folder STAGE and packs that into ARCHIVE (cpio, newc, zstd).

Running inside the root makes `ldd`, symbolic links and the version of Python those of the image.
Only the standard library may be imported here.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Wishes = dict[str, Any]

_TOP_LEVEL_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

_CPIO_OPTIONS = ("--reproducible", "--quiet")


def main() -> None:
    """Cut the image that the command line asks for."""
    wishes_path, stage, archive = (Path(argument) for argument in sys.argv[1:4])
    wishes: Wishes = json.loads(wishes_path.read_text())
    lay_out(stage, wishes)
    pack(stage, archive, wishes["compression"])


def lay_out(stage: Path, wishes: Wishes) -> None:
    """Fill the folder `stage` with the files of the image."""
    stage.mkdir()
    for link, target in _TOP_LEVEL_LINKS.items():
        (stage / target).mkdir(parents=True, exist_ok=True)
        (stage / link).symlink_to(target)
    for folder in wishes["folders"]:
        (stage / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for program in found(wishes["programs"]):
        copy(program, stage)
    for tree in wishes["trees"]:
        copy_tree(Path(tree), stage, wishes["without"])
    for source, target, mode in wishes["files"]:
        place(Path(source), stage / target.lstrip("/"), int(mode))
    copy_modules(stage, wishes["modules"])
    for library in shared_libraries(elf_files(stage)):
        copy(library, stage)
    for link, target in wishes["links"]:
        place_link(stage / link.lstrip("/"), target)


def found(patterns: Iterable[str]) -> Iterator[Path]:
    """Yield the files that each pattern names; a pattern without a file is an error."""
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))
        if not paths:
            sys.exit(f"cut.py: the root has no {pattern}: is a package missing in image.list?")
        yield from (Path(path) for path in paths)


def copy(source: Path, stage: Path) -> None:
    """Copy one file of the root to its place in the image, below /usr also if named /lib."""
    place(source, stage / str(merged(source)).lstrip("/"), source.stat().st_mode & 0o755)


def merged(path: Path) -> Path:
    """Return `path` with /bin, /sbin, /lib and /lib64 spelt as the folders below /usr."""
    first, *rest = path.parts[1:]
    return Path("/", _TOP_LEVEL_LINKS.get(first, first), *rest)


def copy_tree(source: Path, stage: Path, without: list[str]) -> None:
    """Copy a folder of the root but for the names that match a pattern in `without`."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        below = os.path.relpath(folder, source)
        paths = {name: os.path.normpath(os.path.join(below, name)) for name in names}
        return {
            name
            for name, path in paths.items()
            if any(fnmatch.fnmatch(path, pattern) for pattern in without)
        }

    target = stage / str(merged(source)).lstrip("/")
    shutil.copytree(source, target, symlinks=False, ignore=left_out, dirs_exist_ok=True)


def place(source: Path, target: Path, mode: int) -> None:
    """Copy `source` to `target` with its time stamp (byte code is checked against it)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    target.chmod(mode)


def place_link(link: Path, target: str) -> None:
    """Make a symbolic link in the image."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def copy_modules(stage: Path, names: list[str]) -> None:
    """Copy kernel modules and those that they need, with a modules.dep of just these."""
    if not names:
        return
    (home,) = Path("/usr/lib/modules").iterdir()
    needs = {}
    for line in (home / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    by_name = {Path(module).name.split(".")[0].replace("-", "_"): module for module in needs}
    wanted: dict[str, None] = {}
    for name in names:
        path = by_name.get(name.replace("-", "_"))
        if path is None:
            sys.exit(f"cut.py: the kernel has no module {name}")
        wanted.update(dict.fromkeys([path, *needs[path]]))
    for module in wanted:
        copy(home / module, stage)
    listing = "".join(f"{module}: {' '.join(needs[module])}\n" for module in wanted)
    (stage / str(home).lstrip("/") / "modules.dep").write_text(listing)


def elf_files(stage: Path) -> Iterator[Path]:
    """Yield the programs and shared objects in the image."""
    for path in stage.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".ko":
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def shared_libraries(programs: Iterable[Path]) -> list[Path]:
    """Return the shared libraries that the dynamic linker would load for `programs`."""
    listing = subprocess.run(
        ["ldd", *programs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    libraries: set[Path] = set()
    for line in listing.splitlines():
        words = line.split()
        if "not found" in line:
            sys.exit(f"cut.py: {line.strip()}: is a package missing in image.list?")
        libraries.update(Path(word) for word in words if word.startswith("/") and word[-1] != ":")
    return sorted(libraries)


def pack(stage: Path, archive: Path, compression: list[str]) -> None:
    """Pack the folder into a cpio archive, everything owned by root, in a stable order."""
    names = sorted(str(path.relative_to(stage)) for path in stage.rglob("*"))
    with archive.open("wb") as output:
        cpio = subprocess.Popen(
            ["cpio", "--create", "--null", "--format=newc", "--owner=0:0", *_CPIO_OPTIONS],
            cwd=stage,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        packer = subprocess.Popen(compression, stdin=cpio.stdout, stdout=output)
        assert cpio.stdin is not None
        assert cpio.stdout is not None
        cpio.stdout.close()
        cpio.stdin.write("\0".join(names).encode() + b"\0")
        cpio.stdin.close()
        if cpio.wait() or packer.wait():
            sys.exit(f"cut.py: {archive.name} could not be packed")


if __name__ == "__main__":
    main()
