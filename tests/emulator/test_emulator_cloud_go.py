"""The Go generation behind the documented paths: strict types, and go-zero's words for what does not fit."""

import json

import pytest

from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

NOW = 1_703_203_200.0
GPU = "NVIDIA-GeForce-RTX-3090"
BODY = {
    "gpuNumber": 1, "gpuType": GPU, "ckptPath": "/workspace/ckpt", "ckptVol": "10000", "modelPath": "/workspace/model",
    "modelVol": "10000", "imagePath": "sxwl/image:v1", "jobType": "GeneralJob", "stopType": "0", "stopTime": 5,
}  # fmt: skip
STATUS, DELETE = "/api/userJob/job_status", "/api/userJob/job_del"


def cloud(runner=None, **quirks):
    store = ObjectStore(b"secret", "https://sxwl-ai.oss-cn-beijing.aliyuncs.com")
    runner = runner or ScriptedRunner()
    return Cloud(runner, store, token="t", generation=Generation.GO, quirks=CloudQuirks(**quirks))


def post(path, document, kind="application/json"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Request("POST", path, headers=(("content-type", kind), ("authorization", "Bearer t")), body=body)


def get(path, *query):
    return Request("GET", path, query, headers=(("authorization", "Bearer t"),))


def create(kept, now=NOW, **changes):
    return json.loads(kept.answer(post("/api/userJob", BODY | changes), now).body)["job_id"]


def refused(answer):
    assert answer.status == 400
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")
    return answer.text[:-1]


def test_the_documented_example_is_taken():
    answer = cloud().answer(post("/api/userJob", BODY), NOW)
    assert (answer.status, answer.header("content-type")) == (200, "application/json; charset=utf-8")
    assert answer.text.startswith('{"job_id":"ai')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stopType": 1}, 'type mismatch for field "stopType", expect "string", actual "number"'),
        ({"ckptVol": 10000}, 'type mismatch for field "ckptVol", expect "string", actual "number"'),
        ({"modelVol": 1.5}, 'type mismatch for field "modelVol", expect "string", actual "number"'),
        ({"stopTime": "5"}, 'type mismatch for field "stopTime"'),
        ({"gpuNumber": "1"}, 'type mismatch for field "gpuNumber"'),
        ({"gpuNumber": True}, 'type mismatch for field "gpuNumber"'),
        ({"gpuNumber": [1]}, 'type mismatch for field "gpuNumber"'),
        ({"gpuNumber": 1.5}, 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        ({"gpuNumber": 10**20}, 'strconv.ParseInt: parsing "100000000000000000000": value out of range'),
        ({"gpuType": True}, 'type mismatch for field "gpuType"'),
        ({"gpuType": {}}, 'type mismatch for field "gpuType"'),
        ({"gpuType": None}, 'field "gpuType" mustn\'t be nil'),
        ({"stopType": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ({"stopType": ""}, 'strconv.Atoi: parsing "": invalid syntax'),
        ({"modelVol": "10G"}, 'strconv.Atoi: parsing "10G": invalid syntax'),
        ({"ckptVol": "1.5"}, 'strconv.Atoi: parsing "1.5": invalid syntax'),
        ({"ckptVol": "1" * 20}, f'strconv.Atoi: parsing "{"1" * 20}": value out of range'),
        ({"ckptVol": " 1"}, 'strconv.Atoi: parsing " 1": invalid syntax'),
        ({"env": "A=1"}, 'type mismatch for field "env"'),
        ({"env": {"A": True}}, "type mismatch"),
        ({"env": {"A": None}}, "type mismatch"),
        ({"runCommand": 5}, 'type mismatch for field "runCommand", expect "string", actual "number"'),
        ({"callbackUrl": "x" * 256}, "Error 1406 (22001): Data too long for column 'callback_url' at row 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_plain_text(change, message):
    assert refused(cloud().answer(post("/api/userJob", BODY | change), NOW)) == message


@pytest.mark.parametrize("name", [name for name in BODY if name != "stopTime"])
def test_every_field_of_the_guide_but_one_is_required(name):
    body = {key: value for key, value in BODY.items() if key != name}
    assert refused(cloud().answer(post("/api/userJob", body), NOW)) == f'field "{name}" is not set'


def test_fields_are_checked_in_their_order():
    assert refused(cloud().answer(post("/api/userJob", {}), NOW)) == 'field "gpuNumber" is not set'


@pytest.mark.parametrize(
    "change",
    [
        {"stopTime": None},
        {"runCommand": None, "env": None},
        {"env": {"A": "1", "B": 2}},
        {"unknown": 1, "workStatus": 3},
        {"stopType": "+1", "ckptVol": "-5"},
    ],
)
def test_null_where_optional_and_unknown_keys_are_passed_over(change):
    assert cloud().answer(post("/api/userJob", BODY | change), NOW).status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "string: `{`, error: `unexpected EOF`"),
        (b" ", "string: ` `, error: `EOF`"),
        (b"{x}", "string: `{x}`, error: `invalid character 'x' looking for beginning of object key string`"),
        (b'{"a" 1}', "string: `{\"a\" 1}`, error: `invalid character '1' after object key`"),
        (b'{"a":1 2}', "string: `{\"a\":1 2}`, error: `invalid character '2' after object key:value pair`"),
        (b'{"a":NaN}', None),
        (b"nonsense", "string: `nonsense`, error: `invalid character 'n' looking for beginning of value`"),
        (b"[]", "type mismatch"),
        (b"null", "unsupported type on setting field value"),
        (b'"x"', "unsupported type on setting field value"),
    ],
)
@pytest.mark.parametrize("path", ["/api/userJob", STATUS, DELETE])
def test_a_body_that_is_no_object_is_refused(path, body, message):
    said = refused(cloud().answer(post(path, body), NOW))
    assert said == message if message is not None else said.startswith("string: `{")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_of_another_type_is_not_looked_at(kind):
    assert refused(cloud().answer(post("/api/userJob", BODY, kind=kind), NOW)) == 'field "gpuNumber" is not set'


def test_what_follows_the_document_is_not_read():
    answer = cloud().answer(post("/api/userJob", json.dumps(BODY).encode() + b" junk"), NOW)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("runner", "at", "expected"),
    [
        (ScriptedRunner(), 0, '{"url":"","status":"working"}'),
        (ScriptedRunner(outcome=JobStage.RUNNING), 1000, '{"url":"","status":"working"}'),
        (ScriptedRunner(outcome=JobStage.TRAINED), 1000, '{"url":"","status":"working"}'),
        (ScriptedRunner(outcome=JobStage.FAILED), 1000, '{"url":"","status":"fail"}'),
    ],
)
def test_a_status_always_has_a_url(runner, at, expected):
    kept = cloud(runner)
    asked = post(STATUS, {"job_id": create(kept)})
    answer = kept.answer(asked, NOW + at)
    assert (answer.status, answer.text) == (200, expected)


def test_the_url_of_a_success_is_escaped_as_go_does():
    kept = cloud()
    asked = post(STATUS, {"job_id": create(kept)})
    text = kept.answer(asked, NOW + 100).text
    assert text.startswith('{"url":"https://sxwl-ai.oss-cn-beijing.aliyuncs.com/ai')
    assert "\\u0026OSSAccessKeyId=" in text
    assert "&" not in text
    assert json.loads(text)["url"].count("&") == 2


def test_a_success_before_its_file_row_is_an_error():
    kept = cloud(url_delay=30.0)
    asked = post(STATUS, {"job_id": create(kept)})
    assert kept.answer(asked, NOW + 69).status == 200
    assert refused(kept.answer(asked, NOW + 70)) == "sql: no rows in result set"
    assert json.loads(kept.answer(asked, NOW + 100).body)["status"] == "success"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"job_id": "ai-unknown"}, "sql: no rows in result set"),
        ({"job_id": ""}, "sql: no rows in result set"),
        ({}, 'field "job_id" is not set'),
        ({"job_id": None}, 'field "job_id" mustn\'t be nil'),
        ({"job_id": 123}, 'type mismatch for field "job_id", expect "string", actual "number"'),
    ],
)
def test_a_status_of_nothing_is_refused(asked, message):
    kept = cloud()
    create(kept)
    assert refused(kept.answer(post(STATUS, asked), NOW)) == message


