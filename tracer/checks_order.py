"""Whether there is one order in which all the records of both ends can have come.

Program order orders each thread; the cells' values say of some records of the two ends which came
first. Together these must have no cycle. With one thread on each side a cycle, if there is any,
has the form: s before c, c no later than d, d before r, r no later than s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vchan_testbed.tracer.checks_parts import Indices, Problem, Side


@dataclass(frozen=True)
class Edges:
    """Pairs of records of which the first came before the second; places in the traces."""

    server_first: tuple[Indices, Indices]
    """(server's record, client's record)."""
    client_first: tuple[Indices, Indices]
    """(client's record, server's record)."""


def order_problems(server: Side, client: Side, edges: Edges) -> Iterator[Problem]:
    """Cycles, for each thread of the one end with each of the other."""
    ahead, behind = edges.server_first, edges.client_first
    server_threads, client_threads = server.records["thread"], client.records["thread"]
    for one in np.unique(server_threads[ahead[0]]):
        for other in np.unique(client_threads[ahead[1]]):
            first = (server_threads[ahead[0]] == one) & (client_threads[ahead[1]] == other)
            second = (client_threads[behind[0]] == other) & (server_threads[behind[1]] == one)
            yield from _cycles(
                ahead[0][first], ahead[1][first], behind[0][second], behind[1][second]
            )


def _cycles(s: Indices, c: Indices, d: Indices, r: Indices) -> Iterator[Problem]:
    """Cycles of s -> c and d -> r, all places in program order."""
    if not len(s) or not len(d):
        return
    by_r = np.argsort(r, kind="stable")
    d, r = d[by_r], r[by_r]
    # The latest d whose r comes no later than s.
    latest = np.maximum.accumulate(d)
    place = np.searchsorted(r, s, side="right") - 1
    reached = np.where(place >= 0, latest[np.maximum(place, 0)], -1)
    for i in np.flatnonzero(reached >= c):
        back = int(np.flatnonzero(d[: place[i] + 1] == reached[i])[0])
        yield Problem(
            "server",
            int(s[i]),
            "order",
            f"By their values server record {s[i]} came before client record {c[i]} and client "
            f"record {d[back]} before server record {r[back]}, which contradicts program order.",
        )
