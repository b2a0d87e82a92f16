"""Who imports whom.

Every rule is a function from a tree's root to a list of sentences, one for each breach. The
repository has none; each rule is also shown a small tree that breaks it, so that a rule which
sees nothing cannot pass.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("bindings", "tracer", "guests", "validate")
PACKAGE = "vchan_testbed"

# What a stage may import of ours besides itself. A name covers what stands below it.
ALLOWED = {
    "errors": (),
    "cache": ("errors",),
    "progress": ("errors",),
    "rundir": ("errors",),
    "bindings": ("errors",),
    "tracer": ("errors", "bindings"),
    "guests": ("errors", "cache", "progress", "rundir", "bindings", "tracer"),
    "validate": (
        "errors",
        "cache",
        "progress",
        "tracer.format",
        "tracer.reader",
        "tracer.header",
        "tracer.layout",
        "tracer.checks",
    ),
}

# What starts in a guest or in dom0, where nothing is installed for us but what is named here.
IN_A_GUEST = {
    "guests.agent": ("cffi", "_cffi_backend"),
    "guests.helper": ("pyroute2", "yaml"),
    "guests.diagnose.main": (),
    "tracer.record": (),
}


@dataclass(frozen=True)
class Import:
    """One import: the module it names, its line, and whether it runs when the file is loaded."""

    name: str
    line: int
    at_load: bool


@dataclass(frozen=True)
class Module:
    """A module of the package, by its name without the package's."""

    name: str
    path: Path
    tree: ast.Module

    def imports(self) -> Iterator[Import]:
        """Every import in the file, but for those that only a type checker sees."""
        yield from _imports(self.tree, at_load=True)

    def strings(self) -> Iterator[str]:
        """Every string that is used: `python -m` and importlib name modules that way."""
        unused = {node.value for node in ast.walk(self.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(self.tree):
            if node in unused or not isinstance(node, ast.Constant):
                continue
            if isinstance(node.value, str):
                yield node.value


def _imports(node: ast.AST, *, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_load)
        elif isinstance(child, ast.ImportFrom):
            yield Import(child.module or "", child.lineno, at_load)
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, at_load)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imports(other, at_load=at_load)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, at_load=at_load and not inside)


def modules(root: Path) -> dict[str, Module]:
    """The package's modules by name; the four linked folders are read where they really are."""
    found = {}
    places = [(root / folder, folder) for folder in FOLDERS]
    places.append((root / "src" / PACKAGE, ""))
    for top, prefix in places:
        for path in sorted(top.rglob("*.py")):
            parts = [prefix, *path.relative_to(top).with_suffix("").parts]
            name = ".".join(part for part in parts if part and part != "__init__")
            found[name] = Module(name, path, ast.parse(path.read_text(), str(path)))
    return found


def ours(name: str) -> str | None:
    """The name below the package, or None for another's module."""
    if name == PACKAGE:
        return ""
    return name.removeprefix(PACKAGE + ".") if name.startswith(PACKAGE + ".") else None


def covers(rule: str, name: str) -> bool:
    """Whether a name is the rule's or stands below it."""
    return name == rule or name.startswith(rule + ".")


def wrong_directions(root: Path) -> list[str]:
    """Imports against the order bindings <- tracer <- guests, and out of validate."""
    wrong = []
    for module in modules(root).values():
        stage = module.name.partition(".")[0]
        allowed = ALLOWED.get(stage)
        if allowed is None:
            continue
        for used in module.imports():
            name = ours(used.name)
            if not name or covers(stage, name) or any(covers(rule, name) for rule in allowed):
                continue
            # `from vchan_testbed.tracer import format`: judged by the longer name.
            if any(rule.startswith(name + ".") for rule in allowed):
                continue
            wrong.append(f"{module.name}:{used.line} imports {name}, which {stage} may not")
    return wrong


def imports_of_the_commands(root: Path) -> list[str]:
    """Imports of cli or commands by anything but them."""
    wrong = []
    for module in modules(root).values():
        if module.name.partition(".")[0] in ("cli", "commands", "__main__"):
            continue
        for used in module.imports():
            if (ours(used.name) or "").partition(".")[0] in ("cli", "commands"):
                wrong.append(f"{module.name}:{used.line} imports {used.name}")
    return wrong


