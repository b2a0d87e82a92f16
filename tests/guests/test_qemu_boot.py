"""Real Xen in QEMU: it boots, it says why when it does not, and it starts from a saved state."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from vchan_testbed.cache import cache_dir
from vchan_testbed.cli import main
from vchan_testbed.errors import ExitStatus, TestbedError
from vchan_testbed.guests.experiment import Experiment, load_experiment
from vchan_testbed.guests.frames import Message
from vchan_testbed.guests.hosts import startup, warm
from vchan_testbed.guests.hosts.machine import Machine, Qemu, make_ssh_key, public_part
from vchan_testbed.guests.hosts.protocol import AgentLink
from vchan_testbed.guests.hosts.qemu import QemuHost
from vchan_testbed.guests.hosts.startup import Starter
from vchan_testbed.guests.images import Images, build
from vchan_testbed.progress import Quiet

pytestmark = pytest.mark.xen

SECONDS_MAX = 300.0
InDom0 = Callable[..., str]
SHARED_KINDS = ("root", "extensions", "images", "helper", "kvm")


class Notes(Quiet):
    """Remembers what was noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Remember it."""
        self.texts.append(text)


@pytest.fixture(scope="module")
def images() -> Images:
    """The real images, out of the real cache."""
    return build(Quiet())


@pytest.fixture(scope="module")
def own_cache(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with the images, but with saved states of its own."""
    real = cache_dir()
    folder = tmp_path_factory.mktemp("cache")
    for kind in SHARED_KINDS:
        (real / kind).mkdir(exist_ok=True)
        (folder / kind).symlink_to(real / kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCHAN_TESTBED_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """The default one."""
    return load_experiment(None)


@pytest.fixture(scope="module")
def saved(own_cache: Path, experiment: Experiment) -> Path:
    """A cache in which a first run has left its state."""
    with QemuHost(experiment, Quiet()) as host:
        assert not host.facts()["warm_start"]
        # The machine that was saved goes on itself, with the same domains.
        assert_agents_answer(host.endpoints(experiment))
    return own_cache


def assert_agents_answer(links: dict[str, AgentLink]) -> None:
    """Both agents say hello, and their domains' self-tests hold."""
    for link in links.values():
        hello = message_of(link)
        assert hello["type"] == "hello"
        assert hello["versions"]["xen"].startswith("4.17")
        assert hello["selftest"]["ok"] is True
        assert hello["selftest"]["detail"] == "ok registers, memory and clocks held"


def message_of(link: AgentLink) -> Message:
    """The agent's next message."""
    frame = link.events.get(timeout=SECONDS_MAX)
    assert frame is not None
    return frame.message()


def test_the_first_start_is_cold_and_the_second_warm(saved: Path, experiment: Experiment) -> None:
    with QemuHost(experiment, Quiet()) as host:
        facts = host.facts()
        assert facts["kind"] == "qemu"
        assert facts["warm_start"] is True
        assert facts["xen_version"].startswith("4.17")
        before = host.counts()
        links = host.endpoints(experiment)
        assert_agents_answer(links)
        for link in links.values():
            link.close()
        assert host.counts() == before
        assert "vchan-testbed: listening" in "".join(host.consoles().values())


def test_two_runs_start_from_one_state_at_once(
    saved: Path, experiment: Experiment, in_dom0: InDom0
) -> None:
    with contextlib.ExitStack() as stack:
        hosts = [QemuHost(experiment, Quiet()) for _ in range(2)]
        openers = [threading.Thread(target=host.__enter__) for host in hosts]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join(SECONDS_MAX)
        for host in hosts:
            stack.push(host)
        for host in hosts:
            assert host.facts()["warm_start"] is True
            assert_agents_answer(host.endpoints(experiment))
        chance = [in_dom0(host.ssh(), "head -c 16 /dev/urandom | xxd -p") for host in hosts]
        assert chance[0] != chance[1]


def test_a_restored_dom0_is_given_the_time_of_day(
    saved: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, in_dom0: InDom0
) -> None:
    year_2100_ns = 4_102_444_800 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: year_2100_ns)
    with QemuHost(experiment, Quiet()) as host:
        assert in_dom0(host.ssh(), "date -u +%Y") == "2100\n"


def test_dom0_lets_in_its_own_key_only(
    saved: Path, experiment: Experiment, tmp_path: Path, in_dom0: InDom0
) -> None:
    other = tmp_path / "key"
    make_ssh_key(other)
    with QemuHost(experiment, Quiet()) as host:
        assert "Domain-0" in in_dom0(host.ssh(), "xl list")
        with pytest.raises(AssertionError, match="Permission denied"):
            in_dom0(replace(host.ssh(), key=other), "true")


def test_another_pair_is_made_when_it_is_asked_for(saved: Path, experiment: Experiment) -> None:
    with QemuHost(experiment, Quiet()) as host:
        first = host.endpoints(experiment)
        again = host.endpoints(experiment)
        assert_agents_answer(again)
        domids = {link.domid for link in first.values()} & {link.domid for link in again.values()}
        assert not domids
        assert host.counts()["domains"] == 2


