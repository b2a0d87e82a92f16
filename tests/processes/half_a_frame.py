"""An agent that is killed as it writes: one whole frame, and half of the next."""

from __future__ import annotations

import os
import signal
import sys

from vchan_testbed.guests.frames import encode, message_frame

if __name__ == "__main__":
    whole = encode(message_frame({"type": "hello", "pid": os.getpid()}))
    sys.stdout.buffer.write(whole + whole[: len(whole) // 2])
    sys.stdout.buffer.flush()
    os.kill(os.getpid(), signal.SIGKILL)
