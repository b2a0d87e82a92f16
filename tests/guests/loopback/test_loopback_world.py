"""The loopback host itself: its life, its guardian, its build."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.loopback import LoopbackWorld, build_standins
from vchan_testbed.guests.loopback.build import STAND_INS

if TYPE_CHECKING:
    from conftest import Domains

NOTHING = {"grants": 0, "ports": 0, "keys": 0, "handles": 0}


def wait_for_death(pid: int) -> None:
    """Return once process `pid`, no child of ours, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30)[0], f"process {pid} goes on"
    finally:
        os.close(descriptor)


def test_the_state_is_removed_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "host"
    with LoopbackWorld(folder) as world:
        world.environment(1)
        pid = world.guardian_pid
        assert world.counts() == NOTHING
        assert any(folder.iterdir())
    assert list(folder.iterdir()) == []
    wait_for_death(pid)


def test_a_folder_with_a_long_name_will_do(tmp_path: Path) -> None:
    with LoopbackWorld(tmp_path / ("x" * 100) / ("y" * 100)) as world:
        assert world.environment(5)["VCHAN_LOOPBACK_DOMID"] == "5"


def test_two_hosts_do_not_see_each_other(tmp_path: Path, domains: Domains) -> None:
    remote = domains.process("xen_calls.py", 1)
    handle = remote("xenevtchn_open", None, 0)
    with LoopbackWorld(tmp_path) as other:
        assert other.counts() == NOTHING
        assert domains.world.counts()["handles"] == 1
    remote("xenevtchn_close", handle)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with LoopbackWorld(tmp_path) as world:
        with pytest.raises(TestbedError, match="does not start") as raised, LoopbackWorld(tmp_path):
            pass
        assert "File exists" in raised.value.console
        assert world.counts() == NOTHING


def test_a_domid_out_of_range_is_refused(tmp_path: Path) -> None:
    with LoopbackWorld(tmp_path) as world, pytest.raises(TestbedError, match=r"0\.\.63"):
        world.environment(64)


def test_a_host_that_is_not_running_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="not running"):
        LoopbackWorld(tmp_path).counts()


def test_a_dead_guardian_is_told_of(tmp_path: Path) -> None:
    with LoopbackWorld(tmp_path) as world:
        os.kill(world.guardian_pid, signal.SIGKILL)
        wait_for_death(world.guardian_pid)
        with pytest.raises(TestbedError, match="does not answer"):
            world.counts()


def test_the_guardian_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from vchan_testbed.guests.loopback import LoopbackWorld;"
        "world = LoopbackWorld(Path(sys.argv[1])).__enter__();"
        "print(world.guardian_pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    wait_for_death(int(killed.stdout))


def test_a_process_of_an_unknown_domain_gets_no_device(domains: Domains) -> None:
    remote = domains.process("xen_calls.py", 1, VCHAN_LOOPBACK_DOMID="42")
    assert remote.fails("xenevtchn_open", None, 0).errno_name == "ESRCH"


def test_without_a_host_there_is_no_device(domains: Domains) -> None:
    remote = domains.process("xen_calls.py", 1, VCHAN_LOOPBACK_DIR="")
    for call in ("xenevtchn_open", "xengnttab_open", "xengntshr_open"):
        assert remote.fails(call, None, 0).errno_name == "ENOENT"


def test_a_process_that_ends_without_closing_is_cleaned_up_after(domains: Domains) -> None:
    remote = domains.process("xen_calls.py", 1)
    domains.world.environment(2)
    events = remote("xenevtchn_open", None, 0)
    remote("xenevtchn_bind_unbound_port", events, 2)
    remote("share_pages", remote("xengntshr_open", None, 0), 2, 7, 1)
    assert domains.world.counts() == {"grants": 7, "ports": 1, "keys": 0, "handles": 2}
    remote.end()
    assert domains.world.counts() == NOTHING


def test_stand_ins_have_the_names_and_versions_that_libxenvchan_asks_for() -> None:
    folder = build_standins()
    library = subprocess.run(
        ["cc", "-print-file-name=libxenvchan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    asked = _symbols(Path(library), "--undefined-only")
    wanted = {name for name in asked if name.startswith(("xenevtchn_", "xengnt", "xs_"))}
    assert wanted
    for stand_in in STAND_INS:
        dynamic = _output("readelf", "-d", str(folder / stand_in.soname))
        assert f"[{stand_in.soname}]" in dynamic
        wanted -= {
            name.replace("@@", "@") for name in _symbols(folder / stand_in.soname, "--defined-only")
        }
    assert wanted == set()


def test_stand_ins_define_nothing_that_the_real_libraries_do_not() -> None:
    folder = build_standins()
    multiarch = Path(_output("cc", "-print-file-name=libxenvchan.so").strip()).parent
    for stand_in in STAND_INS:
        ours = _symbols(folder / stand_in.soname, "--defined-only")
        real = _symbols((multiarch / stand_in.soname), "--defined-only")
        assert ours - real == set()


def test_a_missing_compiler_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(TestbedError, match="no-such-compiler"):
        build_standins()


def test_a_source_that_does_not_compile_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VCHAN_TESTBED_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "vchan_testbed.guests.loopback.build.COMPILE_FLAGS", ("-include", "no-such-header.h")
    )
    with pytest.raises(TestbedError, match="do not compile") as raised:
        build_standins()
    assert "error" in raised.value.console
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".1"]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _symbols(library: Path, which: str) -> set[str]:
    lines = _output("nm", "-D", which, str(library)).splitlines()
    return {line.split()[-1] for line in lines if re.search(r"@", line)}
