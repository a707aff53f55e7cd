"""What each call sends, whether it may be sent twice, and how patient it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from gts_async._errors import InvalidArgument, ServerFailed, WrongType
from gts_async.gts import calls
from gts_async.gts.samples import prepare
from gts_async.gts.values import EngineType, TaskType, TrainOptions
from gts_async.wire import Answer, Call, FilePart, Multipart, Pace, Request

SAMPLES = Path(__file__).parent.parent / "samples" / "gts"
OPTIONS = TrainOptions(train_data="train.json", val_data="dev.json", test_data="test.json", label_data="labels.json")
FILES = (FilePart("train.json", "a/train.json"), FilePart("dev.json", "/b/dev.json"))


def post(path: str, body: str) -> Request:
    return Request("POST", path, headers=(("content-type", "application/json"),), body=body.encode())


SENT: list[tuple[Call[Any], Request]] = [
    (
        calls.create_task("tnews", TaskType.CLASSIFICATION, EngineType.BAGUALU),
        post("/api/create_task/", '{"task_name":"tnews","task_type":"classification","engine_type":"bagualu"}'),
    ),
    (
        calls.create_task("t", "nli", "qiankunding"),
        post("/api/create_task/", '{"task_name":"t","task_type":"nli","engine_type":"qiankunding"}'),
    ),
    (calls.list_tasks(), post("/api/list_task/", "{}")),
    (calls.task_status("t"), post("/api/check_task_status", '{"task_id":"t"}')),
    (
        calls.upload("t", FILES),
        Request(
            "POST",
            "/api/upfiles/",
            body=Multipart((("task_id", "t"),), (("files", FILES[0]), ("files", FILES[1]))),
        ),
    ),
    (calls.delete_task("t"), post("/api/delete_task/", '{"task_id":"t"}')),
    (
        calls.start_training("t", OPTIONS),
        post(
            "/api/train",
            '{"task_id":"t","train_data":"train.json","val_data":"dev.json","test_data":"test.json",'
            '"label_data":"labels.json","unlabeled_data":"","max_len":512,"max_num_epoch":3,"min_num_epoch":3,'
            '"seed":42,"gpuid":0,"train_mode":"standard"}',
        ),
    ),
    (
        calls.start_training(
            "t",
            attrs.evolve(
                OPTIONS,
                unlabeled_data="more.json",
                train_mode="advanced",
                max_len=64,
                max_num_epoch=5,
                min_num_epoch=0,
                seed=1,
                gpuid=7,
            ),
        ),
        post(
            "/api/train",
            '{"task_id":"t","train_data":"train.json","val_data":"dev.json","test_data":"test.json",'
            '"label_data":"labels.json","unlabeled_data":"more.json","max_len":64,"max_num_epoch":5,"min_num_epoch":0,'
            '"seed":1,"gpuid":7,"train_mode":"advanced"}',
        ),
    ),
    (calls.stop_training("t"), post("/api/stop_train", '{"task_id":"t"}')),
    (calls.start_inference("t"), post("/api/start_inference", '{"task_id":"t"}')),
    (
        calls.predict("t", TaskType.SUMMARY, [{"text": "长文", "summary": ""}]),
        post("/api/predict", '{"task_id":"t","sentences":[{"text":"长文","summary":""}]}'),
    ),
    (calls.end_inference("t"), post("/api/end_inference", '{"task_id":"t"}')),
    (calls.index(), Request("GET", "/")),
]


@pytest.mark.parametrize(("call", "request_"), SENT, ids=lambda value: getattr(value, "name", ""))
def test_a_call_sends(call: Call[Any], request_: Request) -> None:
    assert call.request == request_


HABITS = {
    "create_task": (False, Pace.ORDINARY, set()),
    "list_tasks": (True, Pace.ORDINARY, set()),
    "task_status": (True, Pace.ORDINARY, {500}),
    "upload": (True, Pace.TRANSFER, {500}),
    "delete_task": (True, Pace.ORDINARY, {500}),
    "start_training": (False, Pace.ORDINARY, {500}),
    "stop_training": (True, Pace.ORDINARY, {500}),
    "start_inference": (True, Pace.LOAD, {500}),
    "predict": (True, Pace.LOAD, {500}),
    "end_inference": (True, Pace.ORDINARY, {500}),
    "index": (True, Pace.ORDINARY, set()),
}


@pytest.mark.parametrize("call", [call for call, _ in SENT], ids=lambda call: call.name)
def test_a_call_knows_whether_it_may_be_repeated(call: Call[Any]) -> None:
    assert (call.is_repeatable, call.pace, set(call.answers_with)) == HABITS[call.name]


def test_every_endpoint_has_its_call() -> None:
    assert {call.name for call, _ in SENT} == set(HABITS)


@pytest.mark.parametrize("call", [call for call, _ in SENT], ids=lambda call: call.name)
def test_a_call_reads_its_answer_under_its_own_name(call: Call[Any]) -> None:
    with pytest.raises(ServerFailed) as caught:
        call.read(Answer(500, (("content-type", "text/plain"),), b"Internal Server Error"))
    assert caught.value.call == call.name


ABOUT_A_TASK: list[Callable[[Any], Call[Any]]] = [
    lambda name: calls.create_task(name, TaskType.NLI, EngineType.QIANKUNDING),
    calls.task_status,
    lambda name: calls.upload(name, FILES),
    lambda name: calls.upload("t", [FilePart(name, "train.json")]),
    calls.delete_task,
    lambda name: calls.start_training(name, OPTIONS),
    calls.stop_training,
    calls.start_inference,
    lambda name: calls.predict(name, TaskType.CLASSIFICATION, [{"content": "a"}]),
    calls.end_inference,
]


@pytest.mark.parametrize("make", ABOUT_A_TASK)
@pytest.mark.parametrize(
    "name", ["", ".", "..", "../t", "/t", "a/b", "a b", "a;id>x", "$(id)", "-t", "任务", "a" * 201]
)
def test_an_id_that_the_engine_would_paste_into_a_shell_makes_no_call(
    make: Callable[[Any], Call[Any]], name: str
) -> None:
    with pytest.raises(InvalidArgument):
        make(name)


@pytest.mark.parametrize("make", ABOUT_A_TASK)
@pytest.mark.parametrize("name", [None, 5, b"t"])
def test_an_id_is_a_string(make: Callable[[Any], Call[Any]], name: object) -> None:
    with pytest.raises(WrongType):
        make(name)


def test_no_files_and_doubled_names_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="is empty"):
        calls.upload("t", [])
    with pytest.raises(InvalidArgument, match=r"train\.json twice"):
        calls.upload("t", [*FILES, FilePart("train.json", "c/train.json")])


def test_predicting_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="rows"):
        calls.predict("t", TaskType.SIMILARITY, [])


def test_predict_wants_as_many_results_as_rows() -> None:
    call = calls.predict("t", TaskType.SUMMARY, [{"text": "a", "summary": ""}, {"text": "b", "summary": ""}])
    answer = Answer.json(200, {"ret_code": 200, "message": "预测成功", "result": {"1": "y", "0": "x"}})
    assert [summary.text for summary in call.read(answer)] == ["x", "y"]


def test_the_real_engine_took_the_same_requests() -> None:
    """Every training that it accepted was asked for with exactly our fields."""
    ours = json.loads(calls.start_training("t", OPTIONS).request.body)
    accepted = [
        record["request"]
        for file in SAMPLES.glob("lifecycle-*.jsonl")
        for record in map(json.loads, file.read_text("utf-8").splitlines())
        if record["path"] == "/api/train" and record["body"].get("ret_code") == 200 and "request" in record
    ]
    assert len(accepted) > 5
    assert all(set(request) == set(ours) for request in accepted)


def test_prepared_samples_travel_as_the_recorded_ones() -> None:
    row = prepare(TaskType.NLI, {"sentence1": "a", "sentence2": "b"})
    call = calls.predict("N", TaskType.NLI, [row])
    assert json.loads(call.request.body) == {
        "task_id": "N",
        "sentences": [{"sentence1": "a", "sentence2": "b", "label": "entailment"}],
    }
