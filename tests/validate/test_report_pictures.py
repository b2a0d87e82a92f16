"""Downsampling keeps extremes; pictures are well-formed, described and say what they show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchan_testbed.validate.report import units
from vchan_testbed.validate.report.downsample import (
    Band,
    band_of,
    histogram_of,
    percentile,
    sums_of,
)
from vchan_testbed.validate.report.svg import Caption, band_picture, histogram_picture

SVG = "{http://www.w3.org/2000/svg}"
EVENTS = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 5000)), min_size=1, max_size=300).map(
    sorted
)


def arrays(events: list[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Times and values."""
    times, values = zip(*events, strict=True)
    return np.asarray(times, float), np.asarray(values, float)


def test_a_band_by_hand() -> None:
    times, values = np.array([1.0, 1.5, 6.0, 10.0]), np.array([7.0, 3.0, 9.0, 1.0])
    band = band_of(times, values, before=5, start=0, end=10, buckets=5)
    assert band.edges.tolist() == [0, 2, 4, 6, 8, 10]
    assert band.low.tolist() == [3, 3, 3, 3, 1]
    assert band.high.tolist() == [7, 3, 3, 9, 9]


@given(EVENTS, st.integers(1, 50))
def test_a_band_keeps_every_extreme(events: list[tuple[float, int]], buckets: int) -> None:
    times, values = arrays(events)
    band = band_of(times, values, before=2500, start=0, end=100, buckets=buckets)
    assert band.low.min() == min(values.min(), 2500)
    assert band.high.max() == max(values.max(), 2500)
    bucket = np.minimum(np.searchsorted(band.edges, times, side="right") - 1, buckets - 1)
    assert np.all(band.low[bucket] <= values)
    assert np.all(values <= band.high[bucket])


@given(EVENTS, st.integers(1, 50))
def test_sums_lose_nothing(events: list[tuple[float, int]], buckets: int) -> None:
    times, values = arrays(events)
    band = sums_of(times, values, start=0, end=100, buckets=buckets)
    assert (band.high * np.diff(band.edges)).sum() == pytest.approx(values.sum())


@given(
    st.lists(st.tuples(st.floats(1, 1e9), st.integers(1, 5000)), min_size=1, max_size=200),
    st.integers(1, 60),
)
def test_a_histogram_loses_nothing(events: list[tuple[float, int]], bins: int) -> None:
    values, weights = arrays(events)
    histogram = histogram_of(values, weights, bins=bins)
    assert histogram.weights.sum() == weights.sum()
    assert len(histogram.edges) == bins + 1


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 20)), min_size=1, max_size=50),
    st.floats(0.1, 100),
)
def test_a_percentile_is_that_of_the_values_written_out(
    events: list[tuple[int, int]], per_cent: float
) -> None:
    values, weights = arrays([(float(value), weight) for value, weight in events])
    written_out = np.sort(np.repeat(values, weights.astype(int)))
    expected = written_out[max(0, int(np.ceil(len(written_out) * per_cent / 100 - 1e-9)) - 1)]
    assert percentile(values, weights, per_cent) == expected


def drawn(picture: str) -> ElementTree.Element:
    """A picture, parsed as XML."""
    return ElementTree.fromstring(picture.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def texts(picture: str) -> list[str]:
    """The words in a picture."""
    return [element.text or "" for element in drawn(picture).iter(f"{SVG}text")]


BAND = Band(np.array([0.0, 1.0, 2.0]), np.array([0.0, 512.0]), np.array([4096.0, 1024.0]))
HOSTILE = Caption("k", "</svg><script>alert(1)</script>", "\"'><img src=x onerror=y>")


def band(caption: Caption) -> str:
    """The band above as a picture."""
    return str(
        band_picture(
            BAND, caption, top=4096, x_label=units.duration, y_label=units.size, limit="ring"
        )
    )


def histogram(caption: Caption) -> str:
    """A small histogram as a picture."""
    return str(
        histogram_picture(
            histogram_of(np.array([1e-6, 1e-3]), np.array([1.0, 3.0]), bins=8),
            caption,
            x_label=units.duration,
            marks=(("p50", 1e-3), ("max", 1e-3)),
        )
    )


@pytest.mark.parametrize("draw", [band, histogram])
def test_a_picture_is_described(draw: object) -> None:
    assert callable(draw)
    root = drawn(draw(Caption("fill", "Fill", "How full it was")))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "fill-title fill-desc"
    assert root.find(f"{SVG}title[@id='fill-title']") is not None
    description = root.find(f"{SVG}desc[@id='fill-desc']")
    assert description is not None
    assert description.text == "How full it was"


@pytest.mark.parametrize("draw", [band, histogram])
def test_words_in_a_picture_cannot_become_markup(draw: object) -> None:
    assert callable(draw)
    picture = draw(HOSTILE)
    assert "<script" not in picture
    assert "<img" not in picture
    title = drawn(picture).find(f"{SVG}title")
    assert title is not None
    assert title.text == HOSTILE.title


def test_a_ring_is_marked_in_quarters_and_named() -> None:
    words = [text.replace(units.NO_BREAK, " ") for text in texts(band(HOSTILE))]
    assert words[:5] == ["0 B", "1 KiB", "2 KiB", "3 KiB", "4 KiB"]
    assert "ring" in texts(band(HOSTILE))


def test_a_band_is_drawn_where_its_values_are() -> None:
    path = drawn(band(HOSTILE)).find(f"{SVG}path")
    assert path is not None
    numbers = [float(number) for number in re.findall(r"[\d.]+", path.get("d") or "")]
    y = numbers[1::2]
    # Half a pixel to each side of full (at the top, 12) and of empty (at the bottom, 160).
    assert (min(y), max(y)) == (11.5, 160.5)


def test_every_filled_bin_has_a_bar_and_every_mark_a_line() -> None:
    root = drawn(histogram(HOSTILE))
    assert len(root.findall(f"{SVG}rect")) == 2
    assert [text for text in texts(histogram(HOSTILE)) if text in ("p50", "max")] == ["p50", "max"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.size(0), "0 B"),
        (units.size(1023), "1023 B"),
        (units.size(4096), "4 KiB"),
        (units.size(1500), "1.46 KiB"),
        (units.size(256 * 1024), "256 KiB"),
        (units.size(5.5 * (1 << 30)), "5.50 GiB"),
        (units.rate(1 << 20), "1 MiB/s"),
        (units.duration(0), "0 s"),
        (units.duration(2e-5), "20 µs"),
        (units.duration(3.2e-8), "32 ns"),
        (units.duration(0.0123), "12.3 ms"),
        (units.duration(75), "75 s"),
        (units.count(1234567), "1\u202f234\u202f567"),
        (units.share(1, 3), "33.3 %"),
        (units.share(1, 0), "–"),
        (units.times(1), "once"),
        (units.times(12), "12 times"),
    ],
)
def test_numbers_have_units(shown: str, expected: str) -> None:
    assert shown.replace(units.NO_BREAK, " ") == expected
