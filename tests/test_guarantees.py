"""The page of guarantees is alive: what it names is there, each row has its test, and each of those asserts something.

Tests are read, not imported: a page must not depend on what they need.
"""

import ast
import builtins
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs
import pytest

import gts_async

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
TEXT = PAGE.read_text("utf-8")

ROWS = {
    "A": "1 2 3 5 6 7 8 9 11 12 13",
    "B": "1 2 3 4 5 7 8 9 10 11 13 15 16",
    "C": "1 2 3 4 6 7 8",
    "D": "1 2 4 5 6 7 8 9 10 11 12 14 15",
    "E": "1 2 3 5 7 9 10 11 12 13 14 16 17",
    "F": "1 2 4 5 6 7 9 10",
    "G": "1 2 3 5 6 7 8 9 10 12 13 14",
    "H": "1 2 3 4 5 6 8 9 10 12",
    "I": "1 2 4 5 6 7 9 10 11 12 13 15 16 17 18 19",
    "J": "1 2 3 4 5 6 7 9 10 11 12 13 15",
    "K": "1 2 3 4 5 6 7 8 10 11 12",
    "L": "1 2 3 4 5 6 7 8",
}
"""The faults that the page must tell of, each in a row of its own, in this order."""

IDS = [f"{group}{number}" for group, numbers in ROWS.items() for number in numbers.split()]

ASSERTING = re.compile(r"raises|warns|fails?|(assert|check)_\w+")
"""What is called to assert something, besides the statement: pytest's, and what our tests call their own."""

LEFT_OUT = re.compile(r"\b(skip|skipif|xfail|importorskip)\b")


@attrs.frozen
class Link:
    """A link to a test: the file, and the function that the link's text is the name of; or to the whole file."""

    path: Path
    function: str | None

    def __str__(self) -> str:
        return f"{self.path.name}::{self.function or ''}"


def links_in(text: str) -> list[Link]:
    found = re.findall(r"\[([^\]]+)\]\((\.\./tests/[^)]*?test_\w+\.py)\)", text)
    paths = [(words, (PAGE.parent / target).resolve()) for words, target in found]
    return [
        Link(path, None if words.strip("`").endswith(path.name) else f"test_{words.replace(' ', '_')}")
        for words, path in paths
    ]


