"""Progress: what is being done and how long it took, on a terminal and in a log."""

from __future__ import annotations

import contextlib
import io
import re
import threading

import pytest
from rich.console import Console

from vchan_testbed.progress import Lines, Live, Progress, Quiet, for_terminal


def work(progress: Progress) -> None:
    with progress.step("outer [x]"):
        progress.note("half [way]")
        progress.say("lost [one]")
        with progress.step("inner"):
            progress.note("deep")
    progress.note("after [it]")


class Terminal(io.StringIO):
    """A terminal, as far as one can ask."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_at_each_start_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    work(Lines())
    out, said = capsys.readouterr()
    assert out == ""
    lines = [line.partition("] ")[2] for line in said.splitlines()]
    assert lines[:5] == ["outer [x] ...", "half [way]", "lost [one]", "inner ...", "deep"]
    assert lines[5].startswith("inner: ")
    assert lines[6].startswith("outer [x]: ")
    assert lines[6].endswith(" s")
    assert lines[7] == "after [it]"
    assert said.isprintable() or set(filter(lambda c: not c.isprintable(), said)) == {"\n"}


def test_a_log_says_that_a_long_step_goes_on() -> None:
    heard = Reminders()
    progress = Lines(remind_seconds=0.01)
    with contextlib.redirect_stderr(heard):
        with progress.step("outer"), progress.step("inner"):
            assert heard.reminded.wait(60)
        progress.note("after")
    assert re.search(r"inner: \d+ s so far$", heard.getvalue(), re.MULTILINE)
    assert heard.getvalue().endswith("after\n")
    assert "reminder" not in {thread.name for thread in threading.enumerate()}


class Reminders(io.StringIO):
    """A log, and whether it has been told that a step goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.reminded = threading.Event()

    def write(self, text: str) -> int:
        if "so far" in text:
            self.reminded.set()
        return super().write(text)


def test_a_terminal_keeps_a_line_for_each_step() -> None:
    written = io.StringIO()
    work(Live(Console(file=written, force_terminal=True, width=80, color_system=None)))
    text = written.getvalue()
    assert "  ✓ inner" in text
    assert "✓ outer [x]" in text
    assert "lost [one]\n" in text
    assert "after [it]" in text


def test_the_live_line_says_for_how_long_and_what_was_reached() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=60, color_system=None)
    live = Live(console)
    with live.step("outer"), live.step("inner"):
        live.note("far " * 40)
        line = live.line()
    assert re.match(r". outer › inner \d+ s  far far", line.plain)
    assert len(console.render_lines(line)) == 1


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


def test_without_a_terminal_lines_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(for_terminal(), Lines)
    # A job that wants colours still has a log, in which no line can be drawn anew.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(for_terminal(), Lines)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(for_terminal(), Live)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(for_terminal(), Lines)
