"""Rows of which the real engine's trainings were seen to make something, or to fail, and what is said of them before.

Each was put into an otherwise good data set, for its own pipeline (GTS Engine 0.1.4, transformers 4.28, datasets 2.21).
"""

import json
from typing import Any

import pytest

from gts_async.gts.datafiles import DataFile, FileReport, check_lines
from tests.gts.good_rows import (
    IE,
    LONG,
    NEWS,
    NLI,
    NUMBERED,
    PAIR,
    PLAIN,
    SIMILARITY,
    SUMMARY,
    THREE,
    Pipeline,
    lines,
    ner,
)


def check(pipeline: Pipeline, *content: bytes, name: str = "f.json") -> FileReport:
    return check_lines(name, content, *pipeline)


def told(report: FileReport) -> list[tuple[int, str, bool]]:
    return [(problem.line, problem.field, problem.is_warning) for problem in report.problems]


READ_ALL_THE_SAME: list[tuple[Pipeline, dict[str, Any], str, object]] = [
    *((NUMBERED, NEWS, "content", value) for value in (5, 2.5, 10**30, True)),
    (NUMBERED, NEWS, "label", True),
    *((NLI, THREE, "sentence2", value) for value in (5, 2.5, None, True, ["a"], {"a": 1})),
    *((SIMILARITY, PAIR, "sentence2", value) for value in (5, None, False, [])),
]


@pytest.mark.parametrize(("pipeline", "row", "field", "value"), READ_ALL_THE_SAME)
def test_what_the_engine_makes_text_of_is_a_warning(
    pipeline: Pipeline, row: dict[str, Any], field: str, value: object
) -> None:
    first = {**row, "content": "另一条", "sentence1": "另一句"}
    report = check(pipeline, *lines(first, {**row, "id": 2, field: value}))
    assert told(report) == [(2, field, True)]
    assert (report.errors, report.fixable) == (0, {})


def test_what_the_engine_makes_text_of_is_told_once_with_the_number_of_lines() -> None:
    report = check(NLI, *lines(*({**THREE, "id": n, "sentence2": n} for n in range(9))))
    (problem,) = report.problems
    assert problem.why == "is a number, which the engine reads as Python writes it (9 such lines)"
    assert problem.remedy == "write texts in quotes"


NOT_READ: list[tuple[Pipeline, dict[str, Any], str, object]] = [
    *((PLAIN, NEWS, "content", value) for value in (5, None, True, [])),
    *((NUMBERED, NEWS, "content", value) for value in (None, [], {})),
    *((NLI, THREE, "sentence1", value) for value in (5, None, True)),
    *((NUMBERED, NEWS, "id", value) for value in (2**63, -(2**63) - 1, 10**30, str(2**70), "2.0", "", [1])),
    *((IE, ner("看李开复", 1, 4), "text", value) for value in (5, "", None)),
    *((SUMMARY, LONG, field, value) for field in LONG for value in (5, None, True, [], {})),
]


@pytest.mark.parametrize(("pipeline", "row", "field", "value"), NOT_READ)
def test_what_ends_the_training_is_an_error(pipeline: Pipeline, row: dict[str, Any], field: str, value: object) -> None:
    good = {**row, "text": "看李开复和别人"} if pipeline == IE else row
    report = check(pipeline, *lines(good, {**row, field: value}))
    assert (2, field, False) in told(report)


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), -5, "77", " 7 ", 2.5, True])
def test_ids_that_bagualu_takes_for_whole_numbers_are_good(value: object) -> None:
    assert told(check(NUMBERED, *lines({**NEWS, "id": value}))) == []


CUT_OFF = [
    ("创新工场 很好", 1, 5, "a space behind"),
    ("看 很好", 1, 3, "a space in front"),
    ("看 好", 1, 2, "a space only"),
    ("看\u3000李开复", 1, 5, "an ideographic space"),
    ("看李开复\u00a0来", 1, 5, "a no-break space"),
    ("看\n李开复", 1, 5, "a line break"),
    ("看李开复\t来", 1, 5, "a tab"),
    ("看\u200b李开复", 1, 5, "a zero-width space"),
    ("看李\u00ad来", 1, 3, "a soft hyphen"),
    ("看\ufeff李来", 1, 3, "a byte order mark"),
    ("看\u0001李来", 1, 3, "a control character"),
    ("看\ufffd李来", 1, 3, "a replacement character"),
    ("looke\u0301mile", 5, 8, "a combining accent in front"),
    ("look mile\u0301 came", 5, 10, "a combining accent behind"),
    ("看❤\ufe0f李来", 1, 3, "a variation selector"),
]


