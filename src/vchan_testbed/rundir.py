"""A run is a directory: all that is needed to judge it again anywhere, without Xen.

    run.json         state, seed, versions, experiment, how it ended
    experiment.yaml  the experiment's file, as it was
    traces/          server.vtrace, client.vtrace
    console/         Xen's, dom0's and the guests' consoles, agents' logs
    verdict.json     report.html   junit.xml

`run.json` says `incomplete` from the first moment on and `complete` when all is collected, and is
replaced as a whole: a run that is killed is seen as such and keeps what it had collected.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vchan_testbed.errors import InputError

FORMAT = 1
ENDPOINTS = ("server", "client")

Facts = dict[str, Any]


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run, and its `run.json`."""

    path: Path

    @property
    def run_json(self) -> Path:
        """Facts of the run."""
        return self.path / "run.json"

    @property
    def experiment(self) -> Path:
        """A copy of the experiment's file."""
        return self.path / "experiment.yaml"

    def trace(self, endpoint: str) -> Path:
        """The trace of "server" or "client"."""
        return self.path / "traces" / f"{endpoint}.vtrace"

    def console(self, name: str) -> Path:
        """The console log `name`."""
        return self.path / "console" / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.log"

    def facts(self) -> Facts:
        """What `run.json` holds. Raises InputError when this is not a run directory."""
        try:
            facts = json.loads(self.run_json.read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path} is not a run directory: {error}",
                next_step="Name the folder that `vchan-testbed run` wrote.",
            ) from error
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise InputError(
                f"{self.run_json} has another format than {FORMAT}",
                next_step="Judge this run with the version of vchan-testbed that made it.",
            )
        return facts

    def update(self, **changes: Any) -> Facts:
        """Change entries of `run.json`, all or none."""
        facts = {**(self.facts() if self.run_json.exists() else {}), **changes}
        write_atomically(self.run_json, json.dumps(facts, indent=2) + "\n")
        return facts


def create_run(out: Path | None, name: str, **facts: Any) -> RunDirectory:
    """Make the directory of a new run; `facts` go into `run.json`, state `incomplete`.

    Without `out` it is runs/<date>-<name>-<four hex digits> in the current folder. Raises
    InputError for a folder that holds something already or cannot be made.
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-") or "run"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = out or Path("runs") / f"{stamp}-{safe}-{secrets.token_hex(2)}"
    try:
        if path.exists() and any(path.iterdir()):
            raise InputError(
                f"{path} is not empty", next_step="Name a new folder: runs are never written over."
            )
        for below in ("traces", "console"):
            (path / below).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the run directory {path} cannot be made: {error.strerror}",
            next_step="Name a folder that you may write to with --out.",
        ) from error
    run = RunDirectory(path)
    run.update(format=FORMAT, state="incomplete", **facts)
    return run


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file with `text`: a reader sees the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
