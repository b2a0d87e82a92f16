"""docs/spec.md: its tables name every action, record and deviation that there is, and none else.

Every rule is a function from the document's text to a list of sentences, one for each breach; each
is also shown a text that breaks it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, product
from pathlib import Path

import pytest
import yaml

from vchan_testbed.bindings.declarations import CDEF
from vchan_testbed.tracer.layout import Kind
from vchan_testbed.validate.channel_table import TABLE, Row, load_channel_table
from vchan_testbed.validate.models import Holds, Violates, load_models
from vchan_testbed.validate.table import DIRECTIONS, SIDES, Rule, load_table
from vchan_testbed.validate.tlc.actions import LIBRARY, SPECS, load_action_map

DOCS = Path(__file__).resolve().parents[2] / "docs" / "spec.md"
TEXT = DOCS.read_text()
MODULES = ("Libxenvchan", "Vchan")
MAPS = {"Libxenvchan": load_action_map(LIBRARY), "Vchan": load_action_map()}
TLA = {module: (SPECS / f"{module}.tla").read_text() for module in MODULES}
MAP_FILES = {"Libxenvchan": LIBRARY, "Vchan": SPECS / "vchan.actions.yaml"}
SEVERAL = {
    name: frozenset(kinds) for name, kinds in yaml.safe_load(TABLE.read_text())["kinds"].items()
}
"""Words that stand for several kinds of records."""
RMW = {"RMW": "CHANGE", "CMPXCHG": "CHANGE", "MOVE": "STORE", "CHANGE": "CHANGE"}
"""What the heads of the modules say in one word, and the document in another one."""


def table(heading: str, text: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by their first cell."""
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[1:]]
    names = [row[0] for row in rows]
    assert len(names) == len(set(names)), f"{heading}: a row stands there twice"
    assert all(row[1:] and all(row) for row in rows), f"{heading}: a cell is empty"
    return {row[0]: row[1:] for row in rows}


def actions_table(module: str, text: str) -> dict[str, list[str]]:
    """Of every action its record and its place in the C code."""
    return table(f"Action, record, C code: {module}", text)


def differences(what: str, there: Iterable[str], due: Iterable[str]) -> list[str]:
    """What is missing and what is too much."""
    there, due = set(there), set(due)
    return [f"{what} lacks {name}" for name in sorted(due - there)] + [
        f"{what} has {name}, which is none" for name in sorted(there - due)
    ]


def words(text: str) -> set[str]:
    """The words in capitals: kinds of records."""
    return set(re.findall(r"\b[A-Z][A-Z_]{2,}\b", text))


def kinds_of(text: str) -> set[str]:
    """The kinds of records that a cell names; a copy shows no step by itself."""
    each = (SEVERAL.get(word, {word}) for word in words(text) - {"COPY"})
    return set().union(*each)


def rules_of(module: str) -> Iterator[tuple[int, Row | Rule]]:
    """Every rule of a table of records, with the kind of record that it speaks of."""
    if module == "Libxenvchan":
        of_library = load_channel_table()
        for (_, kind, _), rows in chain(of_library.rows.items(), of_library.rows_of_calls.items()):
            yield from ((kind, row) for row in rows)
        return
    of_vchan = load_table()
    for way, side in product(DIRECTIONS, SIDES):
        for (_, kind, _), rules in of_vchan.side(way, side).rules.items():
            yield from ((kind, rule) for rule in rules)


def shown_by(module: str) -> dict[str, set[str]]:
    """By action or look the kinds of records that the tables of records make it of."""
    found: dict[str, set[str]] = {}
    for kind, rule in rules_of(module):
        for name in (rule.do, *rule.first.values()):
            found.setdefault(name, set()).add(Kind(kind).name)
    found.pop("", None)
    return found


def head(module: str) -> dict[str, str]:
    """The table in the comment at the head of a module: by action its cell of records."""
    rows: dict[str, str] = {}
    names: list[str] = []
    part = TLA[module].split("----------------+--", 1)[1].split("\n***", 1)[0]
    for line in part.splitlines()[1:]:
        cells = [cell.strip() for cell in line.split("|")]
        if cells[0]:
            names = [name.strip() for name in cells[0].split(",")]
            rows |= dict.fromkeys(names, "")
        for name in names:
            rows[name] += " " + cells[1]
    return rows


def actions_are_all_there(text: str) -> list[str]:
    """The tables of actions against the action maps."""
    return [
        breach
        for module, actions in MAPS.items()
        for breach in differences(
            f"the table of {module}",
            actions_table(module, text),
            (name for name, one in actions.actions.items() if not one.stutters),
        )
    ]


