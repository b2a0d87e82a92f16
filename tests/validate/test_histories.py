"""Histories and what is said of them: the verdict and its explanation, as a user reads them.

Below the line of a file in `histories/` stands what was said when it was written. After a change
of the words VCHAN_TESTS_WRITE_ANEW=1 writes all of them anew; read the difference.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from histories import History, played
from judging import judged

from vchan_testbed.validate.explain import explain
from vchan_testbed.validate.verdict import CONFORMANCE, PROGRESS, Verdict

FOLDER = Path(__file__).parent / "histories"
FILES = sorted(FOLDER.glob("*.history"))
LINE = "----\n"
ANEW = os.environ.get("VCHAN_TESTS_WRITE_ANEW") == "1"


def verdict_on(text: str, folder: Path) -> Verdict:
    """The verdict on a history."""
    history = History.of(text)
    run, changed = played(history)
    facts = run.facts(**history.expect)
    # Else each of them would say that no Xen was involved.
    facts["host"] = {"kind": "model", "xen_version": "of the model"}
    return replace(judged(run, folder, changed, facts=facts), seconds=0.0)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_said(file: Path, tmp_path: Path) -> None:
    history, line, said = file.read_text().partition(LINE)
    now = "".join(f"{each}\n" for each in explain(verdict_on(history, tmp_path)))
    if ANEW:
        file.write_text(f"{history}{LINE}{now}")
        return
    assert line
    assert said == now


def test_every_word_is_said_of_some_history() -> None:
    first = [file.read_text().partition(LINE)[2].split("\n")[0] for file in FILES]
    for word in (*CONFORMANCE, *PROGRESS):
        assert any(word in line.partition(";")[0] for line in first), word


def test_every_kind_of_rejection_is_among_them(tmp_path: Path) -> None:
    texts = [file.read_text().partition(LINE)[0] for file in FILES]
    kinds = {verdict_on(text, tmp_path).kind for text in texts}
    assert kinds == {"", "protocol", "log", "memory-order", "payload", "record"}


@pytest.mark.parametrize("step", ["S.dance", "S..", "X.w4", "C.kill C.w4"])
def test_what_is_no_history_is_refused(step: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        played(History.of(step))
