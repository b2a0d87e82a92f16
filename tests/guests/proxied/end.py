"""In a guest: one end of a channel is a program under `record`. Told and telling by frames.

start -> the program runs, gets random bytes, and gives those of the other end; got -> hang_up ->
ended -> its trace -> bye.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from vchan_testbed.guests.frames import Frame, FrameStream, Kind, Message, data_frame
from vchan_testbed.tracer.record import Settings, environment, traces_in

PIECE_BYTES = 1 << 16
END_SECONDS_MAX = 600


def main() -> int:
    """Serve one start message. Frames alone may reach standard output."""
    frames_in, frames_out = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    stream = FrameStream(frames_in, frames_out)
    stream.send({"type": "hello"})
    with tempfile.TemporaryDirectory() as folder:
        perform(stream, heard(stream, "start"), Path(folder))
    return 0


def heard(stream: FrameStream, kind: str) -> Message:
    """The next message, which is of that kind."""
    frame = stream.read()
    if frame is None:
        sys.exit("the host has gone")
    message = frame.message()
    assert message["type"] == kind, message
    return message


def perform(stream: FrameStream, start: Message, folder: Path) -> None:
    """The program's life."""
    said = folder / "said"
    with said.open("w") as errors:
        program = subprocess.Popen(
            start["command"],
            env=environment(folder, Settings(level=start["level"]), os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert program.stdin is not None
    assert program.stdout is not None
    data = random.Random(start["seed"]).randbytes(start["put_bytes"])
    putting = threading.Thread(target=put, args=(program.stdin.fileno(), data))
    putting.start()
    got = b""
    while len(got) < start["get_bytes"] and (more := os.read(program.stdout.fileno(), PIECE_BYTES)):
        got += more
    putting.join()
    came = {"bytes": len(got), "sha256": hashlib.sha256(got).hexdigest()}
    told = {"said": said.read_text(errors="replace"), "status": program.poll()}
    stream.send({"type": "got", **came, **told})
    heard(stream, "hang_up")
    program.stdin.close()
    status = program.wait(END_SECONDS_MAX)
    stream.send({"type": "ended", "status": status, "said": said.read_text(errors="replace")})
    (trace,) = traces_in(folder)
    send_file(stream, trace)
    stream.send({"type": "bye"})


def put(descriptor: int, data: bytes) -> None:
    """All of it, if the program lives so long."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def send_file(stream: FrameStream, path: Path) -> None:
    """Piece by piece."""
    whole = path.read_bytes()
    for offset in range(0, len(whole), PIECE_BYTES):
        frame: Frame = data_frame(offset, whole[offset : offset + PIECE_BYTES])
        assert frame.kind is Kind.DATA
        stream.write(frame)
