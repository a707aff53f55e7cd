"""What the files of one task are to each other: what their names say that they are for, and whether they are enough."""

import json

import pytest

from gts_async._errors import Problem
from gts_async.gts.comparing import NEIGHBOURS, compare, is_learned_from, role_of
from gts_async.gts.datafiles import FileReport, check_lines
from gts_async.gts.values import EngineType, TaskType

BAGUALU, QIANKUNDING = EngineType.BAGUALU, EngineType.QIANKUNDING
CLASSIFICATION, SUMMARY = TaskType.CLASSIFICATION, TaskType.SUMMARY


def check(name: str, *rows: object, kind: TaskType = CLASSIFICATION, engine: EngineType = QIANKUNDING) -> FileReport:
    return check_lines(name, [json.dumps(row).encode() + b"\n" for row in rows], kind, engine)


def news(count: int, classes: int = 2, start: int = 0) -> list[dict[str, object]]:
    return [{"id": n, "content": f"c{n}", "label": f"l{n % classes}"} for n in range(start, start + count)]


def told(problems: tuple[Problem, ...]) -> list[tuple[str, str, bool]]:
    return [(problem.file, problem.why, problem.is_warning) for problem in problems]


LISTED = {"labels": [f"l{n}" for n in range(20)]}

ROLES = {
    "train.json": "train",
    "data/tnews_train_v2.json": "train",
    "DEV.jsonl": "dev",
    "my-val.txt": "val",
    "test1.json": "test",
    "tnews_label.json": "labels",
    "train_labels.json": "labels",
    "labeled_train.json": "train",
    "unlabeled_train.json": "",
    "unlabelled.json": "",
    "training.json": "",
    "contest.json": "",
    "新闻.json": "",
}


@pytest.mark.parametrize(("name", "role"), ROLES.items())
def test_a_file_is_for_what_its_name_says(name: str, role: str) -> None:
    assert role_of(name) == role
    assert is_learned_from(name) == (role in ("train", "dev", "val"))


@pytest.mark.parametrize("name", ["train.json", "dev.json", "test.json"])
def test_labels_in_a_file_that_is_named_for_rows_are_an_error(name: str) -> None:
    found = compare([check(name, LISTED), check("labels.json", LISTED)], CLASSIFICATION, QIANKUNDING)
    role = name.partition(".")[0]
    assert told(found) == [(name, f"lists labels, and the name says that it is the {role} file: it needs rows", False)]


def test_rows_in_a_file_that_is_named_for_labels_are_an_error_if_no_other_lists_them() -> None:
    rows, swapped = check("train.json", *news(20)), check("labels.json", *news(20, start=20))
    (problem, *_) = compare([rows, swapped], CLASSIFICATION, QIANKUNDING)
    assert (problem.file, problem.is_warning) == ("labels.json", False)
    assert problem.why.startswith("holds rows, and the name says that it is the labels file")
    assert told(compare([rows, swapped, check("names.json", LISTED)], CLASSIFICATION, QIANKUNDING)) == []


def test_the_rows_that_summaries_name_as_label_data_may_be_called_labels() -> None:
    rows = [{"text": f"{n}", "summary": "s"} for n in range(3)]
    reports = [check("labels.json", *rows, kind=SUMMARY, engine=BAGUALU)]
    assert compare(reports, SUMMARY, BAGUALU) == ()


def fate(count: int, classes: int, name: str = "train.json") -> list[tuple[str, str, bool]]:
    reports = [check(name, *news(count, classes)), check("labels.json", LISTED)]
    return told(compare(reports, CLASSIFICATION, QIANKUNDING))


SEEN_TO_TRAIN = [(13, 6), (14, 4), (15, 2), (16, 16), (16, 1)]
SEEN_TO_FAIL = [(12, 6), (8, 4), (15, 15), (15, 14), (1, 1)]
UNSURE = [(13, 6), (14, 4), (15, 2), (15, 13)]


@pytest.mark.parametrize(("count", "classes"), SEEN_TO_TRAIN)
def test_what_trains_is_no_error(count: int, classes: int) -> None:
    assert all(is_warning for _, _, is_warning in fate(count, classes))
    several = sum(count // classes + (n < count % classes) > 1 for n in range(classes))
    assert 2 * count + several >= NEIGHBOURS


@pytest.mark.parametrize(("count", "classes"), SEEN_TO_FAIL)
def test_too_few_rows_are_an_error_of_a_file_that_is_named_for_training(count: int, classes: int) -> None:
    why = f"has {count} rows; qiankunding always fails on so few training rows"
    assert fate(count, classes) == [("train.json", why, False)]
    assert fate(count, classes, "rows.json") == [("rows.json", why, True)]


@pytest.mark.parametrize(("count", "classes"), UNSURE)
def test_where_it_depends_on_the_rows_of_each_label_too_few_are_a_warning(count: int, classes: int) -> None:
    why = f"has {count} rows; qiankunding may fail on so few training rows"
    assert fate(count, classes) == [("train.json", why, True)]


def test_a_large_file_to_measure_on_hides_no_small_one_to_train_on() -> None:
    reports = [check("train.json", *news(3)), check("dev.json", *news(30, start=9)), check("labels.json", LISTED)]
    found = compare(reports, CLASSIFICATION, QIANKUNDING)
    assert [(problem.file, problem.is_warning) for problem in found] == [("train.json", False)]


@pytest.mark.parametrize(("name", "is_warning"), [("train.json", False), ("rows.json", True)])
def test_one_text_in_all_rows_leaves_qiankunding_no_neighbours(name: str, is_warning: bool) -> None:
    same = [{**row, "content": "a"} for row in news(20)]
    reports = [check(name, *same), check("labels.json", LISTED)]
    found = compare(reports, CLASSIFICATION, QIANKUNDING)
    assert told(found) == [(name, "is the same in every row; qiankunding fails where no two texts differ", is_warning)]
    other = [check(name, *same, *news(1, start=50)), check("labels.json", LISTED)]
    assert compare(other, CLASSIFICATION, QIANKUNDING) == ()
