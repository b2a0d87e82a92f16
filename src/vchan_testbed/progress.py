"""What is being done and how long it took, shown while it happens.

A terminal gets a live line, a log gets one plain line a step, tests get nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Progress(Protocol):
    """Where a long piece of work says what it is doing."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Show `title` while the block runs, and its time in seconds when it ends."""

    def note(self, text: str) -> None:
        """Show one line now; inside a step, as what that step has reached."""


class Quiet:
    """Says nothing: for tests and for output that a program reads."""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Nothing is shown."""
        yield

    def note(self, text: str) -> None:
        """Nothing is shown."""


class Lines:
    """Plain lines on standard error: for logs."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One line at the start, one at the end."""
        self.note(f"{title} ...")
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.note(f"{title}: failed after {time.monotonic() - began:.1f} s")
            raise
        self.note(f"{title}: {time.monotonic() - began:.1f} s")

    def note(self, text: str) -> None:
        """One line with the time since the start."""
        print(f"[{time.monotonic() - self._started:7.1f} s] {text}", file=sys.stderr, flush=True)


class Live:
    """A live line on a terminal; each finished step stays as a line with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._titles: list[str] = []
        self._status: Status | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Steps nest: the inner one is shown behind the outer one."""
        self._titles.append(title)
        began = time.monotonic()
        outermost = self._status is None
        if self._status is None:
            self._status = self._console.status(escape(title))
            self._status.start()
        self._show()
        failed = True
        try:
            yield
            failed = False
        finally:
            self._titles.pop()
            mark = "[red]x[/red]" if failed else "[green]✓[/green]"
            indent = "  " * len(self._titles)
            seconds = time.monotonic() - began
            self._console.print(f"{indent}{mark} {escape(title)} [dim]{seconds:.1f} s[/]")
            if outermost:
                self._status.stop()
                self._status = None
            else:
                self._show()

    def note(self, text: str) -> None:
        """Inside a step the text goes behind its title, else it is a line of its own."""
        if self._status is None:
            self._console.print(text, markup=False)
        else:
            self._show(text)

    def _show(self, note: str = "") -> None:
        if self._status is not None:
            text = " › ".join(self._titles) + (f": {note}" if note else "")
            self._status.update(escape(text))


def for_terminal() -> Progress:
    """`Live` on a terminal, `Lines` elsewhere; both on standard error."""
    console = Console(stderr=True)
    return Live(console) if console.is_terminal else Lines()
