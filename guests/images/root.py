"""The Debian root that the images are cut from, and running commands inside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vchan_testbed.errors import TestbedError

SUITE = "bookworm"
ROOT_SECONDS_MAX = 3600
COMMAND_SECONDS_MAX = 900
END_SECONDS_MAX = 60

# Documentation and drivers that no image takes: half of the root's size.
LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/lib/modules/*/kernel/sound/*",
    "/lib/modules/*/kernel/drivers/gpu/*",
    "/lib/modules/*/kernel/drivers/media/*",
    "/lib/modules/*/kernel/drivers/infiniband/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/*",
    "/lib/modules/*/kernel/drivers/net/wireless/*",
    "/lib/modules/*/kernel/drivers/scsi/*",
    "/lib/modules/*/kernel/drivers/staging/*",
)

_HERE = Path(__file__).resolve().parent
_LAST_LINES = 15


def read_package_list(path: Path) -> tuple[str, ...]:
    """Return the names in a package list: one per line, `#` starts a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)


def make_root(target: Path, packages: Sequence[str]) -> None:
    """Fill `target` with a Debian root that holds `packages`, owned by the caller.

    mmdebstrap writes a tar archive, which is unpacked here: so the files belong to whoever
    called, and a user who is not root can enter and delete the result. Device nodes are left
    out. Raises TestbedError when mmdebstrap is missing or fails.
    """
    if shutil.which("mmdebstrap") is None:
        raise TestbedError(
            "mmdebstrap is not installed, and the guest image is made with it",
            next_step="sudo apt-get install mmdebstrap uidmap (make setup does it)",
        )
    with tempfile.TemporaryFile() as messages:
        failed = _make_and_unpack(target, packages, messages.fileno())
        messages.seek(0)
        said = messages.read().decode(errors="replace")
    last_lines = "\n".join(said.splitlines()[-_LAST_LINES:])
    if failed:
        raise TestbedError(
            "mmdebstrap could not make the root of the guest image",
            next_step=_advice_after_failure(),
            console=last_lines,
        )
    (target / "dev/null").touch()


def run_in_root(root: Path, folder: Path, command: Sequence[str]) -> str:
    """Run `command` in `root` with `folder` mounted at /mnt; return what it printed.

    Whatever it has started ends with it. Raises TestbedError with the command's last lines when it
    fails.
    """
    # A process namespace: when `unshare` is killed, all in there goes, compilers as well.
    prefix = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        prefix.append("--map-root-user")
    process = subprocess.Popen(
        [*prefix, str(_HERE / "in_root.sh"), str(root), str(folder), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    shown = " ".join(command)
    try:
        out, err = process.communicate(timeout=COMMAND_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise TestbedError(
            f"a step of building the guest image did not end in {COMMAND_SECONDS_MAX} s: {shown}",
            next_step="Is this machine overloaded? Build again: vchan-testbed image build.",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            # Its output ends when the last process has gone that could still write to `folder`.
            process.communicate()
    if process.returncode != 0:
        lines = (out + err).splitlines()
        raise TestbedError(
            f"a step of building the guest image failed: {shown}",
            next_step="if the lines below name a permission: user namespaces must be allowed"
            " (sysctl kernel.unprivileged_userns_clone=1), or build as root",
            console="\n".join(lines[-_LAST_LINES:]),
        )
    return out


def _make_and_unpack(target: Path, packages: Sequence[str], messages: int) -> bool:
    """Whether it failed; `messages` is the descriptor for what is said."""
    maker = subprocess.Popen(
        _mmdebstrap_command(packages),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=messages,
        # Ctrl-C is for this process, which lets mmdebstrap clean up.
        start_new_session=True,
    )
    try:
        unpacker = subprocess.Popen(
            ["tar", "--extract", "--directory", target, "--exclude=./dev/*"],
            stdin=maker.stdout,
            stderr=messages,
            start_new_session=True,
        )
        assert maker.stdout is not None
        maker.stdout.close()
        try:
            return bool(maker.wait(timeout=ROOT_SECONDS_MAX) or unpacker.wait(timeout=600))
        except subprocess.TimeoutExpired:
            os.write(messages, f"ended after {ROOT_SECONDS_MAX} s\n".encode())
            return True
        finally:
            unpacker.kill()
            unpacker.wait()
    finally:
        _end_group(maker)


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, if it still runs.

    mmdebstrap removes its temporary folder, the size of the whole root, when it is asked to end;
    but it waits for its children first, so they are asked as well.
    """
    if leader.poll() is not None:
        return
    os.killpg(leader.pid, signal.SIGTERM)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(END_SECONDS_MAX)
    finally:
        if leader.poll() is None:
            os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()


def _mmdebstrap_command(packages: Sequence[str]) -> list[str]:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    mode = "root" if os.geteuid() == 0 else "unshare"
    # VCHAN_TESTBED_MIRROR: a mirror's address or a sources.list, for machines without the
    # default one.
    mirror = os.environ.get("VCHAN_TESTBED_MIRROR")
    return [
        "mmdebstrap",
        f"--mode={mode}",
        "--variant=apt",
        "--format=tar",
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(packages)}",
        *options,
        SUITE,
        "-",
        *([mirror] if mirror else []),
    ]


def _advice_after_failure() -> str:
    if os.geteuid() == 0:
        return (
            "the lines below say why; a mirror that cannot be reached is replaced with"
            " VCHAN_TESTBED_MIRROR=ADDRESS"
        )
    return (
        "a user who is not root needs the package uidmap, a line in /etc/subuid and"
        " /etc/subgid (sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535"
        " $USER) and user namespaces; or build once as root: sudo vchan-testbed image build"
    )
