"""The page as a reader, a screen reader and an attacker meet it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vchan_testbed.tracer.format import RECORD_DTYPE
from vchan_testbed.tracer.header import Role, TraceHeader
from vchan_testbed.tracer.layout import NO_OFFSET, Call, Cell, Flag, Kind
from vchan_testbed.tracer.reader import Trace
from vchan_testbed.validate.place import Place
from vchan_testbed.validate.report import write_report
from vchan_testbed.validate.report.judged import value_words
from vchan_testbed.validate.verdict import (
    DirectionVerdict,
    EndCandidate,
    Expectation,
    KnownUse,
    Maximal,
    Verdict,
)

HOSTILE = "</pre></td><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;"
VOID = {"meta", "img", "br", "hr", "link", "input"}


def transfer(messages: int, *, role: Role, shift: int = 0) -> Trace:
    """One end of a left-hand stream of 64-byte messages, ten records a message."""
    sends = role == "client"
    own, other = (Cell.LEFT_PROD, Cell.LEFT_CONS) if sends else (Cell.LEFT_CONS, Cell.LEFT_PROD)
    done = 64 * np.arange(messages)
    # The reader is one microsecond behind the writer, and reads what the writer has just written.
    seen = done if sends else done + 64
    call = int(Call.WRITE if sends else Call.READ)
    event = [(Kind.NOTIFY, 3, 0)] if sends else [(Kind.UNMASK, 3, 0)]
    steps: list[tuple[Any, int, Any, Any]] = [
        (Kind.CALL_ENTER, NO_OFFSET, 64, 0),
        (Kind.LOAD, own, done, done),
        (Kind.LOAD, other, seen, seen),
        (Kind.COPY, NO_OFFSET, done % 4096, 64),
        (Kind.STORE, own, done, done + 64),
        (Kind.RMW_LOCKED, Cell.CLI_NOTIFY, 3, 1),
        *((kind, NO_OFFSET, old, new) for kind, old, new in event),
        (Kind.PENDING_ENTER, NO_OFFSET, 0, 0),
        (Kind.PENDING_EXIT, NO_OFFSET, 0, 3),
        (Kind.CALL_EXIT, NO_OFFSET, 0, 64),
    ]
    records = np.zeros((messages, len(steps)), RECORD_DTYPE)
    start = 10_000 * np.arange(messages) + 10**6 + shift + (0 if sends else 1000)
    for number, (kind, offset, old, new) in enumerate(steps):
        column = records[:, number]
        column["kind"], column["offset"], column["call"] = kind, offset, call
        column["old"], column["new"] = old, new
        column["width"] = 4 if offset in (own, other) else 1
        column["t0"], column["t1"] = start + 100 * number, start + 100 * number + 50
        column["call_seq"] = np.arange(messages) + 1
    flat = records.reshape(-1)
    flat["seq"] = np.arange(len(flat)) + 1
    header = TraceHeader(role, 1, 2, 12, 12, tsc_hz=10**9, library=HOSTILE[:40])
    return Trace(header, flat, "complete", 0, ())


FACTS: dict[str, Any] = {
    "format": 1,
    "state": "complete",
    "run_id": "00ff",
    "seed": 7,
    "command": {"experiment": "of mine/two words.yaml", "host": "auto", "domain_type": None},
    "host": {"kind": "qemu", "xen_version": "4.17.5", "accelerator": "tcg"},
    "domain_type": "pv",
    "experiment": {"name": "two words", "faults": [], "client": [{"do": "write", "bytes": 64}]},
    "versions": {"server": {"kernel": "6.1"}},
    "endpoints": {"server": {"domid": 1, "ended": "finished"}, "client": {"domid": 2}},
    "outcome": "stood still",
    "started": "2026-01-02T03:04:05+0000",
    "messages": ["a message"],
    "quiescence": {
        "settle_seconds": 2,
        "quiescent": True,
        "looks": [
            {
                "at_seconds": at,
                "endpoints": {
                    "server": {
                        "alive": True,
                        "threads": [
                            {"tid": 1, "wait_channel": "pipe_read", "blocked_in_kernel": True}
                        ],
                        "event_fd_readable": False,
                        "records": 40,
                        "page": "0000000040000000" + "00" * 8 + "0c000c000101" + "0103",
                        "in_call": "read",
                    },
                    "client": {"alive": None, "page": None},
                },
            }
            for at in (10.0, 12.0)
        ],
    },
}
DIRECTION = DirectionVerdict(
    "left",
    "ACCEPTED",
    "PROGRESS",
    coverage={"r_take": 4, "s_put": 5},
    overlap=3,
    unlogged_steps=1,
    stuttering_records=17,
    steps=9_000,
    pieces=2,
    states=12_345,
)
GOOD = Verdict(
    "ACCEPTED",
    "PROGRESS",
    directions=(DIRECTION, replace(DIRECTION, direction="right")),
    spec="Vchan",
    spec_hash="5a" * 32,
    host={"kind": "qemu", "xen_version": "4.17.5"},
    domain_type="pv",
    records=200,
    seconds=1.5,
)
SENDER = Place("client", 15, 14, 0.001, "store left.prod 64 → 128", "no room for 64 bytes")
RECEIVER = Place("server", 12, 11, 0.001, "load left.prod = 64")
POSITIONS = tuple(
    Maximal("left", 10 - n, 8 + n, SENDER, RECEIVER if n else None, ("s_arm",), {"sPort": n})
    for n in range(5)
)
REJECTED = replace(
    GOOD,
    conformance="REJECTED",
    progress="INCONCLUSIVE",
    kind="protocol",
    reason="the ring was full",
    first_unexplained=SENDER,
    maximal=POSITIONS,
    notes=("the client's trace is cut",),
)
VIOLATION = replace(
    GOOD,
    progress="VIOLATION",
    progress_reason="the event was raised and never came",
    due_action="r_wait",
    fault_of="event channel",
    known=(KnownUse("L1", (RECEIVER,)),),
    directions=(
        replace(
            DIRECTION,
            progress="VIOLATION",
            candidates=(EndCandidate({"rPort": 1}, ("r_wait",), ("a read",), "VIOLATION"),),
        ),
    ),
)


@dataclass
class Element:
    """One element of the page."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """Elements below this one, in the order of the page."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.all(tag)

    def words(self) -> str:
        """All text below."""
        return self.text + " ".join(child.words() for child in self.children)


