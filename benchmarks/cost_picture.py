"""The picture of `tracer.py`: how many times as long as untraced, by message size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

RING_BYTES = 65536
COLOURS = {"calls": "#2a7", "kept": "#27c", "full": "#c72", "emulation": "#a2a"}
WIDTH, HEIGHT, LEFT, TOP = 360, 240, 50, 40
PANELS = {"ping": "Round trip, ring of 64 KiB", "stream": "Stream, ring of 64 KiB"}
TICKS = (1, 2, 3, 5, 10, 20, 50)

Ratios = Mapping[tuple[str, int, int], Mapping[str, float]]


def picture(ratios: Ratios) -> str:
    """An SVG of two panels, both axes logarithmic."""
    parts = [part for at, mode in enumerate(PANELS) for part in _panel(ratios, mode, at)]
    width = LEFT + len(PANELS) * (WIDTH + LEFT)
    height = TOP + HEIGHT + 60
    style = "font: 12px sans-serif; fill: #444"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'style="background: white; {style}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(ratios: Ratios, mode: str, number: int) -> Iterator[str]:
    left = LEFT + number * (WIDTH + LEFT)
    mine = {size: row for (m, size, ring), row in ratios.items() if (m, ring) == (mode, RING_BYTES)}
    sizes = sorted(mine)
    most = max(max(row.values()) for row in mine.values())
    yield f'<text x="{left}" y="{TOP - 15}" font-weight="bold">{PANELS[mode]}</text>'

    def x(size: int) -> float:
        return left + WIDTH * math.log(size) / math.log(sizes[-1])

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - math.log(max(value, 1)) / math.log(max(most, 2)))

    for tick in TICKS:
        if tick <= most:
            yield f'<path d="M{left} {y(tick):.1f}h{WIDTH}" stroke="#ddd"/>'
            yield f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
    for size in sizes:
        yield f'<text x="{x(size):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{size}</text>'
    for at, (manner, colour) in enumerate(COLOURS.items()):
        points = " ".join(f"{x(size):.1f},{y(mine[size][manner]):.1f}" for size in sizes)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield (
            f'<text x="{left + 85 * at}" y="{TOP + HEIGHT + 42}" fill="{colour}">{manner}</text>'
        )
