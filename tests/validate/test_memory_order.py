"""A library whose locked changes are plain ones: what the processor then reorders is seen.

x86 lets a load pass an earlier store. The lock prefix of the notify bits' changes is what keeps the
look at the index behind the request for an event. The build without it (tests/library/vchan.c) is
caught by its values alone, as a contradiction with program order; the one with it never is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from building import COMPILERS, OPTIONS, build_library
from racing import race

TRIES = 10
"""Races until one is lost; two ends that share a processor for long lose none."""

two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one processor sees its own stores in their order"
)


@two_cores
def test_plain_bits_are_a_contradiction_of_order(tmp_path: Path) -> None:
    library = build_library(tmp_path, "gcc", "-O2", "-DPLAIN_BITS")
    for number in range(TRIES):
        verdict = race(library, tmp_path / f"run{number}", "kept", 3000)
        if verdict.kind == "memory-order":
            break
    assert (verdict.conformance, verdict.kind) == ("REJECTED", "memory-order")
    (cycle,) = [note for note in verdict.notes if "comes after" in note]
    assert cycle.startswith("both: by their values, ")


def test_locked_bits_are_none(tmp_path: Path) -> None:
    library = build_library(tmp_path, "gcc", "-O2")
    verdict = race(library, tmp_path / "run", "kept", 1500)
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS"), verdict.reason


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_any_build_is_a_behaviour(tmp_path: Path, compiler: str, options: str) -> None:
    """Compilers read twice, in another order, or what nobody needs: none of it is another step."""
    library = build_library(tmp_path, compiler, *options.split())
    verdict = race(library, tmp_path / "run", "kept", 200)
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS"), verdict.reason