class Parser(HTMLParser):
    """Builds the tree; complains about an element that is closed by another one's tag."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A new element."""
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG without content."""
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """The end of the innermost element."""
        assert self.open[-1].tag == tag, f"</{tag}> inside of <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        """Text."""
        self.open[-1].text += data


def report(
    tmp_path: Path, verdict: Verdict, facts: dict[str, Any] | None = None, messages: int = 20
) -> str:
    """The text of a run's report."""
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    (run / "run.json").write_text(json.dumps(FACTS if facts is None else facts))
    server, client = transfer(messages, role="server"), transfer(messages, role="client")
    write_report(run, verdict, server, client)
    return (run / "report.html").read_text()


def parsed(text: str) -> Element:
    """The page's tree."""
    parser = Parser()
    parser.feed(text)
    assert [element.tag for element in parser.open] == [""]
    return parser.root


def section(root: Element, key: str) -> Element:
    """The section under a heading."""
    (found,) = [
        each for each in root.all("section") if each.attributes.get("aria-labelledby") == key
    ]
    return found


VERDICTS = pytest.mark.parametrize(
    "verdict", [GOOD, REJECTED, VIOLATION], ids=["good", "rejected", "violation"]
)


@VERDICTS
def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path: Path, verdict: Verdict) -> None:
    text = report(tmp_path, verdict)
    root = parsed(text)
    ids = [each.attributes["id"] for each in everything(root) if "id" in each.attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for each in everything(root):
        assert each.tag not in ("script", "link", "img", "iframe", "object")
        assert not [name for name in each.attributes if name.startswith("on") or name == "src"]
        target = each.attributes.get("href")
        assert target is None or (target[:1] == "#" and target[1:] in ids)
        for name in (each.attributes.get("aria-labelledby") or "").split():
            assert name in ids
    assert "url(" not in text
    assert "@import" not in text


@VERDICTS
def test_the_page_can_be_heard(tmp_path: Path, verdict: Verdict) -> None:
    root = parsed(report(tmp_path, verdict))
    (page,) = root.all("html")
    assert page.attributes["lang"] == "en"
    headings = [each.tag for each in everything(root) if each.tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    tables, pictures = list(root.all("table")), list(root.all("svg"))
    assert tables
    assert pictures
    for table in tables:
        (caption,) = table.all("caption")
        assert caption.words().strip()
        assert all(head.attributes.get("scope") in ("col", "row") for head in table.all("th"))
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        assert next(picture.all("title")).text
        assert next(picture.all("desc")).text


def everything(root: Element) -> Iterator[Element]:
    """All elements, in the order of the page."""
    for child in root.children:
        yield child
        yield from everything(child)


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    text = report(tmp_path, VIOLATION)
    words = ["VIOLATION", "r_wait was due", "event channel", "Throughput", "Experiment"]
    main = text[text.index("<main>") :]
    places = [main.index(word) for word in words]
    assert max(places[:3]) < places[3] < places[4]
    verdict = section(parsed(text), "verdict")
    assert "no, not as expected" in verdict.words()


def test_an_expected_violation_is_shown_as_expected(tmp_path: Path) -> None:
    expected = replace(VIOLATION, expectation=Expectation("ACCEPTED", "VIOLATION", ("L1",)))
    verdict = section(parsed(report(tmp_path, expected)), "verdict")
    assert "yes, as expected" in verdict.words()
    assert "good" in (verdict.attributes["class"] or "")


@pytest.mark.parametrize(
    ("host", "banner"),
    [
        ({"kind": "qemu", "xen_version": "4.17.5"}, ""),
        ({"kind": "loopback", "xen_version": None}, "No Xen was involved"),
        ({}, "not known whether a Xen was involved"),
    ],
)
def test_a_run_without_xen_says_so(tmp_path: Path, host: dict[str, Any], banner: str) -> None:
    root = parsed(report(tmp_path, replace(GOOD, host=host)))
    notes = [each.words() for each in root.all("p") if each.attributes.get("role") == "note"]
    assert len(notes) == bool(banner)
    assert banner in " ".join(notes)


def test_figures_have_units(tmp_path: Path) -> None:
    root = parsed(report(tmp_path, GOOD))
    row = next(row for row in section(root, "throughput").all("tr") if "client to" in row.words())
    cells = [cell.words().replace("\u00a0", " ") for cell in row.all("td")]
    # Ring, written, read, time, throughput, moves of either index.
    assert cells[:3] == ["4 KiB", "1\u202f280 B", "1\u202f280 B"]
    assert re.fullmatch(r"1\d\d µs", cells[3])
    assert re.fullmatch(r"6\.\d\d MiB/s", cells[4])
    assert cells[5:] == ["20", "20"]
    latency = section(root, "latency").words().replace("\u00a0", " ")
    assert re.search(r"give or take [\d.]+ µs", latency)
    assert re.search(r"p50 [\d.]+ µs", latency)
    assert "Empty" in section(root, "occupancy").words()


def test_the_rejection_shows_both_lanes(tmp_path: Path) -> None:
    root = parsed(report(tmp_path, REJECTED))
    rejection = section(root, "rejection")
    words = rejection.words()
    assert "Position 1 of 5" in words
    assert "2 more positions are in verdict.json" in words
    lanes = [each for each in rejection.all("table") if each.attributes.get("class") == "lanes"]
    assert len(lanes) == 3
    stuck = [
        cell.words()
        for row in lanes[1].all("tr")
        if row.attributes.get("class") == "stuck"
        for cell in row.all("td")
        if cell.children
    ]
    assert len(stuck) == 2
    assert any("record 15" in cell and "left.prod 64 -> 128" in cell for cell in stuck)
    assert any("record 15" in cell and "cannot follow" in cell for cell in stuck)
    assert any("record 12" in cell and "next here" in cell for cell in stuck)
    steps = [bold.words() for bold in lanes[1].all("b")]
    # What the table of records makes of these records: a store of prod is a put of 64 bytes.
    assert {"s_call 64", "s_put 64", "r_have 64", "r_take 64"} <= set(steps)
    states = [
        each for each in rejection.all("table") if "state" in next(each.all("caption")).words()
    ]
    assert "sPort" in states[0].words()


def test_an_injected_fault_is_marked_where_it_happened(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    server, client = transfer(20, role="server"), transfer(20, role="client")
    client.records["flags"][16] = Flag.FAULT_INJECTED
    write_report(run, REJECTED, server, client)
    rejection = section(parsed((run / "report.html").read_text()), "rejection")
    assert "changed by the test bed" in rejection.words()


def test_progress_shows_every_candidate(tmp_path: Path) -> None:
    words = section(parsed(report(tmp_path, VIOLATION)), "progress").words()
    assert "r_wait" in words
    assert "rPort = 1" in words


def test_end_states_are_shown_by_what_differs(tmp_path: Path) -> None:
    state = {"ring": [[1, 8]], "sPort": 0}
    ends = tuple(
        EndCandidate({**state, "rPort": port}, (), ("a read",), "STALLED") for port in (1, 2)
    )
    stalled = replace(DIRECTION, progress="STALLED", candidates=ends)
    verdict = replace(GOOD, progress="STALLED", directions=(stalled,))
    progress = section(parsed(report(tmp_path, verdict)), "progress")
    (table,) = progress.all("table")
    assert [head.text for head in table.all("th")][:4] == [
        "There",
        "Promised and open",
        "Fair actions due",
        "rPort",
    ]
    assert [cell.text for cell in table.all("td")][2::3] == ["1", "2"]
    assert "In all of them: ring = 1–8; sPort = 0." in progress.words()


def test_end_states_that_are_as_they_should_be_stand_with_the_figures(tmp_path: Path) -> None:
    ends = (EndCandidate({"rPort": 1}, (), (), "PROGRESS"),)
    verdict = replace(GOOD, directions=(replace(DIRECTION, candidates=ends),))
    page = parsed(report(tmp_path, verdict))
    assert "rPort = 1" in section(page, "checked").words()
    assert "progress" not in {each.attributes.get("id") for each in page.all("h2")}


def test_what_to_do_next_stands_with_the_verdict(tmp_path: Path) -> None:
    assert "Next: " in next(parsed(report(tmp_path, REJECTED)).all("section")).words()
    assert "Next: " not in next(parsed(report(tmp_path, GOOD)).all("section")).words()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "yes"),
        (3, "3"),
        ([], "none"),
        ([[1, 4096], [5000, 5001]], "1–4\u202f096, 5\u202f000–5\u202f001"),
        ({"s": "s_put", "r": "r_wait", "s dies": "s_die"}, "s: s_put, r: r_wait"),
        ({"a": [[1, 2]], "b": False}, "a: 1–2, b: no"),
        ("here", "here"),
    ],
)
def test_a_state_of_the_spec_is_in_words(value: object, shown: str) -> None:
    assert value_words(value) == shown


