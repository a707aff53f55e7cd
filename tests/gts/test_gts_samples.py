"""What samples become on the wire, and what is said about bad ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gts_async._errors import InvalidArgument, InvalidData, WrongType
from gts_async.gts import calls
from gts_async.gts.samples import guess_task_type, prepare, prepare_all, problems
from gts_async.gts.values import TaskType

RECORDS = Path(__file__).parent.parent / "samples" / "gts"
C, S, N, E, M = TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI, TaskType.IE, TaskType.SUMMARY
ENTITY_SAMPLE = {"task": "实体识别", "text": "李开复", "choice": ["人名"]}
RELATION_SAMPLE = {"task": "关系抽取", "text": "英王", "choice": [["人物", "头衔", "称号"]]}


class Word(str):
    """Not exactly a str, as numpy's strings."""


GOOD: list[tuple[TaskType, Any, dict[str, object]]] = [
    (C, {"content": "a"}, {"content": "a"}),
    (C, {"content": ""}, {"content": ""}),
    (C, {"content": "a", "label": "x", "id": 7}, {"content": "a"}),
    (C, {"content": Word("a")}, {"content": "a"}),
    (S, {"sentence1": "a", "sentence2": "b"}, {"sentence1": "a", "sentence2": "b", "label": "0"}),
    (S, {"sentence1": "a", "sentence2": "b", "label": 1}, {"sentence1": "a", "sentence2": "b", "label": "0"}),
    (N, {"sentence1": "a", "sentence2": "b"}, {"sentence1": "a", "sentence2": "b", "label": "entailment"}),
    (N, {"id": 3, "sentence1": "a", "sentence2": "b"}, {"sentence1": "a", "sentence2": "b", "label": "entailment"}),
    (E, ENTITY_SAMPLE, ENTITY_SAMPLE),
    (E, {**ENTITY_SAMPLE, "entity_list": [{"entity_index": [0, 3]}], "spo_list": None}, ENTITY_SAMPLE),
    (E, RELATION_SAMPLE, RELATION_SAMPLE),
    (E, {**RELATION_SAMPLE, "choice": ((Word("人物"), "头衔", "称号"),)}, RELATION_SAMPLE),
    (M, {"text": "a"}, {"text": "a", "summary": ""}),
    (M, {"text": "a", "summary": "b"}, {"text": "a", "summary": ""}),
]


@pytest.mark.parametrize(("kind", "sample", "row"), GOOD)
def test_a_sample_becomes_the_row_that_the_engine_wants(kind: TaskType, sample: Any, row: dict[str, object]) -> None:
    assert prepare(kind, sample) == row
    assert prepare(kind, row) == row
    assert calls.predict("t", kind, [prepare(kind, sample)]).name == "predict"


BAD: list[tuple[TaskType, object, list[tuple[str, str]]]] = [
    (C, {}, [("content", "is missing")]),
    (C, {"text": "a"}, [("content", "is missing")]),
    (C, {"content": None}, [("content", "is null, must be a string")]),
    (C, {"content": 5}, [("content", "is a number, must be a string")]),
    (C, {"content": ["a"]}, [("content", "is an array, must be a string")]),
    (C, {"content": "a\ud800"}, [("content", "holds half of a surrogate pair, which no UTF-8 can carry")]),
    (C, "a", [("", "is a string, not a mapping")]),
    (C, None, [("", "is null, not a mapping")]),
    (S, {}, [("sentence1", "is missing"), ("sentence2", "is missing")]),
    (N, {"sentence1": "a", "sentence2": True}, [("sentence2", "is true, must be a string")]),
    (M, {"text": {}}, [("text", "is an object, must be a string")]),
    (E, {"text": "a"}, [("task", "is null, must be 实体识别 or 关系抽取")]),
    (E, {**ENTITY_SAMPLE, "task": "实体识别x"}, [("task", "is '实体识别x', must be 实体识别 or 关系抽取")]),
    (E, {**ENTITY_SAMPLE, "text": ""}, [("text", "is empty, which the engine refuses")]),
    (E, {"task": "实体识别", "text": "a"}, [("choice", "is null, must be a list of at least one type")]),
    (E, {**ENTITY_SAMPLE, "choice": []}, [("choice", "is [], must be a list of at least one type")]),
    (E, {**ENTITY_SAMPLE, "choice": ["a", ""]}, [("choice[1]", "is '', must be an entity type, a string")]),
    (
        E,
        {**RELATION_SAMPLE, "choice": ["人名"]},
        [("choice[0]", "is '人名', must be [subject type, relation, object type]")],
    ),
    (
        E,
        {**RELATION_SAMPLE, "choice": [["a", "b"]]},
        [("choice[0]", "is ['a', 'b'], must be [subject type, relation, object type]")],
    ),
]


