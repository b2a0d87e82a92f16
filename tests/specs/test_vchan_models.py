"""The models of Vchan.tla in TLC: what holds, what does not, and mutants that must not."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from vchan_testbed.validate.tlc.actions import SPECS, load_action_map
from vchan_testbed.validate.tlc.jar import java, tla2tools
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, TlcOutput, run_tlc

MODELS: dict[str, dict[str, Any]] = yaml.safe_load((SPECS / "models.yaml").read_text())
HOLDING = [name for name, model in MODELS.items() if "holds" in model]
VIOLATED = [name for name, model in MODELS.items() if "violates" in model]

_PROPERTY = re.compile(r"^Error: Invariant (\w+) is violated")
_STATE = re.compile(r"^State (\d+): <")
_TAKEN = re.compile(r"^<(\w+) line .*>: \d+:(\d+)")


@dataclass(frozen=True)
class Checked:
    """What TLC said of a model."""

    output: TlcOutput
    violated: str
    """The property, or empty."""
    states: int
    """States of the counterexample."""
    taken: frozenset[str]
    """Actions that were taken, if coverage was asked for."""


def check(
    folder: Path, config: str, options: Sequence[str] = (), *, short: bool = False
) -> Checked:
    """Check the model MCVchan in `folder` with the configuration there."""
    job = TlcJob(
        folder=folder,
        module="MCVchan",
        config=config,
        library=(SPECS, SPECS / "models"),
        options=("-deadlock", "-fp", "0", *options),
        short=short,
    )
    output = run_tlc(job, Limits(seconds_max=900, heap_mib=1500))
    assert not output.bound
    violated, states, taken = "", 0, set()
    for line in output.console:
        if match := _PROPERTY.match(line):
            violated = match[1]
        elif line.startswith("Error: Temporal properties were violated"):
            # TLC does not name it; a model that is to violate one has only that one.
            violated = _only_temporal_property(folder / config)
        elif (match := _STATE.match(line)) and not line.endswith("Stuttering"):
            states = int(match[1])
        elif (match := _TAKEN.match(line)) and int(match[2]) > 0:
            taken.add(match[1])
    return Checked(output, violated, states, frozenset(taken))


def _only_temporal_property(config: Path) -> str:
    named = re.findall(r"^PROPERT(?:Y|IES)\s+(.*)$", config.read_text(), re.MULTILINE)
    return " ".join(named)


def copied(name: str, folder: Path) -> str:
    """A model's configuration in a folder of its own: TLC leaves files beside it."""
    shutil.copy(SPECS / "models" / f"{name}.cfg", folder)
    shutil.copy(SPECS / "models" / "MCVchan.tla", folder)
    return f"{name}.cfg"


@pytest.mark.parametrize("name", HOLDING)
def test_a_model_holds(name: str, tmp_path: Path) -> None:
    checked = check(tmp_path, copied(name, tmp_path), ("-coverage", "60"))
    output, due = checked.output, MODELS[name]
    assert checked.violated == "", "\n".join(output.console)
    found = {"generated": output.generated, "distinct": output.distinct, "depth": output.depth}
    assert found == due["holds"]
    # A model that never takes an action says nothing about it.
    every = {action.name for action in load_action_map().actions.values() if not action.stutters}
    assert every - checked.taken == set(due["not_taken"])


@pytest.mark.parametrize("name", VIOLATED)
def test_a_model_is_violated(name: str, tmp_path: Path) -> None:
    checked = check(tmp_path, copied(name, tmp_path))
    due = MODELS[name]["violates"]
    assert (checked.violated, checked.states) == (due["property"], due["states"])


def test_the_manifest_has_every_model() -> None:
    assert set(MODELS) == {path.stem for path in (SPECS / "models").glob("*.cfg")}
    assert set(HOLDING) | set(VIOLATED) == set(MODELS)


def test_the_committed_translation_is_that_of_the_algorithm(tmp_path: Path) -> None:
    committed = (SPECS / "Vchan.tla").read_text()
    before, _, rest = committed.partition("\\* BEGIN TRANSLATION")
    after = rest.partition("\\* END TRANSLATION")[2].partition("\n")[2]
    (tmp_path / "Vchan.tla").write_text(
        f"{before}\\* BEGIN TRANSLATION\n\\* END TRANSLATION\n{after}"
    )
    translate(tmp_path)
    assert (tmp_path / "Vchan.tla").read_text() == committed, (
        "translate the algorithm: java -cp tla2tools.jar pcal.trans -nocfg Vchan.tla"
    )