def test_how_much_was_checked_is_always_said(tmp_path: Path) -> None:
    words = section(parsed(report(tmp_path, GOOD)), "checked").words()
    for expected in ("12\u202f345", "9\u202f000", "s_put", "Records taken as stuttering", "Pieces"):
        assert expected in words
    assert re.search(r"Of the spec's [34]\d actions 2 were taken", words)
    assert re.search(r"Never taken, so nothing was checked of them: .*\br_final\b", words)


def test_the_looks_at_a_run_that_stood_still_are_shown(tmp_path: Path) -> None:
    words = section(parsed(report(tmp_path, GOOD)), "end").words()
    assert "nothing had moved, and no event was there to be read" in words
    assert "left prod 64, cons 0" in words
    assert "notify: server 3, client 1" in words
    assert "not seen" in words
    assert "1 of 1 (pipe_read)" in words


def test_the_commands_to_repeat_can_be_pasted(tmp_path: Path) -> None:
    words = section(parsed(report(tmp_path, GOOD)), "repeat").words()
    # As it was asked for: not the host that auto found, nor the type that suited it.
    assert "vchan-testbed run 'of mine/two words.yaml' --host auto --seed 7" in words
    assert "vchan-testbed validate run" in words


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ({"experiment": None, "host": "loopback", "domain_type": None}, "--host loopback --seed 7"),
        (
            {"experiment": None, "host": "ssh://root@a", "domain_type": "pv"},
            "--host ssh://root@a --domain-type pv --seed 7",
        ),
    ],
)
def test_what_was_not_asked_for_is_not_in_the_command(
    command: dict[str, Any], line: str, tmp_path: Path
) -> None:
    words = section(parsed(report(tmp_path, GOOD, {**FACTS, "command": command})), "repeat").words()
    assert f"vchan-testbed run {line}" in words


