"""The agents: processes in guests, reached over the control network, or in dom0 itself."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.frames import (
    Decoder,
    Frame,
    FrameError,
    Kind,
    encode,
    message_frame,
)
from vchan_testbed.guests.helper import xl
from vchan_testbed.guests.helper.consoles import Console
from vchan_testbed.guests.helper.domains import DEAD_STATES, OwnDomain
from vchan_testbed.guests.helper.limits import read_limits

PORT = 7117
"""Where a guest listens: every connection there becomes an agent."""
AGENT_MODULE = "vchan_testbed.guests.agent"
INSTALLED = Path("/usr/lib/vchan-testbed/python")
READ_BYTES = 1 << 16
TRY_SECONDS_MAX = 1.0
"""For one attempt to connect: a SYN that found nobody is sent again by a new attempt."""
SILENCE_SECONDS_MAX = 180.0
"""A guest that boots on a busy machine is slow, and its console goes on; one that hangs is silent.
Seen for a PVH guest under TCG: 9 s on an idle machine, more than 180 s at a load of 13."""
PAUSE_SECONDS_MAX = 0.25
"""Between two attempts, unless the guest's console or the network has news before."""
END_SECONDS_MAX = 10.0

# What a guest that is not up yet answers: no carrier, no address, no neighbour, no listener.
NOT_YET = (
    errno.ENETUNREACH,
    errno.EADDRNOTAVAIL,
    errno.EHOSTUNREACH,
    errno.ECONNREFUSED,
    errno.ETIMEDOUT,
    errno.ENETDOWN,
    errno.ECONNRESET,
)


class Out(Protocol):
    """Where agents' frames go."""

    def write(self, data: bytes) -> None:
        """Send."""

    async def drained(self) -> None:
        """Wait until more may be sent."""


class Agents:
    """The agents of one session, by tag."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._links: dict[int, _Link] = {}
        self._reaching: set[asyncio.Future[socket.socket]] = set()
        self._dom0_consoles: dict[str, Console] = {}

    async def open_guest(
        self, tag: int, domain: OwnDomain, interface: Callable[[], int], seconds_max: float
    ) -> None:
        """Reach an agent in a guest. Raises TestbedError, with the guest's last lines."""
        self._check_free(tag)
        reaching = asyncio.ensure_future(_reach(domain, interface, seconds_max))
        self._reaching.add(reaching)
        try:
            connection = await reaching
        finally:
            self._reaching.discard(reaching)
        reader, writer = await asyncio.open_connection(sock=connection)
        self._add(tag, _Link(domain.domid, reader, writer))

    async def open_dom0(self, tag: int) -> None:
        """Start an agent in dom0."""
        self._check_free(tag)
        read_fd, write_fd = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                _agent_python(),
                "-m",
                AGENT_MODULE,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=write_fd,
                env=_agent_environment(),
                start_new_session=True,
            )
        except OSError as error:
            os.close(read_fd)
            raise TestbedError(
                f"The agent for dom0 cannot be started: {error}",
                next_step="Mend agent_python in /etc/vchan-testbed/host.yaml on that host.",
            ) from error
        finally:
            os.close(write_fd)
        console = Console(read_fd)
        self._dom0_consoles[f"dom0-agent-{tag}"] = console
        assert process.stdout is not None
        assert process.stdin is not None
        self._add(tag, _Link(0, process.stdout, process.stdin, process, console))

    def send(self, frame: Frame) -> None:
        """Pass a frame on to the agent with its tag; END hangs up."""
        link = self._links.get(frame.tag)
        if link is None:
            return
        if frame.kind is Kind.END:
            link.hang_up()
        else:
            link.writer.write(encode(frame.retagged(0)))

    def domain_died(self, domid: int, message: dict[str, object]) -> None:
        """No packet tells of a dead guest: its agents' streams end here."""
        for tag, link in list(self._links.items()):
            if link.domid == domid:
                self._out.write(encode(message_frame({"type": "lost", **message}, tag)))
                link.break_off()

    def consoles(self) -> dict[str, str]:
        """What the agents in dom0 said on standard error."""
        return {name: console.text for name, console in self._dom0_consoles.items()}

    async def close(self) -> None:
        """Hang up on all, and wait until those in dom0 have ended."""
        for reaching in self._reaching:
            reaching.cancel()
        for link in self._links.values():
            link.hang_up()
        pumps = [link.pump for link in self._links.values() if link.pump is not None]
        await asyncio.gather(*pumps, return_exceptions=True)
        for console in self._dom0_consoles.values():
            console.close()

    def _check_free(self, tag: int) -> None:
        if not 0 < tag < 1 << 16 or tag in self._links:
            raise TestbedError(f"The tag {tag} is in use.", next_step="Take another one.")

    def _add(self, tag: int, link: _Link) -> None:
        self._links[tag] = link
        link.pump = asyncio.create_task(self._pump(tag, link))

    async def _pump(self, tag: int, link: _Link) -> None:
        decoder = Decoder()
        spoke = False
        try:
            while data := await link.reader.read(READ_BYTES):
                spoke = True
                for frame in decoder.feed(data):
                    self._out.write(encode(frame.retagged(tag)))
                # Whoever sends more than the way out carries is slowed down here.
                await self._out.drained()
        except (ConnectionError, TimeoutError):
            # The guest is gone, or its kernel threw the connection away: the stream ends.
            pass
        except FrameError as error:
            self._say_error(tag, error)
        finally:
            await self._end(tag, link, spoke=spoke)

    async def _end(self, tag: int, link: _Link, *, spoke: bool) -> None:
        await link.end()
        if link.console is not None and not spoke and not link.ended_by_host:
            link.console.close()
            self._say_error(tag, _no_agent_in_dom0(link.console.text))
        self._links.pop(tag, None)
        self._out.write(encode(Frame(tag, Kind.END)))

    def _say_error(self, tag: int, error: TestbedError) -> None:
        message = {"type": "error", "message": error.message, "next_step": error.next_step}
        self._out.write(encode(message_frame({**message, "console": error.console}, tag)))


