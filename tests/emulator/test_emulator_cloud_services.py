"""The newest generation beside GPU jobs: finetunes, inference services, models, data sets and adapters."""

import json

import pytest

from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation, Resource
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

NOW = 1_703_203_200.0
USER = "user-00000000-0000-0000-0000-000000000001"
GPU = "NVIDIA-GeForce-RTX-3090"
MODEL = {
    "model_id": "model-1", "model_name": "ZhipuAI/chatglm3-6b", "model_size": 12, "model_is_public": True,
    "model_template": "chatglm3", "model_meta": "{}", "model_category": "chat",
}  # fmt: skip
FINETUNE = MODEL | {
    "dataset_id": "dataset-1", "dataset_name": "owner/set", "dataset_size": 5, "dataset_is_public": True,
    "hyperparameters": {"n_epochs": "1", "batch_size": "", "learning_rate_multiplier": "1e-4"},
    "model_saved_type": "lora",
}  # fmt: skip
DEPLOY = MODEL | {"gpu_model": GPU, "gpu_count": 1}


def cloud(runner=None, *, resources=None, **quirks):
    store = ObjectStore(b"secret", "https://h")
    given = {} if resources is None else {"resources": resources}
    return Cloud(
        runner or ScriptedRunner(), store, token="t", generation=Generation.HEAD, quirks=CloudQuirks(**quirks),
        other_tokens=("stranger",), **given,
    )  # fmt: skip


def post(path, document, *query, token="t"):
    headers = (("content-type", "application/json"), ("authorization", f"Bearer {token}"))
    return Request("POST", path, query, headers, json.dumps(document).encode())


def get(path, *query, token="t", method="GET"):
    return Request(method, path, query, (("authorization", f"Bearer {token}"),))


def finetune(kept, now=NOW, **changes):
    return json.loads(kept.answer(post("/api/job/finetune", FINETUNE | changes), now).body)["job_id"]


def finetune_status(kept, job_id, now):
    return kept.answer(get("/api/job/finetune/status", ("job_id", job_id)), now)


def deploy(kept, now=NOW, **changes):
    return json.loads(kept.answer(post("/api/job/inference", DEPLOY | changes), now).body)["service_name"]


def service(kept, name, now):
    return json.loads(kept.answer(get("/api/job/inference/status", ("service_name", name)), now).body)


def refused(answer):
    assert answer.status == 400
    return json.loads(answer.body)["message"]


@pytest.mark.parametrize("path", ["/api/job/finetune", "/api/job/inference"])
@pytest.mark.parametrize("name", list(MODEL))
def test_every_field_of_the_model_is_required(path, name):
    body = {key: value for key, value in FINETUNE.items() if key != name}
    assert refused(cloud().answer(post(path, body), NOW)) == f'field "{name}" is not set'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_id": None}, 'field "dataset_id" mustn\'t be nil'),
        ({"hyperparameters": None}, 'field "hyperparameters" mustn\'t be nil'),
        ({"hyperparameters": "x"}, 'type mismatch for field "hyperparameters"'),
        ({"hyperparameters": 1}, 'type mismatch for field "hyperparameters", expect "struct", actual "number"'),
        ({"hyperparameters": {}}, 'field "hyperparameters.n_epochs" is not set'),
        (
            {"hyperparameters": {"n_epochs": 3, "batch_size": "4", "learning_rate_multiplier": "1"}},
            'type mismatch for field "hyperparameters.n_epochs", expect "string", actual "number"',
        ),
        ({"model_name": "mine/model"}, "model: mine/model for finetune is not supported"),
        ({"gpu_count": "1"}, 'type mismatch for field "gpu_count"'),
    ],
)
def test_a_finetune_that_does_not_fit_is_refused(change, message):
    assert refused(cloud().answer(post("/api/job/finetune", FINETUNE | change), NOW)) == message


def test_missing_hyperparameters_have_words_of_their_own():
    body = {key: value for key, value in FINETUNE.items() if key != "hyperparameters"}
    assert refused(cloud().answer(post("/api/job/finetune", body), NOW)) == '"hyperparameters" is not set'


@pytest.mark.parametrize(
    ("quirks", "message"),
    [
        ({"balance": -1.0}, "余额不足"),
        ({"quotas": {GPU: 0}}, f"finetune CheckQuota userId: {USER} gpu: {GPU} left: 0 need: 1"),
        ({"gpus": ()}, f"finetune no gpu match model: ZhipuAI/chatglm3-6b userId: {USER}"),
    ],
)
def test_a_finetune_is_limited_like_a_job(quirks, message):
    assert refused(cloud(**quirks).answer(post("/api/job/finetune", FINETUNE), NOW)) == message


