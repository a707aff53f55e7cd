"""Readers on answers that no engine was seen to give: strict, and with no error but ours."""

import json
import pickle
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gts_async._errors import NotFound, RateLimited, ServerFailed, ServiceError, UnexpectedAnswer
from gts_async.gts import answers
from gts_async.gts.results import results
from gts_async.gts.values import Extraction, Prediction, TaskInfo, TaskStatus, TaskType
from gts_async.wire import Answer

READERS: dict[str, Callable[[Answer], object]] = {
    "create_task": answers.created,
    "list_tasks": answers.listed,
    "task_status": answers.task_info,
    **{name: partial(answers.done, name) for name in ("upload", "delete_task", "start_training", "stop_training")},
    **{name: partial(answers.done, name) for name in ("start_inference", "end_inference")},
    "index": answers.greeted,
    **{f"predict {kind} {asked}": partial(results, kind, asked) for kind in TaskType for asked in (0, 1, 2)},
}


def said(**document: object) -> Answer:
    return Answer.json(200, {"message": "", **document})


@pytest.mark.parametrize("code", [6, 42, 200, 10**30])
def test_an_unknown_status_is_kept(code: int) -> None:
    look = answers.task_info(said(ret_code=code, message="On Holiday"))
    assert look == TaskInfo(TaskStatus.UNKNOWN, "On Holiday", code=code)


@pytest.mark.parametrize("accuracy", [0.625, 1, None])
def test_an_accuracy_may_be_null(accuracy: float | None) -> None:
    assert answers.task_info(said(ret_code=2, test_acc=accuracy)).test_acc == accuracy


@pytest.mark.parametrize("code", [-1, -104, -(10**30)])
def test_an_unknown_refusal_is_a_plain_service_error(code: int) -> None:
    with pytest.raises(ServiceError) as caught:
        answers.done("delete_task", said(ret_code=code, message="不行"))
    assert (type(caught.value), caught.value.code, caught.value.message) == (ServiceError, code, "不行")


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("task_status", "index")])
@pytest.mark.parametrize("code", [0, 1, 5, 201, 422])
def test_a_ret_code_that_is_neither_is_not_taken(name: str, code: int) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"ret_code {code}"):
        READERS[name](said(ret_code=code))


@pytest.mark.parametrize("name", READERS)
def test_a_refusal_needs_nothing_but_code_and_message(name: str) -> None:
    refused = said(ret_code=-100, message="没有")
    with pytest.raises(UnexpectedAnswer if name == "index" else ServiceError):
        READERS[name](refused)


UNREADABLE = [
    ("", "is empty"),
    ("Internal", "is not JSON"),
    ('{"ret_code":2', "is not JSON"),
    ("[]", r"Expected `object`, got `array`"),
    ("null", r"Expected `object`, got `null`"),
    ('{"message":"x"}', "missing required field `ret_code`"),
    ('{"ret_code":2}', "missing required field `message`"),
    ('{"ret_code":"2","message":"x"}', r"got `str` - at `\$.ret_code`"),
    ('{"ret_code":true,"message":"x"}', r"got `bool` - at `\$.ret_code`"),
    ('{"ret_code":2.0,"message":"x"}', r"got `float` - at `\$.ret_code`"),
    ('{"ret_code":null,"message":"x"}', r"got `null` - at `\$.ret_code`"),
    ('{"ret_code":2,"message":null}', r"got `null` - at `\$.message`"),
    ('{"ret_code":2,"message":"x","test_acc":"0.5"}', r"got `str` - at `\$.test_acc`"),
    ('{"ret_code":2,"message":"x","test_acc":NaN}', "is not JSON"),
    ('{"ret_code":2,"message":"x","test_acc":1e999}', r"out of range - at `\$.test_acc`"),
    ('{"deep":' + "[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("body", "problem"), UNREADABLE, ids=[body[:50] for body, _ in UNREADABLE])
def test_a_look_that_cannot_be_read_names_the_place(body: str, problem: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=problem) as caught:
        answers.task_info(Answer(200, body=body.encode()))
    assert caught.value.call == "task_status"


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("create_task", {}),
        ("create_task", {"task_id": ""}),
        ("create_task", {"task_id": 5}),
        ("create_task", {"task_id": None}),
        ("list_tasks", {}),
        ("list_tasks", {"tasks": None}),
        ("list_tasks", {"tasks": ["a", 5]}),
        ("list_tasks", {"tasks": {"a": 1}}),
    ],
)
def test_success_without_its_value_is_not_taken(name: str, document: dict[str, object]) -> None:
    with pytest.raises(UnexpectedAnswer):
        READERS[name](said(ret_code=200, **document))


