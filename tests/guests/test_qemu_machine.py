"""The machine's command line, the key of its saved state, and its watchdog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.experiment import DomainConfig, Experiment, load_experiment
from vchan_testbed.guests.hosts import accelerator, qemu, warm
from vchan_testbed.guests.hosts.machine import KVM, TCG, Machine, Qemu, Watchdog
from vchan_testbed.guests.images import Images
from vchan_testbed.progress import Quiet

IMAGES = Images(
    key="k",
    xen=Path("/images/xen"),
    kernel=Path("/images/vmlinux"),
    dom0=Path("/images/dom0"),
    domu=Path("/images/domu"),
    versions={},
)


@pytest.fixture
def experiment() -> Experiment:
    """The default one."""
    return load_experiment(None)


def test_xsave_and_smap_are_off_under_tcg() -> None:
    arguments = Machine(IMAGES).arguments("KEY")
    assert arguments[arguments.index("-cpu") + 1] == "max,-smap,-xsave"


def test_only_this_machine_can_reach_dom0() -> None:
    (netdev,) = (each for each in Machine(IMAGES).arguments("KEY") if "hostfwd" in each)
    assert "restrict=on" in netdev
    assert "hostfwd=tcp:127.0.0.1:" in netdev


def test_the_key_reaches_dom0() -> None:
    (initrd,) = (each for each in Machine(IMAGES).arguments("AAAAkey") if "vmlinux" in each)
    assert "vchan.ssh_key=AAAAkey," in initrd


def test_a_state_fits_the_same_machine_only(experiment: Experiment) -> None:
    machine = Machine(IMAGES)
    key = warm.key_of_state(machine, experiment)
    assert warm.key_of_state(Machine(IMAGES), load_experiment(None)) == key
    others = [
        replace(machine, accelerator=KVM),
        replace(machine, memory_mib=4096),
        replace(machine, dom0_pinned=True),
        replace(machine, images=replace(IMAGES, key="other")),
    ]
    assert key not in [warm.key_of_state(other, experiment) for other in others]


def test_a_state_fits_the_same_domains_only(experiment: Experiment) -> None:
    key = warm.key_of_state(Machine(IMAGES), experiment)
    for domain in (DomainConfig(type="pvh"), DomainConfig(memory_mib=512), DomainConfig(vcpus=2)):
        other = replace(experiment, server_domain=domain)
        assert warm.key_of_state(Machine(IMAGES), other) != key


def test_a_state_serves_any_operations(experiment: Experiment) -> None:
    other = replace(experiment, name="other", server=experiment.client, client=experiment.server)
    machine = Machine(IMAGES)
    assert warm.key_of_state(machine, other) == warm.key_of_state(machine, experiment)


def test_memory_follows_from_the_domains(experiment: Experiment) -> None:
    assert qemu.memory_mib(experiment) == 3072
    large = replace(experiment, server_domain=DomainConfig(memory_mib=4096))
    assert qemu.memory_mib(large) > 4096 + 1024
    none = replace(large, server_domain=DomainConfig(type="dom0", memory_mib=4096))
    assert qemu.memory_mib(none) == 3072


def test_dom0_is_pinned_beside_emulated_pvh_guests(experiment: Experiment) -> None:
    pvh = replace(experiment, client_domain=DomainConfig(type="pvh"))
    assert qemu.dom0_pinned(pvh, TCG)
    assert not qemu.dom0_pinned(pvh, KVM)
    assert not qemu.dom0_pinned(experiment, TCG)


def test_the_accelerator_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCHAN_TESTBED_ACCELERATOR", "kvm")
    assert accelerator.choose(Machine(IMAGES), Quiet()).accelerator == KVM
    monkeypatch.setenv("VCHAN_TESTBED_ACCELERATOR", "warp")
    with pytest.raises(InputError, match="kvm or tcg"):
        accelerator.choose(Machine(IMAGES), Quiet())


def test_qemu_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(TestbedError) as caught:
        Qemu(Machine(IMAGES), tmp_path / "console.txt", "KEY")
    assert "/images/xen" in caught.value.message
    assert caught.value.next_step


def test_missing_qemu_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TestbedError) as caught:
        accelerator.qemu_version()
    assert caught.value.message == "qemu-system-x86_64 is not installed"
    assert "qemu-system-x86" in caught.value.next_step


def test_qemu_is_asked_for_before_images_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TestbedError, match="is not installed"):
        qemu.QemuHost(load_experiment(None), Quiet()).__enter__()


def test_the_watchdog_hopes_while_the_console_goes_on() -> None:
    watchdog = Watchdog(silence_seconds_max=1000, seconds_max=1000)
    assert watchdog.look(0)
    assert watchdog.look(0)
    silent = Watchdog(silence_seconds_max=0, seconds_max=1000)
    assert not silent.look(1)
    assert silent.complaint == "gave no sign of life for 0 s"
    endless = Watchdog(silence_seconds_max=1000, seconds_max=0)
    assert not endless.look(1)
    assert "was not up after 0 s" in endless.complaint


def test_old_consoles_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(tmp_path))
    for _ in range(3 * qemu.CONSOLES_KEPT_MAX):
        qemu.new_console().touch()
    assert len(list((tmp_path / "consoles").iterdir())) == qemu.CONSOLES_KEPT_MAX


def test_doctor_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = {finding.name: finding for finding in qemu.doctor_findings()}
    for name, package in (
        ("QEMU", "qemu-system-x86"),
        ("guest image", "mmdebstrap"),
        ("ssh-keygen", "openssh-client"),
    ):
        assert not findings[name].ok
        assert package in findings[name].how_to_get