def translate(folder: Path) -> None:
    """Put the translation of the algorithm into `folder`/Vchan.tla."""
    command = [java(), "-cp", str(tla2tools()), "pcal.trans", "-nocfg", "Vchan.tla"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Translation completed." in done.stdout, done.stdout


@dataclass(frozen=True)
class Mutant:
    """A change of the spec's text, and what must notice it."""

    changes: tuple[tuple[str, str], ...]
    model: str
    violated: str


def of_safety(violated: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(changes, "safety_server_reads", violated)


SENDER_LOOKS = "      space := RingBytes - Size(ring);\n      if (space = 0) goto s_wait;\n"
RECEIVER_LOOKS = "      have := Size(ring);\n      if (have = 0) goto r_live;\n"

MUTANTS = {
    "the sender does not look again after arming": of_safety(
        "NoDeadlock", (SENDER_LOOKS, "      if (space = 0) goto s_wait;\n")
    ),
    "the receiver does not look again after arming": of_safety(
        "NoDeadlock", (RECEIVER_LOOKS, "      if (have = 0) goto r_live;\n")
    ),
    "the sender does not arm": of_safety("NoDeadlock", ("tellOfReads := 1;", "skip;")),
    "the receiver does not arm": of_safety(
        "NoDeadlock", ("tellOfWrites := 1;\nr_have", "skip;\nr_have")
    ),
    "the sender arms after it looked again": of_safety(
        "NoDeadlock",
        ("      tellOfReads := 1;\n", "      space := RingBytes - Size(ring);\n"),
        (SENDER_LOOKS, "      tellOfReads := 1;\n      if (space = 0) goto s_wait;\n"),
    ),
    "the receiver arms after it looked again": of_safety(
        "NoDeadlock",
        ("      tellOfWrites := 1;\nr_have", "      have := Size(ring);\nr_have"),
        (RECEIVER_LOOKS, "      tellOfWrites := 1;\n      if (have = 0) goto r_live;\n"),
    ),
    "the receiver tests before it moves its index": of_safety(
        "NoDeadlock",
        (
            "if (have = 0) goto r_live else goto r_take",
            "if (have = 0) goto r_live else goto r_test",
        ),
        (
            "if (have = 0) goto r_live;\nr_take:",
            "if (have = 0) goto r_live else goto r_test;\nr_take:",
        ),
        ("      have := 0;\nr_test:", "      have := 0;\n      goto r_return;\nr_test:"),
        ("tellOfReads := 0 else goto r_return;", "tellOfReads := 0 else goto r_take;"),
        ("raise(sPort);\n      goto r_return;", "raise(sPort);\n      goto r_take;"),
    ),
    "the receiver clears the bit and raises nothing": of_safety(
        "NoDeadlock", ("      raise(sPort);\n      goto r_return;", "      goto r_return;")
    ),
    "the sender clears the bit and raises nothing": of_safety(
        "NoDeadlock", ("      raise(rPort);\n      if", "      if")
    ),
    "a close raises nothing": of_safety(
        "NoDeadlock", ('"closing";\n    raise(rPort);', '"closing";')
    ),
    "the sender does not look whether the receiver has closed": of_safety(
        "NoDeadlock", ("if (receiverOpen = 1) goto s_space else wrote := -1;", "goto s_space;")
    ),
    "the receiver does not look whether the sender has closed": of_safety(
        "NoDeadlock", ("if (senderOpen = 1) goto r_wait\n", "if (TRUE) goto r_wait\n")
    ),
    "an event is lost in an idle port": of_safety(
        "NoDeadlock", ("IF port = 0 THEN {1}", "IF port = 0 THEN {0, 1}")
    ),
    "the sender puts more than is free": of_safety(
        "RingBound", ("with (n = Min(space, Size(todo)))", "with (n = Size(todo))")
    ),
    "the sender puts the first bytes again": of_safety(
        "Integrity", ("ring := Join(ring, First(todo, n));", "ring := Join(ring, Bytes(0, n));")
    ),
    "the receiver leaves what it took": of_safety(
        "Integrity", ("        ring := Rest(ring, n);\n", "")
    ),
    "the receiver loses what it took": of_safety(
        "Integrity", ("Got := Join(Got, First(ring, n));", "Got := Join(Got, First(ring, n - 1));")
    ),
    "the end is reported without a look": of_safety(
        "EndIsTheEnd", ("if (Size(ring) > 0) goto r_have\n", "if (FALSE) goto r_have\n")
    ),
    "the end is reported of an open sender": of_safety(
        "EndIsTheEnd", ("if (senderOpen = 1) goto r_wait\n", "if (FALSE) goto r_wait\n")
    ),
}


def _unfair(name: str) -> Mutant:
    """Without one conjunct of fairness; the small model of L1 with L1 off."""
    return Mutant(((f"/\\ {name}", "/\\ TRUE"),), "l1_breaks_availability", "Availability")


MUTANTS |= {
    f"without {name}": _unfair(name)
    for name in ("FairSenderPut", "FairSenderRaise", "FairReceiverTake", "FairReceiverWait")
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_spec_is_noticed(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    text = (SPECS / "Vchan.tla").read_text()
    for old, new in mutant.changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / "Vchan.tla").write_text(text)
    translate(tmp_path)
    config = correct_and_alone(mutant.model, tmp_path)
    assert check(tmp_path, config, short=True).violated == mutant.violated


def correct_and_alone(name: str, folder: Path) -> str:
    """A model with L1 off and without an environment: small, and nothing but a mutant fails it."""
    config = copied(name, folder)
    text = (folder / config).read_text().replace("L1 = TRUE", "L1 = FALSE")
    (folder / config).write_text(re.sub(r"Environment = .*", "Environment = {}", text))
    return config


@pytest.mark.parametrize("name", sorted({mutant.model for mutant in MUTANTS.values()}))
def test_without_a_mutation_the_mutants_models_hold(name: str, tmp_path: Path) -> None:
    assert check(tmp_path, correct_and_alone(name, tmp_path)).violated == ""