def test_a_deleted_job_is_gone_at_once_and_deleting_is_always_a_success():
    kept = cloud()
    job_id = create(kept)
    for name in (job_id, job_id, "ai-unknown"):
        answer = kept.answer(post(DELETE, {"job_id": name}), NOW)
        assert (answer.status, answer.text) == (200, '{"message":"delete job success"}')
    assert refused(kept.answer(post(STATUS, {"job_id": job_id}), NOW)) == "sql: no rows in result set"
    assert refused(kept.answer(post(DELETE, {}), NOW)) == 'field "job_id" is not set'


def delete_numbered(kept, document, **headers):
    headers = {"content-type": "application/json", "authorization": "Bearer t"} | headers
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return kept.answer(Request("DELETE", "/api/userJob", headers=tuple(headers.items()), body=body), NOW)


def test_jobs_can_be_deleted_by_their_numbers_too():
    kept = cloud()
    first, second = create(kept), create(kept)
    for numbers in ([], [1, 999], ["1"], [None]):
        answer = delete_numbered(kept, numbers)
        assert (answer.status, answer.text) == (200, "null")
    assert refused(kept.answer(post(STATUS, {"job_id": first}), NOW)) == "sql: no rows in result set"
    assert kept.answer(post(STATUS, {"job_id": second}), NOW).status == 200


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "type mismatch"),
        ({"job_id": 1}, "type mismatch"),
        ([True], "type mismatch"),
        (1, "unsupported type on setting field value"),
        (["x"], 'strconv.ParseInt: parsing "x": invalid syntax'),
        ([1.5], 'strconv.ParseInt: parsing "1.5": invalid syntax'),
    ],
)
def test_what_are_no_numbers_is_refused(document, message):
    assert refused(delete_numbered(cloud(), document)) == message


