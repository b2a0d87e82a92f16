"""What two looks mean, with pages and processes as they may be."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from vchan_testbed.guests.diagnose.judge import diagnose
from vchan_testbed.guests.diagnose.page import LAYOUT, parse, plausible
from vchan_testbed.guests.diagnose.sight import End, Port, Process, Sight

ASLEEP = Process(7, "reader", "S", asleep=True, polls=False, runs=False, readable=False)
AWAY = replace(ASLEEP, asleep=False)
FLAGS = (10, 11, 1, 1, 0, 1)
"""Orders, live bytes, notify bytes: the server has not asked, or its asking was answered."""


def sight(
    left: tuple[int, int] = (0, 64),
    flags: tuple[int, ...] = FLAGS,
    server: Process | None = None,
    client: Process | None = None,
    domain: str = "alive",
    port: Port | None = None,
) -> Sight:
    page = parse(LAYOUT.pack(*left, 0, 0, *flags) + bytes(100))
    ends = {
        "server": End(1, "alive", server, port),
        "client": End(2, domain, client, None),
    }
    return Sight("x", 0.0, page, ends)


def word(*sights: Sight) -> str:
    return diagnose(sights[0], sights[-1]).word


def test_bytes_beside_a_reader_that_sleeps_are_a_lost_wakeup() -> None:
    assert word(sight(server=ASLEEP, client=AWAY)) == "lost wakeup"


def test_bytes_beside_a_reader_that_is_away_wait_for_the_application() -> None:
    said = diagnose(*[sight(server=AWAY, client=AWAY)] * 2)
    assert said.word == "waiting for the application"
    assert "64 bytes are there, and the server's application does not read" in said.why


def test_without_a_look_at_the_reader_it_is_unknown_and_said_what_would_tell() -> None:
    said = diagnose(*[sight(client=AWAY)] * 2)
    assert said.word == "unknown"
    assert any("the server's process sleeps" in what for what in said.would_tell)


def test_an_event_that_can_be_read_is_the_kernels_to_deliver() -> None:
    woken = replace(ASLEEP, readable=True)
    said = diagnose(*[sight(server=woken, client=AWAY)] * 2)
    assert (said.word, "the kernel has not woken it" in said.why) == ("lost wakeup", True)


def test_a_port_that_xen_has_pending_was_not_delivered() -> None:
    port = Port(1, 9, "interdomain", pending=True, masked=True)
    said = diagnose(*[sight(server=ASLEEP, client=AWAY, port=port)] * 2)
    assert "Xen has its port 9 pending and masked" in said.why


def test_an_index_that_cannot_be_is_named() -> None:
    said = diagnose(*[sight(left=(5, 0))] * 2)
    assert said.word == "corrupt indices"
    assert "left: prod 0 is 4294967291 bytes ahead of cons 5" in said.why


def test_a_page_that_changes_moves() -> None:
    assert word(sight(), sight(left=(64, 64))) == "moving"


@pytest.mark.parametrize("domain", ["gone", "crashed", "dying"])
def test_a_domain_that_is_no_more_while_its_live_byte_stays(domain: str) -> None:
    said = diagnose(*[sight(server=ASLEEP, domain=domain)] * 2)
    assert (said.word, "(L9)" in said.why) == ("peer gone", True)


def test_an_end_that_has_closed() -> None:
    assert word(sight(flags=(10, 11, 0, 1, 0, 1), server=AWAY)) == "peer gone"


def test_a_client_that_never_said_that_it_was_there() -> None:
    said = diagnose(*[sight(left=(0, 0), flags=(10, 11, 2, 1, 1, 0), server=ASLEEP)] * 2)
    assert "the client is within a call, or connects, and does not go on" in said.why


def test_a_reader_that_sleeps_though_it_has_asked_and_bytes_are_there() -> None:
    """Without a second look: no event will come, and none was due (zephyr-xenlib).

    With fewer bytes it may be a recv that waits for a larger packet.
    """
    full, flags = (0, 1024), (10, 11, 1, 1, 1, 1)
    assert word(sight(left=full, flags=flags, server=ASLEEP, client=AWAY)) == "outside the spec"
    assert word(sight(flags=flags, server=ASLEEP, client=AWAY)) == "idle"


def test_flags_that_the_spec_never_has() -> None:
    assert word(sight(left=(0, 0), flags=(10, 11, 2, 1, 3, 2))) == "outside the spec"


NOT_PAGES = {
    "zeros": bytes(4096),
    "short": bytes(10),
    "orders": LAYOUT.pack(0, 0, 0, 0, 9, 11, 1, 1, 0, 0),
    "both rings in one half": LAYOUT.pack(0, 0, 0, 0, 10, 10, 1, 1, 0, 0),
    "live": LAYOUT.pack(0, 0, 0, 0, 10, 11, 3, 1, 0, 0),
    "notify": LAYOUT.pack(0, 0, 0, 0, 10, 11, 1, 1, 4, 0),
    "text": b"a page of text, as there are many" * 10,
    "pointers": struct.pack("<8Q", *[0x7F0012345678] * 8),
}


@pytest.mark.parametrize("name", NOT_PAGES)
def test_what_is_no_page_of_a_vchan(name: str) -> None:
    assert not plausible(NOT_PAGES[name])
    with pytest.raises(ValueError, match="no page of a vchan"):
        parse(NOT_PAGES[name])
