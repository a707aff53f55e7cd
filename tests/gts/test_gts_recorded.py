"""What a real engine answered, read by our readers: every recorded answer of an endpoint has one expected outcome."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gts_async import _errors as errors
from gts_async.gts import answers
from gts_async.gts.results import results
from gts_async.gts.values import (
    Entity,
    Extraction,
    Prediction,
    Relation,
    Summary,
    TaskInfo,
    TaskStatus,
    TaskType,
)
from gts_async.wire import Answer

SAMPLES = Path(__file__).parent.parent / "samples" / "gts"
ARRIVED = datetime(2026, 11, 22, 5, 42, tzinfo=UTC)

CALLS = {
    "": "index",
    "create_task": "create_task",
    "list_task": "list_tasks",
    "nope": "list_tasks",
    "check_task_status": "task_status",
    "upfiles": "upload",
    "delete_task": "delete_task",
    "train": "start_training",
    "stop_train": "stop_training",
    "start_inference": "start_inference",
    "predict": "predict",
    "end_inference": "end_inference",
}

TASK_TYPES = {
    "A": TaskType.CLASSIFICATION,
    "qk-clf": TaskType.CLASSIFICATION,
    "qk-nli": TaskType.NLI,
    "N": TaskType.NLI,
    "off": TaskType.SIMILARITY,
    "bg-ie": TaskType.IE,
    "bg-sum": TaskType.SUMMARY,
}

STATUSES = {
    0: (TaskStatus.INITIALIZED, "Initialized"),
    1: (TaskStatus.TRAINING, "On Training"),
    2: (TaskStatus.SUCCEEDED, "Train Success"),
    3: (TaskStatus.FAILED, "Train Failed"),
    4: (TaskStatus.STOPPED, "Train Stopped"),
    5: (TaskStatus.SERVING, "On Inference"),
}


def status_of(body: dict[str, Any]) -> TaskInfo:
    status, message = STATUSES[body["ret_code"]]
    return TaskInfo(status, message, body.get("test_acc"), ARRIVED, body["ret_code"])


GIVES: dict[tuple[str, int], Callable[[dict[str, Any]], object]] = {
    ("create_task", 200): lambda body: body["task_id"],
    ("list_tasks", 200): lambda body: tuple(body["tasks"]),
    ("task_status", 0): status_of,
    ("task_status", 1): status_of,
    ("task_status", 2): status_of,
    ("task_status", 3): status_of,
    ("task_status", 4): status_of,
    ("task_status", 5): status_of,
    ("upload", 200): lambda body: None,
    ("delete_task", 200): lambda body: None,
    ("start_training", 200): lambda body: None,
    ("stop_training", 200): lambda body: None,
    ("start_inference", 200): lambda body: None,
    ("end_inference", 200): lambda body: None,
}
"""What a call gives whose answer has HTTP 200 and this ret_code, made from the body by hand."""

REFUSES: dict[tuple[str, int], tuple[type[errors.ServiceError], str]] = {
    ("create_task", -100): (errors.AlreadyExists, "task已经存在"),
    ("task_status", -100): (errors.NotFound, "任务不存在"),
    ("task_status", -200): (errors.NotFound, "任务信息文件不存在"),
    ("upload", -100): (errors.NotFound, "task id不存在"),
    ("delete_task", -100): (errors.NotFound, "task id不存在"),
    ("start_training", -100): (errors.NotFound, "任务id不存在"),
    ("start_training", -101): (errors.InvalidData, "数据"),
    ("start_training", -102): (errors.WrongState, "任务信息文件不存在"),
    ("stop_training", -100): (errors.NotFound, "任务id不存在"),
    ("stop_training", -102): (errors.WrongState, "任务信息文件不存在"),
    ("stop_training", -103): (errors.WrongState, "任务不在训练中"),
    ("predict", -100): (errors.NotFound, "task_id not exits"),
    ("predict", -101): (errors.InvalidData, "格式错误"),
}
"""The error that a refusal is, and words of its message."""

FAILS = {
    "create_task": "Internal Server Error",
    "task_status": "500 for ever",
    "upload": "those before it in the same request were",
    "start_training": "is not UTF-8",
    "stop_training": "the training process is dead",
    "start_inference": "there is no model to load",
    "predict": "load it again",
    "end_inference": "nothing was loaded",
}
"""Words of what each call's 500 means."""

ODD = {
    307: "a redirect to http",
    400: "status 400: the engine could not parse the request",
    404: "status 404: there is no such path",
    405: "status 405: that path does not take this method",
}


