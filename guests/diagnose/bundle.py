"""All that somebody else needs to understand a hang, in one file: what is in it, and what is not.

Bytes of the rings are left out, names of domains are replaced, and of other domains nothing is kept
but that they are there. It only reads, as a look does; a thread's kernel stack is read from /proc.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.diagnose.judge import diagnose
from vchan_testbed.guests.diagnose.looking import Channel, Wanted, page_of, sight_of
from vchan_testbed.guests.diagnose.show import plain
from vchan_testbed.guests.diagnose.xen import Xen, command

CONTROL_BYTES = 1024
"""Of the page: fields and grants. The rings of small channels lie behind them."""
OF_A_THREAD = ("stack", "wchan", "syscall", "status")
KERNEL_LINES = 400
XEN_LINES = 400

Contents = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Wish:
    """What goes in beside the looks: traces, and whether names are left as they are."""

    seconds: float = 10.0
    traces: tuple[Path, ...] = ()
    names: bool = False


def gather(found: Sequence[Channel], wanted: Wanted, xen: Xen | None, wish: Wish) -> Contents:
    """Name and content of every file of the bundle. Raises InputError for what is no trace."""
    contents = {
        f"traces/{number}-{path.name}": _trace(path) for number, path in enumerate(wish.traces)
    }
    first = [sight_of(channel, wanted, xen) for channel in found]
    interrupts = _read(Path("/proc/interrupts"))
    # That nothing happens in this time is what the second sample tells.
    time.sleep(wish.seconds)
    for number, (channel, before) in enumerate(zip(found, first, strict=True)):
        after = sight_of(channel, wanted, xen)
        folder = f"channel-{number}"
        if before is None or after is None:
            contents[f"{folder}/unreadable.txt"] = f"{channel.name}: no page\n".encode()
            continue
        looks = [plain(sight, diagnose(before, sight)) for sight in (before, after)]
        contents[f"{folder}/looks.json"] = json.dumps(looks, indent=1).encode()
        page = page_of(channel, xen)
        if page is not None:
            contents[f"{folder}/control-page.bin"] = page[:CONTROL_BYTES]
        for one in channel.found:
            contents |= dict(_process(one.pid, folder))
    contents["interrupts-before.txt"] = _of_xen(interrupts)
    contents["interrupts-after.txt"] = _of_xen(_read(Path("/proc/interrupts")))
    contents |= _system(found, near=xen is None, names=wish.names)
    return contents


def write(contents: Mapping[str, bytes], path: Path) -> None:
    """A compressed tar archive. Raises InputError where one is already."""
    if path.exists():
        raise InputError(f"{path} is there already.", next_step="Name another file.")
    with tarfile.open(path, "x:gz") as archive:
        for name, data in sorted(contents.items()):
            entry = tarfile.TarInfo(f"{path.name.partition('.')[0]}/{name}")
            entry.size, entry.mtime = len(data), int(time.time())
            archive.addfile(entry, io.BytesIO(data))


def listed(contents: Mapping[str, bytes]) -> Iterator[str]:
    """All that is inside, as text; what is no text as hexadecimal digits."""
    for name, data in sorted(contents.items()):
        yield f"==== {name} ({len(data)} bytes)"
        if name.startswith("traces/"):
            yield "a trace: values of the shared page, calls and digests, no bytes of the streams"
        elif name.endswith(".bin"):
            yield data.hex(" ", 4)
        else:
            yield data.decode(errors="replace").rstrip("\n")


def without_names(listing: str) -> str:
    """`xl list` without the domains' names: each is called after its domid."""
    lines = listing.splitlines()
    kept = lines[:1]
    for line in lines[1:]:
        words = line.rsplit(maxsplit=5)
        kept.append(" ".join([f"domain-{words[1]}", *words[1:]]))
    return "\n".join(kept) + "\n"


def _trace(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The trace {path} cannot be read: {error.strerror}.", next_step="Name a file."
        ) from error


def _process(pid: int, folder: str) -> Iterator[tuple[str, bytes]]:
    """What /proc has of each thread of a process, but for its memory and its command line."""
    with contextlib.suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            for what in OF_A_THREAD:
                yield f"{folder}/process-{pid}/{task.name}/{what}", _read(task / what)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"unknown: {error.strerror}\n".encode()


def _of_xen(interrupts: bytes) -> bytes:
    """The head, and the lines of event channels: those of other devices tell nothing."""
    lines = interrupts.splitlines(keepends=True)
    return b"".join(lines[:1] + [line for line in lines[1:] if b"xen" in line or b"evtchn" in line])


def _system(found: Sequence[Channel], *, near: bool, names: bool) -> Contents:
    kernel = os.uname()
    contents = {"kernel.txt": f"{kernel.sysname} {kernel.release} {kernel.version}\n".encode()}
    contents["kernel-messages.txt"] = _said("dmesg", last=KERNEL_LINES, keep=_is_about_xen)
    if near:
        return contents
    domains = _said("xl", "list").decode()
    contents["xl-list.txt"] = (domains if names else without_names(domains)).encode()
    contents["xl-info.txt"] = _said("xl", "info", keep=lambda line: not line.startswith("host "))
    contents["xl-dmesg.txt"] = _said("xl", "dmesg", last=XEN_LINES)
    keys = [_said("xenstore-ls", "-f", channel.keys.path) for channel in found if channel.keys]
    contents["xenstore.txt"] = b"".join(keys)
    return contents


def _is_about_xen(line: str) -> bool:
    """Lines of other drivers may tell what is nobody's business, and tell nothing of a hang."""
    return any(word in line.lower() for word in ("xen", "evtchn", "gnt", "hung", "blocked", "bug"))


def _said(*words: str, last: int = 0, keep: Callable[[str], bool] = lambda line: True) -> bytes:
    """What a program prints; that it is not there, or fails, is said in its place."""
    try:
        lines = [line for line in command(*words).splitlines() if keep(line)]
    except TestbedError as error:
        return f"unknown: {error.message}\n".encode()
    return ("\n".join(lines[-last:]) + "\n").encode()
