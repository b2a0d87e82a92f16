"""In a guest, in the agent's place: runs one end of `moving.c` whenever it is told to, by frames.

run -> ("up" ->) took, each time; the program prints nanoseconds, those of a client.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from vchan_testbed.guests.frames import FrameStream, Kind, Message
from vchan_testbed.tracer.record import Flight, Settings, environment, traces_in


def main() -> int:
    """Serve until the host hangs up. Frames alone may reach standard output."""
    frames_in, frames_out = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    stream = FrameStream(frames_in, frames_out)
    stream.send({"type": "hello"})
    while (frame := stream.read()) is not None:
        if frame.kind is Kind.MESSAGE and frame.message()["type"] == "run":
            run(stream, frame.message())
    return 0


def run(stream: FrameStream, asked: Message) -> None:
    """One life of the program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        around = dict(os.environ)
        if asked["settings"] is not None:
            flight = Flight(asked["flight_bytes"]) if asked["flight_bytes"] else None
            settings = Settings(**asked["settings"], flight=flight)
            around = environment(folder, settings, around)
        program = subprocess.Popen(
            asked["command"], env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        if asked["is_server"] and program.stdout.readline() == "up\n":
            stream.send({"type": "up"})
        out, errors = program.communicate()
        traces = len(list(traces_in(folder)))
    told = {"status": program.returncode, "said": out, "errors": errors, "traces": traces}
    stream.send({"type": "took", **told})