def test_a_finetune_lives_by_time_and_leaves_an_adapter_a_little_late():
    runner = ScriptedRunner()
    kept = cloud(runner)
    job_id = finetune(kept, trainedModelName="mine")
    assert job_id.startswith("finetune-")
    seen = [json.loads(finetune_status(kept, job_id, NOW + at).body) for at in (0, 10, 20, 79)]
    assert [look["status"] for look in seen] == ["notassigned", "datapreparing", "running", "running"]
    assert {look["job_id"] for look in seen} == {""}
    assert seen[0] == {
        "job_id": "", "status": "notassigned", "adapter_id": "", "adapter_name": "", "adapter_path": "",
        "adapter_size": 0, "adapter_is_public": False,
    }  # fmt: skip
    assert refused(finetune_status(kept, job_id, NOW + 80)) == "数据库查询错误"
    last = json.loads(finetune_status(kept, job_id, NOW + 90).body)
    assert (last["status"], last["adapter_name"]) == ("succeeded", f"{USER}/mine")
    assert last["adapter_id"].startswith("adapter-")
    assert runner.orders == []


def test_a_finetune_is_a_job_like_any_other_for_the_rest():
    kept = cloud()
    job_id = finetune(kept)
    asked = get("/api/job/gpu/status", ("job_id", job_id))
    assert json.loads(kept.answer(asked, NOW + 100).body) == {"job_id": job_id, "status": "succeeded"}
    page = kept.answer(get("/api/job/training", ("current", "1"), ("size", "5")), NOW + 100)
    (row,) = json.loads(page.body)["content"]
    assert (row["jobName"], row["jobType"], row["gpuType"], row["gpuNumber"]) == (job_id, "Finetune", GPU, 1)
    stored = json.loads(row["jsonAll"])
    assert (stored["epochs"], stored["batchSize"], stored["learningRate"]) == ("1", "4", "1e-4")
    assert (stored["finetuneType"], stored["trainedModelName"]) == ("lora", "chatglm3-6b-20231222-080000")


def test_a_stopped_finetune_leaves_no_adapter():
    kept = cloud()
    job_id = finetune(kept)
    kept.answer(post("/api/job/gpu/stop", {}, ("job_id", job_id)), NOW + 30)
    assert json.loads(finetune_status(kept, job_id, NOW + 1000).body)["status"] == "stopped"


def test_a_finetune_of_nothing_or_of_somebody_else_is_refused():
    kept = cloud()
    asked = ("job_id", finetune(kept))
    assert refused(finetune_status(kept, "finetune-unknown", NOW)) == "数据库查询错误"
    assert refused(kept.answer(get("/api/job/finetune/status"), NOW)) == 'field "job_id" is not set'
    assert refused(kept.answer(get("/api/job/finetune/status", asked, token="stranger"), NOW)) == "无权访问该任务"


def test_a_service_is_ready_when_it_runs_on_another_host():
    kept = cloud()
    name = deploy(kept)
    assert name.startswith("infer-")
    seen = [service(kept, name, NOW + at) for at in (0, 10, 20, 69, 70)]
    words = [look["status"] for look in seen]
    assert words == ["notassigned", "assigned", "datapreparing", "datapreparing", "running"]
    assert seen[3] == {"service_name": name, "status": "datapreparing", "chat_url": "", "api_url": ""}
    base = "http://master.llm.sxwl.ai:30005/inference"
    assert (seen[4]["chat_url"], seen[4]["api_url"]) == (f"{base}/{name}", f"{base}/api/{name}/v1/chat/completions")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gpu_model": "unknown"}, "notassigned"),
        ({"gpu_model": ""}, "notassigned"),
        ({"gpu_count": 5000}, "notassigned"),
        ({"cpod_id": "another"}, "assigned"),
        ({"cpod_id": "cpod-1", "gpu_model": "unknown"}, "running"),
    ],
)
def test_a_service_without_a_place_never_runs(change, word):
    kept = cloud()
    assert service(kept, deploy(kept, **change), NOW + 1e6)["status"] == word


def test_an_embedding_service_has_a_page_of_its_own():
    kept = cloud(deploy_time=0.0, inference_url="http://there")
    name = deploy(kept, model_category="embedding")
    assert service(kept, name, NOW + 10)["chat_url"] == f"http://there/inference/api/{name}/embeddings"


def test_a_stopped_service_stays_stopped():
    kept = cloud()
    name = deploy(kept)
    for expected in ("stopped", "is already stopped"):
        answer = kept.answer(post("/api/job/inference/stop", {}, ("service_name", name)), NOW + 20)
        assert json.loads(answer.body) == {"message": f"service_name: {name} {expected}"}
    assert service(kept, name, NOW + 1e6)["status"] == "stopped"


