"""Request bodies: what pydantic 1 and FastAPI make of them, and the engine's paths and errors around its handlers."""

import json

import pytest
from hypothesis import given, settings, strategies as st

from gts_async.emulator import engine_bodies as bodies
from gts_async.emulator.engine import Engine
from gts_async.emulator.engine_bodies import Crash, Rejected, read_body
from gts_async.emulator.scripted import MemoryFiles, ScriptedTrainer
from gts_async.wire import Request

NOT_DICT = '{"loc":["body"],"msg":"value is not a valid dict","type":"type_error.dict"}'
MISSING = '{"loc":["body"],"msg":"field required","type":"value_error.missing"}'


def request(body: bytes, content_type: str | None = "application/json", path: str = "/api/train") -> Request:
    headers = (("content-type", content_type),) if content_type is not None else ()
    return Request("POST", path, headers=headers, body=body)


def engine() -> Engine:
    return Engine(MemoryFiles(), ScriptedTrainer())


@pytest.mark.parametrize(
    ("sent", "read"),
    [("a", "a"), (5, "5"), (1.5, "1.5"), (True, "True"), (1e400, "inf"), (float("nan"), "nan")],
)
def test_texts_are_coerced(sent: object, read: str) -> None:
    assert read_body(request(json.dumps({"task_id": sent}).encode()), bodies.ONLY_ID) == {"task_id": read}


@pytest.mark.parametrize(("sent", "read"), [(5, 5), (-1, -1), (10**30, 10**30), (1.9, 1), (True, 1), (" 7 ", 7)])
def test_integers_are_coerced(sent: object, read: int) -> None:
    assert read_body(request(json.dumps({"seed": sent}).encode()), bodies.TRAIN)["seed"] == read


@pytest.mark.parametrize("sent", ["1.5", "", "x", [], {}, 1e400, float("nan")])
def test_what_is_no_integer_is_a_422(sent: object) -> None:
    with pytest.raises(Rejected) as caught:
        read_body(request(json.dumps({"seed": sent}).encode()), bodies.TRAIN)
    fault = '{"loc":["body","seed"],"msg":"value is not a valid integer","type":"type_error.integer"}'
    assert (caught.value.answer.status, caught.value.answer.text) == (422, f'{{"detail":[{fault}]}}')


def test_an_empty_object_is_full_of_defaults() -> None:
    assert read_body(request(b"{}"), bodies.PREDICT)["sentences"] == bodies.DEFAULT_SENTENCES
    train = read_body(request(b"{}"), bodies.TRAIN)
    assert train["train_mode"] == "standard"
    assert [train[key] for key in ("max_len", "max_num_epoch", "min_num_epoch", "seed", "gpuid")] == [512, 3, 3, 42, 0]


def test_faults_come_in_the_order_of_the_models_fields() -> None:
    with pytest.raises(Rejected) as caught:
        read_body(request(b'{"task_type":{},"engine_type":null,"task_name":[]}'), bodies.CREATE)
    faults = json.loads(caught.value.answer.body)["detail"]
    assert [fault["loc"][1] for fault in faults] == ["task_name", "engine_type", "task_type"]


