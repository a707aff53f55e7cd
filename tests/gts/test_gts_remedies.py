"""What is to be done about each thing that is wrong with a row."""

from typing import Any

import pytest

from gts_async.gts.datafiles import FileReport, check_lines
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


def check(pipeline: Pipeline, *content: bytes) -> FileReport:
    return check_lines("f.json", content, *pipeline)


REMEDIES = [
    (PLAIN, {"id": 2, "contents": "a", "label": "体育"}, "content", "it may be the key 'contents': rename that"),
    (PLAIN, {"id": 2, "Content ": "a", "label": "体育"}, "content", "it may be the key 'Content ': rename that"),
    (PLAIN, {"id": 2, "content": "a", "lable": "体育"}, "label", "it may be the key 'lable': rename that"),
    (PLAIN, {"id": 2, "content": "a", "ｌａｂｅｌ": "体育"}, "label", "it may be the key 'ｌａｂｅｌ': rename that"),
    (PLAIN, {"id": 2, "content": "a"}, "label", "add it"),
    (PLAIN, {"id": 2, "text": "a", "label": "体育"}, "content", "it may be the key 'text': rename that"),
    (PLAIN, {"id": 2, "sentence1": "a", "label": "体育"}, "content", "it may be the key 'sentence1': rename that"),
    (PLAIN, {"id": 2, "title": "a", "label": "体育"}, "content", "add it"),
    (SIMILARITY, {"id": 2, "sentence2": "a", "label": "1"}, "sentence1", "add it"),
    (SIMILARITY, {"id": 2, "sentence1": "a", "label": "1"}, "sentence2", "add it"),
    (
        SIMILARITY,
        {"id": 2, "sentence 1": "a", "sentence2": "b"},
        "sentence1",
        "it may be the key 'sentence 1': rename that",
    ),
    (PLAIN, {**NEWS, "content": 5}, "content", 'write "5", in quotes'),
    (PLAIN, {**NEWS, "content": None}, "content", "write a string, or leave the row out"),
    (NLI, {**THREE, "label": "Neutral "}, "label", 'write "neutral", in quotes'),
    (NLI, {**THREE, "label": "蕴含"}, "label", "write one of these words in its place"),
    (SIMILARITY, {**PAIR, "label": "１"}, "label", 'write "1", in quotes'),
    (SIMILARITY, {**PAIR, "label": 1}, "label", 'write "1", in quotes'),
]


@pytest.mark.parametrize(("pipeline", "row", "field", "remedy"), REMEDIES)
def test_the_remedy_is_the_likely_one(pipeline: Pipeline, row: dict[str, Any], field: str, remedy: str) -> None:
    good = {PLAIN: NEWS, SIMILARITY: PAIR, NLI: THREE}[pipeline]
    report = check(pipeline, *lines({**good, "id": 9}, row))
    assert next((problem.field, problem.remedy) for problem in report.problems if problem.line == 2) == (field, remedy)


@pytest.mark.parametrize(
    ("index", "remedy"),
    [
        ([3, 6], "the text has it at [2, 5]"),
        ([2, 4], "the text has it at [2, 5]"),
        ([5, 14], "the text has it at [2, 5]"),
        ([5, 2], "the text has it at [2, 5]"),
        (["2", "5"], "write two whole numbers"),
    ],
)
def test_an_index_counted_in_another_way_comes_with_the_right_one(index: list[object], remedy: str) -> None:
    row = ner("看😀李开复来了", 2, 5)
    row["entity_list"][0]["entity_index"] = index
    (problem,) = check(IE, *lines(row)).problems
    assert (problem.field, problem.remedy) == ("entity_list[0].entity_index", remedy)


WRONG = [None, True, 5, "", "x", [], {}, ["a"], {"a": 1}]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    ("pipeline", "row"),
    [(PLAIN, NEWS), (NUMBERED, NEWS), (SIMILARITY, PAIR), (NLI, THREE), (IE, ner("看李开复", 1, 4)), (SUMMARY, LONG)],
)
def test_every_error_comes_with_a_remedy(pipeline: Pipeline, row: dict[str, Any], value: object) -> None:
    spoilt = [{**row, key: value} for key in row]
    spoilt += [{key: one for key, one in row.items() if key != left} for left in row]
    if pipeline == IE:
        entity = row["entity_list"][0]
        spoilt += [{**row, "entity_list": [{**entity, key: value}]} for key in entity]
        spoilt += [{**row, "entity_list": [value]}, {**row, "task": "关系抽取", "spo_list": [value]}]
    problems = check(pipeline, *lines(row, *spoilt)).problems
    assert [str(problem) for problem in problems if not problem.remedy] == []
