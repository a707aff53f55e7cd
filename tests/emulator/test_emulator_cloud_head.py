"""The newest generation's GPU jobs: renamed fields, JSON errors, ten statuses, and what is left of the old calls."""

import json

import pytest

from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation, Gpu
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import FilePart, Multipart, Request

NOW = 1_703_203_200.0
GPU = "NVIDIA-GeForce-RTX-3090"
BODY = {
    "gpuNumber": 1, "gpuType": GPU, "ckptPath": "/workspace/ckpt", "ckptVol": 10000,
    "created_model_path": "/workspace/model", "created_model_vol": 2000, "imagePath": "sxwl/image:v1", "jobType": "MPI",
}  # fmt: skip
STATUS, DELETE = "/api/userJob/job_status", "/api/userJob/job_del"
TRAINING, GPU_STATUS, GPU_STOP = "/api/job/training", "/api/job/gpu/status", "/api/job/gpu/stop"
NO_ROWS = '{"message":"sql: no rows in result set"}'


def cloud(runner=None, *, others=(), **quirks):
    store = ObjectStore(b"secret", "https://h")
    generation, runner = Generation.HEAD, runner or ScriptedRunner()
    return Cloud(runner, store, token="t", generation=generation, quirks=CloudQuirks(**quirks), other_tokens=others)


def post(path, document, token="t"):
    headers = (("content-type", "application/json"), ("authorization", f"Bearer {token}"))
    return Request("POST", path, headers=headers, body=json.dumps(document).encode())


def get(path, *query, token="t"):
    return Request("GET", path, query, headers=(("authorization", f"Bearer {token}"),))


def create(kept, now=NOW, token="t", **changes):
    return json.loads(kept.answer(post(TRAINING, BODY | changes, token), now).body)["job_id"]


def gpu_status(kept, job_id, now):
    return json.loads(kept.answer(get(GPU_STATUS, ("job_id", job_id)), now).body)["status"]


def stop(kept, job_id, now, token="t"):
    headers = (("authorization", f"Bearer {token}"),)
    return kept.answer(Request("POST", GPU_STOP, (("job_id", job_id),), headers), now)


def refused(answer):
    assert (answer.status, answer.header("content-type")) == (400, "application/json; charset=utf-8")
    assert set(json.loads(answer.body)) == {"message"}
    return json.loads(answer.body)["message"]


def test_a_create_gives_an_id_of_its_own_kind():
    answer = cloud().answer(post(TRAINING, BODY), NOW)
    assert (answer.status, answer.header("content-type")) == (200, "application/json; charset=utf-8")
    assert answer.text.startswith('{"job_id":"train-')


@pytest.mark.parametrize("name", list(BODY))
def test_every_field_without_a_default_is_required(name):
    body = {key: value for key, value in BODY.items() if key != name}
    assert refused(cloud().answer(post(TRAINING, body), NOW)) == f'field "{name}" is not set'


def test_the_old_names_of_the_model_volume_are_not_known():
    body = {key: value for key, value in BODY.items() if not key.startswith("created_model")}
    body |= {"modelPath": "/m", "modelVol": 10}
    assert refused(cloud().answer(post(TRAINING, body), NOW)) == 'field "created_model_path" is not set'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ckptVol": "10000"}, 'type mismatch for field "ckptVol"'),
        ({"created_model_vol": "10"}, 'type mismatch for field "created_model_vol"'),
        ({"stopType": "1"}, 'type mismatch for field "stopType"'),
        ({"gpuType": 5}, 'type mismatch for field "gpuType", expect "string", actual "number"'),
        ({"model_is_public": "true"}, 'type mismatch for field "model_is_public"'),
        ({"model_is_public": 1}, 'type mismatch for field "model_is_public", expect "bool", actual "number"'),
        ({"gpuNumber": None}, 'field "gpuNumber" mustn\'t be nil'),
        ({"runCommand": "x" * 70_000}, "Error 1406 (22001): Data too long for column 'run_command' at row 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_json(change, message):
    assert refused(cloud().answer(post(TRAINING, BODY | change), NOW)) == message


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"A": 1}},
        {"stopType": None, "stopTime": 5},
        {"gpuType": ""},
        {"model_is_public": True, "model_size": 5, "dataset_is_public": False},
    ],
)
def test_env_is_not_looked_at_and_the_rest_is_optional(change):
    assert cloud().answer(post(TRAINING, BODY | change), NOW).status == 200