def test_a_run_that_does_not_say_how_it_was_made_is_not_guessed_at(tmp_path: Path) -> None:
    facts = {name: value for name, value in FACTS.items() if name != "command"}
    words = section(parsed(report(tmp_path, GOOD, facts)), "repeat").words()
    assert "does not say with which command" in words
    assert "vchan-testbed run" not in words


def test_nothing_that_came_from_a_guest_becomes_markup(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(FACTS))
    facts["experiment"]["name"] = facts["messages"][0] = facts["run_id"] = HOSTILE
    facts["host"][HOSTILE] = facts["outcome"] = HOSTILE
    facts["quiescence"]["looks"][0]["endpoints"]["server"]["in_call"] = HOSTILE
    place = replace(SENDER, what=HOSTILE, reason=HOSTILE)
    verdict = replace(
        REJECTED,
        reason=HOSTILE,
        first_unexplained=place,
        maximal=(replace(POSITIONS[0], instead=(HOSTILE,), state={HOSTILE: HOSTILE}),),
        notes=(HOSTILE,),
        spec=HOSTILE,
    )
    text = report(tmp_path, verdict, facts)
    assert "<script" not in text
    assert "<img" not in text
    # It is there, as text: the parser gives it back whole.
    assert HOSTILE in section(parsed(text), "end").words()


def test_half_a_character_in_a_message_does_not_stop_the_report(tmp_path: Path) -> None:
    assert "a\\udcff" not in report(tmp_path, GOOD, {**FACTS, "messages": ["a\udcff"]})


@pytest.mark.parametrize("facts", [{}, {"format": 1, "state": "incomplete", "endpoints": None}])
def test_a_run_that_was_cut_short_has_a_report(tmp_path: Path, facts: dict[str, Any]) -> None:
    assert "did not come to an end" in report(tmp_path, GOOD, facts)


def test_a_folder_with_two_traces_and_nothing_else_has_a_report(tmp_path: Path) -> None:
    write_report(tmp_path, GOOD, transfer(2, role="server"), transfer(2, role="client"))
    assert (tmp_path / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_empty_traces_have_a_report(tmp_path: Path) -> None:
    text = report(tmp_path, GOOD, messages=0)
    assert "Nothing was written" in text


def test_a_million_records_make_a_page_below_two_megabytes(tmp_path: Path) -> None:
    text = report(tmp_path, REJECTED, messages=50_000)
    assert len(text.encode()) < 2_000_000
    assert "500\u202f000" in text
