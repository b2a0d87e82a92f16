"""Records in words."""

from __future__ import annotations

import numpy as np
import pytest

from vchan_testbed.tracer.format import RECORD_DTYPE
from vchan_testbed.tracer.layout import Call, Cell, FaultKind, Flag, Kind
from vchan_testbed.validate.wording import describe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"kind": Kind.FAULT, "new": FaultKind.DROP},
            "read: the test bed drops what follows",
        ),
        ({"kind": Kind.FAULT, "new": FaultKind.DELAY}, "read: the test bed holds what follows"),
        (
            {"kind": Kind.LOAD, "offset": Cell.CLI_LIVE, "flags": Flag.HELD},
            "read: load cli_live 0 (held by the test bed)",
        ),
        (
            {"kind": Kind.LOAD, "offset": Cell.CLI_LIVE, "flags": Flag.HELD_IN_VAIN},
            "read: load cli_live 0 (held by the test bed in vain)",
        ),
        (
            {"kind": Kind.NOTIFY, "flags": Flag.FAULT_INJECTED},
            "read: notify, 0 (changed by the test bed)",
        ),
    ],
)
def test_what_the_test_bed_did_is_said(changes: dict[str, int], words: str) -> None:
    records = np.zeros(1, dtype=RECORD_DTYPE)
    records["call"] = Call.READ
    for name, value in changes.items():
        records[name] = value
    assert describe(records) == words
