"""Does a run stand still? Two looks, a settle time apart, and only evidence: never time alone.

A look has, for each endpoint, what the kernel says of its threads, whether its event descriptor is
readable, how many records it has written and what the shared page holds; how many events its kernel
has counted for it (`interrupts`, agent/interrupts.py) and its process has read (port_seen.py); and
what Xen has of its domain and of its port. What cannot be had is None, with `why`.
"""

from __future__ import annotations

from typing import Any

Look = dict[str, Any]
NOBODY: Look = {
    "answered": True,
    "alive": None,
    "threads": [],
    "event_fd_readable": None,
    "records": None,
    "page": None,
    "in_call": None,
    "stopped": False,
    "interrupts": None,
    "port": None,
    "events_read": None,
    "domain": None,
    "event_channel": None,
}
"""What a look shows of an endpoint whose domain is gone."""
SILENT: Look = {**NOBODY, "answered": False}
"""What it shows of one that does not answer in time, of which nothing is known."""


def endpoint_look(message: Look | None) -> Look:
    """One endpoint's part of a look, from its agent's answer."""
    if message is None:
        return {**NOBODY, "interrupts": not_counted("its domain is gone")}
    calls = [thread["in_call"] for thread in message["threads"] if thread["in_call"]]
    return {
        **NOBODY,
        **{key: message[key] for key in NOBODY if key in message},
        "in_call": "+".join(calls) or None,
    }


def stands_still(first: Look, second: Look) -> bool:
    """Whether both looks together show that nothing moves: same records, same page, all asleep.

    At least one endpoint lives, and each that does stands still; one that ended between the two
    looks has moved, and its peer may not have heard of it yet. One that does not answer may be
    at work, in a domain that is not run now. A readable event descriptor does not spoil it: a
    thread that sleeps in spite of that will not wake by itself either.
    """
    if not (all_answered(first) and all_answered(second)):
        return False
    ends = [(first["endpoints"][name], second["endpoints"][name]) for name in second["endpoints"]]
    alive = [pair for pair in ends if pair[0]["alive"] or pair[1]["alive"]]
    return bool(alive) and all(pair[1]["alive"] and _is_still(*pair) for pair in alive)


def is_blocked(first: Look, second: Look, endpoint: str) -> bool:
    """Whether one endpoint sleeps in a call of the library in both looks, and did nothing between.

    No event waits to be read, so it does not wake by itself.
    """
    before, after = first["endpoints"][endpoint], second["endpoints"][endpoint]
    still = before["answered"] and after["alive"] and _is_still(before, after)
    return bool(still and not after["event_fd_readable"])


def paused_look(records: int | None) -> Look:
    """What is known of an endpoint whose domain is paused: its process is there, and does nothing.

    `records` is how many it has written in all; None: that is not known.
    """
    uncounted = not_counted("its domain is paused: nobody answers there")
    return {**NOBODY, "alive": True, "records": records, "interrupts": uncounted}


def not_counted(why: str) -> Look:
    """That nobody knows what the kernel has counted."""
    return {when: {"count": None, "why": why} for when in ("ready", "now")}


def is_paused(look: Look) -> bool:
    """Whether Xen has the endpoint's domain paused."""
    return (look.get("domain") or {}).get("state") == "paused"


def xen_seen(seen: Look, port: int | None) -> Look:
    """Xen's part of a look at an endpoint: its domain, and its port if there was a dump.

    `seen` is what a host has of the domain.
    """
    if "event_channels" not in seen:
        return {"domain": seen["domain"], "event_channel": None}
    channels = seen["event_channels"]
    if channels["ports"] is None:
        return {"domain": seen["domain"], "event_channel": _unknown(channels["why"])}
    own = [each for each in channels["ports"] if each["port"] == port]
    why = (
        "its port is not known" if port is None else f"Xen's dump has no port {port} of its domain"
    )
    return {"domain": seen["domain"], "event_channel": own[0] if own else _unknown(why)}


def _unknown(why: str) -> Look:
    return {"pending": None, "masked": None, "why": why}


def all_answered(look: Look) -> bool:
    """Whether each endpoint whose domain is there has answered."""
    return all(seen["answered"] for seen in look["endpoints"].values())


def quiescent(first: Look, second: Look) -> bool:
    """Whether it stands still and no event waits to be read: nothing is under way any more."""
    unread = [look for look in second["endpoints"].values() if look["event_fd_readable"]]
    return stands_still(first, second) and not unread


def _is_still(first: Look, second: Look) -> bool:
    if all(look["stopped"] or is_paused(look) for look in (first, second)):
        # By a signal, or by Xen: it goes on when somebody says so, and cannot look until then.
        return first["records"] is not None and bool(first["records"] == second["records"])
    return (
        _blocked(first)
        and _blocked(second)
        and first["records"] == second["records"]
        and first["page"] == second["page"]
        and second["page"] is not None
    )


def _blocked(look: Look) -> bool:
    """Every thread sleeps in the kernel, and one at least in a call of the library.

    A thread that pauses is the workload's own idleness: it goes on by itself. One that is in no
    call is through with its operations, or waits for the others to be.
    """
    calls = [thread["in_call"] for thread in look["threads"]]
    return (
        all(thread["blocked_in_kernel"] for thread in look["threads"])
        and "pause" not in calls
        and any(calls)
    )