class _Link:
    """One agent's byte stream."""

    def __init__(
        self,
        domid: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: asyncio.subprocess.Process | None = None,
        console: Console | None = None,
    ) -> None:
        self.domid = domid
        self.reader = reader
        self.writer = writer
        self.console = console
        self.pump: asyncio.Task[None] | None = None
        self.ended_by_host = False
        self._process = process
        self._timer: asyncio.TimerHandle | None = None

    def hang_up(self) -> None:
        """The agent sees the end of its input, and ends; one that does not is broken off."""
        if self.ended_by_host:
            return
        self.ended_by_host = True
        if self._process is None and self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            self.writer.close()
        self._timer = asyncio.get_running_loop().call_later(END_SECONDS_MAX, self.break_off)

    def break_off(self) -> None:
        """End at once: nobody is there any more to end the stream in good order."""
        self.writer.transport.abort()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        """Give back what the stream held, after its end."""
        if self._timer is not None:
            self._timer.cancel()
        self.writer.close()
        if self._process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS_MAX):
                    await self._process.wait()
            await xl.end(self._process)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(END_SECONDS_MAX):
                await self.writer.wait_closed()


async def _reach(
    domain: OwnDomain, interface: Callable[[], int], seconds_max: float
) -> socket.socket:
    """Connect, trying again at each sign of life until the guest listens, is dead or silent."""
    loop = asyncio.get_running_loop()
    began = heard = loop.time()
    last = "no attempt was made"
    while domain.state not in DEAD_STATES:
        now = loop.time()
        if domain.stirred.is_set():
            domain.stirred.clear()
            heard = now
        if now > began + seconds_max or now > heard + SILENCE_SECONDS_MAX:
            break
        attempt = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        attempt.setblocking(False)
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            where = (domain.address, PORT, 0, interface())
            async with asyncio.timeout(TRY_SECONDS_MAX):
                await loop.sock_connect(attempt, where)
            return attempt
        except BaseException as error:
            attempt.close()
            if not isinstance(error, TimeoutError) and getattr(error, "errno", 0) not in NOT_YET:
                raise
            last = str(error) or "no answer"
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS_MAX):
                await domain.stirred.wait()
    raise TestbedError(
        f"The agent in {domain.name} (domain {domain.domid}) did not answer within"
        f" {loop.time() - began:.0f} s: {last}; the domain is {domain.state}.",
        next_step="The lines below are its console's. Is this machine overloaded?",
        console="\n".join(domain.console.text.splitlines()[-xl.LAST_LINES :]),
    )


def _agent_python() -> str:
    limits = read_limits()
    return limits.agent_python if limits and limits.agent_python else sys.executable


def _agent_environment() -> dict[str, str]:
    """The helper's own file is no place for an agent to import from: it lacks the extensions."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    if INSTALLED.is_dir() and str(INSTALLED) not in paths:
        paths.append(str(INSTALLED))
    return {**os.environ, "PYTHONPATH": ":".join(paths)}


def _no_agent_in_dom0(console: str) -> TestbedError:
    return TestbedError(
        "The agent for dom0 ended before it said a word.",
        next_step=(
            "dom0 as an endpoint needs vchan-testbed installed on that host, built there against"
            " its libxenvchan: python3 -m venv /opt/vchan-testbed && /opt/vchan-testbed/bin/pip"
            " install vchan-testbed, with libxen-dev and a compiler; then set agent_python:"
            " /opt/vchan-testbed/bin/python in /etc/vchan-testbed/host.yaml there."
        ),
        console="\n".join(console.splitlines()[-xl.LAST_LINES :]),
    )
