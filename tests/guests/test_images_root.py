"""Making the Debian root: what is said when it cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.images.root import make_root, run_in_root

FAKE = Path(__file__).with_name("fake_mmdebstrap.sh")


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of a root; mmdebstrap is a script that notes its arguments and fails."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mmdebstrap").symlink_to(FAKE)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_ARGUMENTS", str(tmp_path / "arguments"))
    root = tmp_path / "root"
    root.mkdir()
    return root


def test_missing_mmdebstrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TestbedError, match="mmdebstrap is not installed") as caught:
        make_root(tmp_path, ["python3"])
    assert "apt-get install" in caught.value.next_step


def test_failing_mmdebstrap_shows_its_last_words(target: Path) -> None:
    with pytest.raises(TestbedError) as caught:
        make_root(target, ["python3"])
    assert "E: no such mirror" in caught.value.console
    assert caught.value.next_step
    assert not target.with_name("root.log").exists()


def test_the_packages_and_the_mirror_reach_mmdebstrap(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCHAN_TESTBED_MIRROR", "file:///some/mirror")
    with pytest.raises(TestbedError):
        make_root(target, ["python3", "gcc"])
    arguments = target.with_name("arguments").read_text()
    assert "--include=python3,gcc" in arguments
    assert arguments.splitlines()[-1] == "file:///some/mirror"


def test_a_tree_is_unpacked_without_devices(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "dev").mkdir(parents=True)
    (tree / "dev/console").touch()
    (tree / "etc").mkdir()
    (tree / "etc/hostname").write_text("guest\n")
    monkeypatch.setenv("FAKE_TREE", str(tree))
    make_root(target, ["python3"])
    assert (target / "etc/hostname").read_text() == "guest\n"
    assert [path.name for path in (target / "dev").iterdir()] == ["null"]


def test_a_command_that_fails_in_the_root_says_how(tmp_path: Path) -> None:
    with pytest.raises(TestbedError) as caught:
        run_in_root(tmp_path / "no-such-root", tmp_path, ["true"])
    assert "true" in caught.value.message
    assert "no-such-root" in caught.value.console


def test_a_path_without_the_administrators_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So Debian gives it to users who are not root, and chroot lies in /usr/sbin.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "hello").write_text("from the folder\n")
    assert run_in_root(Path("/"), tmp_path, ["cat", "/mnt/hello"]) == "from the folder\n"
