"""The reproducers, many times: what came of it (`make hangs`), and that it counts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hangs import HANGS, PINS, Asked, counted, reproducers

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment import Expect, load_experiment

TIMES = 20
ON_LOOPBACK = sorted(one.name for one in reproducers((), "loopback"))
TWICE = ("full-ring", "reader-stopped")


def test_each_came_out_as_it_is_meant_every_time() -> None:
    found = json.loads(PINS.read_text())["loopback"]
    assert sorted(found) == ON_LOOPBACK
    assert {(row["times"], row["as expected"]) for row in found.values()} == {(TIMES, TIMES)}


@pytest.mark.parametrize("name", TWICE)
def test_it_does_once_more_twice(name: str, tmp_path: Path) -> None:
    row = counted(load_experiment(HANGS / f"{name}.yaml"), Asked("loopback", 2, tmp_path, 600.0))
    assert (row.times, row.as_expected, row.others) == (2, 2, ())
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_as_it_is_meant_is_told_and_kept(tmp_path: Path) -> None:
    meant = replace(load_experiment(HANGS / "full-ring.yaml"), expect=Expect("REJECTED"))
    row = counted(meant, Asked("loopback", 1, tmp_path, 600.0))
    assert (row.times, row.as_expected) == (1, 0)
    assert row.others[0].startswith("001: ACCEPTED, PROGRESS")
    assert (tmp_path / "loopback-full-ring" / "001" / "run.json").exists()


def test_what_needs_xen_is_passed_over_without_it() -> None:
    assert "domain-destroyed" not in ON_LOOPBACK
    assert "domain-destroyed" in [one.name for one in reproducers((), "qemu")]


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="There is no reproducer 'nothing'"):
        list(reproducers(["nothing"], "loopback"))
