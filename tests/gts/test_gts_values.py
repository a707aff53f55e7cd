"""What can be asked of the engine at all."""

from typing import Any

import pytest

from gts_async._errors import InvalidArgument, WrongType
from gts_async.gts.values import (
    PIPELINES,
    EngineType,
    TaskInfo,
    TaskStatus,
    TaskType,
    TrainOptions,
    check_name,
    check_pipeline,
)

FILES = {"train_data": "a.json", "val_data": "b.json", "test_data": "c.json", "label_data": "d.json"}


@pytest.mark.parametrize("name", ["a", "A-1_b.json", "_", "...", "x" * 200])
def test_a_safe_name_is_given_back(name: str) -> None:
    assert check_name("name", name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "name: is empty; give a name"),
        ("..", "name: is '..', which the engine would paste"),
        ("-rf", "name: is '-rf', which"),
        ("a b;c", "name: has ' ', ';', which"),
        ("数据", "name: has '据', '数', which"),
        ("x" * 201, "name: has 201 characters; use at most 200"),
    ],
)
def test_an_unsafe_name_is_refused_with_the_reason(name: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_name("name", name)
    assert str(caught.value).startswith(problem)


def test_the_engines_own_defaults_are_ours() -> None:
    options = TrainOptions(**FILES)
    assert (options.unlabeled_data, options.train_mode, options.max_len) == ("", "standard", 512)
    assert (options.max_num_epoch, options.min_num_epoch, options.seed, options.gpuid) == (3, 3, 42, 0)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in FILES for value in ("", "a b", "../a", "/a")),
        {"unlabeled_data": "a;b"},
        {"train_mode": "fast"},
        {"train_mode": "x; reboot"},
        {"train_mode": "advanced"},
        {"max_len": 0},
        {"max_num_epoch": 0},
        {"min_num_epoch": -1},
        {"min_num_epoch": 4},
        {"seed": -1},
        {"seed": 1 << 32},
        {"gpuid": -1},
    ],
)
def test_what_cannot_train_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        TrainOptions(**{**FILES, **changes})


@pytest.mark.parametrize("name", ["max_len", "max_num_epoch", "min_num_epoch", "seed", "gpuid"])
@pytest.mark.parametrize("value", [None, True, 1.0, "1"])
def test_numbers_are_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(WrongType):
        TrainOptions(**{**FILES, name: value})


@pytest.mark.parametrize("name", FILES)
def test_files_are_never_null(name: str) -> None:
    with pytest.raises(WrongType):
        TrainOptions(**{**FILES, name: None})


def test_a_pipeline_is_an_engine_with_a_task_type() -> None:
    for engine in EngineType:
        for kind in TaskType:
            if (engine, kind) in PIPELINES:
                assert check_pipeline(kind.value, engine.value) == (kind, engine)
            else:
                with pytest.raises(InvalidArgument, match=f"does not train {kind} tasks; use "):
                    check_pipeline(kind, engine)
    with pytest.raises(InvalidArgument, match="use one of qiankunding, bagualu"):
        check_pipeline("nli", "gpt")


def test_the_code_is_the_statuss_own_unless_it_is_unknown() -> None:
    assert TaskInfo(TaskStatus.FAILED).code == 3
    assert TaskInfo(TaskStatus.UNKNOWN, code=9).code == 9
