"""libxenvchan as releases of Debian have it, out of their packages, which are not installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from vchan_testbed.cache import cached, key_of


class NotReachable(Exception):
    """Where this machine's packages come from, those of the suite cannot be had."""


APT = Path("/etc/apt")
RELEASE = Path("/etc/os-release")


def library_of(suite: str, package: str) -> Path:
    """The folder with the shared object and its soname; fetched when the cache lacks it.

    The packages come from where this machine's own come from. Raises NotReachable.
    """
    return cached("libraries", key_of(suite, package), lambda to: _fetch(suite, package, to))


def _fetch(suite: str, package: str, folder: Path) -> None:
    work = folder / "work"
    for name in ("lists/partial", "cache/archives/partial", "sources"):
        (work / name).mkdir(parents=True)
    own = _own_suite()
    sources = [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]
    for path in sources:
        if path.suffix in (".list", ".sources") and path.exists() and own in path.read_text():
            text = re.sub(rf"\b{own}\b", suite, path.read_text())
            (work / "sources" / path.name).write_text(text)
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": work / "sources",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update"], work)
    _run([*apt, "download", package], work)
    (archive,) = work.glob("*.deb")
    _run(["dpkg-deb", "--extract", archive.name, "root"], work)
    for found in (work / "root").rglob("libxenvchan.so.*"):
        shutil.move(found, folder / found.name)
    shutil.rmtree(work)


def _own_suite() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)$", RELEASE.read_text(), re.MULTILINE)
    assert found, f"{RELEASE} names no suite"
    return found[1]


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReachable(f"{' '.join(command[-2:])}: {done.stderr.strip()[-500:]}")
