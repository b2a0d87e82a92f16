"""Build the cffi extensions and the self-test: runs inside the Debian root, on its own Python.

The folder at /mnt holds our sources laid out as the package `vchan_testbed`; what is built stays
beside them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path("/mnt")


def main() -> None:
    """Run each extension's build script, then compile the self-test."""
    for script in sorted(HERE.glob("vchan_testbed/*/build_*.py")):
        subprocess.run([sys.executable, script], check=True)
    programs = [str(path) for path in sorted(HERE.glob("selftest/*.[cS]"))]
    if programs:
        options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread"]
        subprocess.run(["gcc", *options, "-o", HERE / "vchan-selftest", *programs], check=True)


if __name__ == "__main__":
    main()