@pytest.mark.parametrize(
    ("body", "content_type", "faults"),
    [
        (b"", "application/json", MISSING),
        (b"null", "application/json", MISSING),
        (b"5", "application/json", NOT_DICT),
        (b"[1]", "application/json", NOT_DICT),
        (b"{}", "text/plain", NOT_DICT),
        (b"{}", "json", NOT_DICT),
        (b"[[1,2]]", "application/json", '{"loc":["body"],"msg":"keywords must be strings","type":"type_error"}'),
    ],
)
def test_bodies_that_are_no_objects_are_a_422(body: bytes, content_type: str, faults: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_body(request(body, content_type), bodies.ONLY_ID)
    assert (caught.value.answer.status, caught.value.answer.text) == (422, f'{{"detail":[{faults}]}}')


@pytest.mark.parametrize("content_type", [None, "", "application/json; charset=x", "Application/Vnd.x+JSON"])
@pytest.mark.parametrize(
    "body",
    [b'{"task_id":"a"}', b'\xef\xbb\xbf{"task_id":"a"}', b'[["task_id","a"]]', '{"task_id":"a"}'.encode("utf-16")],
)
def test_many_spellings_of_an_object_are_taken(content_type: str | None, body: bytes) -> None:
    assert read_body(request(body, content_type), bodies.ONLY_ID) == {"task_id": "a"}


@pytest.mark.parametrize("body", [b'"\xff"', b"[" * 100_000, b"1" * 5000])
def test_bodies_that_python_cannot_read_are_a_400(body: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        read_body(request(body), bodies.ONLY_ID)
    assert caught.value.answer.status == 400
    assert caught.value.answer.text == '{"detail":"There was an error parsing the body"}'


@pytest.mark.parametrize("document", [float("nan"), "\ud800"])
def test_answers_that_are_no_json_crash(document: object) -> None:
    with pytest.raises(Crash):
        bodies.as_json(document)


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/", 200, None),
        ("POST", "/", 405, None),
        ("GET", "//", 404, None),
        ("POST", "api/list_task/", 200, None),
        ("PUT", "/api/train", 405, None),
        ("POST", "/api/Train", 404, None),
        ("POST", "/api/train%2F", 307, "http://127.0.0.1:5201/api/train"),
        ("POST", "/api/train///", 307, "http://127.0.0.1:5201/api/train"),
        ("POST", "/api/upfiles//", 404, None),
    ],
)
def test_paths_are_matched_as_starlette_does(method: str, path: str, status: int, location: str | None) -> None:
    answer = engine().answer(Request(method, path), 0.0)
    assert (answer.status, answer.header("location"), answer.header("server")) == (status, location, "uvicorn")


def test_a_redirect_keeps_host_query_and_the_proxys_scheme() -> None:
    headers = (("host", "gts.example:8443"), ("x-forwarded-proto", "https"))
    answer = engine().answer(Request("POST", "/api/train/", (("a", "1 &"), ("b", "任")), headers), 0.0)
    assert answer.header("location") == "https://gts.example:8443/api/train?a=1%20%26&b=%E4%BB%BB"


def test_a_500_is_always_the_same_text() -> None:
    answer = engine().answer(request(b'{"task_name":"a\\u0000"}', path="/api/create_task/"), 0.0)
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert answer.header("content-type") == "text/plain; charset=utf-8"


PATHS = ["create_task/", "list_task/", "check_task_status", "upfiles/", "delete_task/", "train", "stop_train"]
PATHS += ["start_inference", "predict", "end_inference"]
NAMES = st.sampled_from(
    ["a", "b", "", ".", "..", "a/b", "task_info.json", "../task_info.json", "a/data", "\0", "x" * 300]
)
KEYS = st.sampled_from(["task_id", "task_name", "task_type", "engine_type", "train_data", "val_data", "test_data",
                        "label_data", "train_mode", "unlabeled_data", "sentences"])  # fmt: skip
VALUES = NAMES | st.sampled_from(["ie", "summary", "bagualu", "advanced"]) | st.none() | st.integers() | st.lists(NAMES)
STEPS = st.lists(st.tuples(st.sampled_from(PATHS), st.dictionaries(KEYS, VALUES), NAMES), max_size=15)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_no_request_breaks_the_emulator(steps: list[tuple[str, dict[str, object], str]]) -> None:
    files = MemoryFiles()
    service = Engine(files, ScriptedTrainer(files))
    for now, (path, document, name) in enumerate(steps):
        body, content_type = json.dumps(document).encode(), "application/json"
        if path == "upfiles/":
            head = '--B\r\nContent-Disposition: form-data; name="task_id"\r\n\r\na\r\n--B\r\nContent-Disposition: x; '
            body = f'{head}name="files"; filename="{name}"\r\n\r\n'.encode() + body + b"\r\n--B--"
            content_type = "multipart/form-data; boundary=B"
        answer = service.answer(request(body, content_type, f"/api/{path}"), float(now))
        assert answer.status in (200, 422, 500)
        assert answer.header("content-length") == str(len(answer.body))
