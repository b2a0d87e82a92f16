"""The worker: opens the channel under the tracer and performs one endpoint's operations.

It speaks with its supervisor over a socket: one JSON object a line each way. The first line is the
start message; later ones ask for a look, or tell of the peer: that it is held, that it has done
what a fault waits for, that it is over; or that it is this end's turn. When the socket ends, so
does the worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from vchan_testbed.bindings.channel import Client, Server
from vchan_testbed.bindings.errors import NoSuchPath, PeerGone
from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.agent.endpoint import Activity, Endpoint, Plan
from vchan_testbed.guests.agent.grants import limit_grants
from vchan_testbed.guests.agent.interrupts import take_own_name
from vchan_testbed.guests.agent.store import put_first_key
from vchan_testbed.tracer.attach import FAULT_STATES, Tracer
from vchan_testbed.tracer.layout import HOLDING_FAULTS, Cell

Message = dict[str, Any]

CONNECT_RETRY_SECONDS = 0.05
AWAIT_SECONDS = 0.5
NOTHING_FOLLOWED = {"over": 0, "astray": 0}
KIND_OF_RULE = 1
"""Where a rule of the tracer's core has its kind."""


class Supervisor:
    """The worker's side of the socket to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("r")
        self._connection = connection
        self._lock = threading.Lock()

    def receive(self) -> Message | None:
        """The next message, None when the supervisor is gone."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def send(self, message: Message) -> None:
        """One message, whole; threads may send at once."""
        with self._lock:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def hand_over(self, doorbell_fd: int) -> None:
        """Give the supervisor what rings when a block of the trace is full."""
        with self._lock:
            socket.send_fds(self._connection, [b'{"type":"doorbell"}\n'], [doorbell_fd])


def serve(connection: socket.socket) -> int:
    """Serve one start message; 0 when the operations are done, 4 when the test bed failed."""
    supervisor = Supervisor(connection)
    start = supervisor.receive()
    if start is None:
        return 4
    try:
        run(supervisor, start)
    except TestbedError as error:
        supervisor.send({"type": "error", "message": error.message, "next_step": error.next_step})
        return 4
    except Exception:
        supervisor.send(
            {
                "type": "error",
                "message": f"the worker failed: {traceback.format_exc(limit=4)}",
                "next_step": "This is a defect of vchan-testbed: please report it.",
            }
        )
        return 4
    return 0


def run(supervisor: Supervisor, start: Message) -> None:
    """Trace, connect, perform, report."""
    take_own_name()
    experiment = start["experiment"]
    role = start["role"]
    plan = Plan(
        role=role,
        operations=tuple(experiment[role]),
        blocking=experiment["channel"]["blocking"],
        duplex=experiment["channel"]["threads"] == "duplex",
        seed=start["seed"],
    )
    with Tracer(
        start["trace_path"],
        role=role,
        domid=start["domid"],
        peer_domid=start["peer_domid"],
        seed=start["seed"],
        run_id=bytes.fromhex(start["run_id"]),
        bytes_max=start["trace_bytes_max"],
        versions=start["versions"],
        faults=start["faults"],
        **experiment["tracing"],
    ) as tracer:
        supervisor.hand_over(tracer.doorbell_fd)
        activity, peer_holds = Activity(), threading.Semaphore(0)
        keys = Keys(supervisor, start)
        beside(answer, supervisor, tracer, activity, peer_holds, keys)
        news = News(supervisor, tracer, start["faults"]["rules"])
        beside(news.follow)
        with activity.doing(f"{role}_init"):
            channel = open_channel(start, plan, keys)
        supervisor.send({"type": "connected" if role == "client" else "listening"})
        began = time.monotonic()
        endpoint = Endpoint(
            channel,
            plan,
            activity,
            on_payload=tracer.payload,
            on_operation=lambda n: supervisor.send({"type": "progress", "operation": n}),
            await_hold=lambda: await_hold(tracer, peer_holds, role),
            stop=lambda: stop(supervisor, tracer, activity),
        )
        result = dataclasses.asdict(endpoint.perform())
        result["seconds"] = time.monotonic() - began
        with activity.doing("close"):
            channel.close()
        # Else the peer may hear that this end is over before it hears of this end's last step.
        news.tell()
        result["faults"] = tracer.look()["faults"]
    supervisor.send({"type": "done", "result": result})


class Keys:
    """How the server's keys come into xenstore, and that a client has looked in between."""

    def __init__(self, supervisor: Supervisor, start: Message) -> None:
        self._supervisor = supervisor
        self._start = start
        self._one_by_one = start["experiment"]["channel"]["keys"] == "one by one"
        self.peer_refused = threading.Event()

    def come_to_half(self) -> None:
        """Of a server: put the first there, and wait until the client was refused."""
        if self._one_by_one:
            own, peer = self._start["domid"], self._start["peer_domid"]
            put_first_key(self._start["path"], own, peer)
            self._supervisor.send({"type": "listening"})
            self.peer_refused.wait()

    def are_not_there(self) -> None:
        """Of a client: it has looked, and was refused."""
        if self._one_by_one:
            self._supervisor.send({"type": "refused"})
            self._one_by_one = False


