"""How many pages the processes of this domain may share with others."""

from __future__ import annotations

import os
from pathlib import Path

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.agent.interrupts import LOOPBACK

OF_GNTALLOC = Path("/sys/module/xen_gntalloc/parameters/limit")
OF_STANDIN = "VCHAN_LOOPBACK_GNTALLOC_LIMIT"


def limit_grants(pages_max: int) -> None:
    """Set the limit of gntalloc: its module's on Xen, the stand-in's on the loopback host.

    Raises TestbedError where it cannot be set.
    """
    if os.environ.get(LOOPBACK):
        os.environ[OF_STANDIN] = str(pages_max)
        return
    try:
        OF_GNTALLOC.write_text(str(pages_max))
    except OSError as error:
        raise TestbedError(
            f"The limit of grants cannot be set here: {error.strerror}.",
            next_step="Run the agent as root, with Linux's xen-gntalloc loaded.",
        ) from error
