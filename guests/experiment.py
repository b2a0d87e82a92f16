"""Experiments: YAML in, frozen dataclasses out.

Errors say file and line, what stands there and what was expected.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from vchan_testbed.errors import InputError
from vchan_testbed.guests.experiment_checks import refuse_what_cannot_end
from vchan_testbed.guests.experiment_file import Source, build, check_schema
from vchan_testbed.guests.experiment_model import (
    ENDPOINTS,
    ChannelConfig,
    DomainConfig,
    Expect,
    Experiment,
    Fault,
    Operation,
    Timeouts,
    ring_bytes,
)

__all__ = [
    "ENDPOINTS",
    "ChannelConfig",
    "DomainConfig",
    "Expect",
    "Experiment",
    "Fault",
    "Operation",
    "Timeouts",
    "default_path",
    "load_experiment",
    "parse_experiment",
    "ring_bytes",
]


def default_path() -> Path:
    """The default experiment."""
    return Path(str(resources.files("vchan_testbed.guests"))).resolve().parent / (
        "experiments/default.yaml"
    )


def load_experiment(path: Path | None = None) -> Experiment:
    """Read and check an experiment file; None is the default one. Raises InputError."""
    path = path or default_path()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path} cannot be read: {why}", next_step="Name an experiment file (YAML)."
        ) from error
    return parse_experiment(text, str(path))


def parse_experiment(text: str, name: str) -> Experiment:
    """The same from a text; `name` stands for the file in errors."""
    source = Source(text, name)
    check_schema(source)
    experiment = build(source.data)
    refuse_what_cannot_end(source, experiment)
    return experiment
