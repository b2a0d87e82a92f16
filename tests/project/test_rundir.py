"""A run is a directory: what is in it, and that no reader ever sees half of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vchan_testbed.errors import InputError
from vchan_testbed.rundir import RunDirectory, create_run, write_atomically


def test_a_new_run_is_incomplete_and_has_its_folders(tmp_path: Path) -> None:
    run = create_run(tmp_path / "a" / "run", "name", seed=3)
    assert run.facts() == {"format": 1, "state": "incomplete", "seed": 3}
    assert sorted(path.name for path in run.path.iterdir()) == ["console", "run.json", "traces"]
    assert run.trace("client") == run.path / "traces" / "client.vtrace"


def test_facts_are_changed_one_by_one(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", "name", seed=3, messages=["one"])
    run.update(state="complete", messages=["two"])
    assert run.facts() == {"format": 1, "state": "complete", "seed": 3, "messages": ["two"]}


def test_two_runs_of_one_second_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {create_run(None, "a name/../x").path.name for _ in range(3)}
    assert len(names) == 3
    assert all("-a-name-..-x-" in name for name in names)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == names


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path: Path) -> None:
    create_run(tmp_path, "name")
    with pytest.raises(InputError, match="not empty"):
        create_run(tmp_path, "name")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made") as error:
        create_run(tmp_path / "file" / "run", "name")
    assert "--out" in error.value.next_step


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"format": 99}'])
def test_what_is_no_run_directory_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError) as error:
        RunDirectory(tmp_path).facts()
    assert error.value.next_step


def test_a_console_stays_in_its_folder(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.console("../../etc/passwd").parent == tmp_path / "console"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, json.dumps({"old": True}))
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\udcff")
    assert json.loads(path.read_text()) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
