"""The Java generation: what it takes, and what it makes of it. The coercions were measured on fastjson 1.2.83."""

import json

import pytest

from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Answer, Request

NOW = 1_703_203_200.0
GPU = "NVIDIA-GeForce-RTX-3090"
BODY = {
    "gpuNumber": 1, "gpuType": GPU, "ckptPath": "/workspace/ckpt", "ckptVol": "10000", "modelPath": "/workspace/model",
    "modelVol": "10000", "imagePath": "sxwl/image:v1", "jobType": "GeneralJob", "stopType": "1", "stopTime": 5,
}  # fmt: skip


def cloud(runner=None, *, token="t", **quirks):
    store = ObjectStore(b"secret", "https://sxwl-ai.oss-cn-beijing.aliyuncs.com")
    runner = runner or ScriptedRunner()
    return Cloud(runner, store, token=token, generation=Generation.JAVA, quirks=CloudQuirks(**quirks))


def post(path, document, token="t", kind="application/json"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Request("POST", path, headers=(("content-type", kind), ("authorization", f"Bearer {token}")), body=body)


def get(path, *query):
    return Request("GET", path, query, headers=(("authorization", "Bearer t"),))


def create(kept, now=NOW, **changes):
    return json.loads(kept.answer(post("/api/userJob", BODY | changes), now).body)["job_id"]


def status(kept, job_id, now):
    return json.loads(kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), now).body)


def listed(kept, now=NOW):
    return json.loads(kept.answer(get("/api/userJob"), now).body)["content"][0]


def error(answer):
    document = json.loads(answer.body)
    assert answer.status == 400
    assert document["status"] == 400
    assert document["timestamp"] == NOW * 1000
    return document.get("message")


def test_a_create_gives_an_id_of_its_own_kind():
    answer = cloud().answer(post("/api/userJob", BODY), NOW)
    assert (answer.status, answer.header("content-type")) == (200, "application/json;charset=UTF-8")
    assert answer.text.startswith('{"job_id":"ai')
    assert len(json.loads(answer.body)["job_id"]) == 38


def test_ids_differ_between_jobs_moments_and_secrets():
    store = ObjectStore(b"secret", "https://h")
    clouds = [Cloud(ScriptedRunner(), store, token="t", secret=secret) for secret in (b"", b"", b"other")]
    first = create(clouds[0])
    assert first == create(clouds[1])
    assert len({first, create(clouds[0]), create(clouds[1], NOW + 1), create(clouds[2])}) == 4


@pytest.mark.parametrize("body", [{"ckptVol": 1, "modelVol": "2"}, {"ckpt_vol": 1, "MODEL-VOL": 2}])
def test_nothing_but_the_volumes_has_to_be_there(body):
    assert cloud().answer(post("/api/userJob", body), NOW).status == 200


@pytest.mark.parametrize("name", ["ckptVol", "modelVol"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10000, None),
        ("10000", None),
        ("+5", None),
        ("-5", None),
        ("１０", None),
        ("10G", 'For input string: "10G"'),
        ("1.5", 'For input string: "1.5"'),
        (1.5, 'For input string: "1.5"'),
        (10.0, 'For input string: "10.0"'),
        ("", 'For input string: ""'),
        (" 10", 'For input string: " 10"'),
        (True, 'For input string: "true"'),
        ([1], 'For input string: "[1]"'),
        ({"a": 1}, 'For input string: "{"a":1}"'),
        ("99999999999", 'For input string: "99999999999"'),
        (None, "Cannot parse null string"),
    ],
)
def test_volumes_are_read_as_integers_from_text(name, value, message):
    answer = cloud().answer(post("/api/userJob", BODY | {name: value}), NOW)
    assert (None if answer.status == 200 else error(answer)) == message


@pytest.mark.parametrize("missing", ["ckptVol", "modelVol"])
def test_a_missing_volume_is_refused(missing):
    body = {key: value for key, value in BODY.items() if key != missing}
    assert error(cloud().answer(post("/api/userJob", body), NOW)) == "Cannot parse null string"