@pytest.mark.parametrize(
    ("quirks", "message"),
    [
        ({"balance": -0.01}, "余额不足"),
        ({"balance": None}, "sql: no rows in result set"),
        (
            {"quotas": {GPU: 0}},
            f"JobCreate CheckQuota userId: user-00000000-0000-0000-0000-000000000001 gpu: {GPU} left: 0 need: 1",
        ),
    ],
)
def test_balance_and_quota_are_looked_at(quirks, message):
    assert refused(cloud(**quirks).answer(post(TRAINING, BODY), NOW)) == message


def test_the_first_billing_after_the_balance_is_used_up_deletes_all_jobs_and_none_can_be_made_any_more():
    runner = ScriptedRunner(running=1000)
    kept = cloud(runner, others=("o",), broke_after=70.0)
    jobs = [create(kept), create(kept, NOW + 69, token="o")]
    assert refused(kept.answer(post(TRAINING, BODY), NOW + 70)) == "余额不足"
    assert gpu_status(kept, jobs[0], NOW + 119) == "running"
    assert refused(kept.answer(get(GPU_STATUS, ("job_id", jobs[0])), NOW + 120)) == "数据库查询错误"
    for token in ("t", "o"):
        rows = json.loads(kept.answer(get(TRAINING, ("current", "1"), ("size", "9"), token=token), NOW + 130).body)
        assert (rows["content"], rows["totalElements"]) == ([], 1)
    assert runner.killed == jobs


def test_jobs_are_deleted_at_the_billing_and_not_when_somebody_asks():
    runner = ScriptedRunner(running=100)
    kept = cloud(runner, broke_after=30.0)
    job_id = create(kept)
    assert refused(kept.answer(get(GPU_STATUS, ("job_id", job_id)), NOW + 1e6)) == "数据库查询错误"
    assert runner.killed == [job_id]


def test_a_quota_counts_only_what_runs():
    kept = cloud(ScriptedRunner(running=1000), quotas={GPU: 2})
    for _ in range(3):
        create(kept)
    assert refused(kept.answer(post(TRAINING, BODY), NOW + 10)).endswith("left: -1 need: 1")
    assert kept.answer(post(TRAINING, BODY | {"gpuType": "NVIDIA-A100-SXM4-80GB"}), NOW + 10).status == 200


def test_a_job_goes_from_unassigned_to_running_to_succeeded():
    kept = cloud(ScriptedRunner(queued=30, running=60))
    job_id = create(kept)
    seen = [gpu_status(kept, job_id, NOW + at) for at in (0, 9, 10, 39, 99, 100, 1000)]
    assert seen == ["notassigned", "notassigned", "running", "running", "running", "succeeded", "succeeded"]


@pytest.mark.parametrize("mounted", [{"model_id": "m"}, {"dataset_id": "d"}])
def test_a_job_that_mounts_something_prepares_its_data_while_it_is_queued(mounted):
    kept = cloud(ScriptedRunner(queued=30))
    job_id = create(kept, **mounted)
    assert [gpu_status(kept, job_id, NOW + at) for at in (0, 10, 40)] == ["notassigned", "datapreparing", "running"]


