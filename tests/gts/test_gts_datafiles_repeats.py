"""What comes more than once, in one file and across the files of a task, and labels that are nearly right."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gts_async._errors import Problem
from gts_async.gts.datafiles import DataFile, FileReport, check_lines, compare
from gts_async.gts.labels import MAX_LABELS
from gts_async.gts.values import EngineType, TaskType

BAGUALU, QIANKUNDING = EngineType.BAGUALU, EngineType.QIANKUNDING
CLASSIFICATION, SIMILARITY, NLI = TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI
IE, SUMMARY = TaskType.IE, TaskType.SUMMARY


def lines(*rows: object) -> list[bytes]:
    return [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]


def check(kind: TaskType, engine: EngineType, *rows: object, name: str = "f.json") -> FileReport:
    return check_lines(name, lines(*rows), kind, engine)


def told(report: FileReport) -> list[tuple[int, str, str]]:
    return [(problem.line, problem.field, problem.why) for problem in report.problems]


def news(content: str, label: str = "x", **more: Any) -> dict[str, Any]:
    return {"content": content, "label": label, **more}


def pair(first: str, second: str, label: str = "0", number: int = 0) -> dict[str, Any]:
    return {"id": number, "sentence1": first, "sentence2": second, "label": label}


def entities(text: str, *found: list[int], choice: str = "人名") -> dict[str, Any]:
    items = [{"entity_text": text[a:b], "entity_type": choice, "entity_index": [a, b]} for a, b in found]
    return {"task": "实体识别", "text": text, "choice": [choice], "entity_list": items}


REPEATED = [
    (CLASSIFICATION, QIANKUNDING, [news("a"), news("b"), news("a", other=1)], (3, "content", 1)),
    (CLASSIFICATION, BAGUALU, [news("a", id=1), news("a", id=2)], (2, "content", 1)),
    (SIMILARITY, QIANKUNDING, [pair("a", "b"), pair("b", "a", "1", 1), pair("a", "b", "0", 2)], (3, "sentence1", 1)),
    (SUMMARY, BAGUALU, [{"text": "a", "summary": "b"}, {"text": "a", "summary": "b"}], (2, "text", 1)),
    (IE, BAGUALU, [entities("一个人", [1, 2]), entities("一个人", [1, 2])], (2, "text", 1)),
]


@pytest.mark.parametrize(("kind", "engine", "rows", "place"), REPEATED)
def test_a_row_that_has_come_before_is_a_warning(
    kind: TaskType, engine: EngineType, rows: list[object], place: tuple[int, str, int]
) -> None:
    line, field, earlier = place
    report = check(kind, engine, *rows)
    assert told(report) == [(line, field, f"is the row of line {earlier} again")]
    assert (report.problems[0].is_warning, report.errors) == (True, 0)


CONTRARY = [
    (CLASSIFICATION, QIANKUNDING, [news("a"), news("a", "y")]),
    (NLI, QIANKUNDING, [pair("a", "b", "neutral"), pair("a", "b", "entailment", 1)]),
    (IE, BAGUALU, [entities("一个人", [1, 2]), entities("一个人", [1, 3])]),
]


@pytest.mark.parametrize(("kind", "engine", "rows"), CONTRARY)
def test_the_same_text_with_another_label_is_a_warning(kind: TaskType, engine: EngineType, rows: list[object]) -> None:
    report = check(kind, engine, *rows)
    assert [why for _, _, why in told(report)] == ["is the text of line 1 with another label"]
    assert report.problems[0].is_warning


DIFFERENT = [
    (SUMMARY, BAGUALU, [{"text": "a", "summary": "b"}, {"text": "a", "summary": "c"}]),
    (IE, BAGUALU, [entities("一个人", [1, 2]), entities("一个人", [1, 3], choice="地名")]),
    (SIMILARITY, QIANKUNDING, [pair("a", "b"), pair("b", "a", "1", 1)]),
    (CLASSIFICATION, QIANKUNDING, [{"content": "a"}, {"content": "a"}]),
]


@pytest.mark.parametrize(("kind", "engine", "rows"), DIFFERENT)
def test_what_may_well_be_meant_is_not_told(kind: TaskType, engine: EngineType, rows: list[object]) -> None:
    assert not [why for _, _, why in told(check(kind, engine, *rows)) if "line 1" in why]


def test_repeated_rows_are_counted_with_the_first_of_them() -> None:
    rows = [news(text, label) for text, label in ("ax", "bx", "ax", "bx", "ay", "ax", "by")]
    assert [(line, why) for line, _, why in told(check(CLASSIFICATION, QIANKUNDING, *rows))] == [
        (3, "is the row of line 1 again (3 such lines)"),
        (5, "is the text of line 1 with another label (2 such lines)"),
    ]


def test_a_bad_row_repeats_nothing() -> None:
    report = check(CLASSIFICATION, BAGUALU, news("a", id=1), news("a"))
    assert [(line, field) for line, field, _ in told(report)] == [(2, "id")]


def test_a_file_of_more_rows_than_fit_says_what_was_compared() -> None:
    file = DataFile("f.json", CLASSIFICATION, QIANKUNDING)
    text = b"".join(lines(*(news(f"{number}") for number in range(250_000)), *(news(f"{n}") for n in range(1000))))
    file.feed_all(text.splitlines(keepends=True))
    repeated, partly = file.report().problems
    assert repeated.why.startswith("is the row of line ")
    assert "at least " in repeated.why
    assert (partly.line, partly.why) == (0, "has too many rows to compare each with all others: one in 2 was")
    assert repeated.is_warning
    assert partly.is_warning


def test_lines_are_looked_at_alike_one_by_one_and_all_at_once() -> None:
    rows = [news("a"), 5, {"content": "b"}, news("a"), {"content": None, "label": "y"}, news("c", "y"), news("c", "z")]
    content = [*lines(*rows), b"\n", b'{"content":"d","label":"x","label":"y"}\n', "é\n".encode("latin-1"), b"{"]
    one, other = (DataFile("f.json", CLASSIFICATION, QIANKUNDING) for _ in "12")
    for line in content:
        one.feed(line)
    other.feed_all(content)
    assert one.report() == other.report()
    assert len(one.report().problems) == 9


PERSON = {"entity_text": "李开复", "entity_type": "人名", "entity_index": [1, 4]}
NAMES = {"task": "实体识别", "text": "看李开复", "choice": ["人名", "地名"], "entity_list": [PERSON]}
ENDS = [{"entity_text": "英王", "entity_type": "人物", "entity_index": [1, 3]}]
ENDS += [{"entity_text": "女王", "entity_type": "称号", "entity_index": [3, 5]}]
FACT = {"predicate": "头衔", "subject": ENDS[0], "object": ENDS[1]}
FACTS = {"task": "关系抽取", "text": "。英王女王", "choice": [["人物", "头衔", "称号"]], "spo_list": [FACT]}
ODD = [None, True, 5, "", "看李开复 ", "人物头", [], {}, ["人名"], [1, 4], [True, 4], ["a"], [["人物", "头衔", "称号"]]]


def odd_rows(row: dict[str, object]) -> Iterator[dict[str, object]]:
    """Give the row with each of its values replaced, left out, or there again; those within its values, too."""
    for key, value in row.items():
        yield from ({**row, key: odd} for odd in ODD)
        yield {other: value for other, value in row.items() if other != key}
        if isinstance(value, dict):
            yield from ({**row, key: inner} for inner in odd_rows(value))
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from ({**row, key: [*value, inner]} for inner in odd_rows(value[0]))


@pytest.mark.parametrize("row", [NAMES, FACTS, {**NAMES, "spo_list": []}, {**FACTS, "entity_list": ENDS}])
def test_rows_of_entities_are_looked_at_alike_one_by_one_and_all_at_once(row: dict[str, object]) -> None:
    rows = [NAMES, FACTS, *odd_rows(row), row]
    content = [*lines(*rows), *(line.replace(b'"text"', b'"text":"z","text"') for line in lines(NAMES, FACTS))]
    content += [line.replace(b'_list"', b'_list":[],"spo_list"') for line in lines(NAMES, FACTS)]
    one, other = (DataFile("f.json", TaskType.IE, BAGUALU, 10_000) for _ in "12")
    for line in content:
        one.feed(line)
    other.feed_all(content)
    assert one.report() == other.report()
    assert one.report().errors > 40


def test_texts_in_two_files_are_a_warning_of_the_smaller_one() -> None:
    train = check(CLASSIFICATION, BAGUALU, *(news(f"{n}", id=n) for n in range(20)), name="train.json")
    dev = check(CLASSIFICATION, BAGUALU, news("new", id=1), news("7", id=2), news("3", "y", id=3), name="dev.json")
    labels = check(CLASSIFICATION, BAGUALU, {"labels": ["x", "y"]})
    (problem,) = compare([dev, train, labels], CLASSIFICATION, BAGUALU)
    assert problem == Problem(
        "dev.json",
        2,
        "content",
        "2 texts are in train.json, too (this one in its line 8), 1 of them with another label",
        "what was learned by heart measures nothing: keep each text in one file",
        is_warning=True,
    )


@pytest.mark.parametrize(
    ("kind", "engine", "row"),
    [
        (SIMILARITY, QIANKUNDING, pair("a", "b")),
        (SUMMARY, BAGUALU, {"text": "a", "summary": "b"}),
        (IE, BAGUALU, entities("一个人", [1, 2])),
    ],
)
def test_leaks_are_told_for_every_task_type(kind: TaskType, engine: EngineType, row: object) -> None:
    reports = [check(kind, engine, row, name=name) for name in ("dev.json", "train.json", "test.json")]
    found = compare(reports, kind, engine)
    assert len(found) == 3
    assert all(problem.is_warning and problem.why.startswith("1 text is in ") for problem in found)


NEAR = [("体育 ", "体育"), ("SPORT", "Sport"), ("Ｓｐｏｒｔ", "Sport"), ("体\u3000育", "体育")]


@pytest.mark.parametrize(("label", "listed"), NEAR)
def test_a_label_that_is_nearly_right_is_told_with_the_right_one(label: str, listed: str) -> None:
    train = check(CLASSIFICATION, BAGUALU, news("a", label, id=1), name="train.json")
    labels = check(CLASSIFICATION, BAGUALU, {"labels": ["体育", "Sport"]}, name="labels.json")
    (problem,) = compare([train, labels], CLASSIFICATION, BAGUALU)
    assert problem.why == f"{label!r} is not in labels.json; {listed!r} is"
    assert (problem.line, problem.remedy, problem.is_warning) == (1, "write it in the same way everywhere", False)


@pytest.mark.parametrize("name", ["test.json", "data/my_dev.jsonl", "train-2.json", "VAL.json", "news.validation.json"])
def test_a_file_without_labels_that_is_named_for_training_is_an_error(name: str) -> None:
    rows = check(CLASSIFICATION, QIANKUNDING, {"content": "a"}, {"content": "b"}, name=name)
    found = [problem for problem in compare([rows], CLASSIFICATION, QIANKUNDING) if not problem.is_warning]
    assert [(problem.file, problem.line, problem.field) for problem in found] == [(name, 0, "label")]
    assert "unlabeled.json" in found[0].remedy


@pytest.mark.parametrize("name", ["unlabeled.json", "unlabeled_train.json", "latest.json", "news.json"])
def test_other_files_without_labels_may_be_for_the_advanced_mode(name: str) -> None:
    rows = check(CLASSIFICATION, QIANKUNDING, {"content": "a"}, name=name)
    assert [problem for problem in compare([rows], CLASSIFICATION, QIANKUNDING) if not problem.is_warning] == []


def test_a_flood_of_labels_is_not_kept() -> None:
    file = DataFile("f.json", CLASSIFICATION, QIANKUNDING)
    file.feed_all(lines(*(news(f"t{n}", f"l{n}") for n in range(MAX_LABELS + 5))))
    report = file.report()
    assert len(report.labels) == MAX_LABELS
    (problem,) = report.problems
    assert problem.is_warning
    assert problem.why == f"is one of more than {MAX_LABELS} labels; the rest was not compared (5 such lines)"


def test_labels_that_are_whole_books_are_not_kept() -> None:
    file = DataFile("f.json", CLASSIFICATION, QIANKUNDING)
    file.feed_all(lines(*(news(f"t{n}", f"{n}" * 100_000) for n in range(10, 40))))
    assert sum(map(len, file.report().labels)) <= 1 << 20


def test_errors_beyond_the_limit_between_files_are_counted() -> None:
    train = check(CLASSIFICATION, BAGUALU, *(news(f"{n}", f"l{n}", id=n) for n in range(9)), name="train.json")
    labels = check(CLASSIFICATION, BAGUALU, {"labels": ["x"]}, name="labels.json")
    found = compare([train, labels], CLASSIFICATION, BAGUALU, 4)
    assert [problem.line for problem in found] == [1, 2, 3, 4, 0]
    assert found[-1].why == "5 more labels are not in labels.json"


BAD = [
    (BAGUALU, news("a", id=1, probs=None), "probs"),
    (BAGUALU, news("a", id=1, probs=["1"]), "probs"),
    (BAGUALU, news("a", id=None), "id"),
    (BAGUALU, news("a", id=[1]), "id"),
]


@pytest.mark.parametrize(("engine", "row", "field"), BAD)
def test_what_bagualu_reads_besides_is_checked(engine: EngineType, row: object, field: str) -> None:
    assert [found for _, found, _ in told(check(CLASSIFICATION, engine, news("b", id=0), row))] == [field]


def test_bagualu_takes_probabilities_that_are_numbers() -> None:
    assert check(CLASSIFICATION, BAGUALU, news("a", id=1, probs=[0.5, 1])).problems == ()


@pytest.mark.parametrize("field", ["entity_text", "entity_type"])
def test_an_empty_entity_is_an_error(field: str) -> None:
    row = entities("一个人", [1, 2])
    row["entity_list"][0] |= {field: "", "entity_index": [3, 4]} if field == "entity_text" else {field: ""}
    whys = [why for _, found, why in told(check(IE, BAGUALU, row)) if found == f"entity_list[0].{field}"]
    assert "is empty, which the engine refuses" in whys


def test_an_empty_predicate_is_an_error() -> None:
    end = {"entity_text": "个", "entity_type": "人名", "entity_index": [1, 2]}
    fact = {"predicate": "", "subject": end, "object": end}
    row = {"task": "关系抽取", "text": "一个人", "choice": [["人名", "是", "人名"]], "spo_list": [fact]}
    assert ("spo_list[0].predicate", "is empty, which the engine refuses") in [
        (field, why) for _, field, why in told(check(IE, BAGUALU, row))
    ]


def test_keys_without_end_are_neither_kept_nor_told_whole() -> None:
    rows = [
        b'{"content":"a%d","content":"a%d","label":"x","%s":1,"%s":2}' % (n, n, key, key)
        for n, key in enumerate([b"k" * 9999] * 50)
    ]
    report = check_lines("f.json", rows, CLASSIFICATION, QIANKUNDING)
    assert all(len(problem.field) <= 200 for problem in report.problems)
    names = [b'{"z%d":1,"z%d":2,"content":"a%d","content":"b%d","label":"x"}' % (n, n, n, n) for n in range(50)]
    assert len(check_lines("f.json", names, CLASSIFICATION, QIANKUNDING).problems) == 20
