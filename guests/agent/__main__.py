"""`python3 -m vchan_testbed.guests.agent`: frames on standard input and output."""

from __future__ import annotations

import os
import sys

from vchan_testbed.guests.agent.supervisor import Supervisor


def main() -> int:
    """Serve one experiment. Nothing but frames may reach standard output, so it is moved."""
    frames_in, frames_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    return Supervisor(frames_in, frames_out).serve()


if __name__ == "__main__":
    sys.exit(main())