def foreign_imports_in_a_guest(root: Path) -> list[str]:
    """Modules of others that no guest has and that what starts there would load."""
    every = modules(root)
    wrong = []
    for start, allowed in IN_A_GUEST.items():
        roots = [name for name in every if covers(start, name)]
        for name in loaded_by(every, roots):
            for used in every[name].imports():
                top = used.name.partition(".")[0]
                known = top in sys.stdlib_module_names or top in allowed or top == PACKAGE
                # A linked C extension of ours is _something beside its module.
                if used.at_load and not known and top != "__future__":
                    wrong.append(f"{start} loads {name}:{used.line}, which imports {used.name}")
    return wrong


def loaded_by(every: dict[str, Module], roots: list[str]) -> set[str]:
    """The modules of ours that are loaded when the roots are: packages above them as well."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in every:
            continue
        seen.add(name)
        waiting.extend(packages_above(name))
        for used in every[name].imports():
            below = ours(used.name)
            if below is not None and used.at_load:
                waiting.append(below)
    return seen


def packages_above(name: str) -> list[str]:
    """`a.b.c` is loaded after `a` and `a.b`."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def dead_modules(root: Path) -> list[str]:
    """Modules that no entry point reaches by import or by name; tests do not count."""
    every = modules(root)
    by_path = {str(module.path): name for name, module in every.items()}
    alive: set[str] = set()
    waiting = entry_points(root, by_path)
    while waiting:
        name = waiting.pop()
        if name in alive or name not in every:
            continue
        alive.add(name)
        waiting.extend(packages_above(name))
        for used in every[name].imports():
            waiting.append(ours(used.name) or "")
        for text in every[name].strings():
            waiting.extend(named_in(text, root, every[name].path.parent, by_path))
    return [f"nothing reaches {name or PACKAGE}" for name in sorted(set(every) - alive)]


def entry_points(root: Path, by_path: dict[str, str]) -> list[str]:
    """What starts without being imported: scripts, cffi builders, names in files of other kinds."""
    starts = ["", *FOLDERS]
    for path in plain_files(root):
        starts += named_in(path.read_text(errors="replace"), root, path.parent, by_path)
    return starts


def plain_files(root: Path) -> Iterator[Path]:
    """What can start a module without being one: settings, init files, units, Ansible roles."""
    yield from (path for path in (root / "pyproject.toml", root / "setup.py") if path.exists())
    for top in (*FOLDERS, "ansible"):
        for path in (root / top).rglob("*"):
            if path.is_file() and path.suffix in ("", ".sh", ".service", ".j2", ".yml", ".yaml"):
                yield path


def named_in(text: str, root: Path, folder: Path, by_path: dict[str, str]) -> list[str]:
    """The modules that a text names, dotted or by the path of their file.

    A package's name stands also for what `python -m` starts of it. A path counts from the folder
    of the file that has the text, from the package or from the repository.
    """
    names = re.findall(rf"\b{PACKAGE}\.([\w.]*\w)", text)
    names += [f"{name}.__main__" for name in names]
    for found in re.findall(r"[\w/]*\w\.py\b", text):
        below = found.removeprefix(f"src/{PACKAGE}/")
        places = (folder / found, root / below, root / "src" / PACKAGE / below)
        names += [by_path[str(place)] for place in places if str(place) in by_path]
    return names


def undocumented(root: Path) -> list[str]:
    """Public functions, classes and methods, and modules, without a docstring."""
    wrong = []
    for module in modules(root).values():
        if not ast.get_docstring(module.tree) and module.tree.body:
            wrong.append(f"{module.name} has no docstring")
        wrong += [f"{module.name}:{line} {name} has no docstring" for name, line in bare(module)]
    return wrong


def bare(module: Module) -> Iterator[tuple[str, int]]:
    """The public definitions of a module that say nothing of themselves."""
    waiting: list[tuple[str, ast.Module | ast.ClassDef]] = [("", module.tree)]
    while waiting:
        prefix, holder = waiting.pop()
        for node in holder.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
            # A property's setter and an overload speak through their first definition.
            if re.search(r"\boverload\b|\.setter\b", decorators):
                continue
            if not ast.get_docstring(node):
                yield prefix + node.name, node.lineno
            if isinstance(node, ast.ClassDef):
                waiting.append((f"{prefix}{node.name}.", node))