def test_the_list_needs_both_parameters_and_counts_deleted_jobs():
    kept = cloud()
    first, second = create(kept, callbackUrl="https://h/?a=1&b=2"), create(kept, env={"A": "1"})
    kept.answer(post(DELETE, {"job_id": second}), NOW)
    document = json.loads(kept.answer(get("/api/userJob", ("current", "1"), ("size", "10")), NOW).body)
    assert [row["jobName"] for row in document["content"]] == [first]
    assert document["totalElements"] == 2
    row = document["content"][0]
    assert (row["userId"], row["ckptVol"], row["stopType"], row["createTime"]) == (1, "10000", 0, "2023-12-22 08:00:00")
    assert "callbackUrl" not in row
    stored = json.loads(row["jsonAll"])
    assert (stored["callbackUrl"], stored["ckptVol"], stored["jobName"]) == ("https://h/?a=1&b=2", 10000, first)
    assert list(stored) == sorted(stored)
    assert "env" not in stored


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ((), 'field "current" is not set'),
        ((("current", "1"),), 'field "size" is not set'),
        ((("current", "1"), ("size", "")), 'field "size" is not set'),
        ((("current", "x"), ("size", "1")), 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_odd_pages_are_refused(query, message):
    assert refused(cloud().answer(get("/api/userJob", *query), NOW)) == message


@pytest.mark.parametrize(
    ("current", "size", "expected"), [("1", "2", [3, 2]), ("2", "2", [1]), ("0", "1", [3]), ("5", "2", [])]
)
def test_pages(current, size, expected):
    kept = cloud(counts_deleted=False)
    for _ in range(3):
        create(kept)
    kept.answer(post(DELETE, {"job_id": create(kept)}), NOW)
    document = json.loads(kept.answer(get("/api/userJob", ("current", current), ("size", size)), NOW).body)
    assert [row["jobId"] for row in document["content"]] == expected
    assert document["totalElements"] == 3


def test_gpu_types_are_numbers_as_go_writes_them():
    text = cloud().answer(get("/api/userJob/getGpuType"), NOW).text
    assert text == f'[{{"amount":3.5,"gpuProd":"{GPU}"}},{{"amount":20,"gpuProd":"NVIDIA-A100-SXM4-80GB"}}]'


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", STATUS, "POST"),
        ("DELETE", DELETE, "POST"),
        ("PUT", "/api/userJob", "POST, GET, DELETE"),
        ("HEAD", "/api/userJob/getGpuType", "GET"),
    ],
)
def test_a_wrong_method_is_an_empty_405(method, path, allow):
    answer = cloud().answer(Request(method, path, headers=(("authorization", "Bearer t"),)), NOW)
    assert (answer.status, answer.body, answer.header("allow")) == (405, b"", allow)


@pytest.mark.parametrize("path", ["/api//userJob", "/api/userJob/", "/api/x/../userJob", "/api/userJob/anything"])
def test_routes_are_prefixes_of_the_cleaned_path(path):
    assert cloud().answer(post(path, BODY), NOW).status == 200


def test_what_go_does_not_know_is_left_to_java():
    answer = cloud().answer(get("/api/job/training"), NOW)
    assert (answer.status, json.loads(answer.body)["error"]) == (404, "Not Found")
    assert cloud().answer(Request("GET", "/api/other"), NOW).status == 401