ENTITY = {"entity_text": "李", "entity_type": "人名", "entity_index": [0, 1], "score": 0.5}
EXTRACT = {"task": "实体识别", "text": "李开复", "entity_list": [ENTITY], "spo_list": [], "choice": ["人名"]}
RELATION = {"predicate": "是", "subject": ENTITY, "object": ENTITY, "score": 1}

BAD_RESULTS: list[tuple[TaskType, int, Any, str]] = [
    (TaskType.CLASSIFICATION, 1, None, "0 results for 1 rows"),
    (TaskType.IE, 2, None, "0 results for 2 rows"),
    (TaskType.SUMMARY, 1, None, "0 results for 1 rows"),
    (TaskType.SUMMARY, 1, {}, "0 results for 1 rows"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a", "b"], "probabilities": [[1.0], [1.0]]}, "2 results for 1 rows"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": []}, "1 predictions with 0 rows"),
    (TaskType.CLASSIFICATION, 1, {"predictions": [], "probabilities": [[1.0]]}, "0 predictions with 1 rows"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": [[]]}, "not the probabilities of 'a'"),
    (TaskType.CLASSIFICATION, 1, {"predictions": [5], "probabilities": [[1.0]]}, r"\$.result.predictions\[0\]"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": [["1"]]}, r"\$.result.probabilities"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": [[None]]}, r"\$.result.probabilities"),
    (
        TaskType.SIMILARITY,
        1,
        {"predictions": ["2"], "probabilities": [[0.5, 0.5]]},
        "no answer of a task whose labels are 0, 1",
    ),
    (
        TaskType.NLI,
        1,
        {"predictions": ["neutral"], "probabilities": [[0.5, 0.5]]},
        "no answer of a task whose labels are entailment",
    ),
    (
        TaskType.CLASSIFICATION,
        1,
        {"predictions": ["a"], "probabilities": [[1.2, -0.2]]},
        "not the probabilities of 'a'",
    ),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": [[0.5, 0.4]]}, "add up to 0.9"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": [[0.9, 0.9]]}, "add up to 1.8"),
    (TaskType.CLASSIFICATION, 1, {"predictions": ["a"], "probabilities": [[0.01] * 99]}, "add up to 0.99: "),
    (
        TaskType.CLASSIFICATION,
        2,
        {"predictions": ["a", "b"], "probabilities": [[0.5, 0.5], [0.2, 0.3, 0.5]]},
        "rows of 2 and of 3 probabilities",
    ),
    (TaskType.SIMILARITY, 1, {"predictions": ["0"], "probabilities": [[0.4, 0.6]]}, "not the label of the largest"),
    (
        TaskType.NLI,
        1,
        {"predictions": ["neutral"], "probabilities": [[0.4, 0.3, 0.3]]},
        "not the label of the largest probability: 'neutral', ",
    ),
    (TaskType.IE, 1, [EXTRACT, EXTRACT], "2 results for 1 rows"),
    (TaskType.IE, 1, [{**EXTRACT, "entity_list": [{**ENTITY, "entity_index": [1, 2]}]}], "is not at 1:2"),
    (TaskType.IE, 1, [{**EXTRACT, "entity_list": [{**ENTITY, "entity_index": [-3, -2]}]}], "is not at -3:-2"),
    (TaskType.IE, 1, [{**EXTRACT, "entity_list": [{**ENTITY, "entity_index": [0]}]}], "entity_index"),
    (TaskType.IE, 1, [{**EXTRACT, "spo_list": [{**RELATION, "object": None}]}], r"spo_list\[0\].object"),
    (TaskType.SUMMARY, 2, {"0": "a", "2": "b"}, "none for row '1'"),
    (TaskType.SUMMARY, 1, {"00": "a"}, "none for row '0'"),
    (TaskType.SUMMARY, 1, {"0": None}, r"\$.result"),
]


