"""The client of a helper: questions and answers, and a link to each agent behind it."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import secrets
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.frames import (
    Frame,
    FrameError,
    Kind,
    Message,
    data_frame,
    encode,
    message_frame,
)
from vchan_testbed.guests.helper.wire import SessionDecoder, opening
from vchan_testbed.guests.hosts.carrier import Carrier

ANSWER_SECONDS_MAX = 180.0
CREATE_SECONDS_MAX = 700.0
PUT_BYTES = 1 << 18
DOING_SECONDS_MAX = 10.0
ERROR_LINES = 12


class HelperGone(TestbedError):
    """The helper is not there any more: its host, the way to it, or the helper itself ended."""


class AgentBehindHelper:
    """The link to an agent; frames with its tag go through the helper."""

    def __init__(self, domid: int, tag: int, client: HelperClient) -> None:
        self._domid = domid
        self._tag = tag
        self._client = client
        self._events: queue.Queue[Frame | None] = queue.Queue()
        self._ended = threading.Event()

    @property
    def domid(self) -> int:
        """The domain that the agent runs in."""
        return self._domid

    @property
    def events(self) -> queue.Queue[Frame | None]:
        """What the agent said, None at the end.

        A message of type "lost" (domid, state, message) comes when its domain died.
        """
        return self._events

    def send(self, message: Message) -> None:
        """Say something; a link that has ended does not carry it."""
        self._client.send_frame(message_frame(message, self._tag))

    def close(self) -> None:
        """Hang up, and wait until the helper has let go of the agent."""
        self._client.send_frame(Frame(self._tag, Kind.END))
        self._ended.wait(ANSWER_SECONDS_MAX)

    def take(self, frame: Frame) -> None:
        """A frame came for this link (called by the client's thread)."""
        if frame.kind is Kind.END:
            self.end()
        else:
            self._events.put(frame.retagged(0))

    def end(self) -> None:
        """Nothing will come any more."""
        if not self._ended.is_set():
            self._ended.set()
            self._events.put(None)


class HelperClient:
    """One session with a helper, from hello to hang-up. A context manager.

    `while_waiting` is called after the hello was sent and before its answer is read: a machine
    that boots may be watched there; what was sent waits for its helper. `keep_domains` takes over
    the domains that an earlier session left. Raises TestbedError when the host cannot serve.
    """

    def __init__(
        self,
        carrier: Carrier,
        *,
        keep_domains: bool = False,
        while_waiting: Callable[[], None] = lambda: None,
        hello_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self._carrier = carrier
        self._decoder = SessionDecoder()
        self._token = secrets.token_hex(16)
        self._lock = threading.Lock()
        # Apart from the other: a write that has to wait must not keep the reader from reading.
        self._write_lock = threading.Lock()
        self._waiting: dict[int, queue.Queue[Message | None]] = {}
        self._links: dict[int, AgentBehindHelper] = {}
        self._next_id = 0
        self._next_tag = 0
        self._session_open = False
        self._gone: str | None = None
        self.notes: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True, name="helper")
        try:
            self.hello = self._say_hello(keep_domains, while_waiting, hello_seconds_max)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def facts(self) -> dict[str, Any]:
        """What the helper said of its host (helper/facts.py)."""
        return dict(self.hello["facts"])

    def ask(self, kind: str, *, within: float = ANSWER_SECONDS_MAX, **fields: Any) -> Message:
        """One question, and its answer, waited for `within` seconds.

        Raises TestbedError with what the helper says went wrong, HelperGone when there is none.
        """
        number, answers = self._new_question()
        self._write(encode(message_frame({"type": kind, "id": number, **fields})))
        return self._answer(number, answers, kind, within)

    def put(self, path: Path) -> str:
        """The path on the host of a copy of `path`; sent only if it is not there yet."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            answer = self.ask("put", sha256=sha256, bytes=path.stat().st_size)
            if not answer["wanted"]:
                return str(answer["path"])
            file.seek(0)
            # A kernel shrinks to a fifth, and takes less time on most ways than that costs.
            packer = zlib.compressobj(1)
            offset = 0
            while data := file.read(PUT_BYTES):
                offset += self._send_piece(offset, packer.compress(data))
            self._send_piece(offset, packer.flush())
        return str(self.ask("put_end", within=CREATE_SECONDS_MAX, sha256=sha256)["path"])

    def agent(self, domid: int, seconds_max: float) -> AgentBehindHelper:
        """A link to a new agent in a domain; it may take `seconds_max` until that is up."""
        with self._lock:
            self._next_tag += 1
            tag = self._next_tag
            link = self._links[tag] = AgentBehindHelper(domid, tag, self)
        try:
            within = seconds_max + ANSWER_SECONDS_MAX
            self.ask("agent", within=within, tag=tag, domid=domid, seconds_max=seconds_max)
        except BaseException:
            with self._lock:
                self._links.pop(tag, None)
            raise
        return link

    def send_frame(self, frame: Frame) -> None:
        """Send a frame; without a helper it is dropped."""
        with contextlib.suppress(HelperGone):
            self._write(encode(frame))

    def close(self) -> None:
        """Hang up."""
        self._carrier.close()
        if self._reader.is_alive() and threading.current_thread() is not self._reader:
            self._reader.join()
        self._end_all("this side hung up")

    def _send_piece(self, offset: int, data: bytes) -> int:
        if data:
            self._write(encode(data_frame(offset, data)))
        return len(data)

    def _say_hello(
        self, keep_domains: bool, while_waiting: Callable[[], None], seconds_max: float
    ) -> Message:
        number, answers = self._new_question()
        message = {"type": "hello", "id": number, "token": self._token}
        with contextlib.suppress(HelperGone):
            # Why it is gone is seen by reading: what it said before.
            self._write(opening({**message, "keep_domains": keep_domains}))
        while_waiting()
        self._reader.start()
        hello = self._answer(number, answers, "hello", seconds_max)
        if hello["problems"]:
            problem = hello["problems"][0]
            raise TestbedError(problem["message"], next_step=problem["next_step"])
        return hello

    def _new_question(self) -> tuple[int, queue.Queue[Message | None]]:
        with self._lock:
            self._next_id += 1
            answers: queue.Queue[Message | None] = queue.Queue()
            self._waiting[self._next_id] = answers
            if self._gone is not None:
                answers.put(None)
            return self._next_id, answers

    def _answer(
        self, number: int, answers: queue.Queue[Message | None], kind: str, seconds_max: float
    ) -> Message:
        try:
            answer = answers.get(timeout=seconds_max)
        except queue.Empty:
            raise TestbedError(
                f"The helper did not answer {kind!r} within {seconds_max:.0f} s.",
                next_step="Is its host overloaded or stuck? Look at the run's console folder.",
                console=self._what_it_does(kind),
            ) from None
        finally:
            with self._lock:
                del self._waiting[number]
        if answer is None:
            raise self._gone_error()
        if answer["type"] == "error":
            raise TestbedError(
                answer["message"],
                next_step=answer["next_step"],
                console=answer.get("console", ""),
            )
        return answer

    def _what_it_does(self, kind: str) -> str:
        """Where the helper stands instead of answering a question of this kind, if it tells."""
        if kind in ("hello", "doing"):
            return ""
        try:
            tasks = self.ask("doing", within=DOING_SECONDS_MAX)["tasks"]
        except TestbedError:
            return "It does not say either what it is doing."
        return "\n".join(["The helper is in:", *tasks])

    def _write(self, data: bytes) -> None:
        try:
            with self._write_lock:
                self._carrier.write(data)
        except (OSError, ValueError) as error:
            raise self._gone_error() from error

    def _gone_error(self) -> HelperGone:
        words = self._carrier.last_words().splitlines()[-ERROR_LINES:]
        return HelperGone(
            f"The helper is gone: {self._gone or 'the way to it is closed'}.",
            next_step="The lines below are its last; see whether its host is still up.",
            console="\n".join([*self.notes[-ERROR_LINES:], *words]),
        )

    def _read(self) -> None:
        reason = "its stream ended"
        try:
            while data := self._carrier.read():
                for frame in self._frames(data):
                    self._take(frame)
        except (FrameError, OSError, ValueError) as error:
            reason = f"its stream broke ({error})"
        self._end_all(reason)

    def _frames(self, data: bytes) -> list[Frame | None]:
        try:
            return self._decoder.feed(data)
        except FrameError:
            # What was meant for an earlier client may end in the middle of a frame.
            if self._session_open:
                raise
            return []

    def _take(self, frame: Frame | None) -> None:
        if frame is None:
            # It is ours only if the first message repeats our token.
            self._session_open = False
        elif not self._session_open:
            self._take_hello(frame)
        elif frame.tag:
            link = self._links.get(frame.tag)
            if link is not None:
                link.take(frame)
        elif frame.kind is Kind.LOG:
            self.notes.append(frame.payload.decode(errors="replace"))
        elif frame.kind is Kind.MESSAGE:
            self._take_answer(frame.message())

    def _take_hello(self, frame: Frame) -> None:
        if frame.kind is not Kind.MESSAGE:
            return
        message = frame.message()
        if message.get("token") == self._token:
            self._session_open = True
            self._take_answer(message)

    def _take_answer(self, message: Message) -> None:
        with self._lock:
            answers = self._waiting.get(message.get("id", 0))
        if answers is not None:
            answers.put(message)

    def _end_all(self, reason: str) -> None:
        with self._lock:
            if self._gone is None:
                self._gone = reason
            waiting, links = list(self._waiting.values()), list(self._links.values())
        for answers in waiting:
            answers.put(None)
        for link in links:
            link.end()