@pytest.mark.parametrize(("text", "start", "end"), [case[:3] for case in CUT_OFF], ids=[case[3] for case in CUT_OFF])
def test_an_entity_that_begins_or_ends_with_what_the_tokenizer_drops_is_an_error(
    text: str, start: int, end: int
) -> None:
    (problem,) = check(IE, *lines(ner(text, start, end))).problems
    assert (problem.field, problem.is_warning) == ("entity_list[0].entity_text", False)
    assert "the training looks for a token there" in problem.why
    assert "leave" in problem.remedy


KEPT_WHOLE = [
    ("工场 很好啊", 1, 4, "a space inside"),
    ("看李\u200b开复", 1, 5, "a zero-width space inside"),
    ("look E\u0301mile", 5, 11, "an accent behind the first letter"),
    ("look Émile", 5, 10, "an accented letter"),
    ("他说：“李开复”来", 3, 8, "quotes"),
    ("看😀李", 1, 2, "an emoji"),
    ("看𠮷野家", 1, 4, "a rare character"),
    ("unbelievable things", 2, 9, "a part of a word"),
    ("x" * 150 + "李", 100, 151, "a long word"),
    ("字" * 500 + "李开 和", 500, 503, "behind the last window, which the training never sees"),
]


@pytest.mark.parametrize(
    ("text", "start", "end"), [case[:3] for case in KEPT_WHOLE], ids=[case[3] for case in KEPT_WHOLE]
)
def test_an_entity_that_the_tokenizer_keeps_whole_is_good(text: str, start: int, end: int) -> None:
    assert told(check(IE, *lines(ner(text, start, end)))) == []


@pytest.mark.parametrize(
    ("length", "start", "is_seen"),
    [(300, 290, True), (400, 398, True), (599, 390, True), (599, 399, False), (600, 598, True), (799, 601, False)],
)
def test_windows_of_long_texts_are_counted_as_the_training_does(length: int, start: int, is_seen: bool) -> None:
    text = f"{'字' * start}李 {'字' * length}"[:length]
    assert check(IE, *lines(ner(text, start, start + 2))).errors == is_seen


def test_the_subject_of_a_relation_is_looked_at_as_well() -> None:
    ends = [
        {"entity_text": "英王 ", "entity_type": "人物", "entity_index": [1, 4]},
        {"entity_text": "女王", "entity_type": "称号", "entity_index": [4, 6]},
    ]
    fact = {"predicate": "头衔", "subject": ends[0], "object": ends[1]}
    row = {"task": "关系抽取", "text": "。英王 女王", "spo_list": [fact], "choice": [["人物", "头衔", "称号"]]}
    assert told(check(IE, *lines(row))) == [(1, "spo_list[0].subject.entity_text", False)]


@pytest.mark.parametrize(("field", "value"), [("text", "看[unused1]李"), ("choice", ["人名", "[unused2]"])])
def test_the_signs_that_bagualu_puts_between_types_may_not_be_in_the_data(field: str, value: object) -> None:
    row = {**ner("看李开复", 1, 4, entity_list=[]), field: value}
    (problem,) = check(IE, *lines(row)).problems
    assert problem.field.partition("[")[0] == field
    assert not problem.is_warning


@pytest.mark.parametrize(
    ("start", "task", "choice"),
    [("实体识别任务", "实体识别任务", ["人名"]), ("", "实体识别", ["人名", ["人名", "在", "地点"]])],
)
def test_what_the_engines_check_lets_pass_and_its_training_does_not(start: str, task: str, choice: object) -> None:
    report = check(IE, *lines(ner("看李开复", 1, 4, task=task, choice=choice)))
    assert report.errors


ROWS = [LONG, {**LONG, "text": "又一条"}]


def columns(*extra: str) -> list[bytes]:
    return [
        (json.dumps({"text": f"第{number}条", "summary": "s"}, ensure_ascii=False)[:-1] + f", {one}}}\n").encode()
        for number, one in enumerate(extra)
    ]


