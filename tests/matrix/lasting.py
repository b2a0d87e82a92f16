"""The loopback host with two agents that last: they serve one experiment after the other.

A new agent costs a start of Python each time, most of what a short run takes. One that lasts forks
a fresh worker for each experiment, as the other one does for its only one; nothing of the worker
before is in it. An agent whose experiment came to no proper end is ended, and a new one takes its
place.
"""

from __future__ import annotations

import queue
from typing import Self

from vchan_testbed.guests.experiment import ENDPOINTS, Experiment
from vchan_testbed.guests.frames import Frame, Kind, Message
from vchan_testbed.guests.hosts.loopback import LoopbackHost, ProcessLink
from vchan_testbed.guests.hosts.protocol import AgentLink


class _Share(queue.Queue[Frame | None]):
    """What an agent says during one experiment, up to its last word."""

    def __init__(self, agent: queue.Queue[Frame | None]) -> None:
        super().__init__()
        self._agent = agent
        self.over = False

    def get(self, block: bool = True, timeout: float | None = None) -> Frame | None:
        """The next frame; None behind the last word, though the agent goes on."""
        if self.over:
            return None
        frame = self._agent.get(block, timeout)
        is_bye = (
            frame is not None and frame.kind is Kind.MESSAGE and frame.message()["type"] == "bye"
        )
        self.over = frame is None or is_bye
        return frame


class Turn:
    """One experiment's share of the link to an agent that lasts."""

    def __init__(self, agent: ProcessLink) -> None:
        self._agent = agent
        self._events = _Share(agent.events)

    @property
    def domid(self) -> int:
        """The domain that the agent believes to be in."""
        return self._agent.domid

    @property
    def events(self) -> queue.Queue[Frame | None]:
        """What the agent says in this turn, None at its end."""
        return self._events

    def send(self, message: Message) -> None:
        """Say something to the agent; to finish is to rest until the next turn."""
        if message["type"] == "finish":
            message = {**message, "type": "rest"}
        self._agent.send(message)

    def close(self) -> None:
        """The turn is over. An agent that has not said its last word in it is ended."""
        if not self._events.over:
            self._agent.close()


class LastingLoopbackHost(LoopbackHost):
    """The loopback host for many short runs."""

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._fill_up()
            # The agents at rest are no more in use than the host itself.
            self._baseline = self.counts()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def endpoints(self, experiment: Experiment) -> dict[str, AgentLink]:
        """A turn of each agent."""
        self._fill_up()
        return {endpoint: Turn(link) for endpoint, link in self._links.items()}

    def give_back(self) -> dict[str, int]:
        """Have new agents in the place of those that have ended, and count what is in use."""
        self._fill_up()
        return self.counts()

    def _fill_up(self) -> None:
        for endpoint in ENDPOINTS:
            link = self._links.get(endpoint)
            if link is None or not link.running:
                if link is not None:
                    link.close()
                self._links[endpoint] = self._new_link(endpoint)
