"""What is said about training files, file by file and across them."""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gts_async._errors import InvalidData, Problem
from gts_async.gts.datafiles import MAX_LINE, MAX_PROBLEMS, FileKind, FileReport, check_lines, compare
from gts_async.gts.rows import invalid_data
from gts_async.gts.values import EngineType, TaskType

RECORDS = Path(__file__).parent.parent / "samples" / "gts"
BAGUALU, QIANKUNDING = EngineType.BAGUALU, EngineType.QIANKUNDING
CLASSIFICATION, SIMILARITY, NLI = TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI
IE, SUMMARY = TaskType.IE, TaskType.SUMMARY

NEWS = {"content": "县城中学足球队昨天夺冠了", "label": "体育", "id": 1}
PAIR = {"id": 0, "sentence1": "河边新修了一条小路", "sentence2": "河边只有这条小路了", "label": "neutral"}
ALIKE = {**PAIR, "label": "1"}
LONG = {"text": "这篇文章分六步讲怎样做一碗好吃的面", "summary": "六步做面"}
PERSON = {"entity_text": "李开复", "entity_type": "人名", "entity_index": [2, 5]}
NAMES = {"task": "实体识别", "text": "感动李开复", "entity_list": [PERSON], "choice": ["人名", "地点"]}
KING = {"entity_text": "英王", "entity_type": "人物", "entity_index": [1, 3]}
TITLE = {"entity_text": "女王", "entity_type": "称号", "entity_index": [3, 5]}
FACT = {"predicate": "头衔", "subject": KING, "object": TITLE}
FACTS = {"task": "关系抽取", "text": "。英王女王", "spo_list": [FACT], "choice": [["人物", "头衔", "称号"]]}


def lines(*rows: object) -> list[bytes]:
    return [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]


def check(kind: TaskType, engine: EngineType, content: Iterable[bytes], **options: Any) -> FileReport:
    return check_lines("f.json", content, kind, engine, **options)


def told(report: FileReport) -> list[tuple[int, str, str]]:
    return [(problem.line, problem.field, problem.why) for problem in report.problems]


GOOD: list[tuple[TaskType, EngineType, dict[str, Any]]] = [
    (CLASSIFICATION, QIANKUNDING, NEWS),
    (CLASSIFICATION, QIANKUNDING, {"content": "", "label": "体育"}),
    (CLASSIFICATION, BAGUALU, NEWS),
    (CLASSIFICATION, BAGUALU, {**NEWS, "id": "5", "other": None}),
    (SIMILARITY, QIANKUNDING, ALIKE),
    (SIMILARITY, QIANKUNDING, {**ALIKE, "id": None}),
    (NLI, QIANKUNDING, PAIR),
    (IE, BAGUALU, NAMES),
    (IE, BAGUALU, {**NAMES, "entity_list": [], "spo_list": []}),
    (IE, BAGUALU, FACTS),
    (IE, BAGUALU, {**FACTS, "entity_list": [KING]}),
    (SUMMARY, BAGUALU, LONG),
    (SUMMARY, BAGUALU, {"text": "", "summary": ""}),
]


@pytest.mark.parametrize(("kind", "engine", "row"), GOOD)
def test_a_good_file_has_no_problems(kind: TaskType, engine: EngineType, row: dict[str, Any]) -> None:
    report = check(kind, engine, lines(row))
    assert (report.kind, report.rows, report.problems) == (FileKind.LABELLED, 1, ())


def without(row: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in fields}


def entity(**changes: object) -> dict[str, Any]:
    return {**NAMES, "entity_list": [{**PERSON, **changes}]}


def fact(**changes: object) -> dict[str, Any]:
    return {**FACTS, "spo_list": [{**FACT, **changes}]}


