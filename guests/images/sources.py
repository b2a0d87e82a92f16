"""Which files of this project go into the images, and where they lie there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import vchan_testbed
from vchan_testbed.guests.helper.build import helper_zipapp
from vchan_testbed.guests.images.contents import OWN

GuestFile = tuple[str, str, int]
"""Path in the work folder, path in the image, mode."""

PACKAGE = Path(vchan_testbed.__file__).parent
_GUESTS = PACKAGE / "guests"
_IMAGES = _GUESTS / "images"
_PYTHON = f"{OWN}/python"

_C_SUFFIXES = {".c", ".h", ".S", ".map"}
_EXTENSION_FOLDERS = ("bindings", "tracer")
_GUEST_PYTHON = (
    "__init__.py",
    "errors.py",
    "bindings",
    "tracer",
    "guests/__init__.py",
    "guests/agent",
    "guests/frames.py",
    "guests/ground.py",
    "guests/workload.py",
)


def extension_inputs() -> list[Path]:
    """Every file that the extensions and the self-test are built from."""
    return [
        _IMAGES / "build_in_root.py",
        *(PACKAGE / name for name in _extension_sources()),
        *_selftest_sources(),
    ]


def lay_out_extension_sources(target: Path) -> None:
    """Copy what `build_in_root.py` builds to the folder `target`."""
    shutil.copyfile(_IMAGES / "build_in_root.py", target / "build_in_root.py")
    for name in _extension_sources():
        _copy(PACKAGE / name, target / "vchan_testbed" / name)
    for path in _selftest_sources():
        _copy(path, target / "selftest" / path.name)


def keep_built_only(target: Path) -> None:
    """Delete from `target` all but the extensions and the self-test."""
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix != ".so" and path.name != "vchan-selftest":
            path.unlink()


def image_inputs() -> list[str | Path]:
    """Every file of ours that decides what is in an image, extensions apart."""
    return [
        helper_zipapp(),
        _IMAGES,
        *(part for name in _guest_python() for part in (str(name), PACKAGE / name)),
    ]


def lay_out_guest_files(work: Path, extensions: Path) -> None:
    """Fill `work` with our files for both images, byte code included."""
    shutil.copyfile(_IMAGES / "cut.py", work / "cut.py")
    for folder in ("common", "dom0", "domu"):
        shutil.copytree(_IMAGES / folder, work / folder)
    for name in _guest_python():
        _copy(PACKAGE / name, work / "python/vchan_testbed" / name)
    for path in extensions.rglob("*.so"):
        _copy(path, work / "python" / path.relative_to(extensions))
    shutil.copyfile(helper_zipapp(), work / "helper.pyz")


def common_files(work: Path) -> list[GuestFile]:
    """What every image holds of ours."""
    python = sorted(path for path in (work / "python").rglob("*") if path.is_file())
    files = [(path, f"{_PYTHON}/{path.relative_to(work / 'python')}", 0o644) for path in python]
    return [(str(path.relative_to(work)), target, mode) for path, target, mode in files] + [
        ("common/functions.sh", f"{OWN}/functions.sh", 0o644),
        ("common/serve-selftest", f"{OWN}/serve-selftest", 0o755),
        ("extensions/vchan-selftest", "/usr/bin/vchan-selftest", 0o755),
    ]


def domu_files(work: Path) -> list[GuestFile]:
    """What the guests' image holds of ours."""
    return [
        *common_files(work),
        ("domu/inittab", "/etc/inittab", 0o644),
        ("domu/start", f"{OWN}/start", 0o755),
        ("domu/serve-agents", f"{OWN}/serve-agents", 0o755),
        ("domu/listen.py", f"{OWN}/listen.py", 0o644),
    ]


def dom0_files(work: Path) -> list[GuestFile]:
    """What dom0's image holds of ours; the guests' kernel and image among it."""
    return [
        *common_files(work),
        *((f"dom0/{name}", f"/etc/{name}", 0o644) for name in ("inittab", "passwd", "group")),
        ("dom0/sshd_config", "/etc/ssh/sshd_config", 0o600),
        ("dom0/xl.conf", "/etc/xen/xl.conf", 0o644),
        ("dom0/host.yaml", "/etc/vchan-testbed/host.yaml", 0o644),
        *(
            (f"dom0/{name}", f"{OWN}/{name}", 0o755)
            for name in ("start", "name-ports", "serve-helper", "serve-shell")
        ),
        ("helper.pyz", f"{OWN}/helper.pyz", 0o644),
        ("vmlinux", f"{OWN}/domu/vmlinuz", 0o644),
        ("domu.initramfs", f"{OWN}/domu/initramfs", 0o644),
    ]


def _guest_python() -> Iterator[Path]:
    for part in _GUEST_PYTHON:
        place = PACKAGE / part
        paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
        yield from (path.relative_to(PACKAGE) for path in paths if not _builds(path))


def _extension_sources() -> Iterator[Path]:
    for folder in _EXTENSION_FOLDERS:
        for path in sorted((PACKAGE / folder).rglob("*")):
            written_here = path.suffix in _C_SUFFIXES and not path.name.startswith("_")
            if written_here or _builds(path) or path.name == "declarations.py":
                yield path.relative_to(PACKAGE)


def _builds(path: Path) -> bool:
    return path.name.startswith("build_") and path.suffix == ".py"


def _selftest_sources() -> list[Path]:
    return sorted((_GUESTS / "selftest").glob("*.[chS]"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