@pytest.mark.parametrize(("kind", "asked", "result", "problem"), BAD_RESULTS)
def test_a_result_that_cannot_be_is_not_taken(kind: TaskType, asked: int, result: Any, problem: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=problem):
        results(kind, asked, said(ret_code=200, result=result))


@pytest.mark.parametrize("kind", TaskType)
def test_a_success_without_result_is_not_taken(kind: TaskType) -> None:
    with pytest.raises(UnexpectedAnswer, match="no `result`"):
        results(kind, 0, said(ret_code=200))


@pytest.mark.parametrize("kind", TaskType)
def test_no_rows_have_no_results_in_any_shape(kind: TaskType) -> None:
    assert results(kind, 0, said(ret_code=200, result=None)) == ()


@pytest.mark.parametrize("row", [[0.5, 0.5], [0.4999, 0.4996], [1.0004, 0.0], [1.0, -0.0004]])
def test_probabilities_may_be_rounded(row: list[float]) -> None:
    (found,) = results(
        TaskType.SIMILARITY, 1, said(ret_code=200, result={"predictions": ["0"], "probabilities": [row]})
    )
    assert isinstance(found, Prediction)
    assert found.raw == {"predictions": "0", "probabilities": row}


def test_what_the_engine_said_of_a_sample_is_kept_and_does_not_count() -> None:
    more = {**EXTRACT, "spo_list": [{**RELATION, "score": 0.5}], "unknown": [1, None, "李"]}
    one, other = (results(TaskType.IE, 1, said(ret_code=200, result=[row]))[0] for row in (more, {**more, "task": "x"}))
    assert one == other
    assert hash(one) == hash(other)
    assert (one.raw, other.raw) == (more, {**more, "task": "x"})
    assert "unknown" not in repr(one)
    assert Extraction("x").raw is None
    (summary,) = results(TaskType.SUMMARY, 1, said(ret_code=200, result={"0": "short"}))
    assert summary.raw == "short"


def test_a_kept_result_does_not_keep_the_whole_answer() -> None:
    rows = [{**EXTRACT, "choice": ["x" * 1000]} for _ in range(100)]
    (first, *_) = results(TaskType.IE, 100, said(ret_code=200, result=rows))
    assert isinstance(first, Extraction)
    assert sys.getsizeof(first.json) < 2000


@pytest.mark.parametrize("kind", [TaskType.IE, TaskType.SUMMARY, TaskType.CLASSIFICATION])
def test_a_result_survives_pickle_and_json(kind: TaskType) -> None:
    wire: dict[TaskType, Any] = {
        TaskType.IE: [{**EXTRACT, "spo_list": [RELATION]}],
        TaskType.SUMMARY: {"0": "short"},
        TaskType.CLASSIFICATION: {"predictions": ["a"], "probabilities": [[1.0]]},
    }
    (found,) = results(kind, 1, said(ret_code=200, result=wire[kind]))
    for copied in (
        pickle.loads(pickle.dumps(found)),
        msgspec.json.decode(msgspec.json.encode(found), type=type(found)),
    ):
        assert copied == found
        assert copied.raw == found.raw


def test_summaries_are_ordered_by_number_not_by_text() -> None:
    found = results(TaskType.SUMMARY, 12, said(ret_code=200, result={str(row): f"s{row}" for row in range(11, -1, -1)}))
    assert [getattr(summary, "text", None) for summary in found] == [f"s{row}" for row in range(12)]


STATUSES = [
    (301, "a redirect to https://other.example/api/x"),
    (204, "status 204: which the engine never sends"),
    (401, "asks for credentials"),
    (403, "forbids it"),
    (407, "a proxy asks"),
    (413, "too large"),
    (418, "status 418"),
]


