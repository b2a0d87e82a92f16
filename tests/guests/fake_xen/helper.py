"""The helper on a host that is no dom0: believes the file that it is told to be one's mark.

python helper.py CAPABILITIES HOST_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from vchan_testbed.guests.helper import agents, domains, facts, limits, network, xl
from vchan_testbed.guests.helper.main import main

if __name__ == "__main__":
    facts.CAPABILITIES = Path(sys.argv.pop(1))
    host_file = Path(sys.argv.pop(1))

    def read_limits() -> limits.Limits | None:
        """The caps of the test's host."""
        return limits.read_limits(host_file)

    for module in (domains, agents):
        setattr(module, "read_limits", read_limits)  # noqa: B010
    xl.PROGRAM_FOLDERS = ()
    network.VIF_SECONDS_MAX = 1.0
    sys.exit(main())
