"""The command line of `diagnose`, with nothing but the standard library."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from vchan_testbed.errors import ExitStatus, TestbedError
from vchan_testbed.guests.diagnose.judge import IDLE, MOVING, diagnose
from vchan_testbed.guests.diagnose.looking import Channel, Wanted, channels, sight_of
from vchan_testbed.guests.diagnose.show import lines, plain
from vchan_testbed.guests.diagnose.sight import Sight
from vchan_testbed.guests.diagnose.xen import Xen

APART_SECONDS = 3.0
INTERRUPTED = 130
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
    try:
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
    # Where processes alone are looked at, Xen's libraries need not be there.
    near = asked.loopback or bool(asked.pids)
    with contextlib.nullcontext() if near else Xen() as xen:
        while True:
            status = _pair_of_looks(asked, wanted, xen, channels(wanted, xen))
            if not asked.watch:
                return status


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
