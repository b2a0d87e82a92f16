"""The command line of `diagnose`, with nothing but the standard library."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vchan_testbed.errors import ExitStatus, TestbedError
from vchan_testbed.guests.diagnose.bundle import Wish, gather, listed, write
from vchan_testbed.guests.diagnose.judge import IDLE, MOVING, diagnose
from vchan_testbed.guests.diagnose.looking import Channel, Wanted, channels, sight_of
from vchan_testbed.guests.diagnose.show import lines, plain
from vchan_testbed.guests.diagnose.sight import Sight
from vchan_testbed.guests.diagnose.xen import Xen

APART_SECONDS = 3.0
INTERRUPTED = 130
SAMPLES_SECONDS = 10.0
"""Between the two samples of a bundle."""
EPILOG = "It only reads: no process is stopped or attached to, no domain is changed."


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        "diagnose",
        description="Look at live vchan channels: what hangs, and whose it is.",
        epilog=EPILOG,
    )
    made.add_argument(
        "--pid",
        type=int,
        action="append",
        default=[],
        help="a process that has an end; may come again",
    )
    made.add_argument(
        "--domains",
        type=int,
        nargs=2,
        metavar=("A", "B"),
        help="channels between these two domains only",
    )
    made.add_argument(
        "--seconds",
        type=float,
        default=APART_SECONDS,
        help="time between the two looks (default: %(default)s)",
    )
    made.add_argument("--watch", action="store_true", help="look again until it is interrupted")
    made.add_argument("--json", action="store_true", help="print a JSON list, one line a look")
    made.add_argument(
        "--loopback", action="store_true", help="processes over the loopback host's stand-ins"
    )
    made.add_argument(
        "--bundle", type=Path, metavar="FILE", help="write what tells of it (.tar.gz)"
    )
    made.add_argument("--show", action="store_true", help="print what would be in the bundle")
    made.add_argument("--names", action="store_true", help="leave names of domains as they are")
    made.add_argument(
        "--trace", type=Path, action="append", default=[], help="a trace that goes in, too"
    )
    return made


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be looked at, and how it is said."""

    pids: tuple[int, ...] = ()
    domids: tuple[int, int] | None = None
    seconds: float = APART_SECONDS
    watch: bool = False
    as_json: bool = False
    loopback: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit status 0: nothing hangs; 1: something does, or is not known."""
    asked = parser().parse_args(arguments)
    domids = (asked.domains[0], asked.domains[1]) if asked.domains else None
    wish = Wish(max(asked.seconds, SAMPLES_SECONDS), tuple(asked.trace), asked.names)
    try:
        if asked.bundle or asked.show:
            wanted = Wanted(tuple(asked.pid), domids, asked.loopback)
            return bundle(wanted, wish, None if asked.show else asked.bundle)
        return perform(
            Asked(tuple(asked.pid), domids, asked.seconds, asked.watch, asked.json, asked.loopback)
        )
    except TestbedError as error:
        print(f"Error: {error}", file=sys.stderr)
        return int(error.exit_status)
    except KeyboardInterrupt:
        return INTERRUPTED


def perform(asked: Asked) -> int:
    """Look, and say it. Raises TestbedError where nothing can be looked at."""
    wanted = Wanted(asked.pids, asked.domids, asked.loopback)
    with _xen_for(wanted) as xen:
        while True:
            status = _pair_of_looks(asked, wanted, xen, channels(wanted, xen))
            if not asked.watch:
                return status


def bundle(wanted: Wanted, wish: Wish, path: Path | None) -> int:
    """Write all that tells of these channels to `path`; without it print what would be in it.

    Raises TestbedError where nothing can be looked at, InputError where `path` is there already.
    """
    with _xen_for(wanted) as xen:
        found = channels(wanted, xen)
        if not found:
            raise TestbedError("No channel was found.", next_step="Name a process with --pid.")
        contents = gather(found, wanted, xen, wish)
    if path is None:
        print("\n".join(listed(contents)))
        return int(ExitStatus.EXPECTED)
    write(contents, path)
    print(f"Written: {path}, {len(contents)} files. All that is inside is shown by --show.")
    return int(ExitStatus.EXPECTED)


def _xen_for(wanted: Wanted) -> contextlib.AbstractContextManager[Xen | None]:
    """Xen's libraries; where processes alone are looked at, they need not be there."""
    return contextlib.nullcontext() if wanted.loopback or wanted.pids else Xen()


def _pair_of_looks(asked: Asked, wanted: Wanted, xen: Xen | None, found: list[Channel]) -> int:
    first = [sight_of(channel, wanted, xen) for channel in found]
    # Nothing can be waited for here: that nothing happens in this time is what is asked.
    time.sleep(asked.seconds)
    second = [sight_of(channel, wanted, xen) for channel in found]
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    said = [(b, diagnose(a, b)) for a, b in pairs]
    if asked.as_json:
        print(json.dumps([plain(sight, diagnosis) for sight, diagnosis in said]), flush=True)
    else:
        _print(found, first, second, [line for one in said for line in lines(*one)])
    calm = len(said) == len(found) and all(one.word in (IDLE, MOVING) for _, one in said)
    return int(ExitStatus.EXPECTED if calm else ExitStatus.UNEXPECTED)


def _print(
    found: list[Channel], first: list[Sight | None], second: list[Sight | None], said: list[str]
) -> None:
    if not found:
        print("No channel was found: no keys in xenstore, and no process that maps a vchan's page.")
    for channel, *looks in zip(found, first, second, strict=True):
        if None in looks:
            print(
                f"channel {channel.name}\n  its page cannot be read from here: run this in the "
                "server's domain, or with --pid"
            )
    for line in said:
        print(line)
    sys.stdout.flush()
