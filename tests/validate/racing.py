"""A race of two ends of one build of the library, traced and judged."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.validate.judge import judge_traces
from vchan_testbed.validate.verdict import Verdict

SECONDS_MAX = 120
END = Path(__file__).parents[1] / "processes" / "racing_end.py"


def race(library: Path, traces: Path, order: str, count: int) -> Verdict:
    """Run both ends with the library, and judge what they recorded."""
    traces.mkdir()
    ends = []
    with tempfile.TemporaryDirectory() as folder, LoopbackWorld(Path(folder) / "host") as world:
        for domid, role in enumerate(("server", "client"), start=1):
            environment = world.environment(domid)
            environment["LD_LIBRARY_PATH"] = f"{library}:{environment['LD_LIBRARY_PATH']}"
            trace = str(traces / f"{role}.vtrace")
            command = [sys.executable, str(END), role, trace, str(count), order]
            ends.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **environment},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            if role == "server":
                assert ends[0].stdout is not None
                assert ends[0].stdout.readline() == "up\n"
        for end in ends:
            end.communicate(timeout=SECONDS_MAX)
            assert end.returncode == 0
    return judge_traces(traces / "server.vtrace", traces / "client.vtrace")
