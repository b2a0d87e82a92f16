"""specs/places.json is what the spec says: its sources are the same, and TLC finds it again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "places"))

from make import QUICK, TABLE, reached, sources_hash

from vchan_testbed.guests.diagnose.places import decode, encode


def test_the_table_is_of_this_spec() -> None:
    assert json.loads(TABLE.read_text())["made_from"] == sources_hash(), "run: make places"


def test_what_tlc_reaches_in_a_small_model_is_in_the_table() -> None:
    places = json.loads(TABLE.read_text())["places"]
    found = reached(QUICK)
    assert len(found) > 500
    for key, text in found:
        assert text in places[key].split(), (key, text)


def test_short_forms_come_back() -> None:
    for texts in json.loads(TABLE.read_text())["places"].values():
        for text in texts.split():
            assert encode(decode(text)) == text
