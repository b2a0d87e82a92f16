"""What is committed: scripts, sizes, package lists, and names that belong to one machine only.

Every rule is a function from a tree's root to a list of sentences, one for each breach; each is
also shown a tree that breaks it.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILE_BYTES_MAX = 1 << 20

# A registry is told by its host's name. The words stand apart, so that this file names none.
REGISTRIES = re.compile(
    r"\b(?:[\w-]+\.)*(?:pypi|pythonhosted|debian|ubuntu|npmjs|rubygems|crates|maven|sonatype"
    r"|jfrog|artifactory|nexus|goproxy)(?:\.[\w-]+)*\.(?:org|com|net|io)\b",
    re.IGNORECASE,
)
HOME = re.compile(r"(?<![\w.-])/(?:home|Users)/[A-Za-z_][\w.-]*")
UNFINISHED = re.compile(
    r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b|\|\| tr" r"ue\b"
)
SHELL = re.compile(r"^#!.*\b(?:sh|bash|dash)\b")
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def committed(root: Path) -> Iterator[Path]:
    """The files that git tracks, or all of them where there is no git (a fake tree, a tarball)."""
    if (root / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={root}", "ls-files", "-z"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        paths = [root / name for name in listed.split("\0") if name]
    else:
        paths = sorted(root.rglob("*"))
    # A link's text stands where it points to; a file deleted but not committed has none.
    return (path for path in paths if path.is_file() and not path.is_symlink())


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every committed file that is text."""
    for path in committed(root):
        content = path.read_bytes()
        if b"\0" not in content[:4096]:
            yield str(path.relative_to(root)), content.decode(errors="replace")


def scripts(root: Path) -> Iterator[Path]:
    """Shell scripts, by name or by their first line."""
    for path in committed(root):
        with path.open("rb") as file:
            first = file.readline(200).decode(errors="replace")
        if path.suffix == ".sh" or SHELL.match(first):
            yield path


def shell_faults(root: Path) -> list[str]:
    """What shellcheck says of the shell scripts."""
    found = [str(path) for path in scripts(root)]
    if not found:
        return []
    checker = Path(sys.executable).with_name("shellcheck")
    ran = subprocess.run(
        [str(checker) if checker.exists() else "shellcheck", "--format=gcc", "--", *found],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode in (0, 1), ran.stderr
    return ran.stdout.splitlines()


def large_files(root: Path) -> list[str]:
    """Committed files of 1 MiB and more."""
    return [
        f"{path.relative_to(root)} has {path.stat().st_size} bytes"
        for path in committed(root)
        if path.stat().st_size >= FILE_BYTES_MAX
    ]


def hosts_of_this_machine() -> set[str]:
    """The registries' hosts that this machine's own clients are set up with."""
    urls = [value for name, value in os.environ.items() if name.endswith(("_INDEX_URL", "GOPROXY"))]
    settings = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf"]
    settings.append(Path.home() / ".config/pip/pip.conf")
    for path in settings:
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read(path)
        urls += [value for section in parser.values() for value in section.values()]
    apt = Path("/etc/apt")
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.is_file():
            urls.append(path.read_text(errors="replace"))
    found = re.findall(r"https?://(?:[^@/\s]*@)?([\w.-]+)", "\n".join(urls))
    return {host for host in found if host != "localhost" and not host.startswith("127.")}


def registries_named(root: Path) -> list[str]:
    """Hosts of package registries: the user's own set-up says which registry is asked."""
    own = "|".join(re.escape(host) for host in sorted(hosts_of_this_machine()))
    own_pattern = re.compile(rf"(?<![\w.-])(?:{own})(?![\w-])") if own else None
    wrong = []
    for name, text in texts(root):
        for pattern in filter(None, (REGISTRIES, own_pattern)):
            wrong += [f"{name} names {found.group()}" for found in pattern.finditer(text)]
    return wrong


def homes_named(root: Path) -> list[str]:
    """Paths of somebody's home, or of the place where this checkout happens to lie."""
    places = {str(REPOSITORY), str(REPOSITORY.parent)} - {"/"}
    # The superuser's home is a path inside of every guest too.
    places |= {str(Path.home())} - {"/root"}
    here = "|".join(re.escape(place) for place in sorted(places))
    pattern = re.compile(rf"(?<![\w.~}}-])(?:{here})/") if here else None
    wrong = []
    for name, text in texts(root):
        for each in filter(None, (HOME, pattern)):
            wrong += [f"{name} names {found.group()}" for found in each.finditer(text)]
    return wrong


def unfinished(root: Path) -> list[str]:
    """Marks of work put off, and errors swallowed in scripts."""
    return [
        f"{name} says {found.group()}"
        for name, text in texts(root)
        for found in UNFINISHED.finditer(text)
        if not name.endswith(".md")
    ]


def package_list_faults(root: Path) -> list[str]:
    """Faults in the lists of packages: each group sorted, no name twice, no version asked for."""
    wrong = []
    for path in sorted((root / "guests" / "packages").glob("*.list")):
        seen: set[str] = set()
        before = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.name}:{number}"
            name = line.partition("#")[0].strip()
            if not name:
                # A comment or an empty line opens a group of its own.
                before = ""
                continue
            if not PACKAGE_NAME.fullmatch(name):
                wrong.append(f"{where} is not a package's bare name: {name}")
            if name in seen:
                wrong.append(f"{where} names {name} again")
            if name < before:
                wrong.append(f"{where} {name} stands after {before}")
            seen.add(name)
            before = name
    return wrong


