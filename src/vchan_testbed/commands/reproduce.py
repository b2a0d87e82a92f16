"""`vchan-testbed reproduce`: lead two real domains through a behaviour that TLC has found."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vchan_testbed.commands.run import HOSTS_HELP, Options, ran
from vchan_testbed.errors import InputError
from vchan_testbed.guests.reproduction import (
    ModelSetting,
    ModelStep,
    Reproduction,
    reproduction_of,
)
from vchan_testbed.progress import Progress, for_terminal
from vchan_testbed.validate.models import check, load_models
from vchan_testbed.validate.tlc.actions import LIBRARY, load_action_map
from vchan_testbed.validate.tlc.behaviour import (
    TlcState,
    read_constants,
    read_states,
    steps_of,
)

ASLEEP = "wait"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


@click.command()
@click.argument("counterexample")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TLC's configuration file of that run: it has the constants, which TLC does not print.",
)
@click.option("--host", default="auto", show_default=True, metavar="HOST", help=HOSTS_HELP)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run directory, new or empty. [default: runs/<date>-<name>-<id>]",
)
@click.option(
    "--write", type=click.Path(path_type=Path), help="Write the experiment, do not run it."
)
@click.pass_context
def reproduce(
    context: click.Context,
    counterexample: str,
    config: Path | None,
    host: str,
    out: Path | None,
    write: Path | None,
) -> None:
    """Lead two domains through COUNTEREXAMPLE, a behaviour of Libxenvchan that TLC has found.

    COUNTEREXAMPLE is a model of the specs, like l1 (TLC looks for its counterexample then), a file
    with what TLC printed, or - for standard input. Each step of the library waits for its turn; the
    run is judged as any other one, and where it cannot follow it says at which step and why.
    """
    progress = for_terminal()
    name, console, constants = _found(counterexample, config, progress)
    made = _translated(name, console, constants)
    _tell(made, progress)
    if write is not None:
        write.write_text(made.text)
        return
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(made.text)
        options = Options(path, host, None, out, None, validate=True)
        status, directory = ran(options, progress)
    unfollowed = (directory.facts().get("schedule") or {}).get("unfollowed")
    if unfollowed:
        state = made.states[unfollowed["step"] - 1]
        click.echo(f"The behaviour is not followed into its state {state}.")
    context.exit(status)


def _found(
    counterexample: str, config: Path | None, progress: Progress
) -> tuple[str, Sequence[str], Mapping[str, str]]:
    """A name, TLC's lines, and the constants. Raises InputError."""
    models = load_models()
    if counterexample in models and not Path(counterexample).exists():
        model = models[counterexample]
        with progress.step(f"Let TLC find the counterexample of the model {model.name}"):
            return model.name, check(model).console, model.constants
    if config is None:
        raise InputError(
            f"{counterexample} is no model of the specs, and a file without its configuration does "
            "not say how large the rings are.",
            next_step="Name TLC's file with --config, or a model: vchan-testbed specs --quick.",
        )
    try:
        text = sys.stdin.read() if counterexample == "-" else Path(counterexample).read_text()
        constants = read_constants(config.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"It cannot be read: {error}.", next_step="Name text files.") from error
    stem = "stdin" if counterexample == "-" else Path(counterexample).stem
    return _NOT_IN_NAMES.sub("-", stem).strip("-.") or "behaviour", text.splitlines(), constants


def _translated(name: str, console: Sequence[str], constants: Mapping[str, str]) -> Reproduction:
    states = list(read_states(console))
    if len(states) < 2:
        raise InputError(
            f"In what TLC printed of {name} there is no behaviour.",
            next_step="Give the output in which TLC says that something is violated.",
        )
    try:
        steps = list(_model_steps(states))
        setting = ModelSetting(
            left_bytes=int(constants["LeftBytes"]),
            right_bytes=int(constants["RightBytes"]),
            index_span=int(constants["IndexSpan"]),
            first_left=int(constants.get("FirstLeft", "0")),
            first_right=int(constants.get("FirstRight", "0")),
        )
        expect = _expected(states[-1], constants)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{name} is no behaviour of the spec Libxenvchan with its constants: {error}.",
            next_step="Give a behaviour of a model of Libxenvchan, and its configuration.",
        ) from error
    return reproduction_of(name, steps, setting, expect)


def _model_steps(states: Sequence[TlcState]) -> Iterator[ModelStep]:
    """The steps with what their calls ask for, by the words of the action map."""
    actions = load_action_map(LIBRARY)
    for state, name, who in steps_of(states):
        action = actions.actions.get(name)
        size, blocks = 0, None
        if action is not None and action.chooses:
            hands_in = action.chooses in actions.hands_in
            asked: Any = state.of("todo" if hands_in else "want", who)
            size = len(asked) if hands_in else int(asked)
            blocks = bool(state.of("blocks", who))
        yield ModelStep(state.number, name, who, size, blocks)


def _expected(last: TlcState, constants: Mapping[str, str]) -> dict[str, Any]:
    """What is due of the run: the deviations that the model has, and whether anybody sleeps."""
    switches = load_action_map(LIBRARY).switches
    known = [name for name in switches if constants.get(name) == "TRUE"]
    at: Any = last.value("at")
    is_asleep = ASLEEP in dict(at).values()
    expect: dict[str, Any] = {"conformance": "KNOWN" if known else "ACCEPTED"}
    expect["progress"] = "STALLED" if is_asleep else "PROGRESS"
    return {**expect, "known": known} if known else expect


def _tell(made: Reproduction, progress: Progress) -> None:
    progress.say(f"{len(made.states)} steps, of states {made.states[0]} to {made.states[-1]}.")
    if made.left_out:
        left_out = ", ".join(f"{step.action} (state {step.state})" for step in made.left_out)
        progress.say(f"Not held, because no record shows them: {left_out}.")
