"""Places in a state of a spec: a variable, or `variable[key]` of one that is a function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import cast

from vchan_testbed.validate.lanes import State, Value


def at(state: State, path: str) -> Value:
    """The value at a place."""
    variable, key = _parts(path)
    value = state[variable]
    if not key:
        return value
    return dict(cast(frozenset[tuple[str, Value]], value))[key]


def changed(state: State, changes: Mapping[str, Value]) -> State:
    """The state with other values at some places."""
    values = state.as_dict()
    within: dict[str, dict[str, Value]] = defaultdict(dict)
    for path, value in changes.items():
        variable, key = _parts(path)
        if key:
            within[variable][key] = value
        else:
            values[variable] = value
    for variable, some in within.items():
        function = dict(cast(frozenset[tuple[str, Value]], values[variable]))
        values[variable] = frozenset((function | some).items())
    return State.of(values)


def _parts(path: str) -> tuple[str, str]:
    variable, _, rest = path.partition("[")
    return variable, rest.rstrip("]").strip('"')
