"""The agent with a peer that stores garbage into the shared pages: it reports, and does not die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vchan_testbed.guests.experiment import load_experiment
from vchan_testbed.guests.frames import Kind, Message
from vchan_testbed.guests.hosts.loopback import ProcessLink
from vchan_testbed.tracer.faults import FaultPlan

if TYPE_CHECKING:
    from conftest import Domains

SECONDS_MAX = 60
STORES = 2000
PATH = "/local/domain/1/data/beset"
EXPERIMENT = """
name: beset
about: Two directions with a peer that follows no protocol.
channel: {{left_ring_bytes: 4096, right_ring_bytes: 4096, blocking: {blocking}{threads}}}
server:
  - read: {{bytes: 1000000, sizes: [100, 1000, 4096]}}
  - write: {{bytes: 1000000, sizes: [100, 1000, 8192]}}
  - close
client:
  - write: {{bytes: 1000000, sizes: 1000}}
  - read: {{bytes: 1000000, sizes: 1000}}
  - close
expect: {{conformance: REJECTED}}
"""


def messages(link: ProcessLink) -> Iterator[Message]:
    """What the agent says, up to its last word."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        frame = link.events.get(timeout=SECONDS_MAX)
        if frame is None:
            return
        if frame.kind is Kind.MESSAGE:
            yield frame.message()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("blocking", "threads"), [("true", ""), ("false", ""), ("false", ", threads: duplex")]
)
def test_an_agent_outlives_a_peer_of_garbage(
    domains: Domains, tmp_path: Path, blocking: str, threads: str, seed: int
) -> None:
    (tmp_path / "beset.yaml").write_text(EXPERIMENT.format(blocking=blocking, threads=threads))
    experiment = load_experiment(tmp_path / "beset.yaml")
    link = ProcessLink(1, domains.world.environment(1), tmp_path / "console")
    heard: list[Message] = []
    try:
        said = messages(link)
        heard.append(next(said))
        link.send(
            {
                "type": "start",
                "role": "server",
                "domid": 1,
                "peer_domid": 2,
                "path": PATH,
                "experiment": experiment.to_dict(),
                "seed": seed,
                "run_id": "00" * 16,
                "faults": FaultPlan().to_plain(),
            }
        )
        while heard[-1]["type"] != "listening":
            heard.append(next(said))
            assert heard[-1]["type"] != "error", heard[-1]
        peer = domains.process("traced_end.py", 2)
        peer("client", 1, PATH, False)
        peer("store_garbage", seed, STORES)
        peer("relent")
        while heard[-1]["type"] != "trace_end":
            heard.append(next(said))
        peer("close")
        link.send({"type": "finish"})
        heard.extend(said)
    finally:
        link.close()
    kinds = [message["type"] for message in heard]
    assert "died" not in kinds, heard
    assert kinds[-1] == "bye", heard
    failed = [message for message in heard if message["type"] == "error"]
    assert all("the worker failed" not in message["message"] for message in failed), failed
    assert failed or "done" in kinds, heard
