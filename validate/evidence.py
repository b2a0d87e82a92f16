"""What a run's `run.json` says of how it ended: the two looks, who lived, what was expected.

Without a run directory (two traces alone) all of it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vchan_testbed.tracer.header import Role

ROLES: tuple[Role, Role] = ("server", "client")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Facts of a run; every question may have the answer None, not known."""

    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> str | None:
        """How the run ended, in the words of run.json."""
        return self.facts.get("outcome")

    @property
    def blocking(self) -> bool | None:
        """Whether the calls block."""
        channel = _mapping(_mapping(self.facts.get("experiment")).get("channel"))
        return channel.get("blocking")

    @property
    def expect(self) -> Mapping[str, Any]:
        """The verdict that the experiment expects."""
        return _mapping(_mapping(self.facts.get("experiment")).get("expect"))

    @property
    def looks(self) -> tuple[Mapping[str, Any], ...]:
        """The looks at a run that stood still."""
        return tuple(_mapping(self.facts.get("quiescence")).get("looks") or ())

    @property
    def stands_still(self) -> bool:
        """Both looks show the same, and every live thread asleep in the kernel.

        A readable event descriptor does not spoil it: a thread that sleeps in a read of it in
        spite of that is what the kernel would have to answer for.
        """
        if len(self.looks) < 2:
            return False
        alive = [role for role in ROLES if self.alive(role)]
        went_on = any(self.ended(role) == "finished" for role in alive)
        left = [role for role in ROLES if self._seen(role, -2).get("alive") and role not in alive]
        still = all(self._is_still(role) for role in alive)
        return bool(alive) and still and not went_on and not left

    def ended(self, role: Role) -> str | None:
        """finished, killed, died or lost."""
        value = _mapping(_mapping(self.facts.get("endpoints")).get(role)).get("ended")
        return value if value in ("finished", "killed", "died", "lost") else None

    def alive(self, role: Role) -> bool | None:
        """Whether the process lived at the last look."""
        value = self._seen(role).get("alive")
        return value if isinstance(value, bool) else None

    def stopped(self, role: Role) -> bool:
        """Whether its process was stopped by a signal at the last look."""
        return self._seen(role).get("stopped") is True

    def domain_state(self, role: Role) -> str | None:
        """What Xen had its domain in: "running", "blocked", "paused" ...; None: not known."""
        value = _mapping(self._seen(role).get("domain")).get("state")
        return value if isinstance(value, str) else None

    def counted(self, role: Role) -> int | None:
        """Events that its domain's kernel had taken for its port since that was there.

        A port is new when it is bound, and has raised once at most when the channel is ready. One
        that has counted more by then had another owner before: nothing is known of it.
        """
        interrupts = _mapping(self._seen(role).get("interrupts"))
        ready, now = (_mapping(interrupts.get(when)).get("count") for when in ("ready", "now"))
        known = isinstance(ready, int) and isinstance(now, int) and ready <= 1
        return now if known else None

    def events_read(self, role: Role) -> int | None:
        """Events that its process had read from the port."""
        value = self._seen(role).get("events_read")
        return value if isinstance(value, int) else None

    def in_xen(self, role: Role) -> tuple[bool, bool] | None:
        """Whether its port was pending in Xen, and whether masked; None: not known."""
        port = _mapping(self._seen(role).get("event_channel"))
        pending, masked = port.get("pending"), port.get("masked")
        if isinstance(pending, bool) and isinstance(masked, bool):
            return pending, masked
        return None

    def records_at_last_look(self, role: Role) -> int | None:
        """Records it had written then."""
        value = self._seen(role).get("records")
        return value if isinstance(value, int) else None

    def readable(self, role: Role) -> bool | None:
        """Whether its event descriptor was readable."""
        value = self._seen(role).get("event_fd_readable")
        return value if isinstance(value, bool) else None

    def drained(self, role: Role) -> int | None:
        """Records that it had written, all of which came, when the test bed ended its domain at one
        of its own steps; None: that did not happen.
        """
        for act in self.facts.get("acts") or ():
            ends_it = act.get("do") in ("destroy", "panic", "save") and act.get("domain") == role
            if ends_it and act.get("side") == role and isinstance(act.get("records"), int):
                return int(act["records"])
        return None

    def page(self, role: Role) -> bytes | None:
        """The head of the shared page as it saw it."""
        value = self._seen(role).get("page")
        try:
            return bytes.fromhex(value) if isinstance(value, str) else None
        except ValueError:
            return None

    def in_call(self, role: Role) -> str | None:
        """The call that its thread was in."""
        return self._seen(role).get("in_call")

    def _seen(self, role: Role, look: int = -1) -> Mapping[str, Any]:
        if not self.looks:
            return {}
        return _mapping(_mapping(self.looks[look].get("endpoints")).get(role))

    def _is_still(self, role: Role) -> bool:
        first, second = self._seen(role, -2), self._seen(role, -1)
        if all(self._cannot_run(look) for look in (first, second)):
            records = first.get("records")
            return records is not None and bool(records == second.get("records"))
        same = all(first.get(key) == second.get(key) for key in ("records", "page"))
        return same and self._blocked(first) and self._blocked(second)

    @staticmethod
    def _cannot_run(seen: Mapping[str, Any]) -> bool:
        """Stopped by a signal, or its domain paused: it does nothing until somebody says so."""
        is_paused = _mapping(seen.get("domain")).get("state") == "paused"
        return is_paused or seen.get("stopped") is True

    @staticmethod
    def _blocked(seen: Mapping[str, Any]) -> bool:
        threads = seen.get("threads") or []
        calls = [thread.get("in_call") for thread in threads]
        return (
            bool(threads)
            and all(thread.get("blocked_in_kernel") for thread in threads)
            and "pause" not in calls
            and "pause" not in str(seen.get("in_call") or "").split("+")
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