@pytest.mark.parametrize("name", ["gpuNumber", "stopType", "stopTime"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1),
        ("'1'", 1),
        ("-3", -3),
        ("1.5", 1),
        ("1.0", 1),
        ("1e3", 1000),
        ("'1.0'", 1),
        ("'1,000'", 1000),
        ("true", 1),
        ("''", None),
        ("'null'", None),
        ("null", None),
        ("'1.5'", "error"),
        ("'abc'", "error"),
        ("' 1'", "error"),
        ("'true'", "error"),
        ("99999999999", "error"),
        ("1e30", "error"),
        ("[1]", "error"),
        ("{}", "error"),
    ],
)
def test_integers_are_coerced(name, value, expected):
    kept = cloud()
    rest = json.dumps({key: kept_value for key, kept_value in BODY.items() if key != name})
    body = f'{rest[:-1]}, "{name}": {value}}}'.replace("'", '"').encode()
    answer = kept.answer(post("/api/userJob", body), NOW)
    if expected == "error":
        assert error(answer) == f"parseInt error, field : {name}"
    else:
        assert answer.status == 200
        assert listed(kept).get(name) == expected


@pytest.mark.parametrize(
    ("value", "kept_as"), [(5, "5"), (1.5, "1.5"), (True, "true"), ({"a": 1}, '{"a":1}'), ([1], "[1]"), (None, None)]
)
def test_texts_take_anything(value, kept_as):
    kept = cloud()
    create(kept, imagePath=value)
    assert listed(kept).get("imagePath") == kept_as


def test_columns_that_are_nobodys_business_can_be_filled():
    kept = cloud()
    job_id = create(kept, workStatus=1, hfUrl="x", jobName="mine", userId=77, jobId=99)
    row = listed(kept)
    assert status(kept, job_id, NOW) == {"status": "fail"}
    assert (row["hfUrl"], row["jobName"], row["userId"], row["jobId"]) == ("x", job_id, 1, 1)
    hidden = create(kept, deleted=1)
    assert hidden not in kept.answer(get("/api/userJob"), NOW).text


def test_mass_assignment_can_be_switched_off():
    kept = cloud(mass_assigns=False)
    assert status(kept, create(kept, workStatus=1, deleted=1), NOW) == {"status": "working"}
    assert len(json.loads(kept.answer(get("/api/userJob"), NOW).body)["content"]) == 1


def test_a_value_too_long_for_its_column_is_a_database_error():
    fits = "http://h/" + "x" * 246
    assert cloud().answer(post("/api/userJob", BODY | {"callbackUrl": fits}), NOW).status == 200
    answer = cloud().answer(post("/api/userJob", BODY | {"callbackUrl": f"{fits}x"}), NOW)
    assert "Data too long for column 'callback_url' at row 1" in error(answer)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", "application/json", "Required request body is missing: "),
        (b"null", "application/json", None),
        (b"[]", "application/json", "can not cast to JSONObject."),
        (b'"x"', "application/json", "can not cast to JSONObject."),
        (b"{", "application/json", "JSON parse error: "),
        (b"{} junk", "application/json", "JSON parse error: "),
        (b"{}", "text/plain", "Content type 'text/plain' not supported"),
        (b"a=1", "application/x-www-form-urlencoded", "Content type 'application/x-www-form-urlencoded' not supported"),
    ],
)
@pytest.mark.parametrize("path", ["/api/userJob", "/api/userJob/job_status", "/api/userJob/job_del"])
def test_a_body_that_is_no_object_is_a_400(path, body, kind, message):
    said = error(cloud().answer(post(path, body, kind=kind), NOW))
    assert said is None if message is None else said.startswith(message)


