"""The files that go into the images: shell that shellcheck accepts, none forgotten, stable keys."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import vchan_testbed
from vchan_testbed.cache import key_of
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.images import sources
from vchan_testbed.guests.images.builder import refuse_too_large
from vchan_testbed.guests.images.contents import UNPACKED_MIB_MAX
from vchan_testbed.guests.images.root import read_package_list

GUESTS = Path(vchan_testbed.__file__).parent / "guests"
IMAGES = GUESTS / "images"
PACKAGES = GUESTS / "packages"


def shell_files() -> list[Path]:
    """Every shell file below guests/."""
    return sorted(
        path
        for path in GUESTS.rglob("*")
        if path.is_file() and path.read_bytes()[:9] == b"#!/bin/sh"
    )


def test_shellcheck_accepts_every_shell_file() -> None:
    assert len(shell_files()) >= 8
    checked = subprocess.run(
        ["shellcheck", "--external-sources", *shell_files()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_shell_files_that_are_started_can_be() -> None:
    read_only_by_others = {IMAGES / "common/functions.sh"}
    for path in set(shell_files()) - read_only_by_others:
        assert path.stat().st_mode & 0o111, f"{path} is not executable"


def test_every_file_of_the_image_folders_is_in_an_image(tmp_path: Path) -> None:
    (tmp_path / "python").mkdir()
    placed = {name for name, _, _ in sources.dom0_files(tmp_path) + sources.domu_files(tmp_path)}
    for folder in ("common", "dom0", "domu"):
        for path in (IMAGES / folder).iterdir():
            if path.name != "__pycache__":
                assert f"{folder}/{path.name}" in placed


@pytest.mark.parametrize("name", ["machine.list", "image.list"])
def test_package_lists_name_each_package_once(name: str) -> None:
    packages = read_package_list(PACKAGES / name)
    assert packages
    assert len(set(packages)) == len(packages)
    assert all(" " not in package for package in packages)


def test_xen_itself_stays_off_the_machine() -> None:
    for package in read_package_list(PACKAGES / "machine.list"):
        assert not package.startswith(("xen-hypervisor", "xen-utils", "xen-system"))


@pytest.fixture
def package_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that may be changed, in the place of the real one."""
    real = Path(vchan_testbed.__file__).parent
    copy = tmp_path / "vchan_testbed"
    shutil.copytree(
        real, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so", "validate", "specs")
    )
    monkeypatch.setattr(sources, "PACKAGE", copy)
    return copy


def keys() -> tuple[str, str]:
    """The keys' parts that come from our files: extensions, images."""
    return key_of(*sources.extension_inputs()), key_of(*sources.image_inputs())


def test_keys_are_stable(package_copy: Path) -> None:
    assert package_copy.is_dir()
    assert keys() == keys()


def test_python_changes_the_images_and_not_the_extensions(package_copy: Path) -> None:
    extensions, images = keys()
    (package_copy / "guests/agent/worker.py").write_text("print()\n")
    assert keys()[0] == extensions
    assert keys()[1] != images


def test_c_changes_the_extensions(package_copy: Path) -> None:
    extensions, _ = keys()
    with (package_copy / "bindings/declarations.py").open("a") as file:
        file.write("# changed\n")
    assert keys()[0] != extensions


def test_a_renamed_module_changes_the_images(package_copy: Path) -> None:
    _, images = keys()
    agent = package_copy / "guests/agent"
    (agent / "worker.py").rename(agent / "labourer.py")
    assert keys()[1] != images


def test_what_cffi_writes_is_no_input(package_copy: Path) -> None:
    extensions, images = keys()
    (package_copy / "bindings/_vchan.c").write_text("/* written by cffi */\n")
    assert keys() == (extensions, images)


def test_an_image_that_no_guest_has_room_for_is_refused(tmp_path: Path) -> None:
    """Each file takes whole pages, and a link none."""
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder/large").open("wb") as file:
        file.truncate((UNPACKED_MIB_MAX << 20) - 4096)
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "link").symlink_to("folder/large")
    refuse_too_large(tmp_path)
    (tmp_path / "one more").write_bytes(b"x")
    with pytest.raises(TestbedError, match=r"unpacks to 42\.0 MiB, and there is room for 42"):
        refuse_too_large(tmp_path)
