"""junit.xml as its readers take it: its shape, and which outcome means what."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vchan_testbed.validate.report import write_failure
from vchan_testbed.validate.report.junit import junit_of
from vchan_testbed.validate.verdict import Expectation, KnownUse, Verdict

FACTS: dict[str, Any] = {
    "run_id": "00ff",
    "seed": 7,
    "experiment": {"name": "close races with write"},
    "host": {"kind": "qemu", "xen_version": "4.17.5", "accelerator": None},
    "versions": {"vchan_testbed": "0.1.0", "server": {"kernel": "6.1"}},
    "started": "2026-01-02T03:04:05+0000",
}
GOOD = Verdict("ACCEPTED", "PROGRESS", host={"kind": "qemu", "xen_version": "4.17.5"}, seconds=2.5)

# What the widely used schema asks for: elements below each, in this order, and their attributes.
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],
    "properties": ["property"],
    "testcase": ["skipped", "error", "failure", "system-out", "system-err"],
}
REQUIRED = {
    "testsuite": {"name", "timestamp", "hostname", "tests", "failures", "errors", "time"},
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type"},
    "error": {"type"},
}


def parsed(text: str) -> ElementTree.Element:
    """The file's tree, checked against the schema's rules above."""
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        allowed = CHILDREN.get(element.tag, [])
        places = [allowed.index(child.tag) for child in element]
        assert places == sorted(places)
        assert REQUIRED.get(element.tag, set()) <= set(element.attrib)
    (suite,) = root
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases))
    assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
    assert suite.get("errors") == str(len(suite.findall("testcase/error")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp") or "")
    assert float(suite.get("time") or "") >= 0
    return root


def outcomes(text: str) -> dict[str, tuple[str, str]]:
    """Of each case its outcome and that one's type."""
    found = {}
    for case in parsed(text).iter("testcase"):
        wrong = [(each.tag, each.get("type") or "") for each in case]
        found[case.get("name") or ""] = wrong[0] if wrong else ("", "")
    return found


PASSED = ("", "")
OPEN = ("error", "open")


@pytest.mark.parametrize(
    ("changes", "conformance", "progress", "expected"),
    [
        ({}, PASSED, PASSED, PASSED),
        (
            {"conformance": "REJECTED", "progress": "INCONCLUSIVE"},
            ("failure", "REJECTED"),
            OPEN,
            ("failure", "unexpected"),
        ),
        ({"conformance": "UNDECIDED"}, OPEN, PASSED, OPEN),
        ({"progress": "INCONCLUSIVE"}, PASSED, OPEN, OPEN),
        ({"progress": "STALLED"}, PASSED, ("failure", "STALLED"), ("failure", "unexpected")),
        (
            {"progress": "VIOLATION", "expectation": Expectation("ACCEPTED", "VIOLATION")},
            PASSED,
            PASSED,
            PASSED,
        ),
        (
            {
                "progress": "VIOLATION",
                "fault_of": "library",
                "expectation": Expectation("ACCEPTED", "VIOLATION", fault_of="event channel"),
            },
            PASSED,
            PASSED,
            ("failure", "unexpected"),
        ),
        (
            {
                "conformance": "KNOWN",
                "known": (KnownUse("L1", ()),),
                "expectation": Expectation("KNOWN", "PROGRESS", ("L1",)),
            },
            PASSED,
            PASSED,
            PASSED,
        ),
        (
            {"conformance": "UNDECIDED", "expectation": Expectation("UNDECIDED", "PROGRESS")},
            PASSED,
            PASSED,
            PASSED,
        ),
        (
            {"expectation": Expectation("REJECTED", "PROGRESS")},
            ("failure", "ACCEPTED"),
            PASSED,
            ("failure", "unexpected"),
        ),
    ],
)
def test_each_case_is_held_against_what_is_expected(
    changes: dict[str, Any],
    conformance: tuple[str, str],
    progress: tuple[str, str],
    expected: tuple[str, str],
) -> None:
    found = outcomes(junit_of(replace(GOOD, **changes), FACTS))
    assert found == {"conformance": conformance, "progress": progress, "expected": expected}


def test_all_cases_pass_exactly_when_the_exit_status_is_0() -> None:
    for conformance in ("ACCEPTED", "KNOWN", "UNDECIDED", "REJECTED"):
        for progress in ("PROGRESS", "INCONCLUSIVE", "STALLED", "VIOLATION"):
            verdict = replace(GOOD, conformance=conformance, progress=progress)
            found = outcomes(junit_of(verdict, FACTS))
            assert (set(found.values()) == {PASSED}) == (verdict.exit_status == 0)
            assert (found["expected"] == OPEN) == (verdict.exit_status == 3)


def test_the_versions_are_properties() -> None:
    root = parsed(junit_of(replace(GOOD, spec_hash="ab"), FACTS))
    properties = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert properties["host.xen_version"] == "4.17.5"
    assert properties["version.server.kernel"] == "6.1"
    assert properties["version.vchan_testbed"] == "0.1.0"
    assert properties["spec.sha256"] == "ab"
    assert properties["seed"] == "7"
    assert "host.accelerator" not in properties


def test_a_test_bed_that_failed_is_an_error_in_every_case(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(FACTS))
    write_failure(tmp_path, "QEMU did not boot")
    text = (tmp_path / "junit.xml").read_text()
    assert set(outcomes(text).values()) == {("error", "testbed")}
    assert "QEMU did not boot" in text


def test_what_xml_cannot_hold_is_replaced() -> None:
    facts = {**FACTS, "experiment": {"name": "a\x00\x1b[31m<b>&\udcff"}}
    verdict = replace(GOOD, conformance="REJECTED", reason="\x07]]>\ufffe")
    (suite,) = parsed(junit_of(verdict, facts))
    assert suite.get("name") == "a\ufffd\ufffd[31m<b>&\ufffd"


def test_a_run_without_facts_has_a_file() -> None:
    assert set(outcomes(junit_of(GOOD, {})).values()) == {PASSED}