def test_a_failure_is_failed():
    kept = cloud(ScriptedRunner(outcome=JobStage.FAILED))
    assert gpu_status(kept, create(kept), NOW + 100) == "failed"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"jobType": "GeneralJob"}, "notassigned"),
        ({"jobType": ""}, "notassigned"),
        ({"gpuType": "unknown"}, "notassigned"),
        ({"gpuNumber": 2000}, "notassigned"),
        ({"cpod_id": "another"}, "notassigned"),
        ({"jobType": "general"}, "succeeded"),
        ({"jobType": "PyTorch"}, "succeeded"),
        ({"gpuType": ""}, "succeeded"),
        ({"cpod_id": "cpod-1", "gpuType": "unknown"}, "succeeded"),
    ],
)
def test_what_the_cluster_does_not_understand_stays_unassigned_for_ever(change, word):
    kept = cloud()
    job_id = create(kept, **change)
    assert gpu_status(kept, job_id, NOW + 1e6) == word
    asked = kept.answer(post(STATUS, {"job_id": job_id}), NOW + 1e6)
    assert asked.text == ('{"url":"","status":"working"}' if word == "notassigned" else NO_ROWS)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (JobStage.RUNNING, '{"url":"","status":"working"}'),
        (JobStage.FAILED, '{"url":"","status":"fail"}'),
        (JobStage.TRAINED, NO_ROWS),
        (JobStage.UPLOADED, NO_ROWS),
    ],
)
def test_the_old_status_call_has_no_success(outcome, expected):
    kept = cloud(ScriptedRunner(outcome=outcome))
    assert kept.answer(post(STATUS, {"job_id": create(kept)}), NOW + 1000).text == expected


def test_the_old_status_call_had_a_success_while_models_were_uploaded():
    kept = cloud(ScriptedRunner(packing=60), success_is_no_rows=False)
    job_id = create(kept)
    assert gpu_status(kept, job_id, NOW + 100) == "running"
    document = json.loads(kept.answer(post(STATUS, {"job_id": job_id}), NOW + 200).body)
    assert document["status"] == "success"
    assert document["url"].startswith(f"https://h/{job_id}%2Fdata.zip?")


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        (STATUS, {"job_id": "unknown"}, "sql: no rows in result set"),
        (STATUS, {}, 'field "job_id" is not set'),
        (STATUS, {"job_id": 1}, 'type mismatch for field "job_id", expect "string", actual "number"'),
        (DELETE, {"job_id": None}, 'field "job_id" mustn\'t be nil'),
    ],
)
def test_the_old_calls_refuse_in_json(path, asked, message):
    assert refused(cloud().answer(post(path, asked), NOW)) == message


def test_a_deleted_job_is_gone_for_every_call():
    runner = ScriptedRunner(running=1000)
    kept = cloud(runner)
    job_id = create(kept)
    assert gpu_status(kept, job_id, NOW + 10) == "running"
    answer = kept.answer(post(DELETE, {"job_id": job_id}), NOW + 10)
    assert answer.text == '{"message":"delete job success"}'
    assert kept.answer(post(STATUS, {"job_id": job_id}), NOW + 10).text == NO_ROWS
    assert refused(kept.answer(get(GPU_STATUS, ("job_id", job_id)), NOW + 20)) == "数据库查询错误"
    assert refused(stop(kept, job_id, NOW + 20)) == "sql: no rows in result set"
    assert runner.killed == [job_id]


def test_the_new_calls_ask_whose_job_it_is():
    kept = cloud(others=("stranger",))
    job_id = create(kept)
    assert refused(kept.answer(get(GPU_STATUS, ("job_id", job_id), token="stranger"), NOW)) == "无权访问该任务"
    assert refused(stop(kept, job_id, NOW, token="stranger")) == "sql: no rows in result set"
    assert kept.answer(post(STATUS, {"job_id": job_id}, token="stranger"), NOW).status == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ((), 'field "job_id" is not set'),
        ((("job_id", ""),), 'field "job_id" is not set'),
        ((("job_id", "x"),), "数据库查询错误"),
    ],
)
def test_a_gpu_status_of_nothing_is_refused(query, message):
    assert refused(cloud().answer(get(GPU_STATUS, *query), NOW)) == message


def test_a_stop_takes_the_job_out_of_the_cluster_and_is_final():
    runner = ScriptedRunner(running=1000)
    kept = cloud(runner)
    job_id = create(kept)
    assert gpu_status(kept, job_id, NOW + 10) == "running"
    assert stop(kept, job_id, NOW + 10).text == f'{{"message":"job_name: {job_id} stopped"}}'
    assert gpu_status(kept, job_id, NOW + 1e6) == "stopped"
    assert kept.answer(post(STATUS, {"job_id": job_id}), NOW + 1e6).text == '{"url":"","status":"working"}'
    assert stop(kept, job_id, NOW + 1e6).text == f'{{"message":"job_name: {job_id} is already stopped"}}'
    assert runner.killed == [job_id]


