"""`python3 -m vchan_testbed.guests.agent`: frames on standard input and output.

Importing this module imports all that a run needs: whoever keeps a process waiting with it loses no
time when the run comes.
"""

from __future__ import annotations

import os
import sys

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.agent.child import Serve
from vchan_testbed.guests.agent.supervisor import Supervisor


def load_worker() -> Serve | TestbedError:
    """The worker; or why there is none here, for which the host is waiting to hear."""
    try:
        from vchan_testbed.guests.agent.worker import serve
    except TestbedError as error:
        return error
    except ImportError as error:
        return TestbedError(
            f"The agent is not complete here: {error}.",
            next_step="Build the image again; on this machine: `make setup`.",
        )
    return serve


WORKER = load_worker()


def main() -> int:
    """Serve one experiment, or one after the other as long as the host has the agent rest in
    between. Nothing but frames may reach standard output, so it is moved.
    """
    frames_in, frames_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    while True:
        supervisor = Supervisor(frames_in, frames_out, WORKER)
        status = supervisor.serve()
        if not supervisor.rests:
            return status


if __name__ == "__main__":
    sys.exit(main())
