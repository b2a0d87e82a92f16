"""What the tests of `vchan-testbed reproduce` share, on the loopback host and on Xen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from vchan_testbed.cli import main
from vchan_testbed.guests.reproduction import BY_THEMSELVES
from vchan_testbed.validate.models import Violates, load_models

PRINTED = Path(__file__).parent / "counterexamples" / "packets_stand_off.txt"
"""What TLC prints of that model, from the violation on."""


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit status and output of a reproduction."""
    ran = CliRunner().invoke(main, ["reproduce", *arguments])
    assert "Traceback" not in ran.output
    return ran.exit_code, ran.output


def config_of(model: str, folder: Path) -> str:
    """TLC's configuration of a model, as a file."""
    path = folder / f"{model}.cfg"
    path.write_text(load_models()[model].config())
    return str(path)


def pinned_steps(model: str) -> list[tuple[str, str]]:
    """Side and action of each step of the pinned counterexample that a record shows."""
    due = load_models()[model].due
    assert isinstance(due, Violates)
    steps = [tuple(step.split(" ")) for step in due.steps]
    return [(side, action) for action, side in steps if action not in BY_THEMSELVES]


def reproduced(
    folder: Path, counterexample: str, *more: str, host: str = "loopback"
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Exit status, run.json and verdict.json."""
    arguments = [counterexample, *more, "--host", host, "--out", str(folder / "run")]
    status, output = invoke(*arguments)
    facts = json.loads((folder / "run/run.json").read_text())
    assert facts["counts"]["before"] == facts["counts"]["after"]
    assert ("is not followed into its state" in output) == bool(facts["schedule"]["unfollowed"])
    return status, facts, json.loads((folder / "run/verdict.json").read_text())