def test_a_charset_in_the_content_type_does_no_harm():
    answer = cloud().answer(post("/api/userJob", BODY, kind="application/json; charset=utf-8"), NOW)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("runner", "at", "expected"),
    [
        (ScriptedRunner(outcome=JobStage.QUEUED), 250, {"status": "working"}),
        (ScriptedRunner(outcome=JobStage.RUNNING), 250, {"status": "working"}),
        (ScriptedRunner(outcome=JobStage.TRAINED), 1000, {"status": "working"}),
        (ScriptedRunner(outcome=JobStage.FAILED), 1000, {"status": "fail"}),
        (ScriptedRunner(), 0, {"status": "working"}),
    ],
)
def test_a_status_is_one_of_three_words(runner, at, expected):
    kept = cloud(runner)
    job_id = create(kept)
    assert status(kept, job_id, NOW + at) == expected


def test_success_has_a_url_that_is_signed_once():
    kept = cloud()
    job_id = create(kept)
    seen = status(kept, job_id, NOW + 70)
    assert seen["status"] == "success"
    assert f"/{job_id}%2Fdata.zip?Expires={int(NOW) + 70 + 2_592_000}&OSSAccessKeyId=" in seen["url"]
    assert status(kept, job_id, NOW + 5_000_000) == seen


def test_the_body_of_a_success_is_not_escaped_and_has_the_url_first():
    kept = cloud()
    answer = kept.answer(post("/api/userJob/job_status", {"job_id": create(kept)}), NOW)
    assert answer.text == '{"status":"working"}'
    job_id = create(kept)
    text = kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), NOW + 100).text
    assert text.startswith('{"url":"https://')
    assert "&Signature=" in text
    assert text.endswith('","status":"success"}')


def test_a_success_may_be_misspelled():
    kept = cloud(misspells_success=True)
    job_id = create(kept)
    assert status(kept, job_id, NOW + 60) == {"status": "working"}
    assert status(kept, job_id, NOW + 70)["status"] == "sucess"
    assert "url" in status(kept, job_id, NOW + 70)


def test_a_success_without_a_file_row_has_no_url_key():
    kept = cloud(url_delay=30.0)
    job_id = create(kept)
    assert status(kept, job_id, NOW + 70) == {"status": "success"}
    assert status(kept, job_id, NOW + 99) == {"status": "success"}
    assert "url" in status(kept, job_id, NOW + 100)


def test_a_file_row_may_never_come():
    kept = cloud(url_delay=float("inf"))
    assert status(kept, create(kept), NOW + 1e7) == {"status": "success"}


@pytest.mark.parametrize("asked", [{"job_id": "ai-unknown"}, {"job_id": ""}, {"job_id": 123}])
def test_an_unknown_job_is_an_empty_object(asked):
    kept = cloud()
    create(kept)
    answer = kept.answer(post("/api/userJob/job_status", asked), NOW)
    assert (answer.status, answer.text) == (200, "{}")


@pytest.mark.parametrize("asked", [{}, {"job_id": None}, {"jobId": "x"}])
def test_without_an_id_the_newest_job_of_anybody_is_shown(asked):
    store = ObjectStore(b"secret", "https://h")
    kept = Cloud(ScriptedRunner(), store, token="t", other_tokens=("stranger",))
    answer = kept.answer(post("/api/userJob/job_status", asked), NOW)
    assert answer.text == "{}"
    kept.answer(post("/api/userJob", BODY, token="stranger"), NOW)
    assert kept.answer(post("/api/userJob/job_status", asked), NOW).text == '{"status":"working"}'
    seen = json.loads(kept.answer(post("/api/userJob/job_status", asked), NOW + 100).body)
    assert (seen["status"], seen["url"][:10]) == ("success", "https://h/")


def test_showing_a_strangers_job_can_be_switched_off():
    kept = cloud(shows_strangers_job=False)
    create(kept)
    assert kept.answer(post("/api/userJob/job_status", {}), NOW).text == "{}"


def test_an_id_of_another_type_is_taken_as_text():
    kept = cloud()
    assert kept.answer(post("/api/userJob/job_status", {"job_id": ["x"]}), NOW).text == "{}"