RULES = [
    shell_faults,
    large_files,
    registries_named,
    homes_named,
    unfinished,
    package_list_faults,
]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_committed_keeps(rule: Callable[[Path], list[str]]) -> None:
    assert any(committed(REPOSITORY))
    assert rule(REPOSITORY) == []


def test_every_script_of_the_repository_is_looked_at() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in scripts(REPOSITORY)}
    assert {".ci/run", "guests/packages/install.sh"} <= names


def test_the_repository_has_package_lists() -> None:
    names = {path.name for path in (REPOSITORY / "guests" / "packages").glob("*.list")}
    assert {"machine.list", "image.list"} <= names


BROKEN = [
    (shell_faults, "guests/run.sh", "#!/bin/sh\ncd $1\n"),
    (shell_faults, "guests/without_suffix", "#!/usr/bin/env bash\necho $unset_and_bare\n"),
    (large_files, "docs/picture.bin", "x" * FILE_BYTES_MAX),
    (registries_named, "setup.cfg", "index = https://files.python" + "hosted.org/simple\n"),
    (registries_named, "guests/mirror.sh", "deb http://deb.deb" + "ian.org/debian stable main\n"),
    (homes_named, "README.md", "cd /ho" + "me/ann/vchan-testbed\n"),
    (homes_named, "README.md", f"cd {REPOSITORY}/guests\n"),
    (unfinished, "guests/x.py", "raise NotImplemented" + "Error\n"),
    (unfinished, "guests/x.sh", "umount /x || tr" + "ue\n"),
    (package_list_faults, "guests/packages/x.list", "qemu\nqemu\n"),
    (package_list_faults, "guests/packages/x.list", "xen\nqemu\n"),
    (package_list_faults, "guests/packages/x.list", "qemu=1:8.2\n"),
    (package_list_faults, "guests/packages/x.list", "qemu xen\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_breach_is_seen(
    rule: Callable[[Path], list[str]], path: str, text: str, tmp_path: Path
) -> None:
    clean = tmp_path / "guests" / "packages" / "x.list"
    clean.parent.mkdir(parents=True)
    clean.write_text("# two groups\nqemu\nxen\n\n# the second\ngcc # a compiler\n")
    (tmp_path / "guests" / "good.sh").write_text('#!/bin/sh\nset -eu\ncd "$1"\n')
    assert rule(tmp_path) == []
    broken = tmp_path / path
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text(text)
    assert rule(tmp_path) != []


def test_a_machines_own_registry_is_found_in_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:word@mirror.example.test/simple")
    assert "mirror.example.test" in hosts_of_this_machine()
    (tmp_path / "notes.txt").write_text("see mirror.example.test/simple\n")
    assert registries_named(tmp_path) == ["notes.txt names mirror.example.test"]
