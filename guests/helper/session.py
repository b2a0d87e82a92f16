"""Requests in, answers out: one client at a time, one session each.

What a session has asked for ends with it (agents, uploads); domains and the control network stay
until they are destroyed, a client says hello without `keep_domains`, or the helper ends. So a test
bed can be saved with idle domains and be gone on with by another client.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import struct
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.frames import Frame, FrameError, Kind, Message, encode, message_frame
from vchan_testbed.guests.ground import selftest
from vchan_testbed.guests.helper import evtchn_dump, xl
from vchan_testbed.guests.helper.agents import Agents
from vchan_testbed.guests.helper.consoles import Console, open_kernel_log
from vchan_testbed.guests.helper.counts import counts
from vchan_testbed.guests.helper.doing import doing
from vchan_testbed.guests.helper.domains import Config, Domains, OwnDomain
from vchan_testbed.guests.helper.facts import facts, problems
from vchan_testbed.guests.helper.files import Files
from vchan_testbed.guests.helper.port import Port
from vchan_testbed.guests.helper.wire import SessionDecoder, opening

CLOSE_SECONDS_MAX = 5.0
TRIPLE_FAULT = "Triple fault"
RANDOM_DEVICE = Path("/dev/random")
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

Task = asyncio.Task[None]


class Helper:
    """The helper of one port. `lasting`: the port outlives its clients, on a machine of our own."""

    def __init__(self, read_fd: int, write_fd: int, *, lasting: bool) -> None:
        self._lasting = lasting
        self._over = asyncio.Event()
        self._session = 0
        self._decoder = SessionDecoder()
        self._tasks: set[Task] = set()
        self._port = Port(read_fd, write_fd, on_data=self._hear, on_hang_up=self._hung_up)
        self._token = secrets.token_hex(3)
        self._files = Files()
        self._domains = Domains(self._token, self._files, self._domain_died, self._note)
        self._agents = Agents(self._port)
        log = open_kernel_log()
        self._kernel_log = Console(log) if log is not None else None
        self._notes: list[str] = []
        self._requests: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "put": self._put,
            "put_end": self._put_end,
            "create": self._create,
            "agent": self._agent,
            "destroy": self._destroy,
            "act": self._act,
            "states": self._states,
            "look": self._look,
            "counts": self._counts,
            "consoles": self._consoles,
            "clock": self._clock,
            "remove_key": self._remove_key,
            "doing": self._doing,
            "selftest": self._selftest,
        }

    async def serve(self) -> None:
        """Until the client says quit, or hangs up for good. Everything is given back then."""
        await self._over.wait()
        try:
            await self._end_session(frozenset(self._tasks))
            await self._domains.close()
        finally:
            self._files.close()
            if self._kernel_log is not None:
                self._kernel_log.close()
            await self._port.close(CLOSE_SECONDS_MAX)

    def stop(self) -> None:
        """End `serve`."""
        self._over.set()

    def _hear(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self._note(f"what the client sent is broken: {error}")
            return
        for frame in frames:
            if frame is None:
                self._begin_session()
            else:
                self._obey(frame)

    def _hung_up(self) -> None:
        self._decoder.forget()
        self._port.drop_queue()
        if not self._lasting:
            self._over.set()
        elif self._session:
            self._start(self._end_session(frozenset(self._tasks)))

    def _begin_session(self) -> None:
        """Nothing that was meant for the last client may reach the new one."""
        self._session += 1
        self._port.drop_queue()

    def _obey(self, frame: Frame) -> None:
        if frame.tag:
            self._agents.send(frame)
        elif frame.kind is Kind.DATA:
            self._take(frame)
        elif frame.kind is Kind.MESSAGE:
            message = frame.message()
            if message["type"] == "hello":
                older = frozenset(self._tasks)
                self._start(self._hello(self._session, message, older))
            elif message["type"] == "quit":
                self._answer(self._session, message, {"type": "bye"})
                self._over.set()
            else:
                self._start(self._serve(self._session, message))

    def _take(self, frame: Frame) -> None:
        try:
            self._files.take(frame.data()[1])
        except (TestbedError, OSError) as error:
            # Its put_end is answered with an error: the hash cannot be right.
            self._note(f"a piece of a file was lost: {error}")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hello(self, session: int, message: Message, older: frozenset[Task]) -> None:
        """The answer opens this direction of the session too."""
        await self._end_session(older)
        answer = await self._answer_to(self._welcome, message)
        if session == self._session:
            begun = {"id": message.get("id"), "token": message.get("token")}
            self._port.write(opening({**answer, **begun}))

    async def _welcome(self, message: Message) -> Message:
        if not message.get("keep_domains"):
            await self._domains.destroy()
        return {
            "type": "hello",
            "facts": await facts(),
            "problems": problems(),
            "domains": self._own_domains(),
        }

    async def _serve(self, session: int, message: Message) -> None:
        request = self._requests.get(message["type"], self._unknown)
        self._answer(session, message, await self._answer_to(request, message))

    async def _answer_to(
        self, request: Callable[[Message], Awaitable[Message]], message: Message
    ) -> Message:
        try:
            return await request(message)
        except TestbedError as error:
            return {
                "type": "error",
                "message": error.message,
                "next_step": error.next_step,
                "console": error.console,
            }
        except Exception as error:
            # The client gets to see it: here there is nobody to read a traceback.
            return {
                "type": "error",
                "message": f"the helper failed at {message['type']}: {error!r}",
                "next_step": "The lines below say where; is the host as the README asks for?",
                "console": traceback.format_exc(),
            }

    def _answer(self, session: int, message: Message, answer: Message) -> None:
        if session == self._session:
            self._port.write(encode(message_frame({**answer, "id": message.get("id")})))

    async def _end_session(self, older: frozenset[Task]) -> None:
        """Agents and uploads go; requests that still run are waited for, their answers dropped.

        `older` are the tasks that were there when this was due. Were they looked up in here, the
        end of one session and the hello of the next, due at once, would wait for each other.
        """
        agents, self._agents = self._agents, Agents(self._port)
        self._files.drop_upload()
        await agents.close()
        await asyncio.gather(*older, return_exceptions=True)

    async def _unknown(self, message: Message) -> Message:
        raise TestbedError(
            f"The helper does not know the request {message['type']!r}.",
            next_step="Build the image again: host and helper have different versions.",
        )

    async def _put(self, message: Message) -> Message:
        path = self._files.stored(message["sha256"])
        if path is not None:
            return {"type": "put", "path": str(path), "wanted": False}
        path = self._files.begin_upload(message["sha256"], message["bytes"])
        return {"type": "put", "path": str(path), "wanted": True}

    async def _put_end(self, message: Message) -> Message:
        path = await asyncio.to_thread(self._files.end_upload, message["sha256"])
        return {"type": "stored", "path": str(path)}

    async def _create(self, message: Message) -> Message:
        config = Config(**message["config"])
        domain = await self._domains.create(
            message["name"], config, message["kernel"], message["ramdisk"]
        )
        return {"type": "created", "name": domain.name, "domid": domain.domid}

    async def _agent(self, message: Message) -> Message:
        tag, domid = message["tag"], message["domid"]
        if domid == 0:
            await self._agents.open_dom0(tag)
        else:
            await self._agents.open_guest(
                tag,
                self._domains.by_domid(domid),
                lambda: self._domains.network.bridge_index,
                message["seconds_max"],
            )
        return {"type": "agent", "tag": tag}

    async def _destroy(self, message: Message) -> Message:
        return {"type": "destroyed", "names": await self._domains.destroy(message.get("name"))}

    async def _act(self, message: Message) -> Message:
        await self._domains.act(int(message["domid"]), message["do"])
        return {"type": "acted"}

    async def _states(self, message: Message) -> Message:
        await self._domains.refresh()
        return {"type": "states", "domains": await self._with_causes(self._own_domains())}

    async def _look(self, message: Message) -> Message:
        """What Xen has of some domains, of anybody's: at most their states and ports are told."""
        domids = [int(domid) for domid in message["domids"]]
        there = {domain.domid: domain.scheduling for domain in await xl.list_domains()}
        ports = await evtchn_dump.dumped(domids) if message["dump"] else {}
        return {
            "type": "looked",
            "domains": [
                {
                    "domid": domid,
                    "state": there.get(domid, "gone"),
                    "event_channels": ports.get(domid),
                }
                for domid in domids
            ],
        }

    async def _with_causes(self, domains: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Xen's console names the virtual CPU that faulted thrice (dNvM, N the domid)."""
        if all(domain["state"] == "alive" for domain in domains):
            return domains
        said = await xl.run("xl", "dmesg")
        faults = [line for line in said.splitlines() if TRIPLE_FAULT in line]
        return [
            {**domain, "triple_fault": any(f"d{domain['domid']}v" in line for line in faults)}
            for domain in domains
        ]

    async def _counts(self, message: Message) -> Message:
        return {"type": "counts", "counts": await counts()}

    async def _consoles(self, message: Message) -> Message:
        texts = {**self._domains.consoles(), **self._agents.consoles()}
        texts["helper"] = "\n".join(self._notes)
        texts["xen"] = await xl.run("xl", "dmesg")
        if self._kernel_log is not None:
            texts["dom0-kernel"] = self._kernel_log.text
        return {"type": "consoles", "consoles": texts}

    async def _clock(self, message: Message) -> Message:
        """After a restore the clock is the snapshot's, and so is the pool of chance."""
        if not self._lasting:
            raise TestbedError(
                "The clock is set only in a test bed of the project's own.",
                next_step="Set this host's clock yourself.",
            )
        time.clock_settime_ns(time.CLOCK_REALTIME, message["realtime_ns"])
        add_entropy(bytes.fromhex(message["entropy"]))
        return {"type": "clock"}

    async def _remove_key(self, message: Message) -> Message:
        """A server in dom0 leaves the empty folders above its keys."""
        try:
            # -t: the empty parents too.
            await xl.run("xenstore-rm", "-t", message["path"])
        except xl.CommandFailed:
            # A server that did not come to make its keys has none: why it did not is to be heard.
            if await _is_there(message["path"]):
                raise
        return {"type": "removed"}

    async def _doing(self, message: Message) -> Message:
        """Asked when another question has no answer."""
        return {"type": "doing", "tasks": doing()}

    async def _selftest(self, message: Message) -> Message:
        """dom0's: an agent tells of its own domain only."""
        return {"type": "selftest", **selftest()}

    def _own_domains(self) -> list[dict[str, Any]]:
        return [
            {
                "label": domain.label,
                "name": domain.name,
                "domid": domain.domid,
                "state": domain.state,
                "config": vars(domain.config),
            }
            for domain in self._domains.own
        ]

    def _domain_died(self, domain: OwnDomain) -> None:
        self._note(f"{domain.name} (domain {domain.domid}) is {domain.state}")
        message = f"The domain {domain.name} is {domain.state}."
        self._agents.domain_died(
            domain.domid,
            {"domid": domain.domid, "state": domain.state, "message": message},
        )
        domain.stirred.set()

    def _note(self, text: str) -> None:
        self._notes = [*self._notes[-199:], f"{time.strftime('%H:%M:%S')} {text}"]
        if self._session:
            self._port.write(encode(Frame(0, Kind.LOG, text.encode())))


async def _is_there(key: str) -> bool:
    try:
        await xl.run("xenstore-exists", key)
    except xl.CommandFailed:
        return False
    return True


def add_entropy(data: bytes) -> None:
    """Mix `data` into the kernel's pool and draw the generator's state from it anew."""
    request = struct.pack(f"ii{len(data)}s", len(data) * 8, len(data), data)
    with RANDOM_DEVICE.open("wb") as device:
        fcntl.ioctl(device, RNDADDENTROPY, request)
        fcntl.ioctl(device, RNDRESEEDCRNG)
