#!/usr/bin/env python3
"""Stands for xl and the xenstore programs, under their names: asks the fake Xen of the test.

The fake Xen (../test_helper_session.py) listens on $FAKE_XEN. It is told the command line; each
line of its answer is one order: print a line (`out`, `err`), make or remove a vif in this program's
network namespace (`add`, `remove`), end with a status (`end`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Ask, and do as told."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["FAKE_XEN"])
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        connection.sendall(json.dumps(command).encode() + b"\n")
        for line in connection.makefile():
            order, argument = json.loads(line)
            if order == "end":
                return int(argument)
            if order in ("out", "err"):
                print(argument, file=sys.stdout if order == "out" else sys.stderr, flush=True)
            elif order == "add":
                link("add", argument, "type", "veth", "peer", "name", f"g{argument}")
            elif order == "remove":
                link("delete", argument)
    return 1


def link(*words: str) -> None:
    """`ip link`, which may find that it was done already."""
    subprocess.run(["ip", "link", *words], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
