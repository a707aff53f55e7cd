"""The official SDK (sxwl-client 1.0.3) against the newest generation: all of its eleven calls, as it sends them."""

import json
from urllib.parse import parse_qsl, urlsplit

import pytest
import sxwl_client
import urllib3
from sxwl_client.rest import RESTResponse

from gts_async.emulator.cloud import Cloud, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

NOW = 1_703_203_200.0


class Wire:
    """Stands in for the SDK's connection: what it would send goes to the cloud, as bytes."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.now = NOW

    def request(self, method, url, headers=None, body=None, post_params=None, _request_timeout=None):
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        if headers.get("content-type") == "multipart/form-data":
            content, headers["content-type"] = urllib3.encode_multipart_formdata(post_params)
        else:
            content = b"" if body is None else json.dumps(body).encode()
        parts = urlsplit(url)
        asked = Request(method, parts.path, tuple(parse_qsl(parts.query)), tuple(headers.items()), content)
        answer = self.cloud.answer(asked, self.now)
        raw = urllib3.HTTPResponse(answer.body, dict(answer.headers), answer.status, preload_content=False)
        return RESTResponse(raw)


def connected():
    runner = ScriptedRunner()
    cloud = Cloud(runner, ObjectStore(b"secret", "https://h"), token="t", generation=Generation.HEAD)
    client = sxwl_client.ApiClient(sxwl_client.Configuration(host="https://llm.sxwl.ai"))
    client.default_headers["Authorization"] = "Bearer t"
    client.rest_client = Wire(cloud)
    return sxwl_client.SchedulerApiApi(client), client.rest_client


def model_and_dataset(api):
    found = api.model_by_name("ZhipuAI/chatglm3-6b").to_dict()
    return found, api.dataset_by_name("llamafactory/alpaca_data_zh_short").to_dict()


def test_a_job_is_created_looked_at_and_stopped():
    api, wire = connected()
    order = sxwl_client.JobCreateReq(
        gpuNumber=1, gpuType="NVIDIA-GeForce-RTX-3090", ckptPath="/c", ckptVol=10, created_model_path="/m",
        created_model_vol=10, imagePath="image", jobType="MPI", trainedModelName="mark",
    )  # fmt: skip
    job_id = api.job_create("user", order).job_id
    assert api.gpu_job_status("user", job_id).status == "notassigned"
    wire.now += 30
    assert api.gpu_job_status("user", job_id).status == "running"
    assert api.gpu_job_stop(job_id).message == f"job_name: {job_id} stopped"
    assert api.gpu_job_stop(job_id).message == f"job_name: {job_id} is already stopped"


def test_a_finetune_ends_with_its_adapter():
    api, wire = connected()
    model, dataset = model_and_dataset(api)
    wishes = {"n_epochs": "1", "batch_size": "1", "learning_rate_multiplier": "1e-4"}
    order = sxwl_client.FinetuneReq.from_dict(
        model | dataset | {"hyperparameters": wishes, "model_saved_type": "lora", "trainedModelName": "mine"}
    )
    job_id = api.finetune("user", order).job_id
    wire.now += 80
    with pytest.raises(sxwl_client.exceptions.BadRequestException):
        api.finetune_status("user", job_id)
    wire.now += 20
    look = api.finetune_status("user", job_id)
    assert (look.job_id, look.status) == ("", "succeeded")
    assert look.adapter_name.endswith("/mine")


def test_a_service_is_deployed_and_stopped():
    api, wire = connected()
    model, _ = model_and_dataset(api)
    gpu = {"gpu_model": "NVIDIA-GeForce-RTX-3090", "gpu_count": 1}
    order = sxwl_client.InferenceDeployReq.from_dict(model | gpu)
    name = api.inference_deploy("user", order).service_name
    wire.now += 100
    look = api.inference_status("user", name)
    assert (look.status, look.api_url[:7]) == ("running", "http://")
    assert api.inference_stop(name).message == f"service_name: {name} stopped"


def test_an_adapter_by_name_is_nothing():
    api, _ = connected()
    assert api.adapter_by_name("any") is None


def test_without_the_header_put_in_by_hand_the_sdk_is_a_stranger():
    api, _ = connected()
    del api.api_client.default_headers["Authorization"]
    with pytest.raises(sxwl_client.exceptions.UnauthorizedException, match="invalid number of segments"):
        api.model_by_name("x")
