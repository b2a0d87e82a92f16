"""Builds one cache entry: waits for a line on its input, then builds, or dies while it does.

cache_user.py build|die LOG
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from vchan_testbed.cache import cached


def main() -> None:
    """One build."""
    what, log = sys.argv[1:]

    def build(folder: Path) -> None:
        with open(log, "a") as file:
            file.write("built\n")
        (folder / "half").write_text("")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "half").rename(folder / "whole")

    print("ready", flush=True)
    sys.stdin.readline()
    print(" ".join(path.name for path in cached("kind", "key", build).iterdir()))


main()