def test_a_state_that_does_not_come_back_is_thrown_away(
    saved: Path, experiment: Experiment
) -> None:
    (state,) = (saved / "warm").glob("[!.]*/state")
    good = state.read_bytes()
    state.write_bytes(good[: len(good) // 3])
    notes = Notes()
    with QemuHost(experiment, notes) as host:
        assert host.facts()["warm_start"] is False
        assert host.facts()["xen_version"].startswith("4.17")
    assert any("did not come back" in text for text in notes.texts)
    assert not state.exists()


@pytest.fixture
def booting(images: Images, tmp_path: Path) -> Iterator[Qemu]:
    """A machine that has just been switched on, and a key in `tmp_path`."""
    make_ssh_key(tmp_path / "key")
    with Qemu(Machine(images), tmp_path / "console.txt", public_part(tmp_path / "key")) as qemu:
        yield qemu


def status_of(qemu: Qemu) -> str:
    """What QEMU says of the machine."""
    with qemu.qmp() as qmp:
        return str(qmp.execute("query-status")["status"])


@pytest.mark.parametrize("refused", [0, 1, warm.SAVES_MAX - 1])
def test_what_does_not_come_back_is_saved_once_more(
    refused: int, booting: Qemu, tmp_path: Path
) -> None:
    tried = []

    def check(place: Path) -> None:
        tried.append((place / "state").stat().st_size)
        if len(tried) <= refused:
            raise TestbedError("a CPU was inside of a guest")

    (tmp_path / "target").mkdir()
    warm.save(booting, tmp_path / "target", tmp_path / "key", {"ports": 3}, check)
    assert len(tried) == refused + 1
    assert min(tried) > 1 << 20
    assert warm.baseline_of(tmp_path / "target") == {"ports": 3}
    assert status_of(booting) == "running"


def test_a_state_that_never_comes_back_is_not_kept_and_the_machine_goes_on(
    booting: Qemu, tmp_path: Path
) -> None:
    def check(place: Path) -> None:
        raise TestbedError("a CPU was inside of a guest")

    with pytest.raises(warm.NotSaved, match="inside of a guest"):
        warm.save(booting, tmp_path, tmp_path / "key", {}, check)
    assert status_of(booting) == "running"


def test_a_state_that_cannot_be_written_is_not_kept_and_the_machine_goes_on(
    booting: Qemu, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "state").symlink_to("/dev/full")
    with pytest.raises(warm.NotSaved):
        warm.save(booting, tmp_path / "target", tmp_path / "key", {}, lambda place: None)
    assert status_of(booting) == "running"


def test_what_qemu_says_of_a_state_that_does_not_fit_is_in_the_error(
    images: Images, booting: Qemu, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    warm.save(booting, tmp_path / "target", tmp_path / "key", {}, lambda place: None)
    other = Machine(images, memory_mib=4096)
    key = public_part(tmp_path / "key")
    with (
        Qemu(other, tmp_path / "other.txt", key, wait_for_state=True) as qemu,
        pytest.raises(TestbedError, match="the saved state does not fit") as caught,
    ):
        warm.load(qemu, tmp_path / "target")
    assert "Size mismatch" in caught.value.message


def starter(images: Images, experiment: Experiment, console: Path) -> Starter:
    """What starts a machine from these images."""
    return Starter(Machine(images), experiment, console, Quiet())


def test_dom0_that_does_not_come_up_is_said_with_its_last_lines(
    images: Images, experiment: Experiment, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.initramfs"
    empty.write_bytes(b"")
    broken = replace(images, dom0=empty)
    with pytest.raises(TestbedError) as caught:
        starter(broken, experiment, tmp_path / "console.txt").cold(tmp_path)
    assert "ended while it booted" in caught.value.message
    assert "console.txt" in caught.value.next_step
    assert "Domain 0 crashed" in caught.value.console or "panic" in caught.value.console


def test_a_machine_that_is_silent_for_too_long_is_given_up(
    images: Images, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The firmware alone is silent for longer.
    monkeypatch.setattr(startup, "BOOT_SILENCE_SECONDS_MAX", 0.01)
    with pytest.raises(TestbedError, match="no sign of life") as caught:
        starter(images, experiment, tmp_path / "console.txt").cold(tmp_path)
    assert caught.value.next_step


def test_a_run_whose_machine_does_not_boot_says_so_once_and_keeps_its_console(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for kind in set(SHARED_KINDS) - {"images"}:
        (cache / kind).symlink_to(cache_dir() / kind)
    broken = cache / "images" / images.xen.parent.name
    shutil.copytree(images.xen.parent, broken)
    (broken / images.dom0.name).write_bytes(b"")
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(cache))
    out = tmp_path / "run"
    ran = CliRunner().invoke(main, ["run", "--host", "qemu", "--out", str(out)])
    assert ran.exit_code == ExitStatus.TESTBED_FAILED
    assert "Traceback" not in ran.output
    assert ran.output.count("Error:") == 1
    assert "ended while it booted" in ran.output
    assert f"What was collected is in {out}" in ran.output
    assert json.loads((out / "run.json").read_text())["state"] == "incomplete"
    assert any("panic" in log.read_text() for log in (out / "console").iterdir())
