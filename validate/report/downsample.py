"""Fewer points for a picture, without losing an extreme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """The lowest and the highest value that a step function takes in each bucket of time.

    `edges` has one element more than `low` and `high`.
    """

    edges: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Histogram:
    """Weights per bin; the bins are equally wide on a logarithmic scale.

    `edges` has one element more than `weights`.
    """

    edges: Floats
    weights: Floats


def band_of(
    times: Floats, values: Floats, *, before: float, start: float, end: float, buckets: int
) -> Band:
    """A step function that is `before` until times[0] and values[k] from times[k] on.

    `times` ascend and lie in [start, end], end > start. A mean per bucket would show a ring that
    was full for a microsecond as never full: so each bucket has both of its extremes.
    """
    edges = np.linspace(start, end, buckets + 1)
    at = np.searchsorted(times, edges, side="left")
    at[-1] = len(times)
    carried = np.concatenate(([before], values))[at[:-1]]
    low, high = carried.copy(), carried.copy()
    filled = at[1:] > at[:-1]
    if filled.any():
        # The empty buckets are left out, so each reduction ends where the next filled one begins.
        low[filled] = np.minimum(low[filled], np.minimum.reduceat(values, at[:-1][filled]))
        high[filled] = np.maximum(high[filled], np.maximum.reduceat(values, at[:-1][filled]))
    return Band(edges, low, high)


def sums_of(times: Floats, amounts: Floats, *, start: float, end: float, buckets: int) -> Band:
    """The amounts that fall into each bucket per unit of time, as a band from 0 upwards."""
    edges = np.linspace(start, end, buckets + 1)
    sums, _ = np.histogram(times, bins=edges, weights=amounts)
    per_unit = sums / (edges[1] - edges[0])
    return Band(edges, np.zeros(buckets), per_unit)


def histogram_of(values: Floats, weights: Floats, *, bins: int) -> Histogram:
    """Weights over values > 0, in `bins` bins from the smallest to the largest value."""
    smallest, largest = float(values.min()), float(values.max())
    if largest <= smallest:
        # One value: a bin around it.
        smallest, largest = smallest / 1.5, largest * 1.5
    edges = np.geomspace(smallest, largest, bins + 1)
    # Rounding must not push the outermost values out of the outermost bins.
    edges[0], edges[-1] = smallest, largest
    sums, _ = np.histogram(values, bins=edges, weights=weights)
    return Histogram(edges, sums)


def percentile(values: Floats, weights: Floats, per_cent: float) -> float:
    """The smallest value such that `per_cent` of the weight is at or below it."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    wanted = sums[-1] * per_cent / 100
    return float(values[order][min(np.searchsorted(sums, wanted), len(values) - 1)])
