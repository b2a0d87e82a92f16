"""Small pictures as inline SVG: no script, colours from the page's style sheet.

Each has a title and a description that a screen reader says in place of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from vchan_testbed.validate.report.downsample import Band, Histogram

WIDTH = 720
HEIGHT = 190
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 30

Label: TypeAlias = Callable[[float], str]
Scale: TypeAlias = Callable[[float], float]


@dataclass(frozen=True)
class Caption:
    """What is said in place of a picture; `key` makes its ids unique on the page."""

    key: str
    title: str
    description: str


def band_picture(
    band: Band, caption: Caption, *, top: float, x_label: Label, y_label: Label, limit: str = ""
) -> Markup:
    """The area between the extremes over time, in bytes or bytes per second.

    `top` is the axis' end, named by `limit`.
    """
    x = _scale(float(band.edges[0]), float(band.edges[-1]), LEFT, WIDTH - RIGHT)
    y = _scale(0.0, top, HEIGHT - BOTTOM, TOP)
    upper, lower = _outline(band, x, y)
    parts = [
        _y_axis(_steps(0.0, top, 4, _binary_unit(top)), y, y_label),
        _x_axis(_steps(float(band.edges[0]), float(band.edges[-1]), 6), x, x_label),
        Markup('<path class="band" d="M{}L{}Z"/>').format(upper, lower),
    ]
    if limit:
        parts.append(
            Markup('<line class="limit" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y=y(top)
            )
        )
        parts.append(
            Markup('<text class="limit-name" x="{}" y="{:.1f}">{}</text>').format(
                WIDTH - RIGHT, y(top) + 14, limit
            )
        )
    return _picture(caption, parts)


def histogram_picture(
    histogram: Histogram, caption: Caption, *, x_label: Label, marks: Sequence[tuple[str, float]]
) -> Markup:
    """Bars on a logarithmic axis; `marks` are named values (p50 ...) shown as lines."""
    first, last = float(histogram.edges[0]), float(histogram.edges[-1])
    log_x = _scale(math.log(first), math.log(last), LEFT, WIDTH - RIGHT)
    total = float(histogram.weights.sum()) or 1.0
    shares = histogram.weights / total * 100
    top = float(shares.max()) or 1.0
    y = _scale(0.0, top, HEIGHT - BOTTOM, TOP)
    parts = [
        _y_axis(_steps(0.0, top, 4), y, lambda value: f"{value:g} %"),
        _x_axis(_decades(first, last), lambda value: log_x(math.log(value)), x_label),
    ]
    for left, right, each in zip(
        histogram.edges[:-1], histogram.edges[1:], shares.tolist(), strict=True
    ):
        if each > 0:
            x0, x1 = log_x(math.log(left)), log_x(math.log(right))
            # A bar of a rare value would be thinner than a pixel, and it is the one looked for.
            height = max(1.0, HEIGHT - BOTTOM - y(each))
            parts.append(
                Markup(
                    '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
                ).format(x0, HEIGHT - BOTTOM - height, max(0.8, x1 - x0 - 0.6), height)
            )
    parts += [_mark(name, log_x(math.log(value)), row) for row, (name, value) in enumerate(marks)]
    return _picture(caption, parts)


def _mark(name: str, x: float, row: int) -> Markup:
    anchor = "end" if x > WIDTH - RIGHT - 60 else "start"
    shift = -4 if anchor == "end" else 4
    return Markup(
        '<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        '<text class="mark-name" text-anchor="{anchor}" x="{at:.1f}" y="{y}">{name}</text>'
    ).format(
        x=x,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        anchor=anchor,
        at=x + shift,
        y=TOP + 11 + 14 * row,
        name=name,
    )


def _picture(caption: Caption, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-labelledby="{key}-title {key}-desc">'
        '<title id="{key}-title">{title}</title><desc id="{key}-desc">{desc}</desc>{body}</svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        key=caption.key,
        title=caption.title,
        desc=caption.description,
        body=Markup("").join(parts),
    )


def _outline(band: Band, x: Scale, y: Scale) -> tuple[str, str]:
    """The upper outline from left to right and the lower one back, as corners of steps."""
    upper, lower = [], []
    for left, right, low, high in zip(
        band.edges[:-1].tolist(),
        band.edges[1:].tolist(),
        band.low.tolist(),
        band.high.tolist(),
        strict=True,
    ):
        # Where both extremes are the same a line is left: half a pixel to each side.
        y_high, y_low = y(high) - 0.5, y(low) + 0.5
        upper.append(f"{x(left):.1f} {y_high:.1f} {x(right):.1f} {y_high:.1f}")
        lower.append(f"{x(right):.1f} {y_low:.1f} {x(left):.1f} {y_low:.1f}")
    return " ".join(upper), " ".join(reversed(lower))


def _y_axis(values: Sequence[float], y: Scale, label: Label) -> Markup:
    return Markup("").join(
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text text-anchor="end" x="{}" y="{text:.1f}">{}</text>'
        ).format(LEFT, WIDTH - RIGHT, LEFT - 6, label(value), y=y(value), text=y(value) + 4)
        for value in values
    )


def _x_axis(values: Sequence[float], x: Scale, label: Label) -> Markup:
    base = HEIGHT - BOTTOM
    return Markup("").join(
        Markup(
            '<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>'
            '<text text-anchor="{}" x="{x:.1f}" y="{}">{}</text>'
        ).format(base, base + 5, _anchor(x(value)), base + 20, label(value), x=x(value))
        for value in values
    )


def _anchor(x: float) -> str:
    if x > WIDTH - RIGHT - 24:
        return "end"
    return "middle"


def _scale(low: float, high: float, out_low: float, out_high: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: out_low + (value - low) / span * (out_high - out_low)


def _steps(low: float, high: float, about: int, unit: float = 1.0) -> list[float]:
    """Round values from low to high, about as many as asked for: 1, 2 or 5 times a power of ten.

    They are round in units of `unit`. A high end that is a power of two is cut into quarters.
    """
    low, high = low / unit, high / unit
    span = high - low
    if span <= 0:
        return [low * unit]
    if unit > 1 and low == 0 and math.log2(high).is_integer():
        return [high * unit * quarter / 4 for quarter in range(5)]
    rough = span / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step * unit for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _binary_unit(top: float) -> float:
    """1, 1024, 1024² ...: 10 MB/s is a round value on no axis that is labelled in MiB/s."""
    return 1024.0 ** max(0, math.floor(math.log(max(top, 1.0), 1024) + 1e-9))


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between low and high; fewer when that is too many."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [
            factor * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for factor in factors
            if low <= factor * 10.0**power <= high
        ]
        if len(values) <= 9:
            break
    return values if values else [low, high]
