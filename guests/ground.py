"""Is the ground firm? The last word of the self-test that runs in this domain (guests/selftest/).

Only the standard library: agents and the helper read it where they run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SELFTEST_FILE = Path(os.environ.get("VCHAN_SELFTEST_FILE", "/run/vchan-selftest.status"))


def selftest() -> dict[str, Any]:
    """`ok`: whether registers, memory and clocks held up to now, None where no self-test runs.

    `detail` is the status file's last line, whose first word is "ok" or "failed".
    """
    try:
        text = SELFTEST_FILE.read_text().strip()
    except OSError:
        text = ""
    if not text:
        return {"ok": None, "detail": "no self-test runs here"}
    last = text.splitlines()[-1]
    return {"ok": last.startswith("ok"), "detail": last}
