"""Debian's releases of libxenvchan, unchanged: one conversation shows the same steps in each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))

from fetching import NotReachable, library_of

from vchan_testbed.guests.loopback import LoopbackWorld
from vchan_testbed.tracer.layout import Variant
from vchan_testbed.tracer.reader import read_trace
from vchan_testbed.validate.judge import judge_traces
from vchan_testbed.validate.prepare import load_tables, prepare

CONVERSATION = Path(__file__).parents[1] / "library" / "conversation.c"
RECORD = (str(Path(sys.executable).with_name("vchan-testbed")), "record")
RELEASES = {
    "4.17": ("bookworm", "libxenmisc4.17"),
    "4.20": ("trixie", "libxenmisc4.20"),
}
INSTALLED = "4.17"
"""What this machine's own packages have: that one can always be had."""
SECONDS_MAX = 120
SHOWN_BY_EACH = {
    *("i_bind", "i_share", "k_bind", "k_unmask", "k_map", "k_live", "k_notify", "k_raise"),
    *("call_write", "call_send", "call_read", "call_recv", "call_wait", "call_data_ready"),
    *("call_buffer_space", "call_is_open", "call_close", "return"),
    *("w_live", "w_space", "w_arm", "w_space_again", "w_put", "w_test", "w_raise"),
    *("w_live_again", "r_have", "r_arm", "r_have_again", "r_take", "r_test", "r_raise", "r_live"),
    *("o_live", "wait", "unmask", "c_close", "c_give_back", "c_raise"),
}
"""Every action of the library that a record can show, but those of calls that fail."""


def recorded(release: str, folder: Path) -> tuple[Path, Path]:
    """The server's trace and the client's of the conversation with a release of the library."""
    library = library_of(*RELEASES[release])
    (shared,) = (path for path in library.iterdir() if path.name.endswith(f".so.{release}"))
    program = folder / "conversation"
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", str(CONVERSATION)]
    subprocess.run([*command, str(shared), "-o", str(program)], check=True)
    with LoopbackWorld(folder / "host") as world:
        before = world.counts()
        ends = []
        for domid, role in enumerate(("server", "client"), start=1):
            around = {**os.environ, **world.environment(domid)}
            around["LD_LIBRARY_PATH"] = f"{library}:{around['LD_LIBRARY_PATH']}"
            arguments = ["--out", str(folder / role), "--", str(program), role]
            ends.append(
                subprocess.Popen(
                    [*RECORD, *arguments],
                    env=around,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            if role == "server":
                assert ends[0].stdout is not None
                assert ends[0].stdout.readline() == "up\n"
        for end in ends:
            _, said = end.communicate(timeout=SECONDS_MAX)
            assert end.returncode == 0, said
        assert world.counts() == before
    (server,), (client,) = ((folder / role).glob("*.vtrace") for role in ("server", "client"))
    return server, client


@pytest.mark.parametrize("release", RELEASES)
def test_every_step_is_seen_and_all_of_it_is_a_behaviour(release: str, tmp_path: Path) -> None:
    try:
        paths = recorded(release, tmp_path)
    except NotReachable as error:
        if release == INSTALLED:
            raise
        pytest.skip(f"the packages of Debian {RELEASES[release][0]} cannot be had here: {error}")
    for trace in map(read_trace, paths):
        assert trace.header.library.startswith(f"libxenvchan.so.{release}")
        assert Variant(trace.header.variant) is Variant.TRANSLATION
    case = prepare(*paths, None, tables=load_tables())
    assert case.channel is not None
    lanes = case.channel.lanes
    counts = {**lanes.sender.counts(), **lanes.receiver.counts()}
    shown = {name for name, count in counts.items() if count and not name.endswith("_look")}
    assert shown == SHOWN_BY_EACH
    verdict = judge_traces(*paths)
    assert (verdict.conformance, verdict.progress) == ("ACCEPTED", "PROGRESS"), verdict.reason
