"""Starts the helper, also as the first file of its zipapp."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (a host may have any)
    sys.exit("vchan-testbed: Python 3.11 or newer is needed on this host, as python3")

from vchan_testbed.guests.helper.main import main

if __name__ == "__main__":
    sys.exit(main())
