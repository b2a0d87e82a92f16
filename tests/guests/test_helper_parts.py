"""The helper's small parts: what xl prints, the owner's caps, files, keys, consoles, addresses."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tty
import zlib
from pathlib import Path

import pytest

from vchan_testbed.errors import InputError, TestbedError
from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.helper.consoles import KEPT_BYTES_MAX, Console, open_terminal
from vchan_testbed.guests.helper.counts import count_keys, is_left_over
from vchan_testbed.guests.helper.files import Files
from vchan_testbed.guests.helper.keys import channel_path, is_channel_key
from vchan_testbed.guests.helper.limits import Limits, Use, check_use, read_limits
from vchan_testbed.guests.helper.network import link_local

SECONDS_MAX = 20.0

# As xl 4.17 prints it.
XL_LIST = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0  1024     1     r-----      30.6
vtb-00ff00-server                            3   160     1     -b----       2.0
a name of four words                         4   160     2     --p---       0.0
vtb-00ff00-client                            5   160     1     ---s--       1.1
(null)                                       6     0     1     --ps-d      11.0
vtb-00ff00-third                             7   160     1     ----c-       1.5
"""


def test_the_table_of_xl_list_is_read() -> None:
    domains = xl.parse_list(XL_LIST)
    assert [(d.name, d.domid, d.memory_mib, d.vcpus, d.state) for d in domains] == [
        ("Domain-0", 0, 1024, 1, "alive"),
        ("vtb-00ff00-server", 3, 160, 1, "alive"),
        ("a name of four words", 4, 160, 2, "paused"),
        ("vtb-00ff00-client", 5, 160, 1, "shut down"),
        ("(null)", 6, 0, 1, "dying"),
        ("vtb-00ff00-third", 7, 160, 1, "crashed"),
    ]


def test_another_table_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(TestbedError, match="of another form"):
        xl.parse_list("Name ID\nDomain-0 zero 1024 1 r----- 30\n")


def test_xl_info_is_read() -> None:
    info = xl.parse_info("xen_version            : 4.17.7\nplatform_params : virt_start=0xff:0\n")
    assert info == {"xen_version": "4.17.7", "platform_params": "virt_start=0xff:0"}


def test_a_program_that_fails_is_an_error_with_its_last_lines() -> None:
    with pytest.raises(xl.CommandFailed, match=r"false failed \(status 1\)"):
        asyncio.run(xl.run("false"))
    with pytest.raises(xl.CommandFailed) as caught:
        asyncio.run(xl.run("ls", "/there/is/no/such/file"))
    assert "/there/is/no/such/file" in caught.value.console


def test_a_program_that_does_not_end_is_killed_in_time() -> None:
    with pytest.raises(xl.CommandFailed, match="did not end within 0 s"):
        asyncio.run(xl.run("sleep", "1000", seconds_max=0.2))


