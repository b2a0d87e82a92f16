"""Other builds of the library: whatever a compiler makes of it is traced exactly.

The library is the project's own (tests/library/vchan.c). Both ends run one build, in each manner of
tracing; the oracle of test_exactness.py has to find each access.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from building import COMPILERS, OPTIONS, build_library
from conversations import ends_that_do_not_block, packets_and_questions, streams_both_ways

from vchan_testbed.tracer.layout import Variant

if TYPE_CHECKING:
    from conftest import TracedBy, TracedPair


def streams_in_the_page(pair: TracedPair) -> None:
    """Both rings in the shared page."""
    streams_both_ways(pair, 1024, 2048, (10, 11))


CONVERSATIONS = (streams_in_the_page, packets_and_questions, ends_that_do_not_block)
MANNERS = ("translation-kept", "emulation")


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The folder of each build."""
    folder = tmp_path_factory.mktemp("library")
    return {
        (compiler, options): build_library(folder, compiler, *options.split())
        for compiler in COMPILERS
        for options in OPTIONS
    }


@pytest.mark.parametrize("talk", CONVERSATIONS, ids=lambda talk: talk.__name__)
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_access_of_a_build_is_in_the_trace(
    builds: dict[tuple[str, str], Path],
    traced_by: TracedBy,
    compiler: str,
    options: str,
    manner: str,
    talk: Callable[[TracedPair], None],
) -> None:
    pair = traced_by(builds[compiler, options], manner)
    talk(pair)
    server, client = pair.read()
    assert {Variant(trace.header.variant).name.lower() for trace in (server, client)} == {
        pair.manner["variant"]
    }
