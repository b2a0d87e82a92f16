"""The matrix as a table: HTML for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

FAULTS = ("delay", "drop", "repeat", "stale", "corrupt", "kill")
TEMPLATE = Path(__file__).with_name("table.html.j2")


def write_table(
    folder: Path,
    rows: Mapping[str, Mapping[str, Any]],
    words: Mapping[str, str],
    wrong: Mapping[str, Sequence[str]],
) -> None:
    """matrix.html and matrix.json. `wrong`: what is not as it has to be, for each cell."""
    data = [{**row, "called": words[name], "wrong": wrong[name]} for name, row in rows.items()]
    (folder / "matrix.json").write_text(json.dumps(data, indent=1) + "\n")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    actions = dict.fromkeys(tuple(name.split(" ")[:2]) for name in rows)
    text = environment.from_string(TEMPLATE.read_text()).render(
        counts=dict(sorted(Counter(words.values()).items())),
        wrong=sum(map(bool, wrong.values())),
        faults=FAULTS,
        actions=list(actions),
        rows={name: _shown(row, words[name], wrong[name]) for name, row in rows.items()},
    )
    (folder / "matrix.html").write_text(text)


def _shown(row: Mapping[str, Any], word: str, wrong: Sequence[str]) -> dict[str, Any]:
    told = [
        f"{row['workload']}; time {row['nth']}; {row['outcome']}",
        *([f"by calls: {row['by_calls']}. {row['why_by_calls']}"] if row["why_by_calls"] else []),
        *(["differs: " + ", ".join(row["differs"])] if row["differs"] else []),
        *([row["reason"]] if row["reason"] else []),
        *wrong,
    ]
    verdict = f"{row['conformance']}, {row['progress']}"
    return {
        "word": word,
        "wrong": bool(wrong),
        "verdict": verdict,
        "by_calls": row["by_calls"] if row["why_by_calls"] else "",
        "title": "\n".join(told),
    }