@pytest.mark.parametrize("turns", range(8))
def test_a_cancellation_is_not_lost_in_the_turn_in_which_the_program_ends(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancels a watch of the helper's waits for its end: one that goes on is waited for
    for ever, and no domain is destroyed any more."""

    class Program:
        returncode = 0

        def __init__(self) -> None:
            self.asked = asyncio.Event()
            self.output = asyncio.get_running_loop().create_future()

        async def communicate(self) -> tuple[bytes, bytes]:
            self.asked.set()
            await self.output
            return b"", b""

        async def wait(self) -> int:
            return 0

    async def body() -> None:
        program = Program()

        async def start(*command: str) -> Program:
            return program

        monkeypatch.setattr(xl, "start", start)
        task = asyncio.create_task(xl.run("xl", "list"))
        await program.asked.wait()
        loop = asyncio.get_running_loop()
        cancelled = loop.create_future()

        def cancel_after(left: int) -> None:
            if left:
                loop.call_soon(cancel_after, left - 1)
            else:
                cancelled.set_result(task.cancel())

        program.output.set_result(None)
        cancel_after(turns)
        if await cancelled:
            await asyncio.wait({task}, timeout=SECONDS_MAX)
            assert task.cancelled()

    asyncio.run(body())


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(xl, "PROGRAM_FOLDERS", ())
    with pytest.raises(TestbedError, match="xl is not installed") as caught:
        asyncio.run(xl.run("xl", "list"))
    assert "Install" in caught.value.next_step


def test_without_a_host_file_there_are_no_caps(tmp_path: Path) -> None:
    assert read_limits(tmp_path / "host.yaml") is None
    check_use(None, Use(10**6, 10**6, 10**6), Use(1, 1, 1))


def test_the_host_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "host.yaml"
    path.write_text("allow: true\nmemory_mib_max: 512\ndomains_max: 2\nagent_python: /opt/python\n")
    assert read_limits(path) == Limits(True, 512, None, 2, "/opt/python")
    path.write_text("")
    assert read_limits(path) == Limits()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("allow: [", "is not YAML"),
        ("- allow", "not a list of names"),
        ("allowed: true", "no entry 'allowed'"),
        ("allow: 1", "allow is 1"),
        ("memory_mib_max: -1", "memory_mib_max is -1"),
        ("memory_mib_max: true", "memory_mib_max is True"),
        ("vcpus_max: many", "vcpus_max is 'many'"),
        ("agent_python: 3", "agent_python is 3"),
    ],
)
def test_a_host_file_that_can_mean_nothing_is_an_error(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "host.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_limits(path)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(memory_mib_max=299), "300 MiB of memory would be in use"),
        (Limits(vcpus_max=2), "3 vCPUs would be in use"),
        (Limits(domains_max=1), "2 test domains would be in use"),
    ],
)
def test_more_than_the_owner_allows_is_refused(limits: Limits, said: str) -> None:
    with pytest.raises(TestbedError, match=said):
        check_use(limits, Use(200, 2, 1), Use(100, 1, 1))
    check_use(limits, Use(0, 0, 0), Use(100, 1, 1))


def test_a_file_arrives_whole_and_is_not_sent_twice() -> None:
    files = Files()
    content = os.urandom(100_000)
    sha256 = hashlib.sha256(content).hexdigest()
    assert files.stored(sha256) is None
    path = files.begin_upload(sha256, len(content))
    packed = zlib.compress(content)
    for begin in range(0, len(packed), 7_000):
        files.take(packed[begin : begin + 7_000])
    assert not path.exists()
    assert files.end_upload(sha256) == path
    assert path.read_bytes() == content
    assert files.stored(sha256) == path
    assert files.folder.stat().st_mode & 0o777 == 0o700
    files.close()
    assert not files.folder.exists()


def test_a_file_that_arrives_broken_is_refused() -> None:
    files = Files()
    sha256 = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(TestbedError, match="for no file"):
        files.take(b"x")
    files.begin_upload(sha256, 5)
    files.take(zlib.compress(b"wrong"))
    with pytest.raises(TestbedError, match="another hash"):
        files.end_upload(sha256)
    files.begin_upload(sha256, 5)
    with pytest.raises(TestbedError, match="arrived broken"):
        files.take(b"not what zlib packs")
    with pytest.raises(TestbedError, match="No file of this hash"):
        files.end_upload(sha256)
    with pytest.raises(TestbedError, match="is not a SHA-256"):
        files.begin_upload("../../etc/passwd", 5)
    with pytest.raises(TestbedError, match="MiB left"):
        files.begin_upload(sha256, 1 << 60)
    assert list(files.folder.iterdir()) == []
    files.close()


def test_the_keys_of_channels_and_back_ends_are_counted() -> None:
    path = channel_path(3, "0123456789abcdef")
    assert path == "/local/domain/3/data/vchan-01234567"
    listing = "\n".join(
        f'{each} = ""'
        for each in (
            "/local/domain/3/data",
            path,
            f"{path}/ring-ref",
            f"{path}/event-channel",
            "/local/domain/3/device/vif/0",
            "/local/domain/0/backend/vif/3/0",
            "/local/domain/0/backend/vif/3/0/state",
        )
    )
    assert count_keys(listing) == 5
    assert not is_channel_key("/local/domain/3/memory/vchan-1")
    assert not is_channel_key("/vm/x")


@pytest.mark.parametrize(
    ("command", "left_over"),
    [
        (["python3", "-m", "vchan_testbed.guests.agent"], True),
        (["python3", "-m", "vchan_testbed.guests.agent.worker", "5"], True),
        (["/usr/sbin/xl", "create", "-q", "x.cfg"], True),
        (["/usr/sbin/xl", "list"], False),
        (["python3", "helper.pyz"], False),
        ([""], False),
    ],
)
def test_processes_that_stayed_are_told_from_others(command: list[str], left_over: bool) -> None:
    assert is_left_over(command) is left_over


def test_the_link_local_address_is_the_one_that_linux_makes() -> None:
    assert link_local("00:16:3e:12:34:56") == "fe80::216:3eff:fe12:3456"
    assert link_local("02:00:00:00:00:01") == "fe80::0:ff:fe00:1"


def test_a_console_keeps_its_end_tells_of_news_and_echoes_nothing() -> None:
    async def body() -> None:
        guest, ours = os.openpty()
        name = os.ttyname(ours)
        tty.setraw(guest)
        news = asyncio.Event()
        console = Console(open_terminal(name), news.set)
        os.close(ours)
        os.write(guest, b"vchan-testbed: guest starts\r\n")
        await asyncio.wait_for(news.wait(), SECONDS_MAX)
        assert console.text == "vchan-testbed: guest starts\n"
        for _ in range(40):
            news.clear()
            os.write(guest, b"x" * 2000 + b"\n")
            await asyncio.wait_for(news.wait(), SECONDS_MAX)
        # Nothing came back to the guest.
        os.set_blocking(guest, False)
        with pytest.raises(BlockingIOError):
            os.read(guest, 100)
        os.write(guest, b"the last line\n")
        console.close()
        assert console.text.endswith("the last line\n")
        os.close(guest)

    asyncio.run(body())


def test_a_console_forgets_its_beginning_and_ends_with_its_descriptor() -> None:
    async def body() -> None:
        read_fd, write_fd = os.pipe()
        news = asyncio.Event()
        console = Console(read_fd, news.set)
        with os.fdopen(write_fd, "wb") as file:
            await asyncio.to_thread(file.write, b"a" * KEPT_BYTES_MAX + b"b" * 1000)
        while not console.text.endswith("b" * 1000):
            news.clear()
            await asyncio.wait_for(news.wait(), SECONDS_MAX)
        assert len(console.text) == KEPT_BYTES_MAX
        console.close()
        console.close()

    asyncio.run(body())
