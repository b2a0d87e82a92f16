"""Builds the images in three stages, each kept in the cache under the hash of its inputs.

1. root: a Debian root (minutes, once for a package list).
2. extensions: the cffi extensions and the self-test, built in that root for its own libxenvchan
   and its own Python (again when their sources change).
3. images: Xen, the kernel, and the two initramfs archives (again when any file in them changes).
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from vchan_testbed.cache import cache_dir, cached, key_of
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.images import contents, sources
from vchan_testbed.guests.images.kernel import elf_of_bzimage
from vchan_testbed.guests.images.root import (
    LEFT_OUT,
    SUITE,
    make_root,
    read_package_list,
    run_in_root,
)
from vchan_testbed.progress import Progress

_HERE = Path(__file__).resolve().parent
_PACKAGE_LIST = _HERE.parent / "packages" / "image.list"
ROOTS_KEPT_MAX = 2

# The guest's archive is unpacked by an emulated CPU: fast to unpack counts, not small.
_COMPRESSION = ["zstd", "-3", "--quiet", "--stdout"]

PAGE_BYTES = 4096
# Byte code that is never compared with its source: an emulated CPU compiles slowly.
_COMPILE = ["python3", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
_COMPILE += ["/mnt/python"]


@dataclass(frozen=True)
class Images:
    """The files that a test bed boots from."""

    key: str
    """Hash of everything that went in."""
    xen: Path
    """The hypervisor, a raw ELF file (QEMU's multiboot loader takes no other)."""
    kernel: Path
    """Linux for dom0 and for the guests, unpacked: emulated CPUs unpack slowly."""
    dom0: Path
    """dom0's initramfs; it holds the kernel and the guests' initramfs as well."""
    domu: Path
    """The guests' initramfs."""
    versions: dict[str, str]
    """Debian package -> version, for what matters in a run's record."""


def build(progress: Progress) -> Images:
    """Return the images, built as far as the cache lacks them.

    Raises TestbedError that says what is missing on this machine.
    """
    packages, root_key = _root_inputs()
    with progress.step(f"Debian {SUITE} root for the guest images"):
        root = cached(
            "root",
            root_key,
            lambda target: make_root(target, packages),
            kept_max=ROOTS_KEPT_MAX,
            on_wait=lambda: progress.note("another run is making it"),
        )

    extensions_key = key_of(root_key, *sources.extension_inputs())
    with progress.step("Extensions for the guest images"):
        extensions = cached(
            "extensions",
            extensions_key,
            lambda target: _build_extensions(root, target),
            on_wait=lambda: progress.note("another run is making them"),
        )

    key = key_of(extensions_key, *sources.image_inputs())
    with progress.step("Guest images"):
        place = cached(
            "images",
            key,
            lambda target: _build_images(root, extensions, target),
            on_wait=lambda: progress.note("another run is making them"),
        )
    return _images_at(place, key)


def kept_root() -> Path | None:
    """The Debian root of the images if the cache has it: what takes long is then done."""
    place = cache_dir() / "root" / _root_inputs()[1]
    return place if place.is_dir() else None


def _root_inputs() -> tuple[tuple[str, ...], str]:
    packages = read_package_list(_PACKAGE_LIST)
    return packages, key_of(SUITE, *sorted(packages), *LEFT_OUT)


def _images_at(place: Path, key: str) -> Images:
    return Images(
        key=key,
        xen=place / "xen",
        kernel=place / "vmlinux",
        dom0=place / "dom0.initramfs",
        domu=place / "domu.initramfs",
        versions=json.loads((place / "versions.json").read_text()),
    )


def _build_extensions(root: Path, target: Path) -> None:
    sources.lay_out_extension_sources(target)
    run_in_root(root, target, ["python3", "/mnt/build_in_root.py"])
    sources.keep_built_only(target)


def _build_images(root: Path, extensions: Path, target: Path) -> None:
    work = target / "work"
    work.mkdir()
    shutil.copytree(extensions, work / "extensions")
    with gzip.open(root / f"boot/xen-{contents.XEN}-amd64.gz") as packed:
        (target / "xen").write_bytes(packed.read())
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (target / "vmlinux").write_bytes(elf_of_bzimage(kernel))

    sources.lay_out_guest_files(work, extensions)
    run_in_root(root, work, _COMPILE)
    _cut(root, work, "domu", contents.DOMU, sources.domu_files(work))
    shutil.copyfile(target / "vmlinux", work / "vmlinux")
    _cut(root, work, "dom0", contents.DOM0, sources.dom0_files(work))
    for name in ("domu.initramfs", "dom0.initramfs"):
        (work / name).rename(target / name)
    (target / "versions.json").write_text(json.dumps(_versions(root, work), indent=1))
    shutil.rmtree(work)


def _cut(
    root: Path,
    work: Path,
    name: str,
    wishes: contents.Contents,
    files: list[tuple[str, str, int]],
) -> None:
    (work / f"{name}.json").write_text(
        json.dumps(
            {
                **asdict(wishes),
                "files": [(f"/mnt/{source}", target, mode) for source, target, mode in files],
                "compression": _COMPRESSION,
            }
        )
    )
    inside = [f"/mnt/{name}.json", f"/mnt/{name}.stage", f"/mnt/{name}.initramfs"]
    run_in_root(root, work, ["python3", "/mnt/cut.py", *inside])
    if name == "domu":
        refuse_too_large(work / f"{name}.stage")
    shutil.rmtree(work / f"{name}.stage")


def refuse_too_large(stage: Path) -> None:
    """Raise TestbedError if what is in the folder does not fit into the smallest guest's memory."""
    files = (path for path in stage.rglob("*") if path.is_file() and not path.is_symlink())
    pages = sum(-(-path.stat().st_size // PAGE_BYTES) for path in files)
    mib = pages * PAGE_BYTES / (1 << 20)
    if mib > contents.UNPACKED_MIB_MAX:
        raise TestbedError(
            f"The guests' image unpacks to {mib:.1f} MiB, and there is room for "
            f"{contents.UNPACKED_MIB_MAX}.",
            next_step="Take something out of it: guests/images/contents.py.",
        )


def _versions(root: Path, work: Path) -> dict[str, str]:
    names = [
        f"xen-hypervisor-{contents.XEN}-amd64",
        f"libxenmisc{contents.XEN}",
        "linux-image-amd64",
        "python3",
    ]
    form = "--showformat=${Package} ${Version}\n"
    listing = run_in_root(root, work, ["dpkg-query", "--show", form, *names])
    return dict(line.split(" ", 1) for line in listing.splitlines())
