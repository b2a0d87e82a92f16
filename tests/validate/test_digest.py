"""Digests of copies: whatever the cuts, the same bytes agree, and other bytes do not."""

from __future__ import annotations

import sys
import time
import types
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from judging import judged
from library_model import Scenario, simulate

from vchan_testbed.tracer.header import Role
from vchan_testbed.tracer.layout import COPY_IN, COPY_OUT, Kind
from vchan_testbed.validate import digest
from vchan_testbed.validate.digest import Copied, compared, digest_of, joined


def copies(data: bytes, cuts: list[int]) -> list[Copied]:
    """The bytes in parts."""
    ends = [*sorted({cut % (len(data) + 1) for cut in cuts} - {0, len(data)}), len(data)]
    starts = [0, *ends[:-1]]
    return [
        Copied(end - start, digest_of(data[start:end]), row)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


GOLDEN = 0xE68A6B36DB155169
CUTS = st.lists(st.integers(0, 1000), max_size=8)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_digest_follows_from_those_of_its_parts(first: bytes, second: bytes) -> None:
    whole = joined(digest_of(first), digest_of(second), len(second))
    assert whole == digest_of(first + second)


@given(st.binary(min_size=1, max_size=60), CUTS, CUTS)
def test_the_same_bytes_agree_however_they_were_cut(
    data: bytes, at_one: list[int], at_other: list[int]
) -> None:
    written, read = copies(data, at_one), copies(data, at_other)
    found = compared(written, read)
    assert found.difference is None
    assert found.positions == len(common(written, read))


BYTES = st.binary(min_size=2, max_size=60)


@given(BYTES, st.data(), CUTS, CUTS)
def test_other_bytes_are_found_at_the_first_common_position_behind_them(
    data: bytes, draw: Any, at_one: list[int], at_other: list[int]
) -> None:
    other = draw.draw(st.sampled_from(changes(data, draw.draw(st.integers(1, len(data) - 1)))))
    assume(other != data)
    written, read = copies(data, at_one), copies(other, at_other)
    differs = [at for at in common(written, read) if data[:at] != other[:at]]
    found = compared(written, read).difference
    if not differs:
        assert found is None
        return
    assert found is not None
    assert found.position == differs[0]
    assert data[: found.same_up_to] == other[: found.same_up_to]


def common(written: list[Copied], read: list[Copied]) -> list[int]:
    """Positions that both have come to."""
    ends = [set(np.cumsum([copy.count for copy in side]).tolist()) for side in (written, read)]
    return sorted(ends[0] & ends[1])


def changes(data: bytes, at: int) -> list[bytes]:
    """There one byte is changed, two are swapped, one or all are lost, one or all come twice."""
    swapped = data[: at - 1] + data[at - 1 : at + 1][::-1] + data[at + 1 :]
    return [
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        swapped,
        data[at:] + data[:at],
        data[:at] + data[at + 1 :],
        data[at:],
        data[:at] + data[at : at + 1] + data[at:],
        data[:at] + data,
    ]


def test_the_digest_stays_the_one_that_traces_have() -> None:
    assert digest_of(b"") == 0
    assert digest_of(bytes([1, 0])) == 256
    assert digest_of(b"a digest of bytes") == GOLDEN


MUTANTS = {
    "an order of bytes does not count": ('int.from_bytes(data, "big")', "sum(data)"),
    "a part's length does not count": ("digest * power", "digest * BASE"),
    "only the last part counts": ("digest * power + copy.digest", "copy.digest"),
    "positions are not the same": ("if position != read_position:", "if False:"),
    "only the ends are compared": ("position < read_position", "True"),
    "all agrees": ("if digest != read_digest:", "if False:"),
    "what agreed is not kept": ("positions + 1, position\n", "positions + 1, 0\n"),
    "the next power is taken": ("pow(BASE, copy.count, MODULUS)", "pow(BASE, 1, MODULUS)"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name: str) -> None:
    old, new = MUTANTS[name]
    text = Path(digest.__file__).read_text()
    assert text.count(old) == 1
    mutant = types.ModuleType("mutant")
    sys.modules["mutant"] = mutant
    try:
        exec(compile(text.replace(old, new), "mutant", "exec"), mutant.__dict__)
        assert said_by(mutant) != said_by(digest)
    finally:
        del sys.modules["mutant"]


def said_by(module: Any) -> list[Any]:
    """What a module says of streams that agree, and of one that does not, in other parts."""
    data = bytes([*range(40), *range(40)])
    streams = (data, data[:17] + data[18:] + b"x", bytes(80), data[:70] + bytes(10))
    found: list[Any] = [module.digest_of(each) for each in (*streams, b"ab", b"ba", b"\0", b"")]
    for stream in streams:
        written, read = (
            [
                module.Copied(end - start, digest_of(part[start:end]), start)
                for start, end in pairwise(ends)
            ]
            for part, ends in ((data, (0, 5, 10, 40, 60, 80)), (stream, (0, 10, 33, 60, 61, 80)))
        )
        compared_now = module.compared(written, read)
        at = compared_now.difference
        found.append((compared_now.positions, at and (at.same_up_to, at.position, at.read)))
    return found


def test_a_million_copies_take_seconds() -> None:
    many = [Copied(64 + row % 7, row * digest.BASE % digest.MODULUS, row) for row in range(10**6)]
    began = time.process_time()
    assert compared(many, many).positions == 10**6
    assert time.process_time() - began < 30


STREAM = Scenario(
    server=(("read", 64), ("read", 200), ("close",)),
    client=(("write", 64), ("write", 200), ("close",)),
)


def test_a_run_whose_bytes_are_the_same_is_accepted(tmp_path: Path) -> None:
    assert judged(simulate(STREAM), tmp_path).conformance == "ACCEPTED"


@pytest.mark.parametrize("op", [COPY_IN, COPY_OUT])
def test_a_copy_of_other_bytes_is_a_failure_of_integrity(op: int, tmp_path: Path) -> None:
    run = simulate(replace(STREAM, seed=3))
    role: Role = "client" if op == COPY_IN else "server"
    records = run.records(role).copy()
    at = np.flatnonzero((records["kind"] == Kind.COPY) & (records["op"] == op))[-1]
    records["old"][at] ^= 1
    verdict = judged(run, tmp_path, {role: records})
    assert (verdict.conformance, verdict.kind) == ("REJECTED", "payload")
    assert "came out as others than went in" in verdict.reason
    assert verdict.first_unexplained is not None
    assert verdict.first_unexplained.endpoint == "server"
