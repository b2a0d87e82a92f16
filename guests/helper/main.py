"""The helper's command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

from vchan_testbed.guests.helper.session import Helper


def main() -> int:
    """Serve until the client is gone; with --port until the machine is."""
    parser = argparse.ArgumentParser(prog="helper.pyz", description=__doc__)
    parser.add_argument(
        "--port",
        type=Path,
        help="a virtio-serial port to serve for ever, instead of standard input and output",
    )
    parser.add_argument(
        "--remove",
        type=Path,
        help="a folder to remove at the end: the one that this file was sent to",
    )
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options.port))
    finally:
        if options.remove is not None:
            shutil.rmtree(options.remove)
    return 0


async def _serve(port: Path | None) -> None:
    if port is not None:
        # A port can be opened once only.
        device = os.open(port, os.O_RDWR | os.O_CLOEXEC)
        helper = Helper(device, device, lasting=True)
    else:
        read_fd, write_fd = os.dup(0), os.dup(1)
        # Nothing but frames may reach standard output.
        os.dup2(2, 1)
        helper = Helper(read_fd, write_fd, lasting=False)
    loop = asyncio.get_running_loop()
    # The client's terminal or ssh connection went away: everything is given back all the same.
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, helper.stop)
    await helper.serve()


if __name__ == "__main__":
    sys.exit(main())
