"""What the documents say: their links lead somewhere, and what they quote is what one sees.

Every rule is a function from a tree's root to a list of sentences, one for each breach; each is
also shown a tree that breaks it.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vchan_testbed.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = "vchan-testbed"
NOT_OURS = {".git", ".venv", "build", "dist", "runs", "node_modules", ".pytest_cache"}

FENCE = re.compile(
    r"^(?P<mark>```+)[^\n]*\n(?P<body>.*?)^(?P=mark)[ \t]*$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(?P<target>\S+)", re.MULTILINE)
CODE = re.compile(r"`(?P<text>[\w.*-]+/[^`\n]*)`")
HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*\s*$", re.MULTILINE)


def documents(root: Path) -> Iterator[Path]:
    """Every Markdown file of the project."""
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name not in NOT_OURS)
        for name in sorted(files):
            if name.endswith(".md"):
                yield Path(folder) / name


def prose(text: str) -> str:
    """The text without what is quoted as code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(path: Path) -> set[str]:
    """The names under which a document's headings can be linked to."""
    names: set[str] = set()
    for found in HEADING.finditer(FENCE.sub("", path.read_text())):
        plain = re.sub(r"[^\w\- ]", "", found["text"].replace("`", "").lower())
        names.add(plain.replace(" ", "-"))
    return names


def broken_links(root: Path) -> list[str]:
    """Links within the repository that lead nowhere."""
    wrong = []
    for path in documents(root):
        text = prose(path.read_text())
        for found in [*LINK.finditer(text), *REFERENCE.finditer(text)]:
            target, _, anchor = found["target"].partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            there = (path.parent / target).resolve() if target else path
            missing = not there.exists() or not there.is_relative_to(root.resolve())
            lost = bool(anchor) and there.suffix == ".md" and anchor not in anchors(there)
            if missing or lost:
                wrong.append(f"{path.relative_to(root)} links to {found['target']}")
    return wrong


def paths_that_are_gone(root: Path) -> list[str]:
    """Paths of the repository, written as code, at which there is nothing."""
    wrong = []
    for path in documents(root):
        for found in CODE.finditer(FENCE.sub("", path.read_text())):
            top, _, below = found["text"].partition("/")
            if (
                not below
                or top in NOT_OURS
                or not (root / top).is_dir()
                or re.search(r"[\s<>{}…]", below)
            ):
                continue
            if not any(root.glob(found["text"].rstrip("/"))):
                wrong.append(f"{path.relative_to(root)} names {found['text']}")
    return wrong


def commands_quoted(path: Path) -> Iterator[tuple[list[str], str]]:
    """The commands of ours in a document's code blocks, each with what is shown below it."""
    for block in FENCE.finditer(path.read_text()):
        shown: list[str] = []
        words: list[str] = []
        for line in block["body"].splitlines():
            call = re.match(rf"(?:\$ |# )?(?:\.venv/bin/)?{COMMAND}\b(.*)", line)
            if call is None:
                shown.append(line)
                continue
            if words:
                yield words, "\n".join(shown).strip()
            shown, words = [], [COMMAND, *shlex.split(call[1], comments=True)]
        if words:
            yield words, "\n".join(shown).strip()


def stale_help(root: Path) -> list[str]:
    """Help texts in the documents that differ from what the command prints."""
    return [
        f"{path.relative_to(root)} shows other help texts than the command prints; "
        "`python tests/project/test_structure_docs.py` writes them anew"
        for path in documents(root)
        if with_the_help_of_today(path.read_text()) != path.read_text()
    ]


def with_the_help_of_today(text: str) -> str:
    """A document with every quoted help text as the command prints it."""

    def quoted(block: re.Match[str]) -> str:
        first = block["body"].partition("\n")[0]
        words = shlex.split(first.removeprefix("$ "))
        if words[:1] != [COMMAND] or words[-1:] != ["--help"]:
            return block[0]
        opening = block[0].partition("\n")[0]
        return f"{opening}\n{first}\n{help_of(words[1:])}\n{block['mark']}"

    return FENCE.sub(quoted, text)


