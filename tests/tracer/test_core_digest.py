"""The core's digest of bytes is the one that the validator puts together."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vchan_testbed.validate.digest import MODULUS, digest_of

SOURCE = Path(__file__).parents[2] / "tracer" / "core" / "digest.c"
LONG = 3 * 64 + 2 * 8 + 7
"""Some steps of eight words, some words, and some bytes."""


@pytest.fixture(scope="module")
def vt_digest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], int]:
    """It, compiled as the core is."""
    library = tmp_path_factory.mktemp("digest") / "digest.so"
    command = ["cc", "-std=gnu11", "-O2", "-fPIC", "-shared", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(library)).vt_digest
    function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_uint64
    return lambda data: int(function(data, len(data)))


@given(st.binary(max_size=4 * 64))
@example(b"")
@example(b"\xff" * LONG)
@example(b"\x00" * LONG)
@example(MODULUS.to_bytes(8, "big"))
@example((MODULUS - 1).to_bytes(8, "big") * 20)
def test_it_is_the_number_that_the_bytes_are(
    vt_digest: Callable[[bytes], int], data: bytes
) -> None:
    assert vt_digest(data) == digest_of(data)


@given(st.lists(st.sampled_from([0, 1, 2**63, 2**64 - 1, MODULUS, MODULUS - 1]), max_size=24))
def test_words_at_the_edges_are_carried(
    vt_digest: Callable[[bytes], int], words: list[int]
) -> None:
    data = b"".join(word.to_bytes(8, "big") for word in words)
    assert vt_digest(data) == digest_of(data)