MIXED = [
    (('"x":1', '"x":"a"'), "x", "is a string; it is a number in line 1"),
    (('"x":true', '"x":1'), "x", "is a number; it is a boolean in line 1"),
    (('"x":["a"]', '"x":"a"'), "x", "is a string; it is an array in line 1"),
    (('"x":{}', '"x":[]'), "x", "is an array; it is an object in line 1"),
    (('"x":["a"]', '"x":[1]'), "x[]", "is a number; it is a string in line 1"),
    (('"x":1', '"x":null', '"x":"a"'), "x", "is a string; it is a number in line 1"),
    (('"x":{"a":1}', '"x":{"a":"c"}'), "x.a", "is a string; it is a number in line 1"),
    (('"x":[[1]]', '"x":[["a"]]'), "x[][]", "is a string; it is a number in line 1"),
    (('"y":1', '"x":[1,"a"]'), "x[]", "is a string; it is a number in line 2"),
]


@pytest.mark.parametrize(("extra", "field", "why"), MIXED)
def test_a_column_of_a_summary_file_holds_one_kind_of_value(extra: tuple[str, ...], field: str, why: str) -> None:
    (problem,) = check(SUMMARY, *columns(*extra)).problems
    assert (problem.line, problem.field, problem.is_warning) == (len(extra), field, False)
    assert problem.why.startswith(why)
    assert "leave" in problem.remedy


@pytest.mark.parametrize(
    "extra",
    [
        ('"x":1', '"x":1.5'),
        ('"x":1', '"x":null', '"y":"a"'),
        ('"x":[]', '"x":[{"a":1}]', '"x":[null]'),
        ('"x":{"a":1}', '"x":{"b":"c"}'),
        ('"x":NaN', '"x":-Infinity', '"x":99999999999999999999999999'),
        ('"":1', '"x":"2023-01-01"', '"x":"hi"'),
        ('"x":' + "[" * 60 + "]" * 60, '"y":{"a":1,"a":2}'),
    ],
)
def test_columns_that_the_summary_training_can_read_are_good(extra: tuple[str, ...]) -> None:
    report = check(SUMMARY, *columns(*extra))
    assert report.errors == 0


@pytest.mark.parametrize(
    ("extra", "field", "why"),
    [
        ('"x":1,"x":2', "x", "is there twice"),
        ('"text":"z"', "text", "is there twice"),
        ('"x":1e999', "", "holds a number that is out of range"),
        ('"x":' + "[" * 100 + "]" * 100, "x", "has too many brackets in brackets"),
    ],
)
def test_what_only_the_table_reader_of_summaries_refuses_is_an_error(extra: str, field: str, why: str) -> None:
    good = lines({"text": "另一条", "summary": "s"})
    (problem,) = check(SUMMARY, *good, *columns(extra)).problems
    assert (problem.line, problem.field, problem.is_warning) == (2, field, False)
    assert problem.why.startswith(why)


DATES = ["2023-01-01", "2023-01-01 10:00", "2023-01-01T10:00:00Z", "2023-01-01 10:00:00+08:00", "9999-12-31 10"]
NO_DATES = ["2023/01/01", "2023-01", "2023-1-1", "2023-02-30", "20230101", " 2023-01-01", "2023-01-01 10:00:00.5", "1"]


@pytest.mark.parametrize("value", DATES)
def test_a_column_of_dates_only_is_read_as_dates(value: str) -> None:
    rows = [{"text": f"第{number}条", "summary": value} for number in range(3)]
    (problem,) = check(SUMMARY, *lines(*rows)).problems
    assert (problem.line, problem.field, problem.is_warning) == (0, "summary", False)
    assert told(check(SUMMARY, *lines(*rows, LONG))) == []


@pytest.mark.parametrize("value", NO_DATES)
def test_what_is_not_read_as_a_date_is_good(value: str) -> None:
    assert told(check(SUMMARY, *lines({"text": "a", "summary": value}))) == []


def labels(*names: object, **others: object) -> bytes:
    return json.dumps({"labels": names, **others}).encode() + b"\n"