BAD: list[tuple[TaskType, EngineType, dict[str, Any], list[tuple[str, str]]]] = [
    (CLASSIFICATION, QIANKUNDING, without(NEWS, "content"), [("content", "is missing")]),
    (CLASSIFICATION, BAGUALU, {**NEWS, "content": None}, [("content", "is null, must be a string")]),
    (CLASSIFICATION, QIANKUNDING, {**NEWS, "content": 5}, [("content", "is a number, must be a string")]),
    (CLASSIFICATION, QIANKUNDING, {**NEWS, "label": 5}, [("label", "is a number, must be a string")]),
    (CLASSIFICATION, BAGUALU, {**NEWS, "label": ["a"]}, [("label", "is an array, must be a string")]),
    (CLASSIFICATION, QIANKUNDING, {**NEWS, "label": True}, [("label", "is true, must be a string")]),
    (
        CLASSIFICATION,
        BAGUALU,
        without(NEWS, "id"),
        [("id", "is missing; bagualu needs a whole number in every row")],
    ),
    (
        CLASSIFICATION,
        BAGUALU,
        {**NEWS, "id": "a1"},
        [("id", "is a string; bagualu needs a whole number in every row")],
    ),
    (SIMILARITY, QIANKUNDING, without(ALIKE, "id"), [("id", "is missing")]),
    (SIMILARITY, QIANKUNDING, {**ALIKE, "label": 1}, [("label", 'is 1, must be one of the strings "0", "1"')]),
    (SIMILARITY, QIANKUNDING, without(ALIKE, "sentence2"), [("sentence2", "is missing")]),
    (
        NLI,
        QIANKUNDING,
        {**PAIR, "label": "yes"},
        [("label", 'is \'yes\', must be one of the strings "entailment", "contradiction", "neutral"')],
    ),
    (NLI, QIANKUNDING, {**PAIR, "sentence1": []}, [("sentence1", "is an array, must be a string")]),
    (SUMMARY, BAGUALU, {**LONG, "summary": 5}, [("summary", "is a number, must be a string")]),
    (SUMMARY, BAGUALU, {**LONG, "text": None}, [("text", "is null, must be a string")]),
    (IE, BAGUALU, {**NAMES, "task": "xx"}, [("task", "is 'xx', must be 实体识别 or 关系抽取")]),
    (IE, BAGUALU, {**NAMES, "text": "", "entity_list": []}, [("text", "is empty, which the engine refuses")]),
    (IE, BAGUALU, {**NAMES, "choice": []}, [("choice", "is [], must be a list of at least one type")]),
    (IE, BAGUALU, {**NAMES, "entity_list": {}}, [("entity_list", "is an object, must be an array")]),
    (IE, BAGUALU, {**NAMES, "entity_list": [5]}, [("entity_list[0]", "is a number, must be an object")]),
    (IE, BAGUALU, {**NAMES, "spo_list": None}, [("spo_list", "is null, which ends the training")]),
    (
        IE,
        BAGUALU,
        entity(entity_index=[0, 3], entity_text="感动李"),
        [
            (
                "entity_list[0].entity_index",
                "begins at 0; the engine's check wants more than 0 and refuses an entity at the start of the text",
            )
        ],
    ),
    (
        IE,
        BAGUALU,
        entity(entity_index=[1, 4]),
        [("entity_list[0].entity_index", "text[1:4] is '动李开', not its entity_text")],
    ),
    (IE, BAGUALU, entity(entity_index=[2]), [("entity_list[0].entity_index", "is [2], must be [start, end]")]),
    (
        IE,
        BAGUALU,
        entity(entity_index=[2.0, 5]),
        [("entity_list[0].entity_index", "is [2.0, 5], must be [start, end]")],
    ),
    (
        IE,
        BAGUALU,
        entity(entity_index=[-3, -1]),
        [("entity_list[0].entity_index", "is [-3, -1], must be start < end, counted in characters from 1 up")],
    ),
    (IE, BAGUALU, entity(entity_type="机构"), [("entity_list[0].entity_type", "'机构' is not in choice")]),
    (IE, BAGUALU, entity(entity_type=None), [("entity_list[0].entity_type", "is null, must be a string")]),
    (IE, BAGUALU, fact(predicate="父亲"), [("spo_list[0].predicate", "['人物', '父亲', '称号'] is not in choice")]),
    (
        IE,
        BAGUALU,
        fact(subject=TITLE, object=KING),
        [("spo_list[0].predicate", "['称号', '头衔', '人物'] is not in choice")],
    ),
    (IE, BAGUALU, fact(object="女王"), [("spo_list[0].object", "is a string, must be an object")]),
    (
        IE,
        BAGUALU,
        fact(subject={**KING, "entity_index": [1, 2]}),
        [("spo_list[0].subject.entity_index", "text[1:2] is '英', not its entity_text")],
    ),
    (
        IE,
        BAGUALU,
        {**FACTS, "choice": ["人物"]},
        [
            ("choice[0]", "is '人物', must be [subject type, relation, object type]"),
            ("spo_list[0].object.entity_type", "'称号' is not in choice"),
        ],
    ),
]


