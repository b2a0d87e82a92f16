"""Progress: what is being done and how long it took, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vchan_testbed.progress import Lines, Live, Progress, Quiet, for_terminal


def work(progress: Progress) -> None:
    with progress.step("outer [x]"):
        progress.note("half [way]")
        with progress.step("inner"):
            progress.note("deep")
    progress.note("after [it]")


def test_a_log_gets_one_line_at_each_start_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    work(Lines())
    out, said = capsys.readouterr()
    assert out == ""
    lines = [line.partition("] ")[2] for line in said.splitlines()]
    assert lines[:4] == ["outer [x] ...", "half [way]", "inner ...", "deep"]
    assert lines[4].startswith("inner: ")
    assert lines[5].startswith("outer [x]: ")
    assert lines[5].endswith(" s")
    assert lines[6] == "after [it]"


def test_a_terminal_keeps_a_line_for_each_step() -> None:
    written = io.StringIO()
    work(Live(Console(file=written, force_terminal=True, width=80, color_system=None)))
    text = written.getvalue()
    assert "  ✓ inner" in text
    assert "✓ outer [x]" in text
    assert "after [it]" in text


def test_a_step_that_fails_is_said_to_have_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Lines().step("divide"):
        raise ZeroDivisionError
    assert "divide: failed after" in capsys.readouterr().err
    written = io.StringIO()
    live = Live(Console(file=written, force_terminal=True, color_system=None))
    with pytest.raises(ZeroDivisionError), live.step("divide"):
        raise ZeroDivisionError
    assert "x divide" in written.getvalue()


def test_tests_get_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    work(Quiet())
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_lines_are_taken() -> None:
    assert isinstance(for_terminal(), Lines)