class Recorded:
    def __init__(self, group: str, record: dict[str, Any]) -> None:
        self.group = group
        self.name: str = record["name"]
        self.path: str = record["path"]
        self.request: Any = record.get("request")
        self.document: Any = record["body"]
        is_json = "type" not in record and self.document != ""
        headers = {"content-type": record.get("type", "application/json"), "location": record.get("location")}
        self.answer = Answer(
            record["status"],
            tuple((key, value) for key, value in headers.items() if value is not None),
            msgspec.json.encode(self.document) if is_json else self.document.encode(),
            ARRIVED,
        )
        self.call = CALLS[self.path.partition("?")[0].strip("/").removeprefix("api/")]

    @property
    def code(self) -> int | None:
        return self.document.get("ret_code") if isinstance(self.document, dict) else None

    def read(self) -> Any:
        return self.reader()(self.answer)

    def reader(self) -> Callable[[Answer], object]:
        readers: dict[str, Callable[[Answer], object]] = {
            "index": answers.greeted,
            "create_task": answers.created,
            "list_tasks": answers.listed,
            "task_status": answers.task_info,
            "predict": partial(results, self.task_type(), self.asked()),
        }
        return readers.get(self.call, partial(answers.done, self.call))

    def task_type(self) -> TaskType:
        task_id = self.request.get("task_id") if isinstance(self.request, dict) else "A"
        return TASK_TYPES.get(task_id, TaskType.CLASSIFICATION)

    def asked(self) -> int:
        """Without sentences the engine predicts two of its own."""
        sentences = self.request.get("sentences") if isinstance(self.request, dict) else None
        return 2 if sentences is None else len(sentences)

    def __repr__(self) -> str:
        return f"{self.group}: {self.name}"


RECORDED = [
    Recorded(file.stem, json.loads(line))
    for file in sorted(SAMPLES.glob("*.jsonl"))
    for line in file.read_text("utf-8").splitlines()
]


def of(**wanted: object) -> list[Recorded]:
    return [record for record in RECORDED if all(getattr(record, key) == value for key, value in wanted.items())]


ANSWERED = [record for record in RECORDED if record.answer.status == 200]
VALUES = [record for record in ANSWERED if (record.call, record.code) in GIVES]
REFUSALS = [record for record in ANSWERED if (record.code or 0) < 0]
PREDICTED = [record for record in ANSWERED if record.call == "predict" and record.code == 200]
GREETINGS = [record for record in ANSWERED if record.call == "index"]
FAILURES = [record for record in RECORDED if record.answer.status == 500]
INVALID = [record for record in RECORDED if record.answer.status == 422]
ODDITIES = [record for record in RECORDED if record.answer.status in ODD]


def test_every_recorded_answer_is_expected_once() -> None:
    parts = (VALUES, REFUSALS, PREDICTED, GREETINGS, FAILURES, INVALID, ODDITIES)
    assert len(RECORDED) > 500
    assert sorted(map(id, chain.from_iterable(parts))) == sorted(map(id, RECORDED))


def test_every_expectation_was_recorded() -> None:
    seen = {(record.call, record.code) for record in ANSWERED}
    assert set(GIVES) <= seen
    assert set(REFUSES) <= seen
    assert set(FAILS) == {record.call for record in FAILURES}
    assert set(ODD) == {record.answer.status for record in ODDITIES}
    assert {record.task_type() for record in PREDICTED} == set(TaskType)


@pytest.mark.parametrize("record", VALUES, ids=repr)
def test_success_is_read_as_its_value(record: Recorded) -> None:
    assert record.code is not None
    found = record.read()
    assert found == GIVES[record.call, record.code](record.document)
    assert type(found) is type(GIVES[record.call, record.code](record.document))


@pytest.mark.parametrize("record", [record for record in VALUES if record.call == "task_status"], ids=repr)
def test_a_look_knows_when_it_was_made(record: Recorded) -> None:
    look = answers.task_info(record.answer)
    assert (look.observed_at, look.code) == (ARRIVED, record.code)


@pytest.mark.parametrize("record", REFUSALS, ids=repr)
def test_a_refusal_is_its_error_with_the_engines_own_words(record: Recorded) -> None:
    assert record.code is not None
    kind, words = REFUSES[record.call, record.code]
    with pytest.raises(errors.ServiceError) as caught:
        record.read()
    assert type(caught.value) is kind
    assert (caught.value.call, caught.value.code) == (record.call, record.code)
    assert caught.value.message == errors.plain(record.document["message"])
    assert words in caught.value.message


@pytest.mark.parametrize("record", FAILURES, ids=repr)
def test_a_500_says_what_is_known_about_it(record: Recorded) -> None:
    with pytest.raises(errors.ServerFailed, match=FAILS[record.call]) as caught:
        record.read()
    assert (caught.value.call, caught.value.status) == (record.call, 500)
    assert caught.value.body == "Internal Server Error"


@pytest.mark.parametrize("record", INVALID, ids=repr)
def test_a_422_names_every_bad_field(record: Recorded) -> None:
    with pytest.raises(errors.InvalidData) as caught:
        record.read()
    said = caught.value.message.split("; ")
    assert (caught.value.call, caught.value.code, len(said)) == (record.call, 422, len(record.document["detail"]))
    for entry, error in zip(said, record.document["detail"], strict=True):
        assert entry.endswith(f": {error['msg']}")
        assert str(error["loc"][-1]) in entry


