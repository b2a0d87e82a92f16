"""What the benchmarks of the tracer share: the program, and what is measured of it in which way."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from vchan_testbed.tracer.record import Flight, Settings

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
MANNERS: Mapping[str, Settings | None] = {
    "untraced": None,
    "calls": Settings(level="calls"),
    "kept": Settings(),
    "full": Settings(order="full"),
    "emulation": Settings(variant="emulation"),
}
"""Ways to run it."""
EXACT = ("kept", "full", "emulation")
"""Those of level exact."""
EMULATED_SHARE = 10
"""An emulated access costs some thirty times more: fewer of them are enough."""
MESSAGES_MIN = 20
ACCESSES_OF_A_QUESTION = 3
RECORDS_OF_A_CALL = 2
NS_PER_US = 1000
ON_XEN = "## On real Xen, emulated"
"""Heads the part of the page that `tracer_xen.py` writes."""


@dataclass(frozen=True)
class Cell:
    """What is measured."""

    mode: str
    """ping, stream or ask, as `moving.c` has them."""
    size_bytes: int
    ring_bytes: int
    count: int
    """Of messages or questions."""
    is_pinned: bool = True
    """Each end to one processor, the thread that makes its log's pages ready as well."""
    flight_bytes: int = 0
    """Of a flight recorder's ring, whose pages are all there from the first record on; 0: none."""

    def settings_in(self, manner: str) -> Settings | None:
        """How it is recorded."""
        settings = MANNERS[manner]
        if settings is None or not self.flight_bytes:
            return settings
        return replace(settings, flight=Flight(self.flight_bytes))

    def count_in(self, manner: str) -> int:
        """Fewer where each takes long."""
        share = EMULATED_SHARE if manner == "emulation" else 1
        return max(self.count // share, min(self.count, MESSAGES_MIN))


def compiled(folder: Path) -> Path:
    """The program that is measured."""
    program = folder / "moving"
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *options, str(HERE / "moving.c"), "-o", str(program), "-lxenvchan"]
    subprocess.run(command, check=True)
    return program


def ratio(figures: Mapping[str, list[float]], manner: str) -> float:
    """How many times as long as untraced it takes."""
    pairs = zip(figures[manner], figures["untraced"], strict=True)
    return median(traced / plain for traced, plain in pairs)


def each(figures: Mapping[str, list[float]], manner: str, beside: str, count: int) -> float:
    """Nanoseconds of each of `count` things that `manner` does and `beside` does not."""
    pairs = zip(figures[manner], figures[beside], strict=True)
    return median((one - other) / count for one, other in pairs)


def costs(figures: Mapping[str, list[float]]) -> list[str]:
    """Of questions, ns: a record of level calls, and an access in each manner of level exact."""
    record = each(figures, "calls", "untraced", RECORDS_OF_A_CALL)
    accesses = (each(figures, manner, "calls", ACCESSES_OF_A_QUESTION) for manner in EXACT)
    return [f"{ns:.0f}" for ns in (record, *accesses)]


@dataclass(frozen=True)
class Limit:
    """What is asked of a figure."""

    what: str
    at_most: float
    seen: float

    def row(self) -> list[str]:
        """Of the table of limits."""
        word = "yes" if self.seen <= self.at_most else "**no**"
        return [self.what, f"{self.at_most:g}", f"{self.seen:.3g}", word]


LIMITS = ["", "at most", "seen", "kept to"]
"""Heads their rows."""
COSTS = ["", "a record of a call or an event, ns", *(f"{manner}, ns" for manner in EXACT)]
"""Heads them, and the name of what is measured before them."""


def table(rows: list[list[str]]) -> str:
    """Rows of Markdown, the first one its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
