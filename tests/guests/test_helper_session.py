"""The helper whole, as a process, spoken to by the real client; only Xen is a fake.

The fake answers as xl and the xenstore programs do, and can fail as they do. Bridge and vifs are
real, in a network namespace of their own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.experiment import Experiment, load_experiment
from vchan_testbed.guests.experiment_model import DomainConfig
from vchan_testbed.guests.hosts.carrier import ProcessCarrier
from vchan_testbed.guests.hosts.client import HelperClient, HelperGone
from vchan_testbed.guests.hosts.xen import Guest, XenHost
from vchan_testbed.progress import Quiet

HERE = Path(__file__).parent / "fake_xen"
PROGRAMS = (
    "xl",
    "lsevtchn",
    "xenstore-exists",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-rm",
    "xenstore-watch",
    "xenstore-write",
)
CONFIG = {"type": "pv", "memory_mib": 160, "vcpus": 1, "cpus": None}
SECONDS_MAX = 30.0


@dataclass
class FakeDomain:
    """A line of `xl list`, and its console."""

    name: str
    domid: int
    config: str
    state: str = "--p---"
    console: int = -1
    terminal: int = -1


@dataclass
class FakeXen:
    """What the fake programs ask. `failures`: what the next `xl create`s say and fail with."""

    folder: Path
    domains: dict[int, FakeDomain] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    said: str = "(XEN) Freed 656kB init memory"
    dump: str = ""
    """What a debug key adds to the console."""
    keys: set[str] = field(default_factory=set)
    """In xenstore, which loses none of them."""
    without_vif: bool = False
    slow_destroy: bool = False

    def __post_init__(self) -> None:
        self._next_domid = 1
        self._watchers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.address))
        self._listener.listen(32)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> Path:
        """Where the programs ask."""
        return self.folder / "xen"

    def die(self, domid: int, state: str | None) -> None:
        """A domain changes its state, or is gone (None); xenstore tells."""
        if state is None:
            del self.domains[domid]
        else:
            self.domains[domid].state = state
        self.fire()

    def fire(self) -> None:
        """@releaseDomain."""
        with self._lock:
            for watcher in self._watchers:
                tell(watcher, "out", "@releaseDomain")

    def speak(self, domid: int, text: str) -> None:
        """A guest's console."""
        os.write(self.domains[domid].console, text.encode())

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        command = json.loads(connection.makefile().readline())
        self.commands.append(command)
        if command[0] == "xenstore-watch":
            self._watch(connection, command[1])
            return
        for order, argument in self._orders(command):
            tell(connection, order, argument)
        connection.close()

    def _watch(self, connection: socket.socket, key: str) -> None:
        tell(connection, "out", key)
        if key.startswith("@"):
            with self._lock:
                self._watchers.append(connection)

    def _orders(self, command: list[str]) -> Iterator[tuple[str, Any]]:
        if command[:2] == ["xl", "create"]:
            yield from self._create(Path(command[-1]).read_text())
        elif command[:2] == ["xl", "list"]:
            yield "out", "Name ID Mem VCPUs State Time(s)"
            yield "out", "Domain-0 0 1024 1 r----- 30.6"
            for d in self.domains.values():
                yield "out", f"{d.name} {d.domid} 160 1 {d.state} 1.0"
        elif command[:2] == ["xl", "domid"]:
            yield "out", str(self._by_name(command[2]).domid)
        elif command[:2] == ["xl", "unpause"]:
            self.domains[int(command[2])].state = "-b----"
        elif command[:2] == ["xl", "destroy"]:
            yield from self._destroy(self._by_name(command[2]))
        elif command[:2] == ["xl", "info"]:
            yield "out", "xen_version : 4.17.7"
            yield "out", "virt_caps : pv hvm hap"
        elif command[:2] == ["xl", "dmesg"]:
            yield "out", self.said
        elif command[:2] == ["xl", "debug-keys"]:
            self.said += self.dump
        elif command[0] == "xenstore-rm":
            yield "end", 1
        elif command[0] == "xenstore-exists":
            yield "end", int(command[1] not in self.keys)
        elif command[0] == "xenstore-read":
            domain = self.domains[int(command[1].split("/")[3])]
            yield "out", os.ttyname(domain.terminal)
        elif command[0] == "lsevtchn":
            yield "out", "   1: VCPU 0: Virtual IRQ 0"
        yield "end", 0

    def _create(self, text: str) -> Iterator[tuple[str, Any]]:
        if self.failures:
            yield "err", self.failures.pop(0)
            yield "end", 3
            return
        name = text.split('name="')[1].split('"')[0]
        domid, self._next_domid = self._next_domid, self._next_domid + 1
        console, terminal = os.openpty()
        tty.setraw(console)
        self.domains[domid] = FakeDomain(name, domid, text, console=console, terminal=terminal)
        if not self.without_vif:
            yield "add", f"vif{domid}.0"

    def _destroy(self, domain: FakeDomain) -> Iterator[tuple[str, Any]]:
        yield "remove", f"vif{domain.domid}.0"
        if self.slow_destroy:
            domain.state = "-----d"
            threading.Timer(0.3, self.die, (domain.domid, None)).start()
        else:
            self.die(domain.domid, None)

    def _by_name(self, name: str) -> FakeDomain:
        return next(d for d in self.domains.values() if d.name == name)