@pytest.mark.parametrize("record", ODDITIES, ids=repr)
def test_an_answer_of_no_handler_tells_what_is_wrong(record: Recorded) -> None:
    with pytest.raises(errors.UnexpectedAnswer) as caught:
        record.read()
    assert caught.value.problem.startswith(ODD[record.answer.status])
    assert caught.value.call == record.call
    assert (record.answer.header("location") or "").partition("?")[0] in caught.value.problem


@pytest.mark.parametrize("record", GREETINGS, ids=repr)
def test_the_engines_page_is_known(record: Recorded) -> None:
    record.read()
    with pytest.raises(errors.UnexpectedAnswer, match="not GTS Engine's"):
        answers.greeted(Answer(200, record.answer.headers, b"<h1>Welcome to nginx!</h1>"))


@pytest.mark.parametrize("record", PREDICTED, ids=repr)
def test_predictions_keep_their_rows_and_numbers(record: Recorded) -> None:
    found: Any = record.read()
    result = record.document["result"] or {}
    if isinstance(result, list):
        assert [row.text for row in found] == [row["text"] for row in result]
        assert [len(row.entities) for row in found] == [len(row["entity_list"]) for row in result]
        assert [len(row.relations) for row in found] == [len(row["spo_list"]) for row in result]
    elif "predictions" in result:
        assert [row.label for row in found] == result["predictions"]
        assert [list(row.probabilities) for row in found] == result["probabilities"]
        assert [row.probability for row in found] == [max(row) for row in result["probabilities"]]
    else:
        assert {str(place): row.text for place, row in enumerate(found)} == result
    assert len(found) == record.asked()


def only(group: str, name: str) -> Recorded:
    (record,) = (record for record in of(group=group, name=name) if record.call == "predict")
    return record


def test_nli_has_its_three_probabilities() -> None:
    probabilities = (0.33336344361305237, 0.3334170877933502, 0.333219438791275)
    assert only("pipeline-qiankunding-nli", "predict").read() == (
        Prediction("contradiction", 0.3334170877933502, probabilities),
    )


def test_classification_answers_in_the_order_of_its_rows() -> None:
    assert only("pipeline-qiankunding-classification", "predict").read() == (
        Prediction("体育", 0.3416828916172783, (0.3416828916172783, 0.3291624325239601, 0.32915466393783266)),
        Prediction("农业", 0.35436064226694425, (0.32896195428304353, 0.3166773319244385, 0.35436064226694425)),
    )


def test_similarity_answers_a_string() -> None:
    (found,) = only("official-client-0.1.6", "inference").read()
    assert found.label in ("0", "1")
    assert len(found.probabilities) == 2


def test_bagualu_answers_null_for_no_rows() -> None:
    record = only("predict", "empty list")
    assert record.document["result"] is None
    assert record.read() == ()


def test_extraction_holds_entities_and_relations() -> None:
    first, second = only("pipeline-bagualu-ie", "predict").read()
    assert first == Extraction(
        "李开复",
        (
            Entity("李", "人名", 0, 1, 0.8413712978363037),
            Entity("李开复", "人名", 0, 3, 0.9955084323883057),
            Entity("复", "人名", 2, 3, 0.967137336730957),
        ),
    )
    assert second.relations[0] == Relation(
        "嘉宾",
        Entity("英", "电视综艺", 0, 1, 0.9995352029800415),
        Entity("英", "人物", 0, 1, 0.9995379447937012),
        0.503800094127655,
    )


def test_summaries_come_as_a_list() -> None:
    found: Any = only("pipeline-bagualu-summary", "predict").read()
    assert len(found) == 2
    assert all(isinstance(summary, Summary) and summary.text.startswith("[unused27]悟悟") for summary in found)


OTHERS = {
    TaskType.CLASSIFICATION: [TaskType.IE, TaskType.SUMMARY, TaskType.SIMILARITY, TaskType.NLI],
    TaskType.NLI: [TaskType.IE, TaskType.SUMMARY, TaskType.SIMILARITY],
    TaskType.SIMILARITY: [TaskType.IE, TaskType.SUMMARY, TaskType.NLI],
    TaskType.IE: [TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI, TaskType.SUMMARY],
    TaskType.SUMMARY: [TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI, TaskType.IE],
}


@pytest.mark.parametrize("record", [record for record in PREDICTED if record.asked()], ids=repr)
def test_a_result_of_another_task_type_is_not_taken(record: Recorded) -> None:
    for other in OTHERS[record.task_type()]:
        with pytest.raises(errors.UnexpectedAnswer):
            results(other, record.asked(), record.answer)


@pytest.mark.parametrize("record", PREDICTED, ids=repr)
def test_a_result_for_another_number_of_rows_is_not_taken(record: Recorded) -> None:
    with pytest.raises(errors.UnexpectedAnswer, match=f"{record.asked()} results for {record.asked() + 1} rows"):
        results(record.task_type(), record.asked() + 1, record.answer)
