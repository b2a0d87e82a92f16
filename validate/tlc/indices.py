"""How much the two sides overlapped, as the indices that they read show."""

from __future__ import annotations

import numpy as np

from vchan_testbed.validate.lanes import Lanes
from vchan_testbed.validate.tlc.actions import ActionMap
from vchan_testbed.validate.tlc.columns import Columns, columns_of


def overlap(lanes: Lanes, actions: ActionMap) -> int:
    """Calls of one side that saw the other side move its index while they ran."""
    return _calls_that_saw_a_move(
        columns_of(lanes.sender.steps, "s", actions)
    ) + _calls_that_saw_a_move(columns_of(lanes.receiver.steps, "r", actions))


def _calls_that_saw_a_move(lane: Columns) -> int:
    call = np.cumsum(lane.where(lambda action: bool(action.chooses)))
    places, shown = lane.reads()
    calls = call[places]
    moved = (shown[1:] != shown[:-1]) & (calls[1:] == calls[:-1])
    return len(np.unique(calls[1:][moved]))