@pytest.mark.parametrize(("kind", "sample", "faults"), BAD)
def test_a_bad_sample_tells_every_fault(kind: TaskType, sample: Any, faults: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidData) as caught:
        prepare(kind, sample)
    assert [(problem.field, problem.why) for problem in caught.value.problems] == faults
    assert {(problem.file, problem.line) for problem in caught.value.problems} == {("sample", 1)}


def test_all_bad_samples_are_told_at_once() -> None:
    samples: list[Any] = [{"content": "a"}, {"x": 1}, {"content": "b"}, {"content": None}, 7]
    with pytest.raises(InvalidData) as caught:
        prepare_all(C, samples)
    assert [problem.line for problem in caught.value.problems] == [2, 4, 5]
    assert caught.value.problems == problems(C, samples)
    assert str(caught.value).startswith("predict: not sent: sample:2: content: is missing; add it; sample:4: ")


def test_a_long_list_of_faults_is_counted_in_the_text() -> None:
    with pytest.raises(InvalidData, match=r"; and 7 more$") as caught:
        prepare_all(C, [{}] * 10)
    assert len(caught.value.problems) == 10


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        ({"content": "a"}, C),
        ({"content": "a", "text": "b"}, C),
        ({"text": "a", "choice": ["x"], "task": "实体识别"}, E),
        ({"text": "a", "summary": ""}, M),
    ],
)
def test_a_task_type_is_guessed_from_a_sample(sample: Mapping[str, object], kind: TaskType) -> None:
    assert guess_task_type(sample) is kind


def test_an_ambiguous_sample_is_not_guessed() -> None:
    with pytest.raises(InvalidArgument, match=r"task_type: .*similarity or nli; pass task_type="):
        guess_task_type({"sentence1": "a", "sentence2": "b"})
    with pytest.raises(InvalidArgument, match="none of content, text, sentence1"):
        guess_task_type({"prompt": "a"})
    with pytest.raises(WrongType):
        guess_task_type("a")


TYPES = {"A": C, "qk-clf": C, "qk-nli": N, "bg-ie": E, "bg-sum": M}


def recorded() -> list[tuple[TaskType, str, list[Any], int]]:
    """Give the predict calls on a model that was loaded: task type, name, rows, and what the engine said."""
    found = []
    for group in ("predict", "pipeline-qiankunding-nli", "pipeline-bagualu-ie", "pipeline-bagualu-summary"):
        for record in map(json.loads, (RECORDS / f"{group}.jsonl").read_text("utf-8").splitlines()):
            rows = record.get("request", {}).get("sentences")
            if record["path"] == "/api/predict" and rows and record["request"]["task_id"] in TYPES:
                code = record["body"]["ret_code"] if record["status"] == 200 else record["status"]
                found.append((TYPES[record["request"]["task_id"]], record["name"], rows, code))
    return found


OTHERWISE = {
    "content number": False,  # the engine turns it into text; here null and numbers are treated alike
    "without label (the docs' test format)": True,  # a dummy mends it
    "label as int": True,
    "without summary": True,
    "second predict after one start_inference: 500 (its tmp dir is gone)": True,  # not the row's fault
}
"""Where we and the engine differ about a row, and whether we send it."""


@pytest.mark.parametrize(("kind", "name", "rows", "code"), recorded(), ids=lambda value: str(value)[:60])
def test_what_the_real_engine_refused_is_found_before_it_is_sent(
    kind: TaskType, name: str, rows: list[Any], code: int
) -> None:
    is_good = OTHERWISE.get(name.removeprefix("predict "), code == 200)
    assert (problems(kind, rows) == ()) is is_good


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["content", "sentence1", "sentence2", "text", "task", "choice", "label", "summary", "entity_list"]
SAMPLES = st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.just("实体识别") | st.just(["x"])) | ANYTHING


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TaskType), SAMPLES)
def test_a_sample_is_either_refused_or_can_be_sent(kind: TaskType, sample: Any) -> None:
    if problems(kind, [sample]):
        with pytest.raises(InvalidData):
            prepare(kind, sample)
    else:
        assert calls.predict("t", kind, [prepare(kind, sample)]).request.body
