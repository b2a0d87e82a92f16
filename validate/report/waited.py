"""The section of the page on bounded progress: how long what was due waited, and whose it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from vchan_testbed.validate.bounded import BINS_A_DECADE, ActionTimes, Bounded, ByteTimes
from vchan_testbed.validate.explain import place_words, span_words
from vchan_testbed.validate.report import units
from vchan_testbed.validate.report.blocks import Block, Picture, Section, Table, Text
from vchan_testbed.validate.report.downsample import Histogram
from vchan_testbed.validate.report.svg import Caption, histogram_picture

ABOUT = (
    "Of each action the times that it could be taken and was not, along one behaviour that explains"
    " the run. The actions that are fair are those of which the spec promises that they are taken;"
    " whether they could be, the spec says in each state. An application owes no next call: it is"
    " here so that one that sleeps is not taken for a channel that does."
)
BOUNDS = (
    "Each time has two bounds, as each record was made somewhere between two time stamps; where the"
    " order of accesses was kept, these are those of its call (tracing: {order: full} has some at"
    " each access). Median, 99 % and most are of the upper bounds."
)


def section_of(bounded: Bounded) -> Section:
    """The section."""
    return Section("waited", "How long what was due waited", tuple(_blocks(bounded)))


def _blocks(bounded: Bounded) -> Iterator[Block]:
    if bounded.missing:
        yield Text(f"How long actions waited is not known: {bounded.missing}.")
    elif bounded.actions:
        yield Text(ABOUT)
        uncertain = units.duration(bounded.clock_uncertainty_ns / 1e9)
        yield Text(
            f"Measured of {bounded.reach}. {BOUNDS} The two clocks are related give or take "
            f"{uncertain}."
        )
        yield _actions(bounded.actions)
        for owner in bounded.slowest():
            yield _picture(owner, [one for one in bounded.actions if one.owner == owner])
    if bounded.bytes:
        yield _bytes(bounded.bytes)


def _actions(actions: tuple[ActionTimes, ...]) -> Table:
    heads = ("Action", "Owner", "Fair", "Times", "Not taken", "Median", "99 %", "Most", "Longest")
    rows = tuple(
        (
            one.action,
            one.owner,
            "yes" if one.fair else "no",
            units.count(one.count),
            units.count(one.not_taken),
            units.duration(one.median_ns / 1e9),
            units.duration(one.p99_ns / 1e9),
            units.duration(one.at_most_ns / 1e9),
            f"{span_words(one.longest.at_least_ns, one.longest.at_most_ns)}, {one.longest.ended}: "
            f"{place_words(one.longest.place)}",
        )
        for one in actions
    )
    caption = "Each action, the one that certainly waited longest first"
    return Table(caption, heads, rows, numeric=False)


def _picture(owner: str, actions: list[ActionTimes]) -> Picture:
    counts: Counter[int] = Counter()
    for one in actions:
        counts.update(dict(one.histogram))
    # A time of no length lies in the first bin as well.
    at = {round(BINS_A_DECADE * np.log10(max(end, 1))): n for end, n in counts.items()}
    first, last = min(at), max(at)
    edges = 10.0 ** (np.arange(first - 1, last + 1) / BINS_A_DECADE) / 1e9
    weights = np.array([at.get(number, 0) for number in range(first, last + 1)], np.float64)
    longest = max(one.at_most_ns for one in actions) / 1e9
    caption = Caption(
        f"waited-{owner.replace(' ', '-')}",
        f"How long actions of the {owner} waited",
        f"Share of {units.count(sum(counts.values()))} times by their upper bounds, logarithmic; "
        f"at most {units.duration(longest)}.",
    )
    picture = histogram_picture(
        Histogram(edges, weights), caption, x_label=units.duration, marks=[]
    )
    return Picture(picture, f"{caption.title}. {caption.description}")


def _bytes(every: tuple[ByteTimes, ...]) -> Table:
    heads = ("Direction", "Bytes", "Unread", "Median", "99 %", "Longest")
    rows = tuple(
        (
            one.direction,
            units.exactly(one.bytes),
            units.exactly(one.unread_bytes),
            units.duration(one.median_ns / 1e9),
            units.duration(one.p99_ns / 1e9),
            f"{span_words(one.longest.at_least_ns, one.longest.at_most_ns)}: "
            f"{place_words(one.longest.place)}",
        )
        for one in every
    )
    return Table("From write to read, by bytes", heads, rows)
