"""docs/experiments.md: its example is accepted, and it names every field of the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vchan_testbed.guests.experiment import parse_experiment

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "experiments.md").read_text()


def test_the_example_is_accepted() -> None:
    found = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert found
    assert parse_experiment(found[1], "docs").name == "ping"


def test_every_field_is_named() -> None:
    schema = yaml.safe_load((REPOSITORY / "guests" / "experiment.schema.yaml").read_text())
    names = set(fields(schema))
    assert len(names) > 30
    missing = {name for name in names if not re.search(rf"\b{name}\b", TEXT)}
    assert missing == set()


def fields(schema: Any) -> Iterator[str]:
    """Every property name in the schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for below in schema.values():
            yield from fields(below)
    if isinstance(schema, list):
        for below in schema:
            yield from fields(below)