def test_nobody_is_asked_whose_job_it_is():
    kept = Cloud(ScriptedRunner(), ObjectStore(b"s", "https://h"), token="t", other_tokens=("stranger",))
    job_id = create(kept)
    asked = post("/api/userJob/job_status", {"job_id": job_id}, token="stranger")
    assert kept.answer(asked, NOW).text == '{"status":"working"}'
    assert kept.answer(post("/api/userJob/job_del", {"job_id": job_id}, token="stranger"), NOW) == Answer(200)
    assert kept.answer(get("/api/userJob"), NOW).text == '{"content":[],"totalElements":0}'


@pytest.mark.parametrize("asked", [{"job_id": "ai-unknown"}, {}, {"job_id": None}, {"job_id": 5}])
def test_a_delete_is_an_empty_200_whatever_the_id(asked):
    kept = cloud()
    job_id = create(kept)
    assert kept.answer(post("/api/userJob/job_del", asked), NOW) == Answer(200)
    assert listed(kept)["jobName"] == job_id


def test_a_deleted_job_is_working_for_ever():
    runner = ScriptedRunner()
    kept = cloud(runner)
    job_id = create(kept)
    assert status(kept, job_id, NOW + 20) == {"status": "working"}
    for _ in range(2):
        assert kept.answer(post("/api/userJob/job_del", {"job_id": job_id}), NOW + 20).status == 200
    assert status(kept, job_id, NOW + 1e7) == {"status": "working"}
    assert runner.killed == [job_id]


def test_what_is_deleted_while_it_is_packed_still_becomes_a_success():
    runner = ScriptedRunner(running=30, packing=30)
    kept = cloud(runner)
    job_id = create(kept)
    assert status(kept, job_id, NOW + 50) == {"status": "working"}
    kept.answer(post("/api/userJob/job_del", {"job_id": job_id}), NOW + 50)
    assert status(kept, job_id, NOW + 100)["status"] == "success"
    assert runner.killed == []


def delete_numbered(kept, document, kind="application/json"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = (("content-type", kind), ("authorization", "Bearer u"))
    return kept.answer(Request("DELETE", "/api/userJob", headers=headers, body=body), NOW)


def test_jobs_can_be_deleted_by_their_numbers_and_nobody_asks_whose_they_are():
    store = ObjectStore(b"secret", "https://h")
    kept = Cloud(ScriptedRunner(), store, token="t", other_tokens=("u",), generation=Generation.JAVA)
    first, second = create(kept), create(kept)
    for numbers in ([], [listed(kept)["jobId"], 999], ["2"], [None]):
        assert delete_numbered(kept, numbers) == Answer(200)
    assert listed(kept)["jobName"] == first
    assert json.loads(kept.answer(get("/api/userJob"), NOW).body)["totalElements"] == 1
    assert status(kept, second, NOW + 999) == {"status": "working"}


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", "application/json", "Required request body is missing"),
        ([1], "text/plain", "Content type 'text/plain' not supported"),
        ({"job_id": 1}, "application/json", "JSON parse error"),
        (["x"], "application/json", "JSON parse error"),
        (b"[", "application/json", "JSON parse error"),
    ],
)
def test_what_are_no_numbers_deletes_nothing(body, kind, words):
    kept = cloud(token="u")
    assert error(delete_numbered(kept, body, kind)).startswith(words)


def test_the_file_rows_of_a_job_are_listed_or_of_all_jobs():
    kept = cloud(ScriptedRunner(running=20))
    first, second = create(kept), create(kept)
    assert kept.answer(get("/api/info/model_urls", ("jobName", first)), NOW).text == "[]"
    url = status(kept, first, NOW + 60)["url"]
    (row,) = json.loads(kept.answer(get("/api/info/model_urls", ("jobName", first)), NOW + 60).body)
    assert (row["fileId"], row["jobName"], row["fileUrl"], row["createTime"]) == (1, first, url, "2023-12-22 08:00:30")
    rows = json.loads(kept.answer(get("/api/info/model_urls"), NOW + 60).body)
    assert [row["jobName"] for row in rows] == [second, first]
    assert json.loads(kept.answer(get("/api/info/model_urls", ("jobName", "")), NOW + 60).body) == []


