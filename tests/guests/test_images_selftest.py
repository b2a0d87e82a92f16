"""The self-test of registers, memory and clocks: it passes here, and it can fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import vchan_testbed

SOURCES = Path(vchan_testbed.__file__).parent / "guests/selftest"
OPTIONS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]

BROKEN = Path(__file__).with_name("broken_registers.c")


def compiled(folder: Path, *sources_and_options: Path | str) -> Path:
    """Compile the program."""
    program = folder / "vchan-selftest"
    command: list[Path | str] = ["gcc", *OPTIONS, f"-I{SOURCES}", "-o", program]
    subprocess.run([*command, *sources_and_options], check=True)
    return program


def broken(folder: Path, byte: int) -> Path:
    """The program over a processor that changes one byte of its registers."""
    return compiled(folder, *SOURCES.glob("*.c"), BROKEN, f"-DBROKEN_BYTE={byte}")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The self-test as it goes into the images."""
    return compiled(tmp_path, *SOURCES.glob("*.[cS]"))


def test_it_passes_on_a_sound_machine(program: Path) -> None:
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "ok registers, memory and clocks held\n")


@pytest.mark.parametrize(
    ("byte", "register"),
    [
        (16 * 3, "xmm3"),
        (256 + 16 * 15, "upper half of ymm15"),
        (512, "general register 3"),
        (544, "general register 15"),
        (560 + 16 * 7, "x87 register 7"),
    ],
)
def test_a_register_that_changes_is_named(tmp_path: Path, byte: int, register: str) -> None:
    program = broken(tmp_path, byte)
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stdout == f"failed registers: {register} did not hold over a sleep\n"


def test_beside_a_workload_it_goes_on_until_killed(program: Path, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("ok at boot\n")
    beside = subprocess.Popen([program, "--beside", status])
    with pytest.raises(subprocess.TimeoutExpired):
        beside.wait(0.5)
    beside.kill()
    beside.wait()
    assert status.read_text() == "ok at boot\n"


def test_beside_a_workload_a_failure_is_added(tmp_path: Path) -> None:
    program = broken(tmp_path, 0)
    status = tmp_path / "status"
    status.write_text("ok at boot\n")
    assert subprocess.run([program, "--beside", status], check=False).returncode == 1
    assert status.read_text().splitlines()[-1].startswith("failed registers: xmm0 ")


def test_wrong_arguments(program: Path) -> None:
    assert subprocess.run([program, "--what"], capture_output=True, check=False).returncode == 2
