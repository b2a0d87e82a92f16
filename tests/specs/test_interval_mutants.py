"""Intervals.tla: each of its operators, changed, no longer agrees with what it stands for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from vchan_testbed.validate.models import SPECS, Holds, Violates, check, load_models

SPEC = "Intervals.tla"
STREAMS = "stream_and_intervals"
PORTS = "port_and_interval"
EARLY = "port_unmasked_early"

JOINED = "s[Len(s)][2] + 1 = t[1][1]"
TAKEN = "<<s[1]>> \\o IntervalTake(Tail(s), n - here)"
PORT_TAKEN = "<<IF port[1] = 0 THEN 0 ELSE port[1] - 1, port[2] - 1, TRUE, port[4]>>"
PORT_UNMASKED = "IF port[2] = 0 THEN 2 ELSE IF port[3] THEN port[4] ELSE 3>>"

MUTANTS = {
    "no bytes are one": (STREAMS, "IntervalNoBytes == << >>", "IntervalNoBytes == << <<1, 1>> >>"),
    "no bytes are an empty interval": (
        STREAMS,
        "IF n = 0 THEN << >> ELSE << <<before",
        "<< <<before",
    ),
    "bytes begin one too early": (STREAMS, "<<before + 1, before + n>>", "<<before, before + n>>"),
    "bytes end one too early": (
        STREAMS,
        "<<before + 1, before + n>>",
        "<<before + 1, before + n - 1>>",
    ),
    "an interval is one shorter": (
        STREAMS,
        "THEN s[1][2] - s[1][1] + 1\n    ELSE s",
        "THEN s[1][2] - s[1][1]\n    ELSE s",
    ),
    "only one interval counts": (STREAMS, "+ 1 + IntervalLen(Tail(s))", "+ 1"),
    "nothing is joined": (STREAMS, JOINED, "FALSE"),
    "what overlaps is joined": (STREAMS, JOINED, "s[Len(s)][2] + 1 >= t[1][1]"),
    "what has a gap is joined": (STREAMS, JOINED, "s[Len(s)][2] + 2 >= t[1][1]"),
    "what is joined loses what follows": (
        STREAMS,
        "<<s[Len(s)][1], t[1][2]>> >> \\o Tail(t)",
        "<<s[Len(s)][1], t[1][2]>> >>",
    ),
    "what is joined loses what precedes": (
        STREAMS,
        "SubSeq(s, 1, Len(s) - 1) \\o << <<s[Len(s)]",
        "<< <<s[Len(s)]",
    ),
    "what is not joined changes places": (STREAMS, "ELSE s \\o t", "ELSE t \\o s"),
    "a part of an interval is one longer": (
        STREAMS,
        "<<s[1][1], s[1][1] + n - 1>>",
        "<<s[1][1], s[1][1] + n>>",
    ),
    "the end of an interval is taken": (
        STREAMS,
        "<<s[1][1], s[1][1] + n - 1>>",
        "<<s[1][2] - n + 1, s[1][2]>>",
    ),
    "only the first interval is taken": (STREAMS, TAKEN, "<<s[1]>>"),
    "one interval too many is taken": (STREAMS, TAKEN, "s"),
    "a part that is dropped is one longer": (STREAMS, "<<s[1][1] + n, s", "<<s[1][1] + n + 1, s"),
    "the last byte of an interval is not dropped": (
        STREAMS,
        "n < here THEN << <<s[1][1] + n, s",
        "n <= here THEN << <<s[1][1] + n, s",
    ),
    "all behind a part is dropped": (STREAMS, "s[1][2]>> >> \\o Tail(s)", "s[1][2]>> >>"),
    "whole intervals are not dropped": (STREAMS, "ELSE IntervalDrop(Tail(s), n - here)", "ELSE s"),
    "all of a stream is not its prefix": (
        STREAMS,
        "IntervalLen(p) <= IntervalLen(s)",
        "IntervalLen(p) < IntervalLen(s)",
    ),
    "whatever is as long is a prefix": (
        STREAMS,
        "IntervalTake(s, IntervalLen(p)) = p",
        "Len(IntervalTake(s, IntervalLen(p))) = Len(p)",
    ),
    "an idle port is held": (PORTS, "<<0, 0, FALSE, 2>>", "<<0, 0, TRUE, 2>>"),
    "an idle port has an event": (PORTS, "<<0, 0, FALSE, 2>>", "<<1, 1, FALSE, 2>>"),
    "an idle port may have an event": (PORTS, "<<0, 0, FALSE, 2>>", "<<0, 1, FALSE, 2>>"),
    "a raised event may be lost": (
        PORTS,
        "ELSE { <<IF port[1] = 0 THEN 1 ELSE port[1],\n",
        "ELSE { <<port[1],\n",
    ),
    "a second event is always lost": (
        PORTS,
        "port[2] >= max THEN port[2] ELSE port[2] + 1",
        "port[2] >= 1 THEN port[2] ELSE port[2] + 1",
    ),
    "events are not lost": (PORTS, "IF port[2] >= max THEN port[2] ELSE", "IF FALSE THEN 2 ELSE"),
    "an event may be lost in a held port": (
        PORTS,
        "{ <<1, 1, TRUE, 2>> }",
        "{ <<0, 1, TRUE, 2>> }",
    ),
    "a held port may have two": (PORTS, "{ <<1, 1, TRUE, 2>> }", "{ <<1, 2, TRUE, 2>> }"),
    "a raise ends the hold": (PORTS, "{ <<1, 1, TRUE, 2>> }", "{ <<1, 1, FALSE, 2>> }"),
    "a port is ready with nothing": (PORTS, "port[2] > 0 /\\ ~port[3]", "~port[3]"),
    "a port is ready when it must be": (PORTS, "port[2] > 0 /\\ ~port[3]", "port[1] > 1"),
    "what is taken stays": (PORTS, PORT_TAKEN, "<<port[1], port[2], TRUE, port[4]>>"),
    "the least stays when it is taken": (
        PORTS,
        PORT_TAKEN,
        "<<port[1], port[2] - 1, TRUE, port[4]>>",
    ),
    "all is taken": (PORTS, PORT_TAKEN, "<<0, 0, TRUE, port[4]>>"),
    "the last number of wake-ups is not counted": (
        PORTS,
        "<<count, count, port[3], port[4]>> : count \\in port[1]..port[2] }",
        "<<count, count, port[3], port[4]>> : count \\in port[1]..port[2] - 1 }",
    ),
    "counting ends the hold": (
        PORTS,
        "<<count, count, port[3], port[4]>>",
        "<<count, count, FALSE, port[4]>>",
    ),
    "there is always room": (PORTS, "port[4] = 2 /\\ port[2] < IF port[3] THEN 1 ELSE 2", "TRUE"),
    "a held port has room for two": (PORTS, "IF port[3] THEN 1 ELSE 2", "2"),
    "a taken port is not held": (
        PORTS,
        PORT_TAKEN,
        "<<IF port[1] = 0 THEN 0 ELSE port[1] - 1, port[2] - 1, FALSE, port[4]>>",
    ),
    "unmasking does nothing": (
        PORTS,
        f"<<port[1], port[2], FALSE, {PORT_UNMASKED}",
        "port",
    ),
    "unmasking loses what came": (
        PORTS,
        f"<<port[1], port[2], FALSE, {PORT_UNMASKED}",
        f"<<0, port[2], FALSE, {PORT_UNMASKED}",
    ),
    "unmasking makes room for three": (PORTS, PORT_UNMASKED, "3>>"),
    "an early unmask makes no room": (EARLY, PORT_UNMASKED, "2>>"),
    "an unmask of a held port ends the time of three": (
        EARLY,
        PORT_UNMASKED,
        "IF port[2] = 0 THEN 2 ELSE IF port[3] THEN 2 ELSE 3>>",
    ),
    "a take ends the time of three": (
        EARLY,
        PORT_TAKEN,
        "<<IF port[1] = 0 THEN 0 ELSE port[1] - 1, port[2] - 1, TRUE, 2>>",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_does_not_agree(name: str, tmp_path: Path) -> None:
    model, old, new = MUTANTS[name]
    shutil.copytree(SPECS, tmp_path, dirs_exist_ok=True)
    text = (SPECS / SPEC).read_text()
    assert text.count(old) == 1, text.count(old)
    (tmp_path / SPEC).write_text(text.replace(old, new))
    found = check(replace(load_models()[model], seconds=0.0), tmp_path)
    assert isinstance(found.result, Violates), found.result


@pytest.mark.parametrize("name", [STREAMS, PORTS, EARLY])
def test_without_a_mutation_they_agree(name: str) -> None:
    assert isinstance(check(replace(load_models()[name], seconds=0.0)).result, Holds)