def help_of(arguments: list[str]) -> str:
    """What the command prints on a terminal of 80 columns."""
    ran = CliRunner().invoke(main, arguments, prog_name=COMMAND, terminal_width=80)
    return "\n".join(line.rstrip() for line in ran.output.strip().splitlines())


def unknown_options(root: Path) -> list[str]:
    """Commands in the documents that name a subcommand or an option which does not exist."""
    wrong = []
    for path in documents(root):
        for words, _ in commands_quoted(path):
            command: click.Command = main
            known = {"--help"}
            for word in itertools.takewhile(lambda word: word != "--", words[1:]):
                if isinstance(command, click.Group) and not word.startswith("-"):
                    if word not in command.commands:
                        wrong.append(f"{path.relative_to(root)}: no command {' '.join(words)}")
                        break
                    command = command.commands[word]
                    known |= {name for param in command.params for name in param.opts}
                elif word.startswith("--") and word.partition("=")[0] not in known:
                    wrong.append(f"{path.relative_to(root)}: no {word} in {' '.join(words)}")
    return wrong


def unquoted_commands(root: Path) -> list[str]:
    """Subcommands whose help no document shows."""
    quoted = {" ".join(words) for path in documents(root) for words, _ in commands_quoted(path)}
    return [name for name in every_command(main, COMMAND) if f"{name} --help" not in quoted]


def every_command(command: click.Command, name: str) -> Iterator[str]:
    """The command and all below it."""
    yield name
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from every_command(each, f"{name} {below}")


RULES = [broken_links, paths_that_are_gone, stale_help, unknown_options, unquoted_commands]


@pytest.mark.parametrize("rule", RULES)
def test_the_documents_keep(rule: Callable[[Path], list[str]]) -> None:
    assert any(documents(REPOSITORY))
    assert rule(REPOSITORY) == []


BROKEN = [
    (broken_links, "See [it](docs/gone.md).\n"),
    (broken_links, "See [it](other.md#no-such-heading).\n"),
    (broken_links, "See [it](#no-such-heading).\n"),
    (broken_links, "See [it][ref].\n\n[ref]: gone.md\n"),
    (broken_links, "![picture](gone.svg)\n"),
    (broken_links, "See [it](../../../../etc/passwd).\n"),
    (paths_that_are_gone, "Look into `docs/gone.py`.\n"),
    (paths_that_are_gone, "Look into `docs/*.rst`.\n"),
    (stale_help, f"```console\n$ {COMMAND} --help\nUsage: something else\n```\n"),
    (unknown_options, f"```sh\n{COMMAND} no-such-command\n```\n"),
    (unknown_options, f"```sh\n{COMMAND} run --no-such-option 1\n```\n"),
]


@pytest.mark.parametrize(("rule", "text"), BROKEN)
def test_a_breach_is_seen(rule: Callable[[Path], list[str]], text: str, tmp_path: Path) -> None:
    good = (
        "# A title: `one`, two\n\nSee [it](other.md#a-title-one-two), [here](#a-title-one-two),\n"
        "[far](https://example.test/x) and `[not](a-link)`.\n\n"
        "`docs/`, `docs/there.py`, `docs/*.py`, `docs/<name>.py`, `elsewhere/x.py`\n\n"
        f"```console\n$ {COMMAND} --help\n{help_of(['--help'])}\n```\n"
        f"```sh\n{COMMAND} run --host loopback --seed 3\n```\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "there.py").write_text("")
    (tmp_path / "other.md").write_text(good)
    assert rule(tmp_path) == []
    (tmp_path / "broken.md").write_text(text)
    assert rule(tmp_path) != []


def test_a_command_that_no_document_shows_is_seen(tmp_path: Path) -> None:
    (tmp_path / "only.md").write_text(f"```console\n$ {COMMAND} run --help\n...\n```\n")
    missing = unquoted_commands(tmp_path)
    assert f"{COMMAND} validate" in missing
    assert f"{COMMAND} run" not in missing


if __name__ == "__main__":
    for document in documents(REPOSITORY):
        text = document.read_text()
        if with_the_help_of_today(text) != text:
            document.write_text(with_the_help_of_today(text))