def looks_are_all_there(text: str) -> list[str]:
    """The table of looks against the action maps."""
    looks = (n for each in MAPS.values() for n, one in each.actions.items() if one.stutters)
    return differences("the table of looks", table("Looks that decide nothing", text), looks)


def modules_define_the_actions(text: str) -> list[str]:
    """The tables of actions against what the modules' Next is made of."""
    library = TLA["Libxenvchan"].split("\nLibrary(t) ==", 1)[1].split("\nSpec ==", 1)[0]
    steps = set(re.findall(r"\b([a-z]\w*)\([ts]\)", library))
    labels = set(re.findall(r"^([sr]_\w+):$", TLA["Vchan"], re.MULTILINE))
    return [
        *differences("the table of Libxenvchan", actions_table("Libxenvchan", text), steps),
        *differences("the table of Vchan", actions_table("Vchan", text), labels),
    ]


def kinds_are_those_of_the_programs(text: str) -> list[str]:
    """The records of each action against the tables of records and the action maps."""
    wrong = []
    for module, actions in MAPS.items():
        shown = shown_by(module)
        given = yaml.safe_load(MAP_FILES[module].read_text())["actions"]
        for name, (record, *_) in actions_table(module, text).items():
            if name not in given:
                continue
            if (record == "hidden") != actions.actions[name].hidden:
                wrong.append(f"{module}: {name} is hidden in one of the tables only")
            elif kinds_of(record) != shown.get(name, set()):
                wrong.append(f"{module}: {name} is shown by {sorted(shown.get(name, set()))}")
            elif said(record) != said(given[name]["record"].replace("death", "hidden")):
                wrong.append(f"{module}: {name} is {given[name]['record']} in the action map")
    return wrong


def said(record: str) -> set[str]:
    """The kinds in the words that the modules' heads, the maps and the document share."""
    return {RMW.get(word, word) for word in words(record) - {"COPY"}}


def heads_say_the_same(text: str) -> list[str]:
    """The tables of actions and looks against those at the heads of the modules."""
    wrong = []
    for module in MODULES:
        rows = {name: cells[0] for name, cells in actions_table(module, text).items()}
        looks = table("Looks that decide nothing", text)
        in_head = head(module)
        known = set(rows) | set(looks)
        wrong += differences(f"the head of {module}", known & set(in_head) | set(rows), in_head)
        for name, record in rows.items():
            there = in_head.get(name, "")
            if said(there) != said(record) or ("COPY" in there) != ("COPY" in record):
                wrong.append(f"{module}: {name} is {record}, and in its head:{there}")
    return wrong


def records_are_all_there(text: str) -> list[str]:
    """The table of records against the kinds that there are, and what each shows."""
    rows = table("Record, action", text)
    wrong = differences("the table of records", rows, (kind.name for kind in Kind))
    for column, module in enumerate(MODULES):
        shown = shown_by(module)
        every = MAPS[module].actions.items()
        looks = {name for name, one in every if one.stutters and one.is_access}
        for kind, cells in rows.items():
            told = cells[column]
            due = {name for name, kinds in shown.items() if kind in kinds}
            named = set(re.findall(r"\b\w+\b", told.split("; in ")[0])) & set(MAPS[module].actions)
            named = set() if told.startswith("none: ") else named
            if "else a look" in told:
                named |= looks
            elif not named and not told.startswith("none: "):
                wrong.append(f"{module}: why {kind} shows nothing is not said")
            wrong += differences(f"{module}: {kind}", named, due)
    return wrong


def hidden_steps_are_all_there(text: str) -> list[str]:
    """The table of hidden steps against the action maps."""
    hidden = (n for each in MAPS.values() for n, one in each.actions.items() if one.hidden)
    return differences(
        "the table of hidden steps", table("Steps that no record shows", text), hidden
    )


def functions_are_the_librarys(text: str) -> list[str]:
    """Functions of the library's interface that are named and that it does not have."""
    return [
        f"there is no function {name}"
        for name in sorted(set(re.findall(r"\blibxenvchan_[a-z_]+\b", text)))
        if not re.search(rf"\b{name}\(", CDEF)
    ]


