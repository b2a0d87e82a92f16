"""What a run had in use and gave back: counted before it and after it, told where they differ."""

from __future__ import annotations

from collections.abc import Mapping

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.progress import Progress
from vchan_testbed.rundir import RunDirectory


def settle(host: Host, run: RunDirectory, progress: Progress) -> None:
    """Have the host give back what the run took, and write both counts into `run.json`.

    A difference is told and is no error: on a host that others use too it may be theirs. A host
    that is gone has no count afterwards.
    """
    before = host.baseline()
    messages = list(run.facts().get("messages", []))
    after = None
    try:
        with progress.step("Give back what the run took"):
            after = host.give_back()
    except TestbedError as error:
        messages.append(f"Not counted at the end: {error.message}")
    else:
        if said := difference(before, after):
            messages.append(said)
            progress.note(said)
    run.update(counts={"before": before, "after": after}, messages=messages)


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """One sentence on what differs, as "ports 12 -> 13"; empty if nothing does."""
    names = [name for name in {**before, **after} if before.get(name, 0) != after.get(name, 0)]
    if not names:
        return ""
    changes = ", ".join(f"{name} {before.get(name, 0)} -> {after.get(name, 0)}" for name in names)
    return f"Not the same in use before and after the run: {changes}."
