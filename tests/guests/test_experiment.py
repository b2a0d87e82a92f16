"""Experiment files: what is accepted, and errors with file, line, finding and expectation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment import (
    Experiment,
    Fault,
    default_path,
    load_experiment,
    parse_experiment,
)
from vchan_testbed.tracer.layout import FaultKind

FILES = sorted(default_path().parent.glob("*.yaml"))
GOOD = """\
name: good
channel: {left_ring_bytes: 1024, right_ring_bytes: 2048}
server:
  - read: {bytes: 8, sizes: 8}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 64}
client:
  - write: {bytes: 8, sizes: [1, 2]}
  - pause: {seconds: 0.5}
  - read: {bytes: 8, sizes: {from: 1, to: 3}, pause_seconds: 0.1}
  - close
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def refused(text: str) -> tuple[int, str, str]:
    """Line, finding and expectation of the error."""
    with pytest.raises(InputError) as error:
        parse_experiment(text, "x.yaml")
    name, line, found = error.value.message.split(":", 2)
    assert name == "x.yaml"
    return int(line), found.strip(), error.value.next_step


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_of_the_project_is_accepted(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    assert experiment.about
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


def test_the_default_one_moves_256_kib_each_way_and_is_acknowledged() -> None:
    experiment = load_experiment()
    assert experiment.name == "default"
    for end in ("server", "client"):
        moved = {o.do: 0 for o in experiment.operations(end)}
        for operation in experiment.operations(end):
            moved[operation.do] += operation.bytes
        assert moved["write"] == moved["read"] == (256 << 10) + 8
    assert experiment.channel.left_ring_bytes == experiment.channel.right_ring_bytes == 4096
    assert experiment.client[-1].do == "close"


def test_what_is_left_out_has_a_default() -> None:
    experiment = parse_experiment(GOOD, "x.yaml")
    assert experiment.server_domain.type == "default"
    assert experiment.timeouts.settle_seconds > 0
    assert experiment.expect.conformance == "ACCEPTED"
    assert experiment.client[2].sizes == ("from", 1, "to", 3)


SCHEMA_ERRORS = [
    # what is changed, into what, the line, a word of the finding, a word of the expectation
    ("name: good", "nam: good", 1, "'nam'", "name"),
    ("name: good\n", "", 1, "'name' is a required", "Add it"),
    ("name: good", "name: ../evil", 1, "../evil", "short name"),
    ("1024", "0", 2, "is 0", "1 to 1048576"),
    ("1024", "'1024'", 2, "'1024'", "1 to 1048576"),
    ("1024", "1024.0", 2, "1024.0", "1 to 1048576"),
    ("1024", "true", 2, "True", "1 to 1048576"),
    ("2048", "2097152", 2, "2097152", "1 to 1048576"),
    ("left_ring_bytes", "left_ring", 2, "'left_ring'", "left_ring_bytes"),
    ("server:", "serfer:", 3, "'serfer'", "server"),
    ("  - read: {bytes: 8, sizes: 8}", "  - red: {bytes: 8, sizes: 8}", 4, "red", "read_to_end"),
    ("bytes: 8, sizes: [1, 2]", "sizes: [1, 2]", 8, "'bytes' is a required", "Add it"),
    ("sizes: [1, 2]", "sizes: []", 8, "[]", "size"),
    ("sizes: [1, 2]", "sizes: [1, 0]", 8, "0", ""),
    ("seconds: 0.5", "seconds: -1", 9, "-1", ""),
    ("seconds: 0.5", "seconds: .nan", 9, "nan", ""),
    ("pause_seconds: 0.1", "pause_seconds: soon", 10, "'soon'", "pause"),
    ("- close", "- shut", 11, "'shut'", "close"),
    ("sizes: [1, 2]", "sizes: &a [*a]", 8, "[[...]]", "size"),
    ("server:", "client:", 7, "'client' stands in line 3 already", "once"),
    ("bytes: 8, sizes: [1, 2]", "bytes: 8, bytes: 9, sizes: 1", 8, "'bytes' stands in", "once"),
]


@pytest.mark.parametrize(("old", "new", "line", "found", "expected"), SCHEMA_ERRORS)
def test_the_schema_says_where(old: str, new: str, line: int, found: str, expected: str) -> None:
    at, finding, expectation = refused(changed(old, new))
    assert at == line
    assert found in finding
    assert expected in expectation
    assert expectation


NOT_YAML = [("name: [", 1), ("name: good\n\tserver: []", 2), ("a: 1\n b: 2", 2), ("x: &a [*b]", 1)]


@pytest.mark.parametrize(("text", "line"), NOT_YAML)
def test_what_is_not_yaml_says_where(text: str, line: int) -> None:
    at, finding, _ = refused(text)
    assert at in (line, line + 1)
    assert "not YAML" in finding


@pytest.mark.parametrize("text", ["", "3", "- a", "text"])
def test_another_thing_than_a_mapping_is_refused(text: str) -> None:
    assert refused(text)[0] == 1


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml"):
        load_experiment(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_experiment(tmp_path)


ACROSS_FIELDS = [
    ("  - pause: {seconds: 0.5}", "  - close", 9, "last operation"),
    ("{from: 1, to: 3}", "{from: 3, to: 1}", 10, "from 3 to 1"),
    ("read: {bytes: 8, sizes: {", "read: {bytes: 4, sizes: {", 7, "the client reads 4"),
    ("  - read: {bytes: 8, sizes: 8}", "  - recv: {bytes: 2000, sizes: 2000}", 4, "ring of 1024"),
    ("name: good", "name: good\ndomains: {server: {type: dom0}, client: {type: dom0}}", 2, "dom0"),
    ("2048}", "2048, threads: duplex}", 9, "`pause` in an endpoint with a thread for each"),
    (
        "2048}",
        "2048, server_grants_max: 1}\ndomains: {server: {type: dom0}}",
        2,
        "dom0 is to have a limit of grants",
    ),
    (
        "  - close",
        "  - close\nexpect: {no_channel: ENOSPC, progress: STALLED}",
        12,
        "no channel is expected, and a verdict on one",
    ),
    ("  - close", "  - stop: {}", 6, "this cannot end: the server in its operation 3"),
    ("  - close", "  - await_hold: {}", 11, "the client awaits more holds than its peer has: 0"),
]


@pytest.mark.parametrize(("old", "new", "line", "found"), ACROSS_FIELDS)
def test_fields_that_do_not_fit_are_refused(old: str, new: str, line: int, found: str) -> None:
    at, finding, expectation = refused(changed(old, new))
    assert at == line
    assert found in finding
    assert expectation


DELAY = "side: server, at: r_live, nth: 1, do: delay, until: {cli_live: 0}"
FAULT_ERRORS = [
    # the fault, the finding, the expectation
    (DELAY.replace("nth: 1", "nth: 0"), "nth is 0", "1 or more"),
    (DELAY.replace("delay", "stop"), "'stop'", "drop, delay, repeat"),
    ("at: r_live, nth: 1, do: kill", "'side' is a required", "Add it"),
    (DELAY.replace("side: server", "side: middle"), "'middle'", "the endpoint"),
    (DELAY + ", bit: read", "no entry 'bit'", "seconds_max, side"),
    (DELAY + ", seconds_max: 0", "seconds_max is 0", "seconds above 0"),
    (DELAY.replace("{cli_live: 0}", "{cli_live: 256}"), "become 256", "0 to 255"),
    (DELAY.replace("{cli_live: 0}", "{cli_live: 0, srv_live: 0}"), "until is", "one action"),
    (DELAY.replace("{cli_live: 0}", "closed"), "until is 'closed'", "{cli_live: 0}"),
    (DELAY.replace("r_live", "r_love"), "no action 'r_love'", "i_bind, i_share"),
    (DELAY.replace("r_live", "k_live"), "the server never takes k_live", "i_bind, i_share"),
    (DELAY.replace("r_live", "call_send"), "does not come to call_send", "call_write"),
]


@pytest.mark.parametrize(("fault", "found", "expected"), FAULT_ERRORS)
def test_a_fault_that_makes_no_sense_is_refused(fault: str, found: str, expected: str) -> None:
    at, finding, expectation = refused(GOOD + f"faults:\n  - {{{DELAY}}}\n  - {{{fault}}}\n")
    assert at == 14
    assert found in finding
    assert expected in expectation


def test_more_faults_than_there_is_room_for_are_refused() -> None:
    at, finding, _ = refused(GOOD + "faults:\n" + 17 * f"  - {{{DELAY}}}\n")
    assert at == 13 + 16
    assert "more than 16 faults" in finding


def test_the_schema_offers_what_the_tracer_has() -> None:
    path = default_path().parents[1] / "guests" / "experiment.schema.yaml"
    schema = yaml.safe_load(path.read_text())
    offered = schema["properties"]["faults"]["items"]["properties"]
    assert offered["do"]["enum"] == [kind.name.lower() for kind in FaultKind]
    assert set(offered) == {field.name for field in fields(Fault)}


MUTUAL = """\
name: mutual
channel: {left_ring_bytes: 1024, right_ring_bytes: 2048}
server:
  - write: {bytes: %d, sizes: 64}
  - read: {bytes: 1025, sizes: 64}
  - read_to_end: {sizes: 1}
client:
  - write: {bytes: 1025, sizes: 64}
  - read: {bytes: %d, sizes: 64}
  - close
"""


def test_both_writing_more_than_a_ring_is_refused() -> None:
    _, finding, expectation = refused(MUTUAL % (2049, 2049))
    assert "would wait for ever" in finding
    assert "the server in its operation 1 and the client in its operation 1" in finding
    assert "expect" in expectation


def test_one_byte_less_lets_it_end_but_for_the_acknowledgement() -> None:
    # The server's answer was written before it had read: it acknowledges nothing.
    _, finding, _ = refused(MUTUAL % (2048, 2048))
    assert "the client closes before the server has said" in finding


def test_an_outcome_that_is_named_is_allowed() -> None:
    text = MUTUAL % (2049, 2049) + "expect: {progress: STALLED}\n"
    assert parse_experiment(text, "x.yaml").expect.progress == "STALLED"
    text = MUTUAL % (2048, 2048) + "expect: {conformance: KNOWN, known: [L1]}\n"
    assert parse_experiment(text, "x.yaml").expect.known == ("L1",)


UNACKNOWLEDGED = """\
name: tail
server:
  - read: {bytes: 64, sizes: 8}
client:
  - write: {bytes: 64, sizes: 8}
  - close
"""


def test_a_close_right_after_a_write_is_refused() -> None:
    at, finding, _ = refused(UNACKNOWLEDGED)
    assert at == 6
    assert "L1" in finding


def test_so_is_the_close_at_the_end_of_the_list() -> None:
    assert refused(UNACKNOWLEDGED.replace("  - close\n", ""))[0] == 5


PACKETS = """\
name: packets
channel: {left_ring_bytes: 1024, right_ring_bytes: 2048}
server:
  - recv: {bytes: 2000, sizes: 1000}
  - send: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 1}
client:
  - send: {bytes: 2000, sizes: %s}
  - recv: {bytes: 8, sizes: 8}
  - close
"""


def test_packets_that_wait_for_each_other_are_refused() -> None:
    # 600 fit; 600 more do not, and the receiver waits for 1000.
    assert "would wait for ever" in refused(PACKETS % "600")[1]
    assert parse_experiment(PACKETS % "500", "x.yaml").name == "packets"


def test_a_ring_inside_of_the_page_is_one_of_each_size() -> None:
    # Both ask for 1 KiB: the second gets 2 KiB, so that two such writes fit.
    text = MUTUAL.replace("right_ring_bytes: 2048", "right_ring_bytes: 1024") % (2048, 2048)
    assert "has said that it read" in refused(text)[1]


def no_block(text: str) -> str:
    return text.replace("channel: {", "channel: {blocking: false, ")


def duplex(text: str) -> str:
    return text.replace("channel: {", "channel: {threads: duplex, ")


def test_calls_that_do_not_block_wait_for_each_other_all_the_same() -> None:
    """Each is repeated until it is done, and the next one waits for that."""
    assert "would wait for ever" in refused(no_block(MUTUAL % (2049, 2049)))[1]
    assert "would wait for ever" in refused(no_block(PACKETS % "600"))[1]
    assert parse_experiment(no_block(PACKETS % "500"), "x.yaml").channel.blocking is False


def test_a_thread_for_each_direction_lets_both_write_more_than_a_ring() -> None:
    """But for the acknowledgement, which has no place there."""
    assert "has said that it read" in refused(duplex(MUTUAL % (2049, 2049)))[1]


JOINED = """\
name: joined
channel: {left_ring_bytes: 1024, right_ring_bytes: 2048, blocking: false, threads: duplex}
server:
  - write: {bytes: 5000, sizes: 5000}
  - read: {bytes: 5000, sizes: 5000}
  - join: {}
  - read: {bytes: 8, sizes: 8}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
client:
  - write: {bytes: 5000, sizes: 5000}
  - read: {bytes: 5000, sizes: 5000}
  - join: {}
  - write: {bytes: 8, sizes: 8}
  - read: {bytes: 8, sizes: 8}
  - close
"""


def test_an_acknowledgement_stands_behind_a_join() -> None:
    assert parse_experiment(JOINED, "x.yaml").client[2].do == "join"
    both_wait = JOINED.replace(
        "  - write: {bytes: 8, sizes: 8}\n  - read: {bytes: 8, sizes: 8}\n  - close",
        "  - read: {bytes: 8, sizes: 8}\n  - write: {bytes: 8, sizes: 8}\n  - close",
    )
    assert "would wait for ever" in refused(both_wait)[1]


def test_a_join_needs_two_directions() -> None:
    assert "`join` in an endpoint with one thread" in refused(JOINED.replace("duplex", "one"))[1]


@pytest.mark.parametrize("value", ["-1", "4294967296", "1.5", "near"])
def test_an_index_to_begin_with_is_a_32_bit_number(value: str) -> None:
    text = GOOD.replace("2048}", f"2048, left_first_index: {value}}}")
    at, finding, expected = refused(text)
    assert at == 2
    assert "left_first_index" in finding
    assert "0 to 4294967295" in expected


HELD_CLOSE = """\
name: held
channel: {left_first_index: 4294967290}
server:
  - read: {bytes: 64, sizes: 64}
client:
  - write: {bytes: 64, sizes: 64}
  - close
faults:
  - {side: client, at: c_close, nth: 1, do: delay, until: {left_cons: 58}}
"""


def test_a_close_that_waits_until_all_is_read_needs_no_acknowledgement() -> None:
    assert parse_experiment(HELD_CLOSE, "x.yaml").name == "held"
    for too_early in (
        HELD_CLOSE.replace("cons: 58", "cons: 57"),
        HELD_CLOSE.replace("at: c_close", "at: c_give_back"),
        HELD_CLOSE.replace("side: client", "side: server"),
    ):
        assert "L1" in refused(too_early)[1]


BROKEN_OFF = """\
name: broken-off
server:
  - read: {bytes: 1000, sizes: 1000}
  - close
client:
  - write: {bytes: 8192, sizes: 8192}
  - close
faults:
  - {side: server, at: c_close, nth: 1, do: delay, until: {left_prod: 5096}}
"""


def test_a_close_that_waits_for_what_is_written_breaks_it_off() -> None:
    assert parse_experiment(BROKEN_OFF, "x.yaml").name == "broken-off"
    assert "writes 8192 bytes" in refused(BROKEN_OFF.partition("faults:")[0])[1]
    more = BROKEN_OFF.replace("bytes: 1000", "bytes: 9000")
    assert "reads 9000" in refused(more)[1]


BOTH_TO_END = """\
name: both
channel: {left_ring_bytes: 1024}
server:
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
client:
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
"""


@pytest.mark.parametrize("change", [str, no_block, duplex])
def test_both_reading_until_the_other_closes_is_refused(change: Callable[[str], str]) -> None:
    at, finding, _ = refused(change(BOTH_TO_END))
    assert at == 5
    assert "the server in its operation 2 and the client in its operation 2" in finding


def test_a_packet_that_does_not_fit_is_waited_for_and_not_passed_over() -> None:
    # 700 fit; 500 more do not, and what comes after them may not come before.
    text = (PACKETS % "[700, 500, 100]").replace("bytes: 2000", "bytes: 1300")
    assert "the client in its operation 1" in refused(text)[1]


LARGE = """\
name: large
server:
  - read: {bytes: %d, sizes: 4096}
  - write: {bytes: 8, sizes: 8}
  - read_to_end: {sizes: 8}
client:
  - write: {bytes: %d, sizes: 64}
  - read: {bytes: 8, sizes: 8}
  - close
"""


def test_the_largest_stream_is_played_at_once() -> None:
    assert parse_experiment(LARGE % (1 << 35, 1 << 35), "x.yaml").name == "large"


@pytest.mark.parametrize("bytes", [(1 << 35) + 1, 10**40])
def test_a_stream_whose_positions_cannot_be_told_is_refused(bytes: int) -> None:
    at, finding, expectation = refused(LARGE % (bytes, bytes))
    assert at == 6
    assert f"writes {bytes} bytes" in finding
    assert str(1 << 35) in expectation


def test_packets_without_number_are_left_to_the_run() -> None:
    text = (LARGE % (1 << 34, 1 << 34)).replace("- read: {bytes: 1", "- recv: {bytes: 1")
    assert parse_experiment(text.replace("sizes: 4096", "sizes: 1"), "x.yaml").name == "large"


@pytest.mark.parametrize(
    ("expect", "found", "expected"),
    [
        ("known: [L1]", "and ACCEPTED", "conformance: KNOWN"),
        ("fault_of: event channel", "and PROGRESS", "progress: VIOLATION"),
        ("progress: STALLED, fault_of: kernel", "and STALLED", "progress: VIOLATION"),
    ],
)
def test_expectations_that_no_verdict_meets_are_refused(
    expect: str, found: str, expected: str
) -> None:
    at, finding, expectation = refused(GOOD + f"expect: {{{expect}}}\n")
    assert at == 12
    assert found in finding
    assert expected in expectation


def test_brackets_without_end_are_an_error_and_no_traceback() -> None:
    assert "nested too deep" in refused(GOOD + "about: " + "[" * 5000 + "]" * 5000)[1]