RULES = [
    wrong_directions,
    imports_of_the_commands,
    foreign_imports_in_a_guest,
    dead_modules,
    undocumented,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_repository_keeps(rule: Callable[[Path], list[str]]) -> None:
    assert modules(REPOSITORY), "the package's modules were not found"
    assert rule(REPOSITORY) == []


BROKEN = [
    (wrong_directions, "bindings/raw.py", "import vchan_testbed.tracer.layout\n"),
    (wrong_directions, "tracer/attach.py", "from vchan_testbed.guests import agent\n"),
    (wrong_directions, "guests/hosts/xen.py", "from vchan_testbed.validate import judge\n"),
    (wrong_directions, "validate/merge.py", "from vchan_testbed.tracer.attach import Tracer\n"),
    (wrong_directions, "validate/merge.py", "from vchan_testbed.tracer import attach\n"),
    (wrong_directions, "validate/merge.py", "import vchan_testbed.bindings.raw\n"),
    (wrong_directions, "validate/merge.py", "def f():\n    import vchan_testbed.guests\n"),
    (wrong_directions, "src/vchan_testbed/errors.py", "from vchan_testbed import cache\n"),
    (imports_of_the_commands, "guests/x.py", "from vchan_testbed.commands import run\n"),
    (imports_of_the_commands, "src/vchan_testbed/rundir.py", "from vchan_testbed import cli\n"),
    (foreign_imports_in_a_guest, "guests/agent/x.py", "import numpy as np\n"),
    (foreign_imports_in_a_guest, "guests/agent/x.py", "from vchan_testbed.tracer import reader\n"),
    (foreign_imports_in_a_guest, "tracer/record.py", "from vchan_testbed.tracer import reader\n"),
    (foreign_imports_in_a_guest, "guests/helper/x.py", "try:\n    import jinja2\nfinally: ...\n"),
    (dead_modules, "validate/forgotten.py", '"""Nothing imports this."""\n'),
    (dead_modules, "guests/hosts/cut.py", '"""Not in the folder of who names it."""\n'),
    (dead_modules, "guests/image/sources.py", '"""Names guests/image/cut.py, here only."""\n'),
    (dead_modules, "guests/image/init", "#!/bin/sh\nexec true\n"),
    (dead_modules, "guests/hosts/local.py", '"""Says vchan_testbed.guests.agent.worker."""\n'),
    (undocumented, "tracer/x.py", '"""A module."""\ndef f(): return 1\n'),
    (
        undocumented,
        "tracer/x.py",
        '"""A module."""\nclass C:\n    """C."""\n    def m(self): ...\n',
    ),
    (undocumented, "tracer/x.py", "class _Hidden: ...\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_breach_is_seen(
    rule: Callable[[Path], list[str]], path: str, text: str, tmp_path: Path
) -> None:
    whole_tree(tmp_path)
    assert rule(tmp_path) == []
    broken = tmp_path / path
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text(text)
    assert rule(tmp_path) != []


def test_what_is_allowed_is_not_called_a_breach(tmp_path: Path) -> None:
    whole_tree(tmp_path)
    lazily = '"""Reads."""\nfrom vchan_testbed.tracer import layout\ndef _f():\n    import numpy\n'
    (tmp_path / "guests/agent/worker.py").write_text(lazily)
    typed = '"""M."""\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n'
    (tmp_path / "guests/agent/__init__.py").write_text(typed)
    for rule in RULES:
        assert rule(tmp_path) == []


def whole_tree(root: Path) -> None:
    """A small tree that keeps every rule."""
    files = {
        "pyproject.toml": 'scripts = "vchan_testbed.cli:main"\n',
        "setup.py": 'setup(cffi_modules=["src/vchan_testbed/bindings/build_vchan.py:ffi"])\n',
        "bindings/build_vchan.py": '"""Builds."""\nimport cffi\n',
        "tracer/reader.py": '"""Reads."""\nimport numpy\n',
        "tracer/layout.py": '"""Numbers."""\n',
        "guests/hosts/local.py": '"""Starts."""\nWORKER = "vchan_testbed.guests.agent.worker"\n',
        "guests/image/init": "#!/bin/sh\nexec python3 -m vchan_testbed.guests.agent\n",
        "guests/agent/__main__.py": '"""Starts the agent."""\n',
        "guests/image/sources.py": '"""Copies."""\nFILES = ("cut.py", "domu/listen.py")\n',
        "guests/image/cut.py": '"""Cuts."""\n',
        "guests/image/domu/listen.py": '"""Listens."""\n',
        "guests/agent/__init__.py": '"""The agent."""\nimport json\n',
        "guests/agent/worker.py": '"""Works."""\nfrom vchan_testbed.tracer import layout\n',
        "validate/judge.py": '"""Judges."""\nfrom vchan_testbed.tracer import reader\n',
        "src/vchan_testbed/__init__.py": '"""The package."""\n',
        "src/vchan_testbed/cli.py": '"""The command."""\n'
        "from vchan_testbed.guests.hosts import local\n"
        "from vchan_testbed.guests.image import sources\n"
        "from vchan_testbed.validate import judge\n",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