def test_services_are_listed_without_pages_and_can_be_deleted():
    kept = cloud()
    first, second = deploy(kept), deploy(kept, adapter_id="adapter-1")
    (new, old) = json.loads(kept.answer(get("/api/job/inference", ("service_name", first)), NOW + 100).body)["data"]
    assert (new["service_name"], old["service_name"]) == (second, first)
    assert (new["adapter_id"], new["gpu_model"], new["gpu_count"], new["status"]) == ("adapter-1", GPU, 1, "running")
    assert (new["create_time"], new["start_time"], new["end_time"]) == (
        "2023-12-22 08:00:00",
        "2023-12-22 08:01:40",
        "",
    )
    answer = kept.answer(get("/api/job/inference", ("service_name", first), method="DELETE"), NOW + 100)
    assert answer.text == '{"message":""}'
    assert kept.answer(get("/api/job/inference", token="stranger"), NOW).text == '{"data":[]}'
    assert len(json.loads(kept.answer(get("/api/job/inference"), NOW).body)["data"]) == 1


def test_a_service_of_nothing_or_of_somebody_else_is_refused():
    kept = cloud()
    asked = ("service_name", deploy(kept))
    path = "/api/job/inference"
    assert refused(kept.answer(get(f"{path}/status", ("service_name", "x")), NOW)) == "数据库查询错误"
    assert refused(kept.answer(get(f"{path}/status"), NOW)) == 'field "service_name" is not set'
    assert refused(kept.answer(get(f"{path}/status", asked, token="stranger"), NOW)) == "无权访问该任务"
    assert refused(kept.answer(post(f"{path}/stop", {}, asked, token="stranger"), NOW)) == "sql: no rows in result set"
    assert refused(kept.answer(post(f"{path}/stop", {}), NOW)) == 'field "service_name" is not set'


def test_running_services_count_for_the_quota():
    kept = cloud(quotas={GPU: 1})
    deploy(kept)
    assert kept.answer(post("/api/job/inference", DEPLOY), NOW).status == 200
    expected = f"InferenceDeploy CheckQuota userId: {USER} gpu: {GPU} left: -1 need: 1"
    assert refused(kept.answer(post("/api/job/inference", DEPLOY), NOW + 100)) == expected


def test_a_model_is_found_by_name_and_never_public():
    answer = cloud().answer(get("/api/resource/model/name", ("model_name", "ZhipuAI/chatglm3-6b")), NOW)
    found = json.loads(answer.body)
    assert (found["model_id"], found["model_is_public"], found["model_template"]) == ("model-1", False, "chatglm3")
    assert json.loads(found["model_meta"])["category"] == found["model_category"] == "chat"


def test_a_dataset_is_found_by_name():
    kept = cloud(resources=[Resource(id="d", name="mine/set", kind="dataset", size=7, owner=USER)])
    answer = kept.answer(get("/api/resource/dataset/name", ("dataset_name", "mine/set")), NOW)
    expected = {"dataset_id": "d", "dataset_name": "mine/set", "dataset_path": "", "dataset_size": 7}
    assert json.loads(answer.body) == expected | {"dataset_is_public": False}


@pytest.mark.parametrize(("kind", "message"), [("model", "模型不存在"), ("dataset", "数据集不存在")])
def test_what_is_not_there_has_a_message_of_its_own(kind, message):
    path = f"/api/resource/{kind}/name"
    assert refused(cloud().answer(get(path, (f"{kind}_name", "x")), NOW)) == message
    assert refused(cloud().answer(get(path), NOW)) == f'field "{kind}_name" is not set'


def test_adapters_cannot_be_found_by_name():
    answer = cloud().answer(get("/api/resource/adapter/name", ("adapter_name", "x")), NOW)
    assert (answer.status, answer.text) == (200, "null")
    assert refused(cloud().answer(get("/api/resource/adapter/name"), NOW)) == 'field "adapter_name" is not set'


def test_lists_show_what_is_public_and_what_is_ones_own():
    mine = Resource(id="m", name="mine/model", kind="model", size=7, owner=USER)
    kept = cloud(resources=[Resource(id="p", name="a/b", kind="model", size=1, meta='{"can_finetune":true}'), mine])
    document = json.loads(kept.answer(get("/api/resource/models"), NOW).body)
    assert [one["id"] for one in document["public_list"]] == ["p"]
    assert [one["id"] for one in document["user_list"]] == ["m"]
    assert (document["public_list"][0]["tag"], document["user_list"][0]["tag"]) == (["finetune"], None)
    seen = json.loads(kept.answer(get("/api/resource/models", token="stranger"), NOW).body)
    assert (len(seen["public_list"]), seen["user_list"]) == (1, [])
    assert kept.answer(get("/api/resource/datasets"), NOW).text == '{"public_list":[],"user_list":[]}'


def test_the_adapter_of_a_finetune_is_listed_for_its_user():
    kept = cloud()
    job_id = finetune(kept)
    assert json.loads(kept.answer(get("/api/resource/adapters"), NOW + 85).body)["user_list"] == []
    (adapter,) = json.loads(kept.answer(get("/api/resource/adapters"), NOW + 90).body)["user_list"]
    assert json.loads(adapter["meta"]) == {"base_model": "ZhipuAI/chatglm3-6b", "finetune_id": job_id}
    assert (adapter["base_model"], adapter["is_public"]) == ("ZhipuAI/chatglm3-6b", False)
