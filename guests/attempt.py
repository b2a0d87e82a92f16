"""One try of a run, with one pair of endpoints.

    hello -> server listens -> client connects -> operations -> over | stands still | time is up

A run that stands still is looked at twice, then killed; one that moves for too long is killed too.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.collect import Side, mark_of
from vchan_testbed.guests.consoles import console_tail
from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.fault_rules import Setting, injection_of
from vchan_testbed.guests.fault_states import fault_states, not_come
from vchan_testbed.guests.frames import Frame, Message
from vchan_testbed.guests.helper.keys import channel_path
from vchan_testbed.guests.hosts.protocol import AgentLink, Host
from vchan_testbed.guests.port_seen import port_seen
from vchan_testbed.guests.quiescence import (
    SILENT,
    Look,
    all_answered,
    endpoint_look,
    is_blocked,
    is_paused,
    paused_look,
    quiescent,
    stands_still,
    xen_seen,
)
from vchan_testbed.guests.schedule import Conductor, begins_in_init, with_schedule
from vchan_testbed.progress import Progress
from vchan_testbed.rundir import RunDirectory

HELLO_SECONDS_MAX = 120.0
LOOK_SECONDS_MAX = 30.0
END_SECONDS_MAX = 60.0
SHOW_SECONDS = 1.0
ENDING = ("destroy", "panic", "save")
"""What may be done to a domain that its agent does not come back from."""


class GuestLost(Exception):
    """An endpoint's domain went away."""