def open_channel(start: Message, plan: Plan, keys: Keys) -> Server | Client:
    """The end of the channel; a client tries again until the server's keys are there."""
    peer, path = start["peer_domid"], start["path"]
    if plan.role == "server":
        rings = start["experiment"]["channel"]
        if rings["server_grants_max"] is not None:
            limit_grants(rings["server_grants_max"])
        keys.come_to_half()
        server = Server(
            peer,
            path,
            rings["left_ring_bytes"],
            rings["right_ring_bytes"],
            blocking=plan.blocking,
            own_domid=start["domid"],
        )
        firsts = rings["left_first_index"], rings["right_first_index"]
        if any(firsts):
            # The client is started when this end says that it listens: nobody has used them yet.
            server.start_indices_at(*firsts)
        return server
    deadline = time.monotonic() + start["experiment"]["timeouts"]["connect_seconds_max"]
    while True:
        try:
            return Client(peer, path, blocking=plan.blocking, own_domid=start["domid"])
        except NoSuchPath:
            keys.are_not_there()
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(CONNECT_RETRY_SECONDS)


def beside(do: Callable[..., None], *arguments: object) -> None:
    """Let a thread do it as long as this process lives."""
    threading.Thread(target=do, args=arguments, daemon=True, name=do.__name__).start()


class News:
    """One message for each fault that begins to hold this end, for each step to be told of, and for
    each stretch of the schedule.
    """

    def __init__(self, supervisor: Supervisor, tracer: Tracer, rules: list[list[int]]) -> None:
        self._supervisor = supervisor
        self._tracer = tracer
        self._holding = {n for n, rule in enumerate(rules) if rule[KIND_OF_RULE] in HOLDING_FAULTS}
        self._said = set[tuple[str, int]]()
        self._followed = NOTHING_FOLLOWED
        self._lock = threading.Lock()

    def follow(self) -> None:
        """Tell each time that the tracer rings."""
        held_fd = self._tracer.held_fd
        while os.eventfd_read(held_fd):
            self.tell()

    def tell(self) -> None:
        """What has not been told yet."""
        with self._lock:
            look = looked_at(self._tracer)
            begun = {n for n, state in enumerate(look["faults"]) if state != FAULT_STATES[0]}
            now = {("held", n) for n in begun & self._holding}
            now |= {("told", n) for n, done in enumerate(look["told"]) if done}
            for what, number in sorted(now - self._said):
                self._supervisor.send({"type": what, "number": number})
            self._said |= now
            if look["schedule"] not in (self._followed, NOTHING_FOLLOWED):
                self._followed = look["schedule"]
                self._supervisor.send({"type": "turns", **self._followed})


def looked_at(tracer: Tracer) -> Message:
    """What the tracer sees; nothing once the trace has ended."""
    try:
        return tracer.look()
    except TestbedError:
        return {"faults": [], "told": [], "schedule": NOTHING_FOLLOWED}


def answer(
    supervisor: Supervisor,
    tracer: Tracer,
    activity: Activity,
    peer_holds: threading.Semaphore,
    keys: Keys,
) -> None:
    """Hear the supervisor until it is gone; then end this process, whatever blocks in it."""
    while (message := supervisor.receive()) is not None:
        if message["type"] == "look":
            supervisor.send({**message, **seen(tracer.look()), "calls": activity.now()})
        elif message["type"] == "peer_held":
            peer_holds.release()
        elif message["type"] == "peer_refused":
            keys.peer_refused.set()
        else:
            # What comes when the trace has ended is late, and nothing waits for it.
            with contextlib.suppress(TestbedError):
                let_go(tracer, message)
    os._exit(4)


def let_go(tracer: Tracer, message: Message) -> None:
    """Tell the tracer what its faults and its steps wait for."""
    if message["type"] == "release":
        tracer.release(message["number"], is_there=message["is_there"])
    elif message["type"] == "peer_over":
        tracer.peer_is_over()
    elif message["type"] == "grant":
        tracer.grant(message["number"])
    elif message["type"] == "schedule_over":
        tracer.schedule_is_over()


def await_hold(tracer: Tracer, peer_holds: threading.Semaphore, role: str) -> None:
    """Return when the peer is held. Raises PeerGone when it is gone instead."""
    peer_live = Cell.CLI_LIVE if role == "server" else Cell.SRV_LIVE
    while not peer_holds.acquire(timeout=AWAIT_SECONDS):
        # The tracer's look and no call of the library: this is to leave nothing in the trace.
        page = tracer.look()["page"]
        if page is not None and not bytes.fromhex(page)[peer_live]:
            raise PeerGone("await_hold", 0, "the peer has gone and was not held")


def stop(supervisor: Supervisor, tracer: Tracer, activity: Activity) -> None:
    """Stop this process, as SIGSTOP does; what it would answer to a look is said before.

    It comes back if somebody lets it go on.
    """
    look = tracer.look()
    told = {**seen(look), "event_fd": look["event_fd"], "calls": activity.now()}
    supervisor.send({"type": "stops", **told})
    os.kill(os.getpid(), signal.SIGSTOP)


def seen(look: Message) -> Message:
    """The worker's part of an answer; `held` are the threads that a fault holds."""
    readable, descriptor = None, look["event_fd"]
    if descriptor is not None:
        readable = bool(select.select([descriptor], [], [], 0)[0])
    return {
        "page": look["page"],
        "records": look["records"],
        "event_fd_readable": readable,
        "held": [call["tid"] for call in look["calls"] if call["held"]],
    }