@pytest.mark.parametrize(("status", "problem"), STATUSES)
@pytest.mark.parametrize("name", READERS)
def test_what_stands_in_front_of_the_engine_is_told_apart(name: str, status: int, problem: str) -> None:
    location = "https://user:secret@other.example/api/x?token=secret"
    with pytest.raises(UnexpectedAnswer, match=problem) as caught:
        READERS[name](Answer(status, (("location", location),), b"<html>"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", [None, "", "/api/train", "http://[::1", "//"])
def test_an_odd_location_is_still_a_redirect(location: str | None) -> None:
    headers = () if location is None else (("location", location),)
    with pytest.raises(UnexpectedAnswer, match="a redirect to "):
        answers.done("start_training", Answer(307, headers))


def test_a_web_page_is_no_answer() -> None:
    with pytest.raises(UnexpectedAnswer, match="a web page in place of JSON: wrong base URL"):
        answers.listed(Answer(200, (("content-type", "text/html; charset=utf-8"),), b"<html>"))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_another_5xx_is_told_without_guessing(status: int) -> None:
    with pytest.raises(ServerFailed, match=f"predict: the server answered {status}: Bad Gateway") as caught:
        results(TaskType.NLI, 1, Answer(status, body=b"Bad Gateway"))
    assert caught.value.status == status


def test_too_many_requests_is_rate_limited() -> None:
    with pytest.raises(RateLimited, match="slow down"):
        answers.listed(Answer(429, body=b"slow down"))


def test_a_422_of_something_else_is_unexpected() -> None:
    with pytest.raises(UnexpectedAnswer):
        answers.listed(Answer.json(422, {"error": "no"}))


def test_a_message_is_kept_word_for_word() -> None:
    message = "训练数据不存在或者数据格式不合法: \n/srv/gts/tasks/t/data/train.json路径不存在"
    with pytest.raises(NotFound) as caught:
        answers.done("start_training", said(ret_code=-100, message=message))
    assert caught.value.message == message
    assert str(caught.value) == f"start_training: refused (-100): {message}"


def outcome(reader: Callable[[Answer], object], answer: Answer) -> str:
    try:
        reader(answer)
    except (UnexpectedAnswer, ServiceError, ServerFailed) as error:
        return str(error)
    return "value"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CODES = st.sampled_from([200, -100, -101, -102, -103, -200, 0, 1, 2, 3, 4, 5]) | st.integers()
HEADERS = st.lists(st.tuples(st.sampled_from(["location", "content-type"]), st.text()), max_size=2).map(tuple)
STATUS = st.sampled_from([200, 200, 200, 422, 500, 307]) | st.integers(200, 599)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(READERS)), STATUS, HEADERS, st.binary())
def test_no_bytes_bring_another_error(name: str, status: int, headers: tuple[Any, ...], body: bytes) -> None:
    ended = outcome(READERS[name], Answer(status, headers, body))
    assert ended != "value" or status == 200


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(READERS)), STATUS, JSON)
def test_no_json_brings_another_error(name: str, status: int, document: Any) -> None:
    ended = outcome(READERS[name], Answer(status, body=json.dumps(document).encode()))
    assert ended != "value" or status == 200


RESULTS = (
    JSON
    | st.fixed_dictionaries(
        {"predictions": st.lists(st.sampled_from(["0", "neutral", "a"]) | JSON, max_size=3), "probabilities": JSON},
    )
    | st.dictionaries(st.sampled_from(["0", "1", "2", "x"]), st.text() | JSON, max_size=3)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(READERS)), CODES, JSON, RESULTS)
def test_nothing_in_an_envelope_brings_another_error(name: str, code: int, value: Any, result: Any) -> None:
    body = {"ret_code": code, "message": "x", "task_id": value, "tasks": value, "test_acc": value, "result": result}
    ended = outcome(READERS[name], Answer(200, body=json.dumps(body).encode()))
    assert ended != "value" or name == "task_status" or code == 200
