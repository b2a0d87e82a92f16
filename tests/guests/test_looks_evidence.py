"""What a look has beside the process's own word: the kernel's count, Xen's states and bits.

The texts in xen_said/ are of a run on Xen 4.17 and Linux 6.1.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from vchan_testbed.guests.agent import interrupts
from vchan_testbed.guests.helper import evtchn_dump, xl
from vchan_testbed.guests.hosts.loopback import LoopbackHost
from vchan_testbed.guests.quiescence import paused_look, stands_still, xen_seen
from vchan_testbed.validate.evidence import Evidence
from vchan_testbed.validate.liveness import event_lost_by, event_words
from vchan_testbed.validate.report.recorded import look_words

SAID = Path(__file__).with_name("xen_said")
INTERRUPTS = (SAID / "interrupts.txt").read_text()
XL_DMESG = (SAID / "xl-dmesg.txt").read_text()
KEY = "(XEN) 'e' pressed"
BEFORE = XL_DMESG[: XL_DMESG.index(KEY)]


# ---- /proc/interrupts ----


def test_the_line_of_a_process_is_counted() -> None:
    text = INTERRUPTS.replace(
        "204  xen-dyn-lateeoi    -event     evtchn:xenstored", "204 x evtchn:vchan-7"
    )
    assert interrupts.count_in(text, "vchan-7") == {"count": 204}


def test_all_processors_count() -> None:
    text = "      CPU0   CPU1\n 39:   4   7   xen-dyn-lateeoi -event evtchn:vchan-7\n"
    assert interrupts.count_in(text, "vchan-7") == {"count": 11}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (INTERRUPTS, "no line of evtchn:vchan-7"),
        (INTERRUPTS.replace("xenstored", "vchan-7"), "4 lines of evtchn:vchan-7"),
        ("     CPU0\n 39:  many  xen-dyn -event evtchn:vchan-7\n", "a line of another form"),
        ("", "no line"),
    ],
)
def test_what_is_not_one_line_of_numbers_is_unknown(text: str, why: str) -> None:
    found = interrupts.count_in(text, "vchan-7")
    assert found["count"] is None
    assert why in found["why"]


def test_the_loopback_host_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(interrupts.LOOPBACK, "/somewhere")
    found = interrupts.counted(interrupts.name_of(os.getpid()))
    assert found["count"] is None
    assert "stand-ins of the loopback host" in found["why"]


# ---- xl list, xl dmesg ----


def test_what_the_scheduler_has_of_a_domain_is_read() -> None:
    domains = xl.parse_list((SAID / "xl-list.txt").read_text())
    assert [(d.domid, d.state, d.scheduling) for d in domains] == [
        (0, "alive", "running"),
        (1, "alive", "blocked"),
        (2, "alive", "blocked"),
    ]
    assert xl.scheduling_of("------") == "ready to run"
    assert xl.scheduling_of("--p---") == "paused"


def test_the_ports_of_a_dump_are_read() -> None:
    new = evtchn_dump.added(BEFORE, XL_DMESG)
    assert new is not None
    found = evtchn_dump.parse(new)
    assert {domid: len(ports) for domid, ports in found.items()} == {0: 28, 1: 9, 2: 9}
    assert found[1][7] == {
        "port": 8,
        "pending": False,
        "masked": False,
        "state": 3,
        "peer_domid": 0,
        "peer_port": 27,
    }
    # Bound to an interrupt or to nobody: p= is another number there.
    assert {port["peer_port"] for port in found[0] if port["state"] != 3} == {None}


def test_the_bits_of_a_port_are_read() -> None:
    dump = XL_DMESG.replace(
        "8 [0/0/  -   ]: s=3 n=0 x=0 d=0 p=27", "8 [1/1/  -   ]: s=3 n=0 x=0 d=0 p=27"
    )
    (port,) = [each for each in evtchn_dump.parse(dump)[1] if each["port"] == 8]
    assert (port["pending"], port["masked"]) == (True, True)


def test_of_a_dump_before_nothing_is_taken() -> None:
    """The console has an older dump, and the new one was cut behind its first domain."""
    older = XL_DMESG
    newer = XL_DMESG[
        XL_DMESG.index(KEY) : XL_DMESG.index("(XEN) Event channel information for domain 1")
    ]
    new = evtchn_dump.added(older, older + newer)
    assert new is not None
    assert list(evtchn_dump.parse(new)) == [0]


def test_a_ring_that_went_on_over_its_beginning_is_read_from_where_it_was() -> None:
    after = XL_DMESG[3000:]
    new = evtchn_dump.added(BEFORE, after)
    assert new is not None
    assert sorted(evtchn_dump.parse(new)) == [0, 1, 2]


def test_a_ring_with_nothing_left_of_before_says_nothing() -> None:
    assert evtchn_dump.added(BEFORE, XL_DMESG[XL_DMESG.index(KEY) + 1 :]) is None


def test_a_domain_whose_heading_was_cut_off_is_not_there() -> None:
    new = XL_DMESG[
        XL_DMESG.index(
            "(XEN)        4 [0/0/  -   ]: s=6 n=0 x=0\n(XEN)        5 [0/0/  -   ]: s=6"
        ) :
    ]
    assert 0 not in evtchn_dump.parse(new)
    assert sorted(evtchn_dump.parse(new)) == [1, 2]


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (XL_DMESG[XL_DMESG.index(KEY) + 1 :], "it was cut in the ring"),
        (BEFORE + "(XEN) something else\n", "nothing of this domain"),
    ],
)
def test_a_dump_that_was_cut_is_unknown(
    after: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [BEFORE, after]

    async def run(*command: str) -> str:
        return texts.pop(0) if command == ("xl", "dmesg") else ""

    monkeypatch.setattr(xl, "run", run)
    found = asyncio.run(evtchn_dump.dumped([1]))
    assert found[1]["ports"] is None
    assert why in found[1]["why"]


# ---- a look ----


def test_a_port_is_found_in_what_xen_has_of_its_domain() -> None:
    ports = evtchn_dump.parse(XL_DMESG)[1]
    seen = {"domain": {"state": "blocked"}, "event_channels": {"ports": ports}}
    assert xen_seen(seen, 9)["event_channel"]["peer_port"] == 28
    assert xen_seen(seen, 77)["event_channel"]["pending"] is None
    assert xen_seen(seen, None)["event_channel"]["why"] == "its port is not known"


def test_the_loopback_host_knows_that_there_is_no_xen() -> None:
    found = LoopbackHost().look([1, 2], dump=True)
    assert {seen["domain"]["state"] for seen in found.values()} == {None}
    assert "no Xen" in xen_seen(found[1], 1)["event_channel"]["why"]


PAUSED = {**paused_look(40), "domain": {"state": "paused"}}
THREAD = {"state": "S", "blocked_in_kernel": True, "in_call": "write"}
WAITING = {"answered": True, "alive": True, "threads": [THREAD], "records": 50, "page": "00" * 24}
WAITING |= {"in_call": "write", "stopped": False, "event_fd_readable": False}


def looks(**server: Any) -> list[dict[str, Any]]:
    """Two looks at a server of which something is known, and at a client that waits."""
    return [{"endpoints": {"server": dict(server), "client": dict(WAITING)}} for _ in range(2)]


def evidence(**server: Any) -> Evidence:
    """What two such looks tell."""
    return Evidence({"quiescence": {"looks": looks(**server)}})


def test_an_end_whose_domain_is_paused_stands_still() -> None:
    assert stands_still(*looks(**PAUSED))
    found = evidence(**PAUSED)
    assert found.stands_still
    assert found.domain_state("server") == "paused"


def test_one_that_was_paused_where_nobody_knows_does_not() -> None:
    unknown = {**PAUSED, "records": None}
    assert not stands_still(*looks(**unknown))
    assert not evidence(**unknown).stands_still


def port(ready: int | None, now: int | None, read: int, bits: tuple[bool, bool] | None) -> Evidence:
    """A server that waits, of whose port so much was seen."""
    channel = (
        {"pending": None} if bits is None else dict(zip(("pending", "masked"), bits, strict=True))
    )
    counts = {"ready": {"count": ready}, "now": {"count": now}}
    seen = {"interrupts": counts, "events_read": read, "event_channel": channel}
    return evidence(**{**WAITING, **seen})


@pytest.mark.parametrize(
    ("seen", "lost_by"),
    [
        (port(0, 3, 3, None), "event channel"),
        (port(0, 4, 3, None), "kernel"),
        (port(None, None, 3, None), "event channel"),
        # The interrupt counted before this channel was there: what it shows is not this port's.
        (port(9, 12, 3, None), "event channel"),
        (port(0, 3, 3, (True, True)), "kernel"),
        (port(0, 3, 3, (True, False)), "event channel"),
        (port(0, 3, 3, (False, False)), "event channel"),
    ],
)
def test_who_has_an_event_that_a_process_did_not_get(seen: Evidence, lost_by: str) -> None:
    assert event_lost_by("server", seen) == lost_by


def test_without_the_descriptor_nobody_is_blamed() -> None:
    unknown = {**WAITING, "event_fd_readable": None, "events_read": 1}
    assert event_lost_by("server", evidence(**unknown)) is None


def test_what_was_seen_of_an_event_is_told() -> None:
    said = event_words("server", port(0, 4, 3, (True, False)))
    assert "counted 4 events on the port and its process read 3" in said
    assert "in Xen the port was pending and not masked" in said
    assert event_words("server", port(None, None, 3, None)) == ""


def test_the_report_says_what_is_not_known_and_why() -> None:
    seen = looks(**{**WAITING, "domain": {"state": None, "why": "no Xen"}})[0]
    words = look_words(seen, "server")
    assert words["domain, as Xen has it"] == "unknown: no Xen"
    assert words["its port in Xen"] == "unknown; not asked for"
    known = {"port": 9, "event_channel": {"pending": True, "masked": False}}
    words = look_words(looks(**{**WAITING, **known})[0], "server")
    assert re.fullmatch("9; pending, not masked", words["its port in Xen"])
