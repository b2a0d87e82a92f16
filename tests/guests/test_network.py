"""The control network, with real bridges and interfaces, in namespaces of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BODIES = Path(__file__).parent / "network/bodies.py"
SECONDS_MAX = 120

NAMES = re.findall(r"^async def (\w+)\(\) -> None:", BODIES.read_text(), re.MULTILINE)


def in_namespace(*command: str) -> list[str]:
    """A command in a network namespace of its own; it needs no rights on this machine."""
    return ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else []), *command]


@pytest.mark.parametrize("name", NAMES)
def test_on_real_interfaces(name: str) -> None:
    ran = subprocess.run(
        in_namespace(sys.executable, str(BODIES), name),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_bodies_were_found() -> None:
    assert len(NAMES) >= 9