def tell(connection: socket.socket, order: str, argument: Any) -> None:
    """One order to a program; one that is gone does not hear it."""
    try:
        connection.sendall(json.dumps([order, argument]).encode() + b"\n")
    except OSError:
        connection.close()


@pytest.fixture
def xen(tmp_path: Path) -> FakeXen:
    """A fake Xen, with its programs in a folder of their own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(HERE / "program.py")
    (tmp_path / "capabilities").write_text("control_d\n")
    return FakeXen(tmp_path)


def carrier(xen: FakeXen) -> ProcessCarrier:
    """A helper on the fake host."""
    folder = xen.folder
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return ProcessCarrier(
        [
            *("env", f"PATH={path}", f"FAKE_XEN={xen.address}"),
            *("unshare", "--net", *(["--map-root-user"] if os.geteuid() else [])),
            *(sys.executable, str(HERE / "helper.py")),
            *(str(folder / "capabilities"), str(folder / "host.yaml")),
        ]
    )


@contextmanager
def session(xen: FakeXen) -> Iterator[HelperClient]:
    """A client of a helper."""
    with HelperClient(carrier(xen)) as client:
        yield client


def create(client: HelperClient, name: str = "server", **changes: Any) -> int:
    """A domain; its domid."""
    answer = client.ask(
        "create", name=name, config={**CONFIG, **changes}, kernel="/k", ramdisk="/r"
    )
    return int(answer["domid"])


def test_a_domain_is_made_paused_named_watched_and_gone_in_the_end(xen: FakeXen) -> None:
    with session(xen) as client:
        assert client.facts["xen_version"] == "4.17.7"
        before = client.ask("counts")["counts"]
        names = ("domains", "ports", "keys", "vifs", "bridges")
        assert [before[name] for name in names] == [0, 1, 0, 0, 0]
        domid = create(client, cpus="1", type="pvh")
        domain = xen.domains[domid]
        assert domain.name.startswith("vtb-")
        assert domain.state == "-b----"
        for line in (
            'type="pvh"',
            'tsc_mode="native"',
            'on_crash="preserve"',
            'on_reboot="preserve"',
            'cpus="1"',
            "memory=160",
            'kernel="/k"',
        ):
            assert line in domain.config.splitlines()
        xl = [command[1:] for command in xen.commands if command[0] == "xl"]
        made = next(words for words in xl if words[0] == "create")
        assert {"-p", "-e"} < set(made)
        assert xl.index(made) < xl.index(["unpause", str(domid)])
        counts = client.ask("counts")["counts"]
        assert (counts["domains"], counts["vifs"], counts["bridges"]) == (1, 1, 1)
        assert client.ask("destroy")["names"] == [domain.name]
        after = client.ask("counts")["counts"]
        assert [after[name] for name in names] == [0, 1, 0, 0, 0]
        assert xen.domains == {}


def test_the_console_is_open_from_the_first_line_on(xen: FakeXen) -> None:
    with session(xen) as client:
        domid = create(client)
        xen.speak(domid, "vchan-testbed: guest starts\r\n")
        wait_until(lambda: "guest starts" in str(client.ask("consoles")))
        client.ask("destroy")
        consoles = client.ask("consoles")["consoles"]
        assert consoles[f"server-{domid}"] == "vchan-testbed: guest starts\n"
        assert consoles["xen"].strip() == xen.said


def test_domains_of_others_are_never_touched(xen: FakeXen) -> None:
    xen.domains[77] = FakeDomain("somebody-elses", 77, "", state="-b----")
    with session(xen) as client:
        create(client)
        with pytest.raises(TestbedError, match="none of this helper's"):
            client.agent(77, 1.0)
        assert client.ask("destroy", name="somebody-elses")["names"] == []
        client.ask("destroy")
    assert [d.name for d in xen.domains.values()] == ["somebody-elses"]
    assert ["xl", "destroy", "somebody-elses"] not in xen.commands


def test_what_an_experiment_asks_for_is_done_to_own_domains_alone(xen: FakeXen) -> None:
    xen.domains[77] = FakeDomain("somebody-elses", 77, "", state="-b----")
    with session(xen) as client:
        domid = create(client)
        for do in ("pause", "unpause"):
            assert client.ask("act", domid=domid, do=do)["type"] == "acted"
            assert ["xl", do, str(domid)] in xen.commands
            with pytest.raises(TestbedError, match="none of this helper's"):
                client.ask("act", domid=77, do=do)
        with pytest.raises(TestbedError, match="does not reboot a domain"):
            client.ask("act", domid=domid, do="reboot")
    assert not [command for command in xen.commands if command[-1] == "77"]


def test_a_look_tells_the_states_and_ports_of_domains(xen: FakeXen) -> None:
    xen.dump = "\n".join(
        [
            "",
            "(XEN) 'e' pressed -> dumping event-channel info",
            "(XEN) Event channel information for domain 1:",
            "(XEN)        8 [1/0/  -   ]: s=3 n=0 x=0 d=2 p=9",
        ]
    )
    with session(xen) as client:
        domid = create(client)
        xen.domains[domid].state = "--p---"
        of_both = {seen["domid"]: seen for seen in look(client, domid, 55, dump=True)}
        assert of_both[domid]["state"] == "paused"
        (port,) = of_both[domid]["event_channels"]["ports"]
        assert (port["port"], port["pending"], port["masked"]) == (8, True, False)
        assert of_both[55]["state"] == "gone"
        assert of_both[55]["event_channels"]["ports"] is None
        asked = len([command for command in xen.commands if command[:2] == ["xl", "debug-keys"]])
        (seen,) = look(client, domid, dump=False)
        assert seen["event_channels"] is None
    # Xen's console is written to only where somebody asked for that, and never cleared.
    assert asked == len([c for c in xen.commands if c[:2] == ["xl", "debug-keys"]]) == 1
    assert not [command for command in xen.commands if "-c" in command]


def look(client: HelperClient, *domids: int, dump: bool) -> list[dict[str, Any]]:
    """What Xen has of some domains."""
    return list(client.ask("look", domids=list(domids), dump=dump)["domains"])


def test_keys_that_were_never_made_need_not_be_removed(xen: FakeXen) -> None:
    xen.keys = {"/local/domain/0/data/stays"}
    with session(xen) as client:
        assert client.ask("remove_key", path="/local/domain/0/data/none")["type"] == "removed"
        with pytest.raises(TestbedError, match="xenstore-rm -t /local/domain/0/data/stays failed"):
            client.ask("remove_key", path="/local/domain/0/data/stays")


def test_a_domain_that_is_saved_is_restored(xen: FakeXen) -> None:
    with session(xen) as client:
        domid = create(client)
        client.ask("act", domid=domid, do="save")
    saved, restored = (c for c in xen.commands if c[1] in ("save", "restore"))
    assert saved[:3] == ["xl", "save", str(domid)]
    assert restored == ["xl", "restore", "-e", saved[3]]
    assert not Path(saved[3]).exists()


def test_a_time_out_of_libxl_is_tried_once_more(xen: FakeXen) -> None:
    xen.failures = ["libxl: error: Domain 1: Console tty: timed out"]
    with session(xen) as client:
        assert create(client) == 1
        wait_until(lambda: any("once more" in note for note in client.notes))
        xen.failures = ["libxl: error: timed out"] * 2
        with pytest.raises(TestbedError, match="could not make a domain") as caught:
            create(client, "client")
        assert "timed out" in caught.value.console


def test_what_xl_says_is_in_the_error_and_nothing_is_left(xen: FakeXen) -> None:
    xen.failures = ["libxl: error: failed to free memory for the domain"]
    with session(xen) as client:
        with pytest.raises(TestbedError, match="could not make a domain") as caught:
            create(client)
        assert "less memory" in caught.value.next_step
        assert "failed to free memory" in caught.value.console
        assert client.ask("counts")["counts"]["bridges"] == 0
        assert create(client) == 1


def test_a_domain_without_its_vif_is_taken_back(xen: FakeXen) -> None:
    xen.without_vif = True
    with session(xen) as client:
        with pytest.raises(TestbedError, match="did not appear"):
            create(client)
        assert xen.domains == {}
        assert client.ask("counts")["counts"]["bridges"] == 0


def test_the_owners_caps_hold_for_all_test_domains_together(xen: FakeXen) -> None:
    (xen.folder / "host.yaml").write_text("memory_mib_max: 400\n")
    xen.domains[50] = FakeDomain("vtb-another-run", 50, "", state="-b----")
    xen.domains[51] = FakeDomain("not-a-test-domain", 51, "", state="-b----")
    with session(xen) as client:
        create(client)
        with pytest.raises(TestbedError, match="480 MiB of memory would be in use") as caught:
            create(client, "client")
        assert "memory_mib_max" in caught.value.next_step
        (xen.folder / "host.yaml").write_text("memory: 400\n")
        with pytest.raises(TestbedError, match="no entry 'memory'"):
            create(client, "client")


def test_destroying_waits_until_the_domain_is_really_gone(xen: FakeXen) -> None:
    xen.slow_destroy = True
    with session(xen) as client:
        create(client)
        client.ask("destroy")
        assert xen.domains == {}


def test_who_hangs_up_leaves_nothing_behind(xen: FakeXen) -> None:
    with session(xen) as client:
        folder = Path(xen_config_folder(client, xen))
        assert folder.is_dir()
    assert xen.domains == {}
    assert not folder.exists()


def xen_config_folder(client: HelperClient, xen: FakeXen) -> str:
    """The helper's private folder, as a domain's configuration names it."""
    text = xen.domains[create(client)].config
    return str(Path(text.split("script=")[1].split('"')[0]).parent)


def test_a_helper_that_is_killed_is_gone_for_everybody_who_waits(xen: FakeXen) -> None:
    with session(xen) as client:
        domid = create(client)
        link = client.agent(0, 1.0)
        assert link.events.get(timeout=SECONDS_MAX) is not None
        waiting = threading.Thread(target=lambda: fails_gone(client, domid))
        waiting.start()
        client._carrier._process.kill()  # type: ignore[attr-defined]
        waiting.join(SECONDS_MAX)
        assert not waiting.is_alive()
        while link.events.get(timeout=SECONDS_MAX) is not None:
            continue
        link.send({"type": "look"})
        with pytest.raises(HelperGone, match="The helper is gone"):
            client.ask("counts")


def fails_gone(client: HelperClient, domid: int) -> None:
    """Reaching an agent that never answers ends with the helper."""
    with pytest.raises(HelperGone):
        client.agent(domid, 600.0)


def test_an_agent_in_dom0_speaks_hears_and_ends(xen: FakeXen) -> None:
    with session(xen) as client:
        link = client.agent(0, SECONDS_MAX)
        assert link.domid == 0
        frame = link.events.get(timeout=SECONDS_MAX)
        assert frame is not None
        assert frame.message()["type"] == "hello"
        link.send({"type": "finish"})
        frame = link.events.get(timeout=SECONDS_MAX)
        assert frame is not None
        assert frame.message()["type"] == "bye"
        assert link.events.get(timeout=SECONDS_MAX) is None
        link.close()
        again = client.agent(0, SECONDS_MAX)
        again.close()
        assert again.events.get(timeout=SECONDS_MAX) is not None


def test_a_dom0_without_the_package_says_how_to_install_it(xen: FakeXen) -> None:
    lacking = xen.folder / "python-without"
    lacking.write_text("#!/bin/sh\necho 'No module named vchan_testbed' >&2\nexit 1\n")
    lacking.chmod(0o755)
    (xen.folder / "host.yaml").write_text(f"agent_python: {lacking}\n")
    with session(xen) as client:
        link = client.agent(0, SECONDS_MAX)
        frame = link.events.get(timeout=SECONDS_MAX)
        assert frame is not None
        message = frame.message()
        assert message["type"] == "error"
        assert "pip install vchan-testbed" in message["next_step"]
        assert "No module named" in message["console"]
        assert link.events.get(timeout=SECONDS_MAX) is None
        (xen.folder / "host.yaml").write_text("agent_python: /no/such/python\n")
        with pytest.raises(TestbedError, match="cannot be started"):
            client.agent(0, SECONDS_MAX)


def test_a_dead_guest_is_noticed_and_told_apart_from_one_that_shut_down(xen: FakeXen) -> None:
    with session(xen) as client:
        domid = create(client)
        reaching = threading.Thread(target=lambda: fails(client, domid, "is shut down"))
        reaching.start()
        xen.die(domid, "---s--")
        reaching.join(SECONDS_MAX)
        assert not reaching.is_alive()
        (state,) = client.ask("states")["domains"]
        assert (state["label"], state["state"]) == ("server", "shut down")
        assert state["triple_fault"] is False
        xen.said = f"(XEN) d{domid}v0 Triple fault - invoking HVM shutdown action 1"
        (state,) = client.ask("states")["domains"]
        assert state["triple_fault"] is True


def fails(client: HelperClient, domid: int, said: str) -> None:
    """Reaching the agent there fails, and says this."""
    with pytest.raises(TestbedError, match=said):
        client.agent(domid, 600.0)


def test_files_are_put_once_a_session(xen: FakeXen) -> None:
    kernel = xen.folder / "kernel"
    kernel.write_bytes(os.urandom(3 << 20))
    with session(xen) as client:
        there = client.put(kernel)
        assert Path(there).read_bytes() == kernel.read_bytes()
        assert client.put(kernel) == there
        folder = Path(there).parent
    assert not folder.exists()


def test_requests_that_make_no_sense_are_answered_with_an_error(xen: FakeXen) -> None:
    with session(xen) as client:
        with pytest.raises(TestbedError, match="does not know the request 'dance'"):
            client.ask("dance")
        with pytest.raises(TestbedError, match="failed at create: KeyError"):
            client.ask("create")
        with pytest.raises(TestbedError, match="cannot be called 'Server; reboot'"):
            create(client, "Server; reboot")
        with pytest.raises(TestbedError, match="holds a quote"):
            client.ask("create", name="x", config=CONFIG, kernel='/k"', ramdisk="/r")
        with pytest.raises(TestbedError, match="only in a test bed of the project's own"):
            client.ask("clock", realtime_ns=0, entropy="")


def test_a_host_that_cannot_serve_says_why(xen: FakeXen) -> None:
    (xen.folder / "capabilities").write_text("")
    with pytest.raises(TestbedError, match="Xen does not run on this machine"):
        HelperClient(carrier(xen))
    (xen.folder / "capabilities").write_text("control_d\n")
    (xen.folder / "bin/xl").unlink()
    with pytest.raises(TestbedError, match="This host has no xl"):
        HelperClient(carrier(xen))


def default_pair(kind: str) -> Experiment:
    """The default experiment with an endpoint in dom0 and one in a domain of this type."""
    return replace(
        load_experiment(None),
        server_domain=DomainConfig(type="dom0"),
        client_domain=DomainConfig(type=kind),
    )


def host_of(xen: FakeXen) -> XenHost:
    return XenHost("qemu", lambda: HelperClient(carrier(xen)), lambda _: Guest("/k", "/r"), Quiet())


@pytest.mark.parametrize(
    ("emulated", "wanted", "made", "pinned"),
    [
        (False, "default", "pvh", False),
        (True, "default", "pv", False),
        (False, "pvh", "pvh", False),
        (True, "pvh", "pvh", True),
    ],
)
def test_an_emulated_host_gets_domains_that_emulators_do_not_lose(
    xen: FakeXen, emulated: bool, wanted: str, made: str, pinned: bool
) -> None:
    with host_of(xen) as host:
        host.client.hello["facts"]["emulated"] = emulated
        host.prepare(default_pair(wanted))
        (domain,) = xen.domains.values()
        assert domain.config.split('type="')[1].split('"')[0] == made
        assert ("\ncpus=" in domain.config) is pinned
        xen.said = f"(XEN) d{domain.domid}v0 Triple fault - invoking HVM shutdown action 1"
        xen.die(domain.domid, "---s--")
        wait_until(lambda: host.client.ask("states")["domains"][0]["state"] == "shut down")
        assert bool(host.lost_guests()) is emulated


def test_idle_domains_of_a_session_before_are_taken_over_if_they_fit(xen: FakeXen) -> None:
    with host_of(xen) as host:
        host.prepare(default_pair("default"))
        assert [d.config.split('type="')[1][:3] for d in xen.domains.values()] == ["pvh"]
        (idle,) = host.client.ask("states")["domains"]
        for wanted, domids in (("default", [1]), ("default", [2]), ("pv", [3])):
            host._idle = {"client": idle} if domids == [1] else {}
            host.prepare(default_pair(wanted))
            assert list(xen.domains) == domids
    assert xen.domains == {}


def wait_until(done: Any) -> None:
    """Ask again and again, each time anew, for a bounded time."""
    ended = threading.Event()
    timer = threading.Timer(SECONDS_MAX, ended.set)
    timer.start()
    while not done():
        assert not ended.is_set(), "it never became true"
    timer.cancel()
