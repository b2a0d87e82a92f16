"""What is being done and how long it took, shown while it happens.

A terminal gets a live line with a clock, a log gets plain lines, tests get nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich import live, spinner
from rich.console import Console
from rich.markup import escape
from rich.text import Text

REMIND_SECONDS = 30.0


class Progress(Protocol):
    """Where a long piece of work says what it is doing."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Show `title` while the block runs, and its time in seconds when it ends."""

    def note(self, text: str) -> None:
        """Show one line now; inside a step, as what that step has reached."""

    def say(self, text: str) -> None:
        """Show one line that stays, inside a step as well."""


class Quiet:
    """Says nothing: for tests and for output that a program reads."""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Nothing is shown."""
        yield

    def note(self, text: str) -> None:
        """Nothing is shown."""

    def say(self, text: str) -> None:
        """Nothing is shown."""


class Lines:
    """Plain lines on standard error: for logs.

    A step of which nothing is heard for `remind_seconds` says that it goes on: whoever watches a
    job takes a log that stands still for a job that hangs.
    """

    def __init__(self, remind_seconds: float = REMIND_SECONDS) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[str, float]] = []
        self._heard = threading.Event()
        self._remind_seconds = remind_seconds

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One line at the start, one at the end."""
        self.note(f"{title} ...")
        began = time.monotonic()
        self._steps.append((title, began))
        reminder = None
        if len(self._steps) == 1:
            reminder = threading.Thread(target=self._remind, daemon=True, name="reminder")
            reminder.start()
        ended = "failed after "
        try:
            yield
            ended = ""
        finally:
            self._steps.pop()
            self.note(f"{title}: {ended}{time.monotonic() - began:.1f} s")
            if reminder is not None:
                reminder.join()

    def note(self, text: str) -> None:
        """One line with the time since the start."""
        print(f"[{time.monotonic() - self._started:7.1f} s] {text}", file=sys.stderr, flush=True)
        self._heard.set()

    def say(self, text: str) -> None:
        """The same: in a log every line stays."""
        self.note(text)

    def _remind(self) -> None:
        """Until the outermost step has ended."""
        while self._steps:
            if not self._heard.wait(self._remind_seconds) and (steps := self._steps[:]):
                title, began = steps[-1]
                self.note(f"{title}: {time.monotonic() - began:.0f} s so far")
            self._heard.clear()


class Live:
    """A live line on a terminal; each finished step stays as a line with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: list[tuple[str, float]] = []
        self._reached = ""
        self._spinner = spinner.Spinner("dots")
        self._live: live.Live | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Steps nest: the inner one is shown behind the outer one."""
        began = time.monotonic()
        self._steps.append((title, began))
        self._reached = ""
        outermost = self._live is None
        if self._live is None:
            self._live = live.Live(console=self._console, get_renderable=self.line, transient=True)
            self._live.start()
        mark = "[red]x[/red]"
        try:
            yield
            mark = "[green]✓[/green]"
        finally:
            self._steps.pop()
            self._reached = ""
            indent = "  " * len(self._steps)
            seconds = time.monotonic() - began
            self._console.print(f"{indent}{mark} {escape(title)} [dim]{seconds:.1f} s[/]")
            if outermost:
                self._live.stop()
                self._live = None

    def note(self, text: str) -> None:
        """Inside a step the text goes behind its title, else it is a line of its own."""
        if self._live is None:
            self.say(text)
        else:
            self._reached = text

    def say(self, text: str) -> None:
        """A line above the live one."""
        self._console.print(text, markup=False, highlight=False)

    def line(self) -> Text:
        """What is being done, for how long, and what it has reached: drawn again and again."""
        # Not as the spinner's own text: that would wrap on a narrow terminal.
        wheel = self._spinner
        frame = int(time.monotonic() * 1000 / wheel.interval) % len(wheel.frames)
        line = Text(wheel.frames[frame], no_wrap=True, overflow="ellipsis")
        if steps := self._steps[:]:
            seconds = time.monotonic() - steps[-1][1]
            line.append(" " + " › ".join(title for title, _ in steps))
            line.append(f" {seconds:.0f} s", "dim")
            if self._reached:
                line.append(f"  {self._reached}")
        return line


def for_terminal() -> Progress:
    """`Live` on a terminal that can move its cursor, `Lines` elsewhere; both on standard error."""
    console = Console(stderr=True)
    able = sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal
    return Live(console) if able else Lines()
