"""The package: a source archive, a wheel out of it, and a run from what the wheel holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = Path("src/vchan_testbed")
PROGRAM = "from vchan_testbed.cli import main; main(prog_name='vchan-testbed')"
BUILD = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"
SECONDS_MAX = 600


def committed() -> list[str]:
    """What git tracks below `src`, by the names that a package has: links followed."""
    folders = [PACKAGE, *(place.resolve() for place in (REPOSITORY / PACKAGE).iterdir())]
    names = []
    for folder in folders:
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z", "--", str(folder)],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        names += [name for name in listed.split("\0") if (REPOSITORY / name).is_file()]
    inside = {name if name.startswith("src/") else f"{PACKAGE}/{name}" for name in names}
    return sorted(name.removeprefix("src/") for name in inside if not is_link(name))


def is_link(name: str) -> bool:
    """A folder's link: what is in it is listed by itself."""
    return (REPOSITORY / name).is_symlink()


def build(kind: str, source: Path, target: Path) -> Path:
    """Build an archive as pip does, with the build requirements that are here."""
    target.mkdir()
    subprocess.run(
        [sys.executable, "-c", BUILD.format(kind), str(target)],
        cwd=source,
        check=True,
        timeout=SECONDS_MAX,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = target.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive of what is committed."""
    folder = tmp_path_factory.mktemp("package")
    checkout = folder / "checkout"
    for name in ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"]:
        place = checkout / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((REPOSITORY / name).read_bytes())
    for name in committed():
        place = checkout / "src" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        original = REPOSITORY / "src" / name
        place.write_bytes(original.read_bytes())
        place.chmod(original.stat().st_mode)
    with tarfile.open(build("build_sdist", checkout, folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return build("build_wheel", source, folder / "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            archive.extract(entry, folder)
            (folder / entry.filename).chmod((entry.external_attr >> 16) & 0o777 or 0o644)
    return folder


def test_the_wheel_holds_every_file_and_the_three_libraries(wheel: Path, installed: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert sorted(set(committed()) - names) == []
    ours = {name for name in names if ".dist-info/" not in name}
    built = sorted(re.sub(r"\..*", "", name) for name in ours - set(committed()))
    libraries = ("bindings/_vchan", "tracer/_core", "tracer/_preload")
    assert built == [f"vchan_testbed/{name}" for name in libraries]
    for name in committed():
        original = REPOSITORY / "src" / name
        assert os.access(installed / name, os.X_OK) == os.access(original, os.X_OK), name


def test_a_run_from_the_wheel_is_made_and_judged(installed: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", "--host", "loopback", "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("ACCEPTED and PROGRESS, as expected\n")
    assert (tmp_path / "run" / "report.html").exists()
    where = subprocess.run(
        [sys.executable, "-c", "import vchan_testbed as p; print(p.__file__)"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(installed))


def test_what_builds_it_here_is_what_pip_would_fetch() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in wanted:
        name, _, version = requirement.partition("==")
        assert metadata.version(name) == version
