"""The sections of the page that come from the traces alone: speed, latency, fill, events, calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.report import units
from vchan_testbed.validate.report.blocks import Block, Picture, Section, Table, Text
from vchan_testbed.validate.report.clocks import ClockOffset, infer_offset
from vchan_testbed.validate.report.counts import calls_of, events_of
from vchan_testbed.validate.report.downsample import Floats, band_of, histogram_of, sums_of
from vchan_testbed.validate.report.figures import (
    Flow,
    Latency,
    Occupancy,
    flow_of,
    latency_of,
    occupancy_of,
    span_ticks,
)
from vchan_testbed.validate.report.indices import DIRECTIONS
from vchan_testbed.validate.report.svg import Caption, band_picture, histogram_picture

BUCKETS = 320
"""Columns of a picture: two pixels each on a page of usual width."""
BINS = 60
PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0))


@dataclass(frozen=True)
class Measured:
    """Everything that is drawn, computed once. Times count from the first move, in seconds."""

    server: Trace
    client: Trace
    offset: ClockOffset
    flows: tuple[Flow, ...]
    hz: int
    start: int
    """Ticks of the first move of an index; 0 if there is none."""
    seconds: float
    """From there to the last move."""

    @property
    def traces(self) -> dict[Role, Trace]:
        """Both traces, by endpoint."""
        return {"server": self.server, "client": self.client}

    def time(self, ticks: Floats) -> Floats:
        """Ticks of the server's clock as seconds since the start."""
        return (ticks - self.start) / self.hz

    def moved(self) -> list[Flow]:
        """The directions in which anything was written."""
        return [flow for flow in self.flows if flow.bytes_put > 0]


def measure(server: Trace, client: Trace) -> Measured:
    """Bring both traces onto one clock and pick the moves of the indices."""
    offset = infer_offset(server, client)
    flows = tuple(flow_of(direction, server, client, offset) for direction in DIRECTIONS)
    moves = [moved for flow in flows for moved in (flow.puts, flow.takes) if len(moved.t0)]
    start = min((int(moved.t0[0]) for moved in moves), default=0)
    end = max((int(moved.t1[-1]) for moved in moves), default=start)
    # A trace without a frequency is shown as if a tick were a nanosecond; the page says so.
    hz = server.header.tsc_hz or client.header.tsc_hz or 10**9
    return Measured(server, client, offset, flows, hz, start, max((end - start) / hz, 1e-9))


def sections_of(measured: Measured) -> tuple[Section, ...]:
    """The page's sections, in the order of the page."""
    return (
        Section("throughput", "Throughput", tuple(_throughput(measured))),
        Section("latency", "Latency from write to read", tuple(_latency(measured))),
        Section("occupancy", "Ring occupancy", tuple(_occupancy(measured))),
        Section("events", "Events", tuple(_events(measured))),
        Section("calls", "Calls of the library", tuple(_calls(measured))),
    )


def named(flow: Flow) -> str:
    """A direction in words."""
    direction = flow.direction
    return f"{direction.name}: {direction.sender} to {direction.receiver}"


def _throughput(measured: Measured) -> list[Block]:
    rows = tuple(_throughput_row(flow, measured.hz) for flow in measured.flows)
    heads = ("Direction", "Ring", "Written", "Read", "In", "Throughput", "Moves of prod", "of cons")
    blocks: list[Block] = [
        Table("Each direction, from its first write to its last read", heads, rows),
        Text(
            "Measured while each access to the shared page was recorded. The recording takes most"
            " of the time: a library that nobody watches is many times faster."
        ),
    ]
    if not (measured.server.header.tsc_hz or measured.client.header.tsc_hz):
        blocks.append(Text("The traces do not say how fast the TSC runs: 1 tick is shown as 1 ns."))
    for flow in measured.moved():
        blocks.append(_rate_picture(measured, flow))
    return blocks


def _throughput_row(flow: Flow, hz: int) -> tuple[str, ...]:
    seconds = span_ticks(flow) / hz
    return (
        named(flow),
        units.size(flow.ring_bytes) if flow.ring_bytes else "unknown",
        units.exactly(flow.bytes_put),
        units.exactly(flow.bytes_taken),
        units.duration(seconds) if seconds else "–",
        units.rate(flow.bytes_taken / seconds) if seconds else "–",
        units.count(len(flow.puts.t0)),
        units.count(len(flow.takes.t0)),
    )


def _rate_picture(measured: Measured, flow: Flow) -> Picture:
    # What is put counts: the sender's moves are on one clock even when the clocks are not aligned.
    times = measured.time(flow.puts.t1.astype(np.float64)).clip(0, measured.seconds)
    band = sums_of(
        times,
        flow.puts.steps.astype(np.float64).clip(min=0),
        start=0,
        end=measured.seconds,
        buckets=BUCKETS // 4,
    )
    top = float(band.high.max()) * 1.05 or 1.0
    caption = Caption(
        f"rate-{flow.direction.name}",
        f"Bytes written per second, {named(flow)}",
        f"At most {units.rate(float(band.high.max()))} over {units.duration(measured.seconds)}.",
    )
    picture = band_picture(band, caption, top=top, x_label=units.duration, y_label=units.rate)
    return Picture(picture, f"{caption.title}. {caption.description}")