def test_a_job_that_is_stopped_before_it_starts_never_starts():
    runner = ScriptedRunner()
    kept = cloud(runner)
    job_id = create(kept)
    stop(kept, job_id, NOW)
    assert gpu_status(kept, job_id, NOW + 100) == "stopped"
    assert runner.orders == []


def test_the_upload_that_nobody_waits_for_changes_nothing():
    kept = cloud(ScriptedRunner(running=60, packing=100))
    create(kept)
    (row,) = json.loads(kept.answer(get(TRAINING, ("current", "1"), ("size", "1")), NOW + 1000).body)["content"]
    assert (row["status"], row["updateTime"]) == ("succeeded", "2023-12-22 08:01:10")


@pytest.mark.parametrize("outcome", [JobStage.UPLOADED, JobStage.FAILED, JobStage.TRAINED])
def test_a_stop_overwrites_what_is_over(outcome):
    runner = ScriptedRunner(outcome=outcome)
    kept = cloud(runner)
    job_id = create(kept)
    assert gpu_status(kept, job_id, NOW + 100) in ("succeeded", "failed")
    assert stop(kept, job_id, NOW + 100).status == 200
    assert gpu_status(kept, job_id, NOW + 1000) == "stopped"
    assert runner.killed == []


def test_overwriting_can_be_switched_off():
    kept = cloud(stop_overwrites=False)
    job_id = create(kept)
    assert stop(kept, job_id, NOW + 100).text == f'{{"message":"job_name: {job_id} stopped"}}'
    assert gpu_status(kept, job_id, NOW + 100) == "succeeded"


def test_a_report_in_flight_turns_a_stopped_job_to_running_for_ever():
    kept = cloud(ScriptedRunner(running=1000), stop_race=True)
    job_id = create(kept)
    assert gpu_status(kept, job_id, NOW + 10) == "running"
    stop(kept, job_id, NOW + 10)
    assert [gpu_status(kept, job_id, NOW + at) for at in (10, 20, 1e6)] == ["stopped", "running", "running"]


FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=xyz"
PART = "--xyz\r\nContent-Disposition: form-data; name="
END = "\r\n--xyz--\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "query"),
    [
        (FORM, "job_id={}", ()),
        (f"{FORM}; charset=utf-8", "a=1&job_id={}", (("job_id", "other"),)),
        (PARTS, f'{PART}"job_id"\r\n\r\n{{}}{END}', ()),
        (PARTS.replace("xyz", '"xyz"'), f'{PART}"a"\r\n\r\n1\r\n{PART}"job_id"\r\nA: b\r\n\r\n{{}}{END}', ()),
    ],
)
def test_a_stop_takes_its_id_from_a_form_too(kind, body, query):
    kept = cloud()
    job_id = create(kept)
    headers = (("authorization", "Bearer t"), ("content-type", kind))
    request = Request("POST", GPU_STOP, query, headers, body.format(job_id).encode())
    assert kept.answer(request, NOW).text == f'{{"message":"job_name: {job_id} stopped"}}'


def test_a_form_that_is_not_yet_bytes_is_taken_as_well():
    kept = cloud()
    job_id = create(kept)
    form = Multipart((("job_id", job_id),), (("file", FilePart("a", "a")),))
    request = Request("POST", GPU_STOP, headers=(("authorization", "Bearer t"),), body=form)
    assert kept.answer(request, NOW).status == 200


def test_an_id_in_a_json_body_or_a_file_part_is_not_seen():
    kept = cloud()
    job_id = create(kept)
    assert refused(kept.answer(post(GPU_STOP, {"job_id": job_id}), NOW)) == 'field "job_id" is not set'
    part = f'{PART}"job_id"; filename="x"\r\n\r\n{job_id}{END}'
    headers = (("authorization", "Bearer t"), ("content-type", PARTS))
    request = Request("POST", GPU_STOP, headers=headers, body=part.encode())
    assert refused(kept.answer(request, NOW)) == 'field "job_id" is not set'


