"""Vchan.tla: its translation is that of its algorithm, and mutants of it are noticed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vchan_testbed.validate.models import Holds, Model, Violates, check, load_models
from vchan_testbed.validate.tlc.actions import SPECS
from vchan_testbed.validate.tlc.jar import java, tla2tools


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


SENDER_LOOKS = "      space := RingBytes - Len(ring);\n      if (space = 0) {\n"
RECEIVER_LOOKS = "      have := Len(ring);\n      if (have = 0) goto r_live;\n"

MUTANTS = {
    "the sender does not look again after arming": of_safety(
        "NoDeadlock", (SENDER_LOOKS, "      if (space = 0) {\n")
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
        ("      tellOfReads := 1;\n", "      space := RingBytes - Len(ring);\n"),
        (SENDER_LOOKS, "      tellOfReads := 1;\n      if (space = 0) {\n"),
    ),
    "the receiver arms after it looked again": of_safety(
        "NoDeadlock",
        ("      tellOfWrites := 1;\nr_have", "      have := Len(ring);\nr_have"),
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
        "NoDeadlock", ("if (senderOpen = 1) {\n", "if (TRUE) {\n")
    ),
    "an event is lost in an idle port": of_safety(
        "NoDeadlock", ("IF port = 0 THEN {1}", "IF port = 0 THEN {0, 1}")
    ),
    "the sender puts more than is free": of_safety(
        "RingBound", ("with (n = Min(space, Len(todo)))", "with (n = Len(todo))")
    ),
    "the sender puts the first bytes again": of_safety(
        "Integrity", ("ring := Append(ring, Take(todo, n));", "ring := Append(ring, Bytes(0, n));")
    ),
    "the receiver leaves what it took": of_safety(
        "Integrity", ("        ring := Drop(ring, n);\n", "")
    ),
    "the receiver loses what it took": of_safety(
        "Integrity",
        ("Got := Append(Got, Take(ring, n));", "Got := Append(Got, Take(ring, n - 1));"),
    ),
    "the end is reported without a look": of_safety(
        "EndIsTheEnd", ("if (Len(ring) > 0) goto r_have\n", "if (FALSE) goto r_have\n")
    ),
    "the end is reported of an open sender": of_safety(
        "EndIsTheEnd", ("if (senderOpen = 1) {\n", "if (FALSE) {\n")
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
    shutil.copytree(SPECS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "Vchan.tla").write_text(text)
    translate(tmp_path)
    found = check(alone(mutant.model), tmp_path).result
    assert isinstance(found, Violates)
    assert found.property == mutant.violated


def alone(name: str) -> Model:
    """A model with L1 off and without an environment: small, and nothing but a mutant fails it."""
    model = load_models()[name]
    constants = {**model.constants, "L1": "FALSE", "Environment": "{}"}
    return replace(model, name="alone", constants=constants, quick=True, seconds=0.0)


@pytest.mark.parametrize("name", sorted({mutant.model for mutant in MUTANTS.values()}))
def test_without_a_mutation_the_mutants_models_hold(name: str) -> None:
    assert isinstance(check(alone(name)).result, Holds)