def _latency(measured: Measured) -> list[Block]:
    blocks: list[Block] = [Text(clock_words(measured.offset, measured.hz))]
    found = [(flow, latency_of(flow)) for flow in measured.flows]
    known = [(flow, latency) for flow, latency in found if latency is not None]
    if not known:
        return [*blocks, Text("No latency can be said.")]
    rows = tuple(
        (
            named(flow),
            *(units.duration(latency.at(value) / measured.hz) for _, value in PERCENTILES),
            units.exactly(int(latency.sizes.sum())),
        )
        for flow, latency in known
    )
    heads = ("Direction", *(name for name, _ in PERCENTILES), "Bytes")
    blocks.append(Table("From the store of prod to the store of cons, by bytes", heads, rows))
    blocks += [_latency_picture(flow, latency, measured.hz) for flow, latency in known]
    return blocks


def clock_words(offset: ClockOffset, hz: int) -> str:
    """What is known of the two clocks, in a sentence or two."""
    if offset.known:
        ahead = offset.ticks / hz
        return (
            f"The client's clock is {units.duration(abs(ahead))} "
            f"{'ahead of' if ahead >= 0 else 'behind'} the server's, "
            f"give or take {units.duration(offset.uncertainty_ticks / hz)}: inferred from "
            f"{units.count(offset.pairs)} pairs of records, as a value is read after it was "
            "written and before it was overwritten. A latency below is too long or too short by "
            "no more than that."
        )
    if offset.low is None or offset.high is None:
        return (
            "The two clocks cannot be compared: the values that were read bound their offset from "
            "one side at most."
        )
    return (
        "The two clocks cannot be compared: the order that the values show contradicts every "
        "constant offset between them. A clock jumped, or records are wrong."
    )


def _latency_picture(flow: Flow, latency: Latency, hz: int) -> Picture:
    marks = [(name, latency.at(value) / hz) for name, value in PERCENTILES]
    caption = Caption(
        f"latency-{flow.direction.name}",
        f"Latency, {named(flow)}",
        "Share of the bytes by time in the ring, logarithmic: "
        + ", ".join(f"{name} {units.duration(value)}" for name, value in marks)
        + ".",
    )
    histogram = histogram_of(latency.ticks / hz, latency.sizes, bins=BINS)
    picture = histogram_picture(histogram, caption, x_label=units.duration, marks=marks)
    return Picture(picture, f"{caption.title}. {caption.description}")


def _occupancy(measured: Measured) -> list[Block]:
    blocks: list[Block] = []
    for flow in measured.moved():
        occupancy = occupancy_of(flow)
        if occupancy is not None:
            blocks.append(_occupancy_picture(measured, flow, occupancy))
        if occupancy is not None and occupancy.outside:
            blocks.append(
                Text(
                    f"{named(flow)}: after {units.count(occupancy.outside)} moves the indices said"
                    " that the ring holds less than nothing or more than its size; drawn as empty"
                    " and as full."
                )
            )
    if blocks:
        return blocks
    if measured.moved():
        return [Text("Not drawn: the two clocks cannot be compared.")]
    return [Text("Nothing was written.")]


def _occupancy_picture(measured: Measured, flow: Flow, occupancy: Occupancy) -> Picture:
    times = measured.time(occupancy.times).clip(0, measured.seconds)
    band = band_of(
        times, occupancy.values, before=0, start=0, end=measured.seconds, buckets=BUCKETS
    )
    held = np.diff(np.append(times, measured.seconds))
    empty = float(held[occupancy.values == 0].sum() + times[0])
    full = float(held[occupancy.values == flow.ring_bytes].sum())
    caption = Caption(
        f"occupancy-{flow.direction.name}",
        f"Bytes in the ring, {named(flow)}",
        f"Empty {units.share(empty, measured.seconds)} of the time, "
        f"full {units.share(full, measured.seconds)}, "
        f"at most {units.size(float(occupancy.values.max()))}. "
        "Each column has the lowest and the highest fill of its time.",
    )
    picture = band_picture(
        band,
        caption,
        top=float(flow.ring_bytes),
        x_label=units.duration,
        y_label=units.size,
        limit="full",
    )
    return Picture(picture, f"{caption.title}. {caption.description}")


def _events(measured: Measured) -> list[Block]:
    ends = (
        ("server", measured.server, measured.client),
        ("client", measured.client, measured.server),
    )
    counted = [(role, events_of(own, peer, cast(Role, role))) for role, own, peer in ends]
    heads = ("Count", *(role for role, _ in counted))
    names = (
        ("events sent to the peer", "sent"),
        ("events that could not be sent", "failed"),
        ("events that the test bed dropped", "dropped"),
        ("wake-ups", "wakeups"),
        ("wake-ups that showed nothing new", "spurious"),
        ("waits that ended with an error", "interrupted"),
        ("events of the peer without a wake-up: coalesced or not read", "merged"),
    )
    rows = tuple(
        (words, *(units.count(getattr(events, name)) for _, events in counted))
        for words, name in names
    )
    return [Table("Event channel, each end", heads, rows)]


def _calls(measured: Measured) -> list[Block]:
    rows = tuple(
        (
            f"{role}: {calls.name}",
            units.count(calls.count),
            units.count(calls.failed),
            units.count(calls.unfinished),
            units.duration(calls.median_ticks / measured.hz),
            units.duration(calls.longest_ticks / measured.hz),
        )
        for role, trace in (("server", measured.server), ("client", measured.client))
        for calls in calls_of(trace)
    )
    if not rows:
        return [Text("No call was recorded.")]
    heads = ("Function", "Calls", "Returned an error", "Did not return", "Median", "Longest")
    return [Table("Calls by function", heads, rows)]
