"""junit.xml: what a nightly job reads.

One test suite a run, three cases: `conformance` and `progress` are passed when that word is the
one that the experiment expects, `expected` when the whole verdict is (with its known deviations and
whose fault it is). A word that is another one is a *failure*. UNDECIDED and INCONCLUSIVE where an
answer was expected are an *error* of type "open", and a test bed that failed is an *error* of type
"testbed" in every case: most readers count a skipped case as fine, and a run without an answer is
not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

from vchan_testbed.validate import explain
from vchan_testbed.validate.verdict import Verdict

CASES = ("conformance", "progress", "expected")
_OPEN = ("UNDECIDED", "INCONCLUSIVE")
# XML 1.0 cannot hold these characters at all, not even escaped; a guest's console can.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case, and what is wrong with it: nothing if `outcome` is empty."""

    name: str
    outcome: Literal["", "failure", "error"] = ""
    type: str = ""
    message: str = ""
    text: str = ""


def junit_of(verdict: Verdict, facts: Mapping[str, Any]) -> str:
    """The file of a run that was judged; `facts` is what run.json holds."""
    want = verdict.expectation
    lines = "\n".join(explain.explain(verdict))
    cases = [
        _case("conformance", verdict.conformance, want.conformance, verdict.reason, lines),
        _case("progress", verdict.progress, want.progress, verdict.progress_reason, lines),
    ]
    if verdict.expected:
        cases.append(Case("expected"))
    else:
        is_open = int(verdict.exit_status) == 3
        outcome: Literal["failure", "error"] = "error" if is_open else "failure"
        kind = "open" if is_open else "unexpected"
        cases.append(Case("expected", outcome, kind, explain.explain(verdict)[0], lines))
    return _file(facts, cases, _properties(verdict, facts), verdict.seconds, lines)


def junit_of_failure(message: str, facts: Mapping[str, Any]) -> str:
    """The file of a run without a verdict: the test bed failed."""
    cases = [Case(name, "error", "testbed", message, message) for name in CASES]
    return _file(facts, cases, _properties(None, facts), 0.0, message)


def _case(name: str, word: str, want: str, reason: str, lines: str) -> Case:
    if word == want:
        return Case(name)
    message = f"{word}, expected was {want}" + (f": {reason}" if reason else "")
    if word in _OPEN:
        return Case(name, "error", "open", message, lines)
    return Case(name, "failure", word, message, lines)


def _properties(verdict: Verdict | None, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = dict(_flat("host", facts.get("host") or {}))
    found |= _flat("version", facts.get("versions") or {})
    found |= {key: facts.get(key) for key in ("run_id", "seed", "domain_type", "outcome")}
    if verdict is not None:
        found |= {
            "known": ", ".join(use.id for use in verdict.known),
            "judge": verdict.judge,
            "spec": verdict.spec,
            "spec.sha256": verdict.spec_hash,
            "records": verdict.records,
            "no_xen": str(verdict.no_xen).lower(),
        }
    return [(key, str(value)) for key, value in found.items() if value not in (None, "")]


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value


def _file(
    facts: Mapping[str, Any],
    cases: Iterable[Case],
    properties: Iterable[tuple[str, str]],
    seconds: float,
    output: str,
) -> str:
    cases = list(cases)
    name = str((facts.get("experiment") or {}).get("name") or "run")
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": str(sum(case.outcome == "error" for case in cases)),
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "vchan-testbed", **counts})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _clean(name),
            "hostname": _clean(str((facts.get("host") or {}).get("kind") or "unknown")),
            # The schema wants ISO 8601 without a zone.
            "timestamp": _clean(str(facts.get("started") or "1970-01-01T00:00:00")[:19]),
            **counts,
        },
    )
    holder = ElementTree.SubElement(suite, "properties")
    for key, value in properties:
        ElementTree.SubElement(holder, "property", {"name": _clean(key), "value": _clean(value)})
    for case in cases:
        attributes = {"name": case.name, "classname": f"vchan-testbed.{_clean(name)}"}
        element = ElementTree.SubElement(suite, "testcase", {**attributes, "time": counts["time"]})
        if case.outcome:
            wrong = {"message": _clean(case.message), "type": case.type}
            ElementTree.SubElement(element, case.outcome, wrong).text = _clean(case.text)
    ElementTree.SubElement(suite, "system-out").text = _clean(output)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