LABELS = [
    (PLAIN, labels("a", "b", "a"), [(1, "labels[2]", True)]),
    (NUMBERED, labels("a", "b", "a"), [(1, "labels[2]", False)]),
    (PLAIN, labels("a", 5), [(1, "labels[1]", False)]),
    (NUMBERED, labels("a", 5), [(1, "label", True)]),
    (PLAIN, labels("a", True), [(1, "labels[1]", False)]),
    (NUMBERED, labels("a", True), [(1, "label", True)]),
    (NUMBERED, labels("a", None), [(1, "labels[1]", False)]),
    (PLAIN, labels("a", "\ud83d"), [(1, "labels[1]", False)]),
    (NUMBERED, labels("a", "\ud83d"), [(1, "labels[1]", False)]),
    (PLAIN, labels(*map(str, range(60))), []),
    (NUMBERED, labels(*map(str, range(50))), []),
    (NUMBERED, labels(*map(str, range(51))), [(1, "labels", False)]),
    (PLAIN, labels("a", "b", version=1), []),
    (NUMBERED, labels("a", "b", version=1), [(1, "version", False)]),
    (NUMBERED, labels("a", "b", others=[]), []),
    (PLAIN, labels("a", " ", ""), []),
]


@pytest.mark.parametrize(("pipeline", "content", "expected"), LABELS)
def test_a_labels_file_is_read_as_the_pipeline_reads_it(
    pipeline: Pipeline, content: bytes, expected: list[tuple[int, str, bool]]
) -> None:
    assert told(check(pipeline, content)) == expected


@pytest.mark.parametrize(("name", "is_error"), [("dev.json", False), ("test.json", False), ("train.json", True)])
def test_only_ie_needs_no_rows_to_measure_on(name: str, is_error: bool) -> None:
    assert told(check(IE, name=name)) == [(0, "", not is_error)]
    assert told(check(PLAIN, name=name)) == [(0, "", False)]


def test_probs_have_the_same_length_in_every_row() -> None:
    rows = [{**NEWS, "id": n, "content": f"{n}"} for n in range(4)]
    assert told(check(NUMBERED, *lines(*({**row, "probs": [0.5, 0.5]} for row in rows)))) == []
    mixed = [*rows[:3], {**rows[3], "probs": [0.5, 0.5]}]
    assert told(check(NUMBERED, *lines(*mixed))) == [(4, "probs", False)]
    assert told(check(NUMBERED, *lines(*mixed[::-1]))) == [(line, "probs", False) for line in (2, 3, 4)]
    assert told(check(NUMBERED, *lines(*mixed), name="train.json")) == [(4, "probs", True)]
    file = DataFile("f.json", *NUMBERED)
    file.feed_all(lines(*mixed[::-1]))
    assert told(file.report()) == [(line, "probs", False) for line in (2, 3, 4)]


def test_columns_and_warnings_take_bounded_room() -> None:
    report = check(PLAIN, labels(*(["a"] * 3000)))
    assert len(report.problems) == 101
    assert report.problems[-1].why == "2899 more warnings"
    wide = [json.dumps({"text": f"{n}", "summary": "s", "x" * 5000 + str(n): 1}).encode() + b"\n" for n in range(50)]
    assert check(SUMMARY, *wide).errors == 0


@pytest.mark.parametrize(
    ("pipeline", "row", "field"),
    [(PLAIN, NEWS, "content"), (SIMILARITY, PAIR, "sentence1"), (NLI, THREE, "sentence2")],
)
@pytest.mark.parametrize(("name", "is_warning"), [("train.json", True), ("dev.json", True), ("test.json", False)])
def test_only_where_qiankunding_writes_texts_down_half_a_pair_is_an_error(
    pipeline: Pipeline, row: dict[str, Any], field: str, name: str, is_warning: bool
) -> None:
    assert told(check(pipeline, *lines({**row, field: "a\ud83d"}), name=name)) == [(1, field, is_warning)]


@pytest.mark.parametrize(
    ("pipeline", "row", "field"),
    [(NUMBERED, NEWS, "content"), (IE, ner("看李开复", 1, 4), "text"), (SUMMARY, LONG, "text"), (SUMMARY, LONG, "x")],
)
def test_half_a_pair_is_an_error_to_bagualu(pipeline: Pipeline, row: dict[str, Any], field: str) -> None:
    assert (1, field, False) in told(check(pipeline, *lines({**row, field: "a\ud83d"}), name="train.json"))
