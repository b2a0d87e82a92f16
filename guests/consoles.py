"""What the consoles of a host say: for the run directory, and for error messages."""

from __future__ import annotations

from vchan_testbed.errors import TestbedError
from vchan_testbed.guests.hosts.protocol import Host
from vchan_testbed.rundir import RunDirectory


def keep_consoles(host: Host, run: RunDirectory) -> None:
    """Write them into the run directory, whatever else has failed."""
    try:
        consoles = host.consoles()
    except TestbedError as error:
        consoles = {"host": f"The consoles cannot be had: {error}\n"}
    for name, text in consoles.items():
        run.console(name).write_text(text)


def console_tail(host: Host, lines: int = 12) -> str:
    """The last lines of each console, for an error message."""
    try:
        consoles = host.consoles()
    except TestbedError:
        return ""
    parts = []
    for name, text in consoles.items():
        last = text.rstrip().splitlines()[-lines:]
        if last:
            parts.append(f"--- {name}\n" + "\n".join(last))
    return "\n".join(parts)
