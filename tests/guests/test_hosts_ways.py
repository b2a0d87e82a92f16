"""The ways to a host: this machine, another one by ssh, and which of them `auto` takes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.hosts import local, ssh, table
from vchan_testbed.guests.hosts.ssh import Address, connect, parse_address, ssh_host
from vchan_testbed.progress import Quiet

FAKE_SSH = Path(__file__).parent / "fake_ssh.sh"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://root@xen.example", Address("xen.example", "root")),
        ("ssh://xen.example/", Address("xen.example")),
        ("ssh://me@10.0.0.1:2222", Address("10.0.0.1", "me", 2222)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "ssh:",
        "ssh://",
        "ssh://root@",
        "ssh://root@xen:port",
        "ssh://root@xen/path",
        "ssh://-oProxyCommand=reboot",
        "ssh://-l@xen",
        "ssh://a b",
        "xen.example",
    ],
)
def test_what_is_no_address_is_refused_before_ssh_sees_it(text: str) -> None:
    with pytest.raises(InputError, match="is not an address") as caught:
        ssh_host(text, Quiet())
    assert "ssh://USER@NAME" in caught.value.next_step


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ssh is a script, which notes its arguments in the file that is returned."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").symlink_to(FAKE_SSH)
    log = tmp_path / "ssh.log"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH_LOG", str(log))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv(ssh.CONFIG, raising=False)
    return log


@pytest.mark.parametrize(
    ("said", "next_step"),
    [
        ("root@xen: Permission denied (publickey).", "ssh-copy-id -p 22 root@xen"),
        ("Host key verification failed.", "ssh -p 22 root@xen"),
        ("ssh: Could not resolve hostname xen: Name or service not known", "Is the name right"),
        ("ssh: connect to host xen port 22: Connection refused", "Does sshd run"),
        ("ssh: connect to host xen port 22: Connection timed out", "Is it up"),
        ("something that nobody has thought of", "Try: ssh -p 22 root@xen"),
    ],
)
def test_what_ssh_says_comes_with_what_to_do(
    said: str, next_step: str, fake_ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SSH_SAYS", said)
    with pytest.raises(TestbedError, match="no way into xen by ssh") as caught:
        connect(Address("xen", "root", 22))
    assert next_step in caught.value.next_step
    assert said in caught.value.console


def test_the_helper_is_sent_started_and_gone_without_a_trace(
    fake_ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ssh.CONFIG, "/some/config")
    # This machine is no Xen host, and the helper that was sent to it says so.
    with pytest.raises(TestbedError, match="Xen does not run on this machine"):
        connect(Address("xen", "root", 2222))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["bin", "ssh.log"]
    calls = fake_ssh.read_text()
    assert calls.count("-F /some/config") == 3
    for option in ("-oBatchMode=yes", "-oControlMaster=auto", "-p 2222 -- root@xen"):
        assert option in calls
    assert "-O exit" in calls.splitlines()[-1]


def test_a_host_without_python_says_so(
    fake_ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/sh").symlink_to("/bin/sh")
    monkeypatch.setenv("FAKE_SSH_PATH", str(tmp_path / "bare"))
    with pytest.raises(TestbedError, match="xen has no python3") as caught:
        connect(Address("xen"))
    assert "Install Python" in caught.value.next_step


def test_without_ssh_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TestbedError, match="ssh is not installed") as caught:
        connect(Address("xen"))
    assert "openssh-client" in caught.value.next_step


@pytest.fixture
def dom0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine is a dom0, as far as is looked; the folder has its host.yaml."""
    (tmp_path / "capabilities").write_text("control_d\n")
    monkeypatch.setattr(local, "CAPABILITIES", tmp_path / "capabilities")
    for module in (local, table):
        read = module.read_limits
        monkeypatch.setattr(module, "read_limits", lambda read=read: read(tmp_path / "host.yaml"))
    return tmp_path


def test_auto_takes_a_xen_host_only_where_its_owner_allowed_it(dom0: Path) -> None:
    assert table.choose()[0] == "qemu"
    (dom0 / "host.yaml").write_text("memory_mib_max: 512\n")
    assert table.choose()[0] == "qemu"
    (dom0 / "host.yaml").write_text("allow: true\n")
    assert table.choose()[0] == "local"
    (dom0 / "host.yaml").write_text("allow: perhaps\n")
    with pytest.raises(InputError, match="allow is 'perhaps'"):
        table.choose()
    (dom0 / "capabilities").write_text("")
    kind, reason = table.choose()
    assert kind == "qemu"
    assert "not the dom0" in reason


def test_this_machine_is_refused_where_it_lacks_something(
    dom0: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(xl, "find_program", lambda name: f"/usr/sbin/{name}")
    assert local.local_host(Quiet()).kind == "local"
    monkeypatch.setattr(xl, "find_program", lambda name: None)
    with pytest.raises(InputError, match="there is no xl") as caught:
        local.local_host(Quiet())
    assert "apt-get install" in caught.value.next_step
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="xl needs root"):
        local.local_host(Quiet())
    (dom0 / "capabilities").unlink()
    with pytest.raises(InputError, match="is not the dom0"):
        local.local_host(Quiet())


def test_doctor_says_what_a_dom0_has_and_lacks(dom0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_MODULES_FOLDER", dom0)
    (dom0 / "bridge").mkdir()
    findings = {finding.name: finding for finding in local.doctor_findings()}
    assert findings["Xen on this machine"].ok
    assert findings["kernel module bridge"].ok
    assert not findings["kernel module xen_netback"].ok
    assert findings["kernel module xen_netback"].how_to_get == "sudo modprobe xen_netback"
    assert "only --host local" in findings["its owner's word"].detail
    (dom0 / "host.yaml").write_text("alow: true\n")
    broken = {finding.name: finding for finding in local.doctor_findings()}["its owner's word"]
    assert not broken.ok
    assert "no entry 'alow'" in broken.detail


def test_doctor_asks_for_nothing_more_where_there_is_no_xen(
    dom0: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dom0 / "capabilities").unlink()
    (finding,) = local.doctor_findings()
    assert not finding.ok
    assert "--host qemu" in finding.how_to_get