def test_the_list_shows_the_users_jobs_newest_first_and_counts_deleted_ones():
    kept = cloud(others=("stranger",))
    first = create(kept, trainedModelName="mark-1", model_name="owner/base", dataset_name="set", model_path="/base")
    second, _ = create(kept), create(kept, token="stranger")
    kept.answer(post(DELETE, {"job_id": create(kept)}), NOW)
    document = json.loads(kept.answer(get(TRAINING, ("current", "1"), ("size", "10")), NOW + 70).body)
    assert [row["jobName"] for row in document["content"]] == [second, first]
    assert document["totalElements"] == 3
    row = document["content"][1]
    assert (row["status"], row["workStatus"], row["jobId"]) == ("succeeded", 8, 1)
    assert (row["createTime"], row["updateTime"]) == ("2023-12-22 08:00:00", "2023-12-22 08:01:10")
    assert (row["ckptVol"], row["modelPath"], row["modelVol"]) == ("10000", "/base", "")
    assert (row["pretrainedModelName"], row["datasetName"]) == ("owner/base", "owner/base")
    assert row["userId"] == "user-00000000-0000-0000-0000-000000000001"
    assert json.loads(row["jsonAll"])["trainedModelName"] == "mark-1"
    assert json.loads(row["jsonAll"])["modelVol"] == 2000


@pytest.mark.parametrize(
    ("model", "expected"), [("owner/base", "base-20231222-080000"), ("base", "model-20231222-080000")]
)
def test_a_model_without_a_name_gets_one(model, expected):
    kept = cloud()
    create(kept, model_name=model)
    document = json.loads(kept.answer(get(TRAINING, ("current", "1"), ("size", "1")), NOW).body)
    assert json.loads(document["content"][0]["jsonAll"])["trainedModelName"] == expected


@pytest.mark.parametrize("query", [(), (("current", "1"),), (("size", "5"),)])
def test_the_list_needs_both_parameters(query):
    assert "is not set" in refused(cloud().answer(get(TRAINING, *query), NOW))


def test_gpus_tell_what_is_free():
    kept = cloud(ScriptedRunner(running=100), gpus=(Gpu("a", 2.0, total=8), Gpu("b", 0.5, total=1)))
    create(kept, gpuType="a", gpuNumber=3)
    before = json.loads(kept.answer(get("/api/resource/gpus"), NOW).body)
    during = kept.answer(get("/api/resource/gpus"), NOW + 10).text
    after = json.loads(kept.answer(get("/api/resource/gpus"), NOW + 200).body)
    assert [gpu["gpuAllocatable"] for gpu in before] == [gpu["gpuAllocatable"] for gpu in after] == [8, 1]
    assert during == '[{"amount":2,"gpuProd":"a","gpuAllocatable":5},{"amount":0.5,"gpuProd":"b","gpuAllocatable":1}]'


@pytest.mark.parametrize(
    ("method", "path", "status", "text", "allow"),
    [
        ("POST", "/api/userJob", 404, "404 page not found\n", None),
        ("GET", "/api/userJob/getGpuType", 404, "404 page not found\n", None),
        ("POST", "/api/job/training/x", 404, "404 page not found\n", None),
        ("PUT", TRAINING, 405, "", "GET, POST"),
        ("GET", GPU_STOP, 405, "", "POST"),
        ("POST", GPU_STATUS, 405, "", "GET"),
        ("POST", "/api/resource/gpus", 405, "", "GET"),
    ],
)
def test_what_is_not_there(method, path, status, text, allow):
    answer = cloud().answer(Request(method, path, headers=(("authorization", "Bearer t"),)), NOW)
    assert (answer.status, answer.text, answer.header("allow")) == (status, text, allow)


def test_there_are_no_callbacks():
    kept = cloud()
    create(kept, callbackUrl="https://h/cb")
    assert kept.callbacks(NOW + 1000) == ()