def models_are_in_the_manifest(text: str) -> list[str]:
    """Models that are named anywhere, and what the tables say that TLC finds in them."""
    models = load_models()
    wrong = []
    for heading in (
        "What can go wrong although everybody keeps the protocol",
        "Where libxenvchan departs from what it promises",
    ):
        for row, cells in table(heading, text).items():
            name, breaks = cells[-1].strip("`"), cells[-2].strip("`")
            due = models[name].due if name in models else None
            if due is None:
                wrong.append(f"{row}: there is no model {name}")
            elif isinstance(due, Violates) and breaks != due.property:
                wrong.append(f"{row}: {name} breaks {due.property}")
            elif isinstance(due, Holds) and breaks not in (
                "nothing: it is legal",
                *models[name].invariants,
            ):
                wrong.append(f"{row}: {name} breaks nothing")
    like_a_model = r"`((?:library|safety|liveness|port)_[a-z_]+|l\d(?:_[a-z_]+)?)`"
    named = set(re.findall(like_a_model, text))
    return wrong + [f"there is no model {name}" for name in sorted(named - set(models))]


def deviations_are_all_there(text: str) -> list[str]:
    """The table of deviations, and the stories, against the switches of Libxenvchan."""
    heading = "Where libxenvchan departs from what it promises"
    switches = set(re.findall(r"^  (L\d)  ", TLA["Libxenvchan"], re.MULTILINE))
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    stories = re.findall(r"^- \*\*(L\d)\.\*\*", part, re.MULTILINE)
    return [
        *differences("the table of deviations", table(heading, text), switches),
        *differences("the list of stories", stories, switches),
    ]


RULES = [
    actions_are_all_there,
    looks_are_all_there,
    modules_define_the_actions,
    kinds_are_those_of_the_programs,
    heads_say_the_same,
    records_are_all_there,
    hidden_steps_are_all_there,
    functions_are_the_librarys,
    models_are_in_the_manifest,
    deviations_are_all_there,
]

BROKEN = [
    (actions_are_all_there, r"^\| w_space_again \| LOAD.*\n", ""),
    (actions_are_all_there, r"^\| s_put ", "| s_puts "),
    (looks_are_all_there, r"^\| r_peek_live .*\n", ""),
    (modules_define_the_actions, r"^\| c_raise \| .*\n", ""),
    (modules_define_the_actions, r"^\| r_die \| hidden", "| r_dies | hidden"),
    (kinds_are_those_of_the_programs, r"^\| w_arm \| CHANGE", "| w_arm | STORE"),
    (kinds_are_those_of_the_programs, r"^\| deliver \| hidden", "| deliver | UNMASK"),
    (kinds_are_those_of_the_programs, r"^(\| s_spurious \| NOTIFY), BIND_INTERDOMAIN", r"\1"),
    (heads_say_the_same, r"^\| r_take \| COPY, MOVE", "| r_take | MOVE"),
    (heads_say_the_same, r"^\| k_map \| MAP_PAGE", "| k_map | SHARE_PAGE"),
    (records_are_all_there, r"^\| DETACH .*\n", ""),
    (records_are_all_there, r"^\| MAP_PAGE \| k_map ", "| MAP_PAGE | i_share "),
    (records_are_all_there, r"^\| FAULT \| none: ", "| FAULT | nothing, "),
    (hidden_steps_are_all_there, r"^\| r_final \| libx.*\n", ""),
    (functions_are_the_librarys, "libxenvchan_is_open", "libxenvchan_open"),
    (models_are_in_the_manifest, "`two_waiters` \\|$", "`three_waiters` |"),
    (models_are_in_the_manifest, "`Integrity` \\| `l2`", "`Availability` | `l2`"),
    (models_are_in_the_manifest, "`library_wraps`", "`library_never_wraps`"),
    (deviations_are_all_there, r"^\| L8 .*\n", ""),
    (deviations_are_all_there, r"^- \*\*L4\.\*\*", "- **L1.**"),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_document_keeps(rule: Callable[[str], list[str]]) -> None:
    assert rule(TEXT) == []


@pytest.mark.parametrize(("rule", "pattern", "instead"), BROKEN)
def test_a_breach_is_seen(rule: Callable[[str], list[str]], pattern: str, instead: str) -> None:
    broken, times = re.subn(pattern, instead, TEXT, flags=re.MULTILINE)
    assert times
    assert rule(broken) != []


def test_every_rule_is_shown_a_breach() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_every_kind_shows_something_or_it_is_said_why_not() -> None:
    """The table of records of the library has each kind in one of its two lists."""
    table_of_records = load_channel_table()
    spoken = {Kind(kind) for _, kind, _ in table_of_records.rows}
    silent = set(table_of_records.show_nothing)
    assert spoken | silent == set(Kind)
    assert not spoken & silent
    assert all(table_of_records.show_nothing.values())
