"""Where both ends may be with such a page, as the spec has it.

specs/places.json lists, of every state that TLC reaches in the models MCPlaces of Libxenvchan.tla,
what can be seen of it from outside, and what is due in it. Nothing of the protocol is written here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

WHERE = {"a": "app", "g": "gone", "c": "call", "r": "read", "v": "recv"} | {
    "w": "write",
    "s": "send",
    "p": "wait",
}
"""app: between calls; call: within one, awake; the others: asleep in that call."""
DUE = {"e": "event", "o": "poll", "s": "step", "r": "read", "l": "look"}
"""event: the wake-up of a call that sleeps; poll: an event, for whoever polls the descriptor
between calls; step: the library's next one; read: a call of the application that reads;
look: the same, of one that sleeps in a wait of its own."""
STOPS = {"k": "packets", "w": "writes"}
"""Stops that nobody promises not to come: a packet's two ends stand off, both ends write."""
SIDES = ("client", "server")
ASLEEP = ("read", "recv", "write", "send", "wait")


@dataclass(frozen=True, slots=True)
class Place:
    """Where both ends are, what is due of each, and whether it is a stop of a known kind."""

    where: dict[str, str]
    due: dict[str, frozenset[str]]
    stops: frozenset[str]


def places_of(key: str) -> list[Place]:
    """All places with a page like `key` (page.py); none where the spec has no such page."""
    table = json.loads(files("vchan_testbed").joinpath("specs/places.json").read_text())
    return [decode(text) for text in table["places"].get(key, "").split()]


def decode(text: str) -> Place:
    """A place out of its short form: where, due of the client, due of the server, stops."""
    where, client, server, stops = text.split(",")
    return Place(
        {side: WHERE[letter] for side, letter in zip(SIDES, where, strict=True)},
        {
            side: frozenset(DUE[letter] for letter in due)
            for side, due in zip(SIDES, (client, server), strict=True)
        },
        frozenset(STOPS[letter] for letter in stops),
    )


def encode(place: Place) -> str:
    """The short form of a place."""
    where = "".join(_letter(WHERE, place.where[side]) for side in SIDES)
    due = ["".join(sorted(_letter(DUE, what) for what in place.due[side])) for side in SIDES]
    stops = "".join(sorted(_letter(STOPS, what) for what in place.stops))
    return ",".join((where, *due, stops))


def _letter(letters: dict[str, str], word: str) -> str:
    return next(letter for letter, meant in letters.items() if meant == word)
