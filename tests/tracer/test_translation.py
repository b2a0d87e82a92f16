"""The translated code against the processor: every form, on decoys and elsewhere.

A library is made of one function for each form, loaded under libxenvchan's name into a process of
its own, and translated there. Each function runs as it is on a page that can be accessed, and
translated on a decoy at the same address: memory, registers and flags must agree.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "tracer" / "core"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What `compare_translated.py` found."""
    folder = tmp_path_factory.mktemp("translated")
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
    options += ["-D_GNU_SOURCE", "-fPIC", "-shared", "-pthread", f"-I{CORE}"]
    sources = [HERE / "translated.c", *CORE.glob("*.c")]
    subprocess.run(["cc", *options, "-o", folder / "core.so", *sources, "-lZydis"], check=True)
    ran = subprocess.run(
        [sys.executable, str(HERE / "compare_translated.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_every_form_is_translated(compared: dict[str, object]) -> None:
    assert compared["refused"] == 0
    assert compared["functions"] == compared["forms"]
    assert compared["astray"] == []
    # Those that repeat fault; and one form has its operand at no register.
    assert compared["sites"] == compared["expected_sites"]


def test_what_the_emulation_does_not_know_is_run(compared: dict[str, object]) -> None:
    assert isinstance(compared["odd forms"], int)
    assert compared["odd forms"] >= 14


def test_an_access_to_a_decoy_is_the_processors(compared: dict[str, object]) -> None:
    assert compared["differ on a decoy"] == []


def test_an_access_elsewhere_is_the_processors(compared: dict[str, object]) -> None:
    assert compared["differ elsewhere"] == []


def test_what_the_stack_holds_below_its_pointer_stays(compared: dict[str, object]) -> None:
    """The red zone: a function that calls nobody may use 128 bytes there."""
    assert compared["red zone"] is True


def test_vector_registers_stay(compared: dict[str, object]) -> None:
    assert compared["vectors"] is True
