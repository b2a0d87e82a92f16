"""What the owner of a Xen host allows: /etc/vchan-testbed/host.yaml.

allow: true              # test domains may be made here without being asked for by name
memory_mib_max: 1024     # all test domains together; this and the following may be left out
vcpus_max: 4
domains_max: 4
agent_python: /opt/vchan-testbed/bin/python   # has vchan-testbed: for dom0 as an endpoint
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vchan_testbed.errors import InputError, TestbedError

HOST_FILE = Path("/etc/vchan-testbed/host.yaml")


@dataclass(frozen=True)
class Limits:
    """The caps on all test domains of a host together; None is no cap."""

    allow: bool = False
    """Whether `--host auto` may take this host."""
    memory_mib_max: int | None = None
    vcpus_max: int | None = None
    domains_max: int | None = None
    agent_python: str | None = None
    """The Python to run an agent in dom0 with."""


@dataclass(frozen=True)
class Use:
    """What test domains take."""

    memory_mib: int
    vcpus: int
    domains: int


def read_limits(path: Path = HOST_FILE) -> Limits | None:
    """What the file says, None without one. Raises InputError for what it cannot mean."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", next_step="Mend its mode.") from error
    # Only here: a helper without this file does not spend the time to load it.
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}", next_step="Mend that line.") from error
    return _checked(path, data if data is not None else {})


def check_use(limits: Limits | None, used: Use, wanted: Use) -> None:
    """Raise TestbedError if `wanted` beside `used` is more than the owner allows."""
    if limits is None:
        return
    for name, unit in (("memory_mib", " MiB of memory"), ("vcpus", " vCPUs"), ("domains", "")):
        most = getattr(limits, f"{name}_max")
        total = getattr(used, name) + getattr(wanted, name)
        if most is not None and total > most:
            raise TestbedError(
                f"{total}{unit or ' test domains'} would be in use on this host, and its owner"
                f" allows {most}.",
                next_step=f"Ask for less in the experiment, wait for other runs to end, or raise"
                f" {name}_max in {HOST_FILE}.",
            )


def _checked(path: Path, data: Any) -> Limits:
    known = {field.name: str(field.type) for field in fields(Limits)}
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a list of names and values", next_step=_expected(known))
    for name, value in data.items():
        if name not in known:
            raise InputError(f"{path}: there is no entry {name!r}", next_step=_expected(known))
        if not _fits(known[name], value):
            raise InputError(
                f"{path}: {name} is {value!r}", next_step=f"Expected {known[name].split(' ')[0]}."
            )
    return Limits(**data)


def _fits(kind: str, value: Any) -> bool:
    if kind.startswith("int"):
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, bool if kind == "bool" else str)


def _expected(known: dict[str, str]) -> str:
    return "Expected entries: " + ", ".join(known) + "."