def test_showing_deleted_jobs_can_be_switched_off():
    kept = cloud(shows_deleted=False)
    job_id = create(kept)
    kept.answer(post("/api/userJob/job_del", {"job_id": job_id}), NOW)
    assert status(kept, job_id, NOW) == {}


def test_the_list_shows_beans_without_nulls_in_beijing_time():
    kept = cloud()
    job_id = create(kept, callbackUrl="https://h/cb?a=1&b=2", env={"A": "中", "B": None})
    row = listed(kept)
    assert list(row) == sorted(row)
    assert "datasetName" not in row
    assert "cpodId" not in row
    assert (row["createTime"], row["updateTime"]) == ("2023-12-22 08:00:00", "2023-12-22 08:00:00")
    assert (row["jobName"], row["callbackUrl"]) == (job_id, "https://h/cb?a=1&b=2")
    assert (row["ckptVol"], row["stopType"], row["workStatus"], row["obtainStatus"]) == ("10000", 1, 0, 0)
    stored = json.loads(row["jsonAll"])
    assert (stored["ckptVol"], stored["modelVol"], stored["stopType"]) == (10000, 10000, 1)
    assert (stored["jobName"], stored["env"]) == (job_id, {"A": "中"})
    assert row["jsonAll"].startswith('{\n\t"gpuNumber":1,\n\t')


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ((), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]),
        ((("current", "2"),), [1]),
        ((("current", "2"), ("size", "3")), [8, 7, 6]),
        ((("current", "0"), ("size", "1")), [11]),
        ((("size", "-1"),), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ((("current", "9"),), []),
    ],
)
def test_the_list_has_pages_of_ten_newest_first(query, expected):
    kept = cloud()
    for _ in range(11):
        create(kept)
    document = json.loads(kept.answer(get("/api/userJob", *query), NOW).body)
    assert [row["jobId"] for row in document["content"]] == expected
    assert document["totalElements"] == 11


def test_the_list_can_be_narrowed_to_a_name_and_refuses_odd_pages():
    kept = cloud()
    first, _ = create(kept), create(kept)
    document = json.loads(kept.answer(get("/api/userJob", ("jobName", first)), NOW).body)
    assert [row["jobName"] for row in document["content"]] == [first]
    assert 'For input string: "x"' in error(kept.answer(get("/api/userJob", ("size", "x")), NOW))


def test_gpu_types_have_a_name_and_a_price():
    answer = cloud().answer(get("/api/userJob/getGpuType"), NOW)
    assert json.loads(answer.body) == [
        {"amount": 3.5, "gpuProd": GPU},
        {"amount": 20.0, "gpuProd": "NVIDIA-A100-SXM4-80GB"},
    ]


@pytest.mark.parametrize("path", ["/api/userJob", "/api/userJob/job_status", "/api/userJob/job_del"])
def test_a_wrong_method_is_a_400_too(path):
    headers = (("authorization", "Bearer t"),)
    answer = cloud().answer(Request("PUT", path, headers=headers), NOW)
    assert error(answer) == "Request method 'PUT' not supported"


def test_a_slash_at_the_end_does_not_matter_but_two_in_a_row_do():
    assert cloud().answer(post("/api/userJob/", BODY), NOW).status == 200
    answer = cloud().answer(post("/api//userJob", BODY), NOW)
    assert (answer.status, answer.header("content-type")) == (500, "text/html;charset=utf-8")


def test_an_unknown_path_is_spring_boots_404():
    answer = cloud().answer(get("/api/job/training"), NOW)
    assert answer.status == 404
    assert json.loads(answer.body) == {
        "timestamp": "2023-12-22 08:00:00", "status": 404, "error": "Not Found", "path": "/api/job/training",
    }  # fmt: skip