@functools.cache
def functions_of(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    body = ast.parse(path.read_text("utf-8")).body
    return {node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


LINKS = list(dict.fromkeys(links_in(TEXT)))
TESTS = [link for link in LINKS if link.function is not None]


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_what_a_link_names_is_there(link: Link) -> None:
    assert link.path.is_file()
    assert link.function is None or link.function in functions_of(link.path)


Functions = Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]


def asserts(node: ast.AST, beside: Functions = MappingProxyType({})) -> bool:
    """Tell whether it asserts something, itself or by a function that stands beside it in the file."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        called = beside.get(name) if isinstance(node.func, ast.Name) else None
        return ASSERTING.fullmatch(name) is not None or (called is not None and any(map(asserts, ast.walk(called))))
    return isinstance(node, ast.Assert)


@pytest.mark.parametrize("link", TESTS, ids=str)
def test_a_test_that_is_named_asserts_something_and_is_never_left_out(link: Link) -> None:
    assert link.function is not None
    beside = functions_of(link.path)
    function = beside[link.function]
    assert any(asserts(node, beside) for node in ast.walk(function))
    assert LEFT_OUT.search(ast.unparse(function)) is None
    marks = re.findall(r"^pytestmark = .*", link.path.read_text("utf-8"), re.MULTILINE)
    assert not any(map(LEFT_OUT.search, marks))


@pytest.mark.parametrize(
    ("code", "is_asserting"),
    [
        ("assert x", True),
        ("with pytest.raises(OSError): f()", True),
        ("await this.fails(NotSent, work)", True),
        ("assert_untouched(path)", True),
        ("busy.check(4)", False),
        ("f(); g.assertion", False),
    ],
)
def test_what_asserts_nothing_is_noticed(code: str, is_asserting: bool) -> None:
    tree = ast.parse(f"async def f():\n    {code}")
    assert any(map(asserts, ast.walk(tree))) is is_asserting


@pytest.mark.parametrize("does", ["assert x", "return x"])
def test_a_function_of_the_file_asserts_for_its_callers_if_it_does(does: str) -> None:
    check, caller = ast.parse(f"def check(x):\n    {does}\ndef f():\n    check(4)").body
    assert isinstance(check, ast.FunctionDef)
    assert any(asserts(node, {"check": check}) for node in ast.walk(caller)) is does.startswith("assert")


# The tables


def tables() -> list[tuple[list[str], list[list[str]]]]:
    """Give the heads and the rows of all tables."""
    blocks = re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE)
    found = []
    for block in blocks:
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines())
        found.append((head, rows))
    return found


FAULTS = [row for head, rows in tables() if head[0] == "id" for row in rows]


def test_every_fault_has_one_row_and_they_stand_in_order() -> None:
    assert [row[0] for row in FAULTS] == IDS


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row[0])
def test_a_row_tells_what_happens_and_which_tests_hold_it(row: list[str]) -> None:
    _, fault, happens, tests = row
    assert fault
    assert happens
    held_by = links_in(tests)
    assert held_by
    assert all(link.function is not None for link in held_by)
    assert len(tests.split("), ")) == len(held_by)


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row[0])
def test_a_fault_is_known_by_its_id_to_the_tests_of_faults_that_a_row_names(row: list[str]) -> None:
    files = {link.path for link in links_in(row[3]) if link.path.parent.name == "faults"}
    # In a parameter's id, in the test's name, or above the tests.
    said = re.compile(rf"(?<![A-Za-z0-9]){row[0]}(?![0-9])", re.IGNORECASE)
    assert not files or any(said.search(path.read_text("utf-8").replace("_", " ")) for path in files)


@pytest.mark.parametrize("table", [table for table in tables() if table[0][-1] in ("held by", "in small")])
def test_no_promise_is_without_a_test(table: tuple[list[str], list[list[str]]]) -> None:
    head, rows = table
    assert rows
    assert [row[0] for row in rows if len(row) != len(head) or not links_in(row[-1])] == []


def test_no_fault_that_the_tests_know_is_without_a_row() -> None:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "faults").glob("test_*.py"))
    known = set(re.findall(rf"[\"']([{''.join(ROWS)}][0-9]+)[ \"']", text))
    assert known > {"A1", "E17", "K8"}
    assert known - set(IDS) == set()


def test_every_file_of_the_tests_of_faults_is_listed() -> None:
    (rows,) = [rows for head, rows in tables() if head[0] == "file"]
    listed = [link.path.name for row in rows for link in links_in(row[0])]
    assert listed == sorted(path.name for path in (ROOT / "tests" / "faults").glob("test_*.py"))


# Names

KNOWN = {"ChaosServer", "Connection", "Location", "Retry"}
"""What is written in the same way: a name of ``gts_async.testing``, and words of HTTP."""


def test_classes_and_their_attributes_are_named_as_they_are() -> None:
    named = set(re.findall(r"`([A-Z][a-z]\w+)(?:\.(\w+))?", TEXT))
    assert ("NotSent", "") in named
    assert ("Timeouts", "connect") in named
    unknown = []
    for name, attribute in sorted(named):
        kind = getattr(gts_async, name, None) or getattr(builtins, name, None)
        fields = {field.name for field in attrs.fields(kind)} if kind is not None and attrs.has(kind) else set()
        if name not in KNOWN and (
            kind is None or (attribute and not (attribute in fields or hasattr(kind, attribute)))
        ):
            unknown.append(f"{name}.{attribute}".rstrip("."))
    assert unknown == []


def test_links_within_the_page_lead_to_its_headings() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    wanted = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert wanted
    assert wanted <= anchors


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "docs/design.md", "docs/contributing.md"])
def test_the_page_is_found_from_the_others(page: str) -> None:
    assert "guarantees.md)" in (ROOT / page).read_text("utf-8")