class Attempt:
    """One try with one pair of endpoints; `xen_dump`: each look has Xen dump its ports."""

    def __init__(
        self,
        host: Host,
        experiment: Experiment,
        run: RunDirectory,
        seed: int,
        progress: Progress,
        *,
        xen_dump: bool = False,
    ) -> None:
        self._host = host
        self._xen_dump = xen_dump
        self._experiment = experiment
        self._run = run
        self._seed = seed
        self._progress = progress
        self._sides: dict[str, Side] = {}
        self._inbox: queue.Queue[tuple[str, Frame | None]] = queue.Queue()
        self._seconds: dict[str, float] = {}
        self._ground: dict[str, Any] | None = None
        self._quiescence: dict[str, Any] | None = None
        self._injection = with_schedule(
            injection_of(experiment.faults, Setting.of(experiment)), experiment.schedule
        )
        self._conductor = Conductor(experiment.schedule)
        # Its first step may be one of a connected channel alone: then nobody goes before that.
        self._conducts = any(begins_in_init(experiment.schedule, side) for side in ENDPOINTS)
        self._is_let_go = False
        self._times_looked_at = 0
        self._acts: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self.messages: list[str] = []
        self._shown = ("", 0.0)

    def perform(self) -> None:
        """All of it. Raises TestbedError; GuestLost when a domain went away."""
        with self._stage("endpoints", "Make the two endpoints"):
            links = self._host.endpoints(self._experiment)
        self._listen(links)
        self._conduct()
        outcome = None
        try:
            with self._stage("connect", "Connect server and client"):
                self._connect()
            self._conducts = True
            self._conduct()
            with self._stage("run", f"Run the workload {self._experiment.name}"):
                outcome = self._watch()
            with self._stage("collect", "Collect the traces"):
                self._end()
        finally:
            ends = [side.obituary for side in self._sides.values()]
            self.messages += [text for text in ends if text]
            self._record(outcome)
            for side in self._sides.values():
                side.link.close()
        if any(side.ended == "lost" for side in self._sides.values()):
            raise GuestLost

    def _listen(self, links: dict[str, AgentLink]) -> None:
        for endpoint, link in links.items():
            self._sides[endpoint] = Side(endpoint, link, self._run)
            threading.Thread(
                target=_forward, args=(endpoint, link, self._inbox), daemon=True
            ).start()

    def _connect(self) -> None:
        server, client = self._sides["server"], self._sides["client"]
        self._until(
            lambda: all(side.selftest for side in self._sides.values()),
            HELLO_SECONDS_MAX,
            "the agents do not answer",
        )
        self._refuse_a_broken_ground()
        if self._host.kind != "loopback":
            self.messages += [
                f"No self-test runs in {domain}."
                for domain, said in self._selftests().items()
                # The dom0 of a host that is not of our own making has none.
                if said["ok"] is None and (domain != "dom0" or self._host.kind == "qemu")
            ]
        seconds_max = self._experiment.timeouts.connect_seconds_max
        path = channel_path(server.link.domid, self._run.facts()["run_id"])
        for side, peer in ((server, client), (client, server)):
            side.start(self._start_message(side.endpoint, side, peer, path))
            self._until(
                partial(self._ready_over_or_astray, side),
                2 * seconds_max,
                f"the {side.endpoint} does not get ready",
            )
            if side.gone:
                raise GuestLost
            if self._conductor.unfollowed:
                return
            if not side.ready and self._was_killed_on_purpose(side):
                # The server has a channel, and goes on with it as if nobody had come.
                return
            if not side.ready:
                raise self._failure(
                    f"The {side.endpoint} ended before it was ready (signal {side.signal}).",
                    "See the consoles in the run directory.",
                )

    def _ready_over_or_astray(self, side: Side) -> bool:
        return side.ready or side.over or self._conductor.unfollowed is not None

    def _was_killed_on_purpose(self, side: Side) -> bool:
        """Whether it is the client, which its fault killed while it connected."""
        kills = [f for f in self._experiment.faults if (f.side, f.do) == (side.endpoint, "kill")]
        return side.endpoint == "client" and side.signal == signal.SIGKILL and bool(kills)

    def _start_message(self, endpoint: str, side: Side, peer: Side, path: str) -> Message:
        return {
            "role": endpoint,
            "domid": side.link.domid,
            "peer_domid": peer.link.domid,
            "path": path,
            "experiment": self._experiment.to_dict(),
            "seed": self._seed,
            "run_id": self._run.facts()["run_id"],
            "faults": self._injection.plans[endpoint].to_plain(),
        }

    def _watch(self) -> str:
        """Until both are over, or they stand still, or time is up. Returns the outcome."""
        timeouts = self._experiment.timeouts
        deadline = time.monotonic() + timeouts.run_seconds_max
        while not self._over():
            if self._conductor.unfollowed:
                self._kill()
                return "off schedule"
            moved_at = max(side.moved_at for side in self._sides.values())
            still_at = moved_at + timeouts.settle_seconds
            if time.monotonic() >= deadline:
                self._conductor.gave_up(f"it had not come after {timeouts.run_seconds_max:g} s")
                self._kill()
                return "stopped while moving"
            if time.monotonic() >= still_at:
                if self._stands_still():
                    self._kill()
                    return "stood still"
            else:
                self._take_one(min(still_at, deadline))
        self._quiescence = None
        return "finished"

    def _stands_still(self) -> bool:
        """Look twice, a settle time apart; whatever moves in between says no."""
        settle = self._experiment.timeouts.settle_seconds
        self._times_looked_at += 1
        self._progress.note(f"nothing has moved for {settle:g} s: looking")
        first = self._look()
        began = time.monotonic()
        moved = self._wait(lambda: self._moved_since(began) or self._over(), settle)
        second = self._look()
        # What came while they answered moved, too.
        moved = moved or self._moved_since(began) or self._over()
        still = not moved and stands_still(first, second)
        self._look_at_schedule(first, second, moved=moved)
        # Two looks that agree by chance, while something was still on its way, are no evidence;
        # nor is one that an end has not answered.
        self._quiescence = (
            None
            if moved or not (all_answered(first) and all_answered(second))
            else {
                "settle_seconds": settle,
                "quiescent": quiescent(first, second),
                "looks": [first, second],
            }
        )
        if not still:
            for side in self._sides.values():
                side.moved_at = time.monotonic()
        return still

    def _look_at_schedule(self, first: Look, second: Look, *, moved: bool) -> None:
        """Whoever is to go next, and sleeps where nothing wakes it, will not."""
        side = self._conductor.is_due
        if side and not moved and is_blocked(first, second, side):
            call = second["endpoints"][side]["in_call"]
            self._conductor.ended(side, f"it sleeps in {call}, and no event is there to wake it")

    def _look(self) -> Look:
        domids = [side.link.domid for side in self._sides.values()]
        xen = self._host.look(domids, dump=self._xen_dump)
        paused = {name for name, s in self._sides.items() if is_paused(xen[s.link.domid])}
        asked = [side for name, side in self._sides.items() if name not in paused]
        for side in asked:
            side.ask_for_look()
        self._wait(lambda: all(side.look or side.over for side in asked), LOOK_SECONDS_MAX)
        return {
            "at_seconds": round(time.monotonic() - self._began, 3),
            "endpoints": {
                name: self._seen(side, xen[side.link.domid]) for name, side in self._sides.items()
            },
        }

    def _seen(self, side: Side, xen: Look) -> Look:
        """What one look shows of one endpoint."""
        found = port_seen(self._run.trace(side.endpoint))
        records = found.pop("records")
        look = _look_of(side)
        if is_paused(xen) and not side.over:
            # All has come that it had written when it was held, and it was paused while it was.
            look = paused_look(self._records_when_paused(side) if records else None)
        return {**look, **found, **xen_seen(xen, found["port"])}

    def _records_when_paused(self, side: Side) -> int | None:
        """How many an endpoint had written that was held by a fault as its domain was paused."""
        held = [act["records"] for act in self._acts if is_own_pause(act, side.endpoint)]
        return held[-1] if held else None

    def _kill(self) -> None:
        """Stop both, then kill both: otherwise the death of one would wake the other."""
        for side in self._sides.values():
            side.stop()
        self._unpause()
        self._wait(
            lambda: all(side.stopped or side.over for side in self._sides.values()),
            LOOK_SECONDS_MAX,
        )
        for side in self._sides.values():
            side.kill()

    def _unpause(self) -> None:
        """A domain that stands paused would never hear that its endpoint is to stop."""
        domids = [side.link.domid for side in self._sides.values() if not side.over]
        for domid, seen in self._host.look(domids, dump=False).items():
            if is_paused(seen):
                self._host.act(domid, "unpause")

    def _end(self) -> None:
        """Take what is still on its way, and each agent's last word on its self-test."""
        self._until(self._over, END_SECONDS_MAX, "the agents do not send the rest of the traces")
        for side in self._sides.values():
            side.link.send({"type": "finish"})
        self._wait(lambda: all(side.gone for side in self._sides.values()), END_SECONDS_MAX)
        self._refuse_a_broken_ground()

    def _refuse_a_broken_ground(self) -> None:
        try:
            self._ground = self._host.selftest()
        except TestbedError:
            # Of a host that went with its domains the runner says more.
            if not any(side.ended == "lost" for side in self._sides.values()):
                raise
        for domain, said in self._selftests().items():
            if said["ok"] is False:
                raise self._failure(
                    f"The self-test of {domain} failed: {said['detail']}",
                    "Registers, memory or clock are not sound there (see the emulator's flags); "
                    "nothing that this run shows counts.",
                )

    def _selftests(self) -> dict[str, dict[str, Any]]:
        """The last word of each domain, dom0's among them: all traces go through it."""
        ends = {f"the {s.endpoint}'s domain": s.selftest for s in self._sides.values()}
        known = {**ends, "dom0": self._ground}
        return {domain: said for domain, said in known.items() if said is not None}

    def _until(self, done: Callable[[], bool], seconds_max: float, otherwise: str) -> None:
        if not self._wait(done, seconds_max):
            raise self._failure(
                f"After {seconds_max:g} s: {otherwise}.",
                "See the consoles in the run directory; a slow machine may need longer time-outs "
                "in the experiment.",
            )

    def _failure(self, message: str, next_step: str) -> TestbedError:
        return TestbedError(message, next_step=next_step, console=console_tail(self._host))

    def _wait(self, done: Callable[[], bool], seconds_max: float) -> bool:
        """Take frames until `done`; False when the time is up first."""
        deadline = time.monotonic() + seconds_max
        while not done():
            if time.monotonic() >= deadline:
                return False
            self._take_one(deadline)
        return True

    def _take_one(self, deadline: float) -> None:
        """Take a frame, or nothing by the deadline. Raises what an agent reports."""
        self._show()
        left = min(deadline - time.monotonic(), SHOW_SECONDS)
        try:
            endpoint, frame = self._inbox.get(timeout=max(left, 0.0))
        except queue.Empty:
            return
        side = self._sides[endpoint]
        side.take(frame)
        self._take_up_faults(side)
        if side.error is not None:
            raise self._failure(
                f"The {endpoint} reports: {side.error['message']}",
                side.error.get("next_step", ""),
            )
        if side.trace_ended and side.status and side.status > 0:
            raise self._failure(
                f"The {endpoint}'s worker ended with status {side.status} and said nothing.",
                "See the consoles in the run directory.",
            )

    def _take_up_faults(self, side: Side) -> None:
        """What the faults of an end have to do with the other one, and with the domains."""
        told, side.told = side.told, []
        for message in told:
            if message["type"] == "turns":
                self._conductor.took(message["over"])
                if message["astray"]:
                    self._conductor.came_to(side.endpoint, message["astray"])
                continue
            if message["type"] == "refused":
                self._tell_peer(side, {"type": "peer_refused"})
                continue
            place = (side.endpoint, message["number"])
            if message["type"] == "told":
                self._release(*self._injection.relays[place])
                continue
            if place in self._injection.acts:
                self._act(side, message["number"])
            self._tell_peer(side, {"type": "peer_held"})
        if side.over and not side.farewell:
            side.farewell = True
            self._tell_peer(side, {"type": "peer_over"})
        if side.over:
            self._conductor.ended(side.endpoint, "it has ended")
        self._conduct()

    def _conduct(self) -> None:
        """Let go on whose turn it is; all of them behind the last step of the schedule."""
        if not self._conducts or not self._experiment.schedule:
            return
        if (stretch := self._conductor.granted()) is not None:
            endpoint, last = stretch
            self._sides[endpoint].link.send({"type": "grant", "number": last})
        if self._conductor.is_over and not self._is_let_go:
            self._is_let_go = True
            for side in self._sides.values():
                if not side.over:
                    side.link.send({"type": "schedule_over"})

    def _tell_peer(self, side: Side, message: Message) -> None:
        for other in self._sides.values():
            if other is not side and not other.over:
                other.link.send(message)

    def _release(self, endpoint: str, number: int) -> None:
        self._sides[endpoint].link.send({"type": "release", "number": number, "is_there": True})

    def _act(self, side: Side, number: int) -> None:
        """Do to a domain what a fault asks for: the trace is here up to the fault's record."""
        act = self._injection.acts[side.endpoint, number]
        records = mark_of(self._run.trace(side.endpoint), number)
        if records is None:
            raise self._failure(
                f"The {side.endpoint} is held by its fault {number + 1}, and its trace has no "
                "record of it.",
                "This is a defect of vchan-testbed: please report it.",
            )
        self._acts.append(
            {"side": side.endpoint, "fault": number, **asdict(act), "records": records}
        )
        self._progress.note(f"{act.do} the {act.domain}'s domain at record {records}")
        if act.do == "panic":
            self._sides[act.domain].link.send({"type": "panic"})
        else:
            self._host.act(self._sides[act.domain].link.domid, act.do)
        if act.domain != side.endpoint or act.do not in ENDING:
            self._release(side.endpoint, number)

    def _show(self) -> None:
        shown = [
            f"{name} {side.operation + 1}/{len(self._experiment.operations(name))}, "
            f"{side.trace_bytes / 1e6:.1f} MB of trace"
            for name, side in self._sides.items()
            if side.ready
        ]
        text = "; ".join(shown)
        if text != self._shown[0] and time.monotonic() > self._shown[1] + SHOW_SECONDS:
            self._progress.note(text)
            self._shown = (text, time.monotonic())

    def _over(self) -> bool:
        return all(side.over for side in self._sides.values())

    def _moved_since(self, then: float) -> bool:
        return any(side.moved_at > then for side in self._sides.values())

    def _record(self, outcome: str | None) -> None:
        ends = [side.ended for side in self._sides.values()]
        if "lost" in ends:
            outcome = "domain died"
        elif "died" in ends:
            outcome = "endpoint died"
        faults = fault_states(
            self._experiment.faults,
            {name: (side.result or {}).get("faults") for name, side in self._sides.items()},
            {name: self._run.trace(name) for name in self._sides},
        )
        if outcome is not None:
            self.messages += not_come(faults)
        self._run.update(
            endpoints={name: side.summary() for name, side in self._sides.items()},
            versions={
                **self._run.facts().get("versions", {}),
                **{name: side.versions for name, side in self._sides.items()},
            },
            selftest={
                **{name: side.selftest for name, side in self._sides.items()},
                "host": self._ground,
            },
            domain_type=_domain_type(self._sides["server"], self._sides["client"]),
            quiescence=self._quiescence,
            times_looked_at=self._times_looked_at,
            faults=faults,
            schedule=self._conductor.facts(),
            acts=self._acts,
            outcome=outcome,
            messages=[*self._run.facts().get("messages", []), *self.messages],
            seconds=self._seconds,
        )

    @contextmanager
    def _stage(self, name: str, title: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            with self._progress.step(title):
                yield
        finally:
            self._seconds[name] = round(time.monotonic() - began, 3)


def is_own_pause(act: dict[str, Any], endpoint: str) -> bool:
    """Whether the test bed paused an endpoint's domain at one of its own steps."""
    return (act["do"], act["domain"], act["side"]) == ("pause", endpoint, endpoint)


def _domain_type(*sides: Side) -> str:
    """As "pv", "dom0+pvh"; "none" where there is no Xen."""
    types = {"dom0" if side.link.domid == 0 else side.guest_type or "none" for side in sides}
    return "+".join(sorted(types))


def _look_of(side: Side) -> Look:
    if side.trace_ended and not side.gone:
        return endpoint_look({"alive": False, "threads": []})
    if side.look is None and not side.gone:
        return dict(SILENT)
    return endpoint_look(None if side.gone else side.look)


def _forward(endpoint: str, link: AgentLink, inbox: queue.Queue[tuple[str, Frame | None]]) -> None:
    """Two queues cannot be waited for at once: bring them together."""
    while (frame := link.events.get()) is not None:
        inbox.put((endpoint, frame))
    inbox.put((endpoint, None))
