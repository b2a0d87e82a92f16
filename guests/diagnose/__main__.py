"""Starts `diagnose`, also as the first file of its zipapp."""

import sys

from vchan_testbed.guests.diagnose.main import main

if __name__ == "__main__":
    sys.exit(main())
