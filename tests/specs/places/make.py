"""Makes specs/places.json out of the spec: `make places`.

TLC reaches every state of a few small models of Libxenvchan.tla (specs/models/MCPlaces.tla), and
prints what can be seen of each from outside, and what is due in it. The models together have each
kind of call, blocking and not, rings that are empty, full and in between, and closing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.diagnose.places import SIDES, Place, encode
from vchan_testbed.validate.models import SPECS
from vchan_testbed.validate.tlc.runner import Limits, TlcJob, run_tlc

TABLE = SPECS / "places.json"
SOURCES = ("Libxenvchan.tla", "Stream.tla", "models/MCPlaces.tla")
SECONDS_MAX = 3600.0
HEAP_MIB = 6000
LINE = re.compile(
    r'"<<\\"place\\", <<(?P<filled>(?:\\"\w+\\", ){2})(?P<bytes>(?:\d, ){4})'
    r"(?P<where>(?:\\\"\w+\\\", ){2})(?P<sets>.*)>>>>\""
)
WORD = re.compile(r'\\"(\w+)\\"')
SET = re.compile(r"\{([^}]*)\}")

CONFIG = """\
CONSTANTS
  Threads = {{"client", "server"}}
  SideOf <- MCSide
  LeftBytes = {ring_bytes}
  RightBytes = {ring_bytes}
  IndexSpan = 4
  FirstLeft = 0
  FirstRight = 0
  Connected = {connected}
  Blocking <- {blocking}
  Unset = {{}}
  Environment = {{}}
  SpuriousMax = 0
  L1 = FALSE
  L2 = FALSE
  L3 = FALSE
  L4 = FALSE
  L5 = FALSE
  L6 = TRUE
  L7 = FALSE
  L8 = FALSE
  L9 = FALSE
  Choice <- MCChoice
  SizeMax = {ring_bytes}
  Calls = {{{calls}}}
SPECIFICATION MCSpec
VIEW Apart
INVARIANT Collect
"""


@dataclass(frozen=True)
class Small:
    """A model: its rings, what `blocking` is, and which calls there are."""

    name: str
    ring_bytes: int
    blocking: str
    calls: tuple[str, ...]
    connected: bool = True

    def config(self) -> str:
        """TLC's configuration."""
        calls = ", ".join(f'"{call}"' for call in self.calls)
        return CONFIG.format(
            ring_bytes=self.ring_bytes,
            blocking=self.blocking,
            calls=calls,
            connected=str(self.connected).upper(),
        )


QUICK = Small("streams", 1, "AllBlock", ("write", "read"))
MODELS = (
    Small("closes", 1, "BothWays", ("write", "read", "wait", "close")),
    Small("partly_filled", 2, "AllBlock", ("write", "read", "wait")),
    Small("packets", 2, "AllBlock", ("send", "recv")),
    Small("connects", 1, "AllBlock", ("write", "read"), connected=False),
)


def reached(model: Small) -> set[tuple[str, str]]:
    """Key and short form of every place that TLC reaches. Raises TestbedError without an end."""
    with tempfile.TemporaryDirectory(prefix="places-") as name:
        folder = Path(name)
        (folder / "MCPlaces.tla").write_text((SPECS / "models/MCPlaces.tla").read_text())
        (folder / f"{model.name}.cfg").write_text(model.config())
        job = TlcJob(
            folder=folder,
            module="MCPlaces",
            config=f"{model.name}.cfg",
            library=(SPECS, SPECS / "models"),
            options=("-deadlock", "-workers", "1"),
        )
        output = run_tlc(job, Limits(seconds_max=SECONDS_MAX, heap_mib=HEAP_MIB))
    if output.bound or "No error has been found." not in "\n".join(output.console):
        raise TestbedError(
            f"TLC did not come to an end with {model.name}.",
            next_step="Read TLC's last lines.",
            console="\n".join(output.console[-20:]),
        )
    return set(_places(output.console))


def _places(console: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in console:
        match = LINE.match(line)
        if match is None:
            if "place" in line and line.startswith('"'):
                raise TestbedError(f"not understood: {line}", next_step="Mend LINE.")
            continue
        filled = WORD.findall(match["filled"])
        numbers = re.findall(r"\d", match["bytes"])
        where = WORD.findall(match["where"])
        client, server, stops = (frozenset(WORD.findall(one)) for one in SET.findall(match["sets"]))
        place = Place(
            dict(zip(SIDES, where, strict=True)), {"client": client, "server": server}, stops
        )
        yield " ".join([*filled, *numbers]), encode(place)


def sources_hash() -> str:
    """Of what the table is made from."""
    text = b"".join((SPECS / name).read_bytes() for name in SOURCES)
    return hashlib.sha256(text).hexdigest()


def make(models: Iterable[Small]) -> dict[str, object]:
    """The table of these models together."""
    table: dict[str, set[str]] = defaultdict(set)
    for model in models:
        found = reached(model)
        print(f"{model.name}: {len(found)} places", flush=True)
        for key, text in found:
            table[key].add(text)
    places = {key: " ".join(sorted(texts)) for key, texts in sorted(table.items())}
    return {"made_from": sources_hash(), "places": places}


def main() -> int:
    """Write the table, or with --check compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    asked = parser.parse_args()
    table = make(MODELS)
    if asked.check:
        same = json.loads(TABLE.read_text()) == table
        print("the same as before" if same else "NOT the same as before")
        return 0 if same else 1
    TABLE.write_text(json.dumps(table, indent=0) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
