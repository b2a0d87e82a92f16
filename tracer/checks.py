"""Checks that every pair of traces has to pass before anyone judges it.

They know values, program order and counts, not the protocol: a record that is missing, doubled,
changed or out of place, a value that was read and never written, an index that jumps, a notify
bit that was cleared without an event. What they report cannot come about in a legal trace, a cut
one included: of an endpoint that was cut off, anything may have happened after its last record.

- `checks_lane`: one endpoint for itself
- `checks_cells`: each cell of the shared page over both endpoints; what must have come first
- `checks_order`: whether all of that can have come in one order
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from vchan_testbed.tracer.checks_cells import cell_problems
from vchan_testbed.tracer.checks_lane import lane_problems
from vchan_testbed.tracer.checks_order import order_problems
from vchan_testbed.tracer.checks_parts import Problem, Side, paired_sides
from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.reader import Trace

__all__ = ["Problem", "check_pair"]

PROBLEMS_OF_A_RULE_MAX = 10


def check_pair(server: Trace, client: Trace) -> list[Problem]:
    """What is wrong with the traces of one run, first of all what is wrong with one by itself.

    At most ten problems for each rule and endpoint. Linear in the number of records; a million
    take a few seconds. Where records were dropped or numbers are missing nothing else is checked.
    """
    sides: tuple[tuple[Role, Trace], ...] = (("server", server), ("client", client))
    found = [problem for role, trace in sides for problem in lane_problems(role, trace)]
    if any(problem.is_hole for problem in found):
        return list(_first(found))
    for pair in paired_sides(server, client):
        found += _pair_problems(*pair)
    return list(_first(found))


def _pair_problems(server: Side, client: Side) -> Iterator[Problem]:
    cells = cell_problems(server, client)
    yield from cells.problems
    yield from order_problems(server, client, cells.edges)


def _first(problems: Iterable[Problem]) -> Iterator[Problem]:
    seen: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        seen[problem.endpoint, problem.rule] += 1
        if seen[problem.endpoint, problem.rule] <= PROBLEMS_OF_A_RULE_MAX:
            yield problem