@pytest.mark.parametrize(("kind", "engine", "row", "faults"), BAD)
def test_a_bad_row_is_told_with_its_line_and_field(
    kind: TaskType, engine: EngineType, row: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    good = next(good for task, of, good in GOOD if (task, of) == (kind, engine))
    report = check(kind, engine, lines(without(good, "id") | {"id": 99}, row))
    assert told(report) == [(2, field, why) for field, why in faults]
    assert all(problem.file == "f.json" and not problem.is_warning for problem in report.problems)


MISSING = [
    (CLASSIFICATION, BAGUALU, NEWS, "label"),
    (CLASSIFICATION, QIANKUNDING, NEWS, "label"),
    (SIMILARITY, QIANKUNDING, ALIKE, "label"),
    (NLI, QIANKUNDING, PAIR, "label"),
    (SUMMARY, BAGUALU, LONG, "summary"),
    (IE, BAGUALU, NAMES, "entity_list"),
    (IE, BAGUALU, FACTS, "spo_list"),
]


@pytest.mark.parametrize(("kind", "engine", "row", "field"), MISSING)
def test_where_some_rows_have_a_label_each_missing_one_is_an_error(
    kind: TaskType, engine: EngineType, row: dict[str, Any], field: str
) -> None:
    report = check(kind, engine, lines(without(row, field), row | {"id": 98}, row | {field: None, "id": 99}))
    assert told(report) == [(1, field, "is missing"), (3, field, "is missing")]
    assert report.kind is FileKind.LABELLED


@pytest.mark.parametrize(("kind", "engine", "row", "field"), MISSING[:1] + MISSING[2:])
def test_where_no_row_has_a_label_and_none_may_lack_it_one_error_says_so(
    kind: TaskType, engine: EngineType, row: dict[str, Any], field: str
) -> None:
    bare = without(row, field)
    report = check(kind, engine, lines(bare, {**bare, "id": 2}))
    why = f"no row has it; {kind} needs it in training, validation and test rows alike"
    assert told(report) == [(0, field, why)]
    assert (report.kind, report.problems[0].is_warning) == (FileKind.UNLABELLED, False)


@pytest.mark.parametrize(("kind", "engine"), [(CLASSIFICATION, QIANKUNDING), (SUMMARY, BAGUALU)])
def test_unlabelled_rows_are_good_for_the_advanced_mode_only(kind: TaskType, engine: EngineType) -> None:
    report = check(kind, engine, lines({"content": "a"}, {"content": "b", "label": None}))
    why = "no row has a label: it can only be unlabeled_data, in train_mode='advanced'"
    assert told(report) == [(0, "", why)]
    assert (report.kind, report.problems[0].is_warning) == (FileKind.UNLABELLED, True)


def test_unlabelled_rows_need_their_content_all_the_same() -> None:
    report = check(CLASSIFICATION, QIANKUNDING, lines({"content": "a"}, {"text": "b"}))
    assert [(line, field) for line, field, _ in told(report)] == [(0, "label"), (2, "content")]


def raw(text: str, encoding: str = "utf-8") -> list[bytes]:
    return text.encode(encoding).splitlines(keepends=True)


ROW = '{"content":"体育","label":"x","id":1}'
OTHER = '{"content":"军事","label":"x","id":2}'

BROKEN: list[tuple[str, list[bytes], list[tuple[int, str]]]] = [
    ("nothing", [], [(0, "holds no row")]),
    ("one newline", [b"\n"], [(1, "is blank")]),
    ("blank at the end", raw(f"{ROW}\n\n"), [(2, "is blank")]),
    ("blank in the middle", raw(f"{ROW}\n \t\n{OTHER}"), [(2, "is blank")]),
    ("many blanks", raw(f"{ROW}\n\n\n\n"), [(2, "is blank; the engine's check refuses the file (3 such lines)")]),
    ("byte order mark", raw(f"\ufeff{ROW}\n"), [(1, "begins with a byte order mark")]),
    ("GBK", raw(f"{ROW}\n{OTHER}\n", "gbk"), [(1, "is not UTF-8 but reads as GBK")]),
    ("no encoding at all", [b'{"content":"\xff"}\n'], [(1, "is not UTF-8; the engine answers")]),
    (
        "UTF-16 with mark",
        raw(f"{ROW}\n{OTHER}\n", "utf-16"),
        [(1, "is UTF-16; the engine answers the train call with 500")],
    ),
    (
        "UTF-16 without mark",
        raw(f"{ROW}\n{OTHER}\n", "utf-16-le"),
        [(1, "is UTF-16; the engine answers the train call with 500")],
    ),
    ("an array on one line", raw(f"[{ROW},{OTHER}]"), [(1, "begins an array")]),
    ("an array on many lines", raw(f"[\n{ROW},\n{OTHER}\n]\n"), [(1, "begins an array")]),
    ("pretty-printed", raw('{\n  "content": "a"\n}\n'), [(1, "begins an array, or an object of several lines")]),
    ("pretty-printed after a mark", raw('\ufeff{\n"content": "a"\n}\n'), [(1, "begins with"), (1, "begins an array")]),
    ("a number", raw(f"{ROW}\n5\n"), [(2, "is a number, must be an object")]),
    ("null", raw(f"{ROW}\nnull\n"), [(2, "is null, must be an object")]),
    ("a string", raw(f'{ROW}\n"content label"\n'), [(2, "is a string, must be an object")]),
    ("no JSON", raw(f"{ROW}\n{{nope\n"), [(2, "is not JSON (Expecting property name")]),
    ("two rows on a line", raw(f"{ROW}{OTHER}\n"), [(1, "is not JSON (Extra data")]),
    ("half a pair", raw(ROW.replace("体育", "\\ud83d")), [(1, "holds half of a surrogate pair")]),
    ("nested without end", raw(f"{ROW}\n" + "[" * 100_000), [(2, "is not JSON")]),
    ("a number without end", raw('{"content":"a","label":"x","id":' + "1" * 5000 + "}"), [(1, "is not JSON")]),
    ("lone CR, blank", raw(f"{ROW}\r\r\n"), [(2, "is blank")]),
]


@pytest.mark.parametrize(("content", "problems"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_file_that_the_engine_cannot_read_tells_where(content: list[bytes], problems: list[tuple[int, str]]) -> None:
    report = check(CLASSIFICATION, BAGUALU, content)
    found = [(problem.line, problem.why) for problem in report.problems if not problem.is_warning]
    assert [line for line, _ in found] == [line for line, _ in problems]
    for (_, why), (_, words) in zip(found, problems, strict=True):
        assert why.startswith(words)


FINE = {
    "no newline at the end": f"{ROW}\n{OTHER}".encode(),
    "CRLF": f"{ROW}\r\n{OTHER}\r\n".encode(),
    "CR alone, as the engine's text mode takes it": f"{ROW}\r{OTHER}\r".encode(),
    "NaN, which Python's JSON knows": f'{ROW[:-1]},"x":NaN}}\n{OTHER}\n'.encode(),
    "numbers out of range": f'{ROW[:-1]},"x":1e999}}\n{OTHER}\n'.encode(),
    "separators of Unicode inside": (ROW.replace("体育", "a\u2028b\x85c") + "\n" + OTHER).encode(),
}


@pytest.mark.parametrize("content", FINE.values(), ids=FINE)
def test_a_file_that_the_engine_can_read_is_fine(content: bytes) -> None:
    report = check(CLASSIFICATION, BAGUALU, pieces(content))
    assert (told(report), report.rows) == ([], 2)


def pieces(content: bytes) -> Iterable[bytes]:
    """Give lines as a binary file does: they end at newlines only."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start) + 1 or len(content)
        yield content[start:end]
        start = end


def test_lines_may_come_without_their_endings() -> None:
    assert check(CLASSIFICATION, BAGUALU, [ROW.encode(), OTHER.encode()]).rows == 2


def test_a_line_without_end_is_not_read() -> None:
    piece = b"x" * (MAX_LINE + 1)
    report = check(CLASSIFICATION, BAGUALU, [ROW.encode() + b"\n", piece, piece, b"x\n", OTHER.encode(), b"{\n"])
    assert [(line, why[:22]) for line, _, why in told(report)] == [
        (2, "is longer than 16 MiB"),
        (4, "is not JSON (Expecting"),
    ]
    assert report.rows == 2


def test_errors_beyond_the_limit_are_counted() -> None:
    rows = [{"content": f"{n}", "label": "x", "id": n} if n % 2 else {"id": n} for n in range(40)]
    report = check(CLASSIFICATION, BAGUALU, lines(*rows), max_problems=5)
    assert [(problem.line, problem.field) for problem in report.problems[:5]] == [
        (1, "content"),
        (1, "label"),
        (3, "content"),
        (3, "label"),
        (5, "content"),
    ]
    assert told(report)[5:] == [(0, "", "35 more errors")]
    assert not report.problems[-1].is_warning


def test_doubled_ids_and_number_labels_are_one_warning_each() -> None:
    rows = [{"content": f"{n}", "label": n % 3, "id": n // 2} for n in range(10)]
    report = check(CLASSIFICATION, BAGUALU, lines(*rows))
    assert told(report) == [
        (1, "label", "is a number; bagualu reads and predicts it as a string (10 such lines)"),
        (2, "id", "has come before in this file (5 such lines)"),
    ]
    assert all(problem.is_warning for problem in report.problems)
    assert report.labels == {"0": 1, "1": 2, "2": 3}


def labels(*names: object, **others: object) -> list[bytes]:
    return lines({"labels": list(names), **others})


@pytest.mark.parametrize("engine", EngineType)
def test_a_labels_file_is_known_by_its_one_object(engine: EngineType) -> None:
    report = check(CLASSIFICATION, engine, labels("体育", "军事"))
    assert (report.kind, report.labels, report.problems) == (FileKind.LABELS, {"体育": 1, "军事": 1}, ())


BAD_LABELS = [
    (QIANKUNDING, labels(), [(1, "labels", "is [], must be an array of at least one string")]),
    (QIANKUNDING, lines({"labels": None}), [(1, "labels", "is null, must be an array of at least one string")]),
    (QIANKUNDING, lines({"labels": {"a": 0}}), [(1, "labels", "is {'a': 0}, must be an array of at least one string")]),
    (QIANKUNDING, labels("a", 1), [(1, "labels[1]", "is 1, must be a string")]),
    (BAGUALU, labels("a", None), [(1, "labels[1]", "is null, must be a string")]),
    (BAGUALU, labels("a", "b", "a"), [(1, "labels[2]", "'a' is there twice")]),
    (BAGUALU, labels("a", name="news"), [(1, "name", "is no list of strings, which ends the training")]),
    (
        QIANKUNDING,
        [*labels("a"), *labels("b"), *labels("c")],
        [(2, "", "comes after the labels; the engine reads the whole file as one object (2 such lines)")],
    ),
]


@pytest.mark.parametrize(("engine", "content", "problems"), BAD_LABELS)
def test_a_bad_labels_file_is_told(
    engine: EngineType, content: list[bytes], problems: list[tuple[int, str, str]]
) -> None:
    assert told(check(CLASSIFICATION, engine, content)) == problems


def test_bagualu_reads_numbers_as_labels() -> None:
    report = check(CLASSIFICATION, BAGUALU, labels(0, 1))
    assert report.labels == {"0": 1, "1": 1}
    assert [problem.is_warning for problem in report.problems] == [True]


@pytest.mark.parametrize("kind", [IE, SUMMARY])
def test_a_labels_file_is_no_label_data_for_ie_and_summary(kind: TaskType) -> None:
    (problem,) = check(kind, BAGUALU, labels("人名")).problems
    assert not problem.is_warning
    assert "checks the label_data" in problem.why
    assert problem.remedy == "name the training file there"


@pytest.mark.parametrize("kind", [SIMILARITY, NLI])
def test_a_labels_file_does_no_harm_to_sentence_pairs(kind: TaskType) -> None:
    assert check(kind, QIANKUNDING, labels("0", "1")).problems == ()


def test_labels_beside_the_text_are_only_another_field() -> None:
    assert check(CLASSIFICATION, BAGUALU, lines({**NEWS, "labels": ["a"]})).kind is FileKind.LABELLED


def test_labels_that_no_labels_file_lists_are_found_across_files() -> None:
    rows = [{"content": f"{n}", "label": label, "id": n} for n, label in enumerate("xyxzz" * 4)]
    train = check_lines("train.json", lines(*rows), CLASSIFICATION, QIANKUNDING)
    listed = check_lines("labels.json", labels("x", "y"), CLASSIFICATION, QIANKUNDING)
    problem = Problem("train.json", 4, "label", "'z' is not in labels.json", "add it there")
    assert compare([listed, train], CLASSIFICATION, QIANKUNDING) == (problem,)


def test_a_flood_of_unlisted_labels_is_counted() -> None:
    rows = [{"content": "a", "label": f"l{n}", "id": n} for n in range(MAX_PROBLEMS + 7)]
    listed = check_lines("labels.json", labels("x"), CLASSIFICATION, BAGUALU)
    found = compare([listed, check(CLASSIFICATION, BAGUALU, lines(*rows))], CLASSIFICATION, BAGUALU)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].why == "7 more labels are not in labels.json"


def test_a_labels_file_without_labels_is_told_once() -> None:
    listed = check(CLASSIFICATION, BAGUALU, labels())
    assert len(listed.problems) == 1
    assert compare([listed, check(CLASSIFICATION, BAGUALU, lines(NEWS))], CLASSIFICATION, BAGUALU) == ()


def test_files_without_a_labels_file_are_a_warning() -> None:
    rows = [{**NEWS, "id": n} for n in range(16)]
    (problem,) = compare([check(CLASSIFICATION, BAGUALU, lines(*rows))], CLASSIFICATION, BAGUALU)
    assert (problem.is_warning, problem.why) == (True, "no file lists the labels, and the training needs one")


@pytest.mark.parametrize(("engine", "rows", "count"), [(QIANKUNDING, 9, 1), (QIANKUNDING, 16, 0), (BAGUALU, 9, 0)])
def test_too_few_rows_for_qiankunding_are_a_warning(engine: EngineType, rows: int, count: int) -> None:
    train = check(CLASSIFICATION, engine, lines(*({**NEWS, "content": f"{n}", "id": n} for n in range(rows))))
    dev = check(CLASSIFICATION, engine, lines(NEWS))
    found = compare([check(CLASSIFICATION, engine, labels("体育")), dev, train], CLASSIFICATION, engine)
    assert len(found) == count
    assert all(problem.is_warning and problem.why.startswith("has 9 rows") for problem in found)


@pytest.mark.parametrize(
    ("engine", "names", "tokens"),
    [
        (QIANKUNDING, [f"类别{n}" for n in range(130)], 2 + 129 + 130 * 3),
        (QIANKUNDING, ["体" * 479], 481),
        (QIANKUNDING, ["体" * 478], None),
        (QIANKUNDING, ["sports and other games " * 20 + str(n) for n in range(100)], None),
        (QIANKUNDING, [str(n) for n in range(240)], 2 + 239 + 240),
        (BAGUALU, [f"类别{n}" for n in range(130)], None),
    ],
)
def test_labels_that_leave_qiankunding_no_room_are_a_warning(
    engine: EngineType, names: list[str], tokens: int | None
) -> None:
    found = compare([check(CLASSIFICATION, engine, labels(*names))], CLASSIFICATION, engine)
    assert all(problem.is_warning and problem.field == "labels" for problem in found)
    counted = [f"take at least {tokens} tokens" in problem.why for problem in found]
    assert counted == ([] if tokens is None else [True])


@pytest.mark.parametrize(("kind", "row"), [(SIMILARITY, ALIKE), (NLI, PAIR), (IE, NAMES), (SUMMARY, LONG)])
def test_other_task_types_have_nothing_to_compare(kind: TaskType, row: dict[str, Any]) -> None:
    engine = QIANKUNDING if kind in (SIMILARITY, NLI) else BAGUALU
    assert compare([check(kind, engine, lines(row))], kind, engine) == ()


def test_no_files_compare_to_nothing() -> None:
    assert compare([], CLASSIFICATION, QIANKUNDING) == ()


def test_problems_become_one_error() -> None:
    report = check(CLASSIFICATION, BAGUALU, lines(NEWS, {"label": "体育", "id": 2}))
    error = invalid_data("upload", report.problems)
    assert isinstance(error, InvalidData)
    assert str(error) == "upload: not sent: f.json:2: content: is missing; add it"
    assert (error.call, error.problems) == ("upload", report.problems)


REFUSED_TYPES = {"tv": CLASSIFICATION, "tv-ie": IE, "tv-sum": SUMMARY, "ner": IE}


def refused() -> list[Any]:
    """Give the rows that the real engine named in its refusals, with what it said."""
    found = []
    for group in ("train-validation", "examples"):
        for record in map(json.loads, (RECORDS / f"{group}.jsonl").read_text("utf-8").splitlines()):
            message = record["body"].get("message", "") if isinstance(record["body"], dict) else ""
            if match := re.search("样本【(.*)】格式错误", message):
                kind = REFUSED_TYPES[record["request"]["task_id"]]
                found.append(pytest.param(kind, ast.literal_eval(match[1]), id=record["name"]))
    return found


@pytest.mark.parametrize(("kind", "row"), refused())
def test_what_the_real_engine_refused_is_found_before_it_is_sent(kind: TaskType, row: object) -> None:
    report = check(kind, BAGUALU, lines(row))
    assert any(not problem.is_warning for problem in report.problems)


CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("实体识别")
VALUES = st.recursive(
    CELLS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["entity_text", "entity_type", "entity_index", "subject", "predicate"]), inner
        )
    ),
    max_leaves=8,
)
FIELDS = [
    "content",
    "label",
    "labels",
    "id",
    "sentence1",
    "text",
    "task",
    "choice",
    "entity_list",
    "spo_list",
    "summary",
]
ROWS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)
LINES = st.lists(ROWS.map(lambda row: json.dumps(row).encode() + b"\n") | st.binary(), max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TaskType), st.sampled_from(EngineType), LINES, st.integers(1, 5))
def test_any_file_is_reported_on(kind: TaskType, engine: EngineType, content: list[bytes], most: int) -> None:
    report = check(kind, engine, content, max_problems=most)
    errors = [problem for problem in report.problems if not problem.is_warning]
    assert len(errors) <= most + 1
    assert all(problem.why and problem.line >= 0 for problem in report.problems)
    assert errors or report.rows
    assert [problem.line for problem in errors[:most]] == sorted(problem.line for problem in errors[:most])
    assert all(isinstance(problem, Problem) for problem in compare([report, report], kind, engine))
