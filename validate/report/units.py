"""Numbers as a reader wants them: with their unit, short, never in powers of ten."""

from __future__ import annotations

import math

THIN_SPACE = "\u202f"
NO_BREAK = "\u00a0"
"""Between a number and its unit: no line may end there."""

_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def count(number: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", THIN_SPACE)


def size(number_bytes: float) -> str:
    """Bytes as B, KiB, MiB or GiB; whole units are written without decimals."""
    for unit_bytes, unit in _BYTES:
        if abs(number_bytes) >= unit_bytes:
            return f"{_three_digits(number_bytes / unit_bytes)}{NO_BREAK}{unit}"
    return f"{_three_digits(number_bytes)}{NO_BREAK}B"


def exactly(number_bytes: int) -> str:
    """Bytes to the last one: where a byte more or less is what matters."""
    return f"{count(number_bytes)}{NO_BREAK}B"


def rate(bytes_per_second: float) -> str:
    """A throughput in B/s, KiB/s, MiB/s or GiB/s."""
    return f"{size(bytes_per_second)}/s"


def duration(seconds: float) -> str:
    """A time span in s, ms, µs or ns."""
    if seconds == 0:
        return f"0{NO_BREAK}s"
    for unit_seconds, unit in _SECONDS:
        if abs(seconds) >= unit_seconds:
            return f"{_three_digits(seconds / unit_seconds)}{NO_BREAK}{unit}"
    return f"{_three_digits(seconds / 1e-9)}{NO_BREAK}ns"


def instant(seconds: float) -> str:
    """A point in time, to the microsecond; it may lie before the zero of its clock."""
    return f"{seconds:.6f}{NO_BREAK}s".replace("-", "−")


def share(part: float, whole: float) -> str:
    """A part in per cent; a dash when there is no whole."""
    return f"{100 * part / whole:.1f}{NO_BREAK}%" if whole else "–"


def times(number: int) -> str:
    """How often."""
    return "once" if number == 1 else f"{count(number)} times"


def _three_digits(number: float) -> str:
    if math.isclose(number, round(number), rel_tol=1e-9):
        return str(round(number))
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
