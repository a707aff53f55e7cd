"""The official SDK of the SXWL cloud (sxwl-client 1.0.3), as it is on PyPI, against the emulated cloud on loopback.

Only the newest generation has its endpoints. It blocks, so the servers run in a thread of their own.
"""

import inspect
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pydantic
import pytest
import urllib3
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sxwl_client import (
    ApiClient,
    Configuration,
    FinetuneReq,
    Hyperparameters,
    InferenceDeployReq,
    JobCreateReq,
    SchedulerApiApi,
)
from sxwl_client.exceptions import (
    ApiException,
    BadRequestException,
    NotFoundException,
    ServiceException,
    UnauthorizedException,
)

from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.local.asgi import EmulatorApp, Worker
from gts_async.local.serving import serve
from gts_async.local.stack import MAX_CLOUD_BODY, EmbeddedCloud
from gts_async.wire import Answer, Request

TOKEN = "a.b.c"
OTHER_TOKEN = "d.e.f"
MODEL = "ZhipuAI/chatglm3-6b"
DATASET = "llamafactory/alpaca_data_zh_short"
GPU = "NVIDIA-GeForce-RTX-3090"


def job(**more: object) -> JobCreateReq:
    wanted: dict[str, object] = {
        "gpuNumber": 1,
        "gpuType": GPU,
        "ckptPath": "/workspace/ckpt",
        "ckptVol": 1024,
        "created_model_path": "/workspace/model",
        "created_model_vol": 1024,
        "imagePath": "image",
        "jobType": "general",
    }
    return JobCreateReq(**wanted | more)


def known_model() -> dict[str, object]:
    return {
        "model_id": "model-1",
        "model_name": MODEL,
        "model_size": 1,
        "model_is_public": True,
        "model_template": "chatglm3",
        "model_meta": "{}",
        "model_category": "chat",
    }


def finetune(**more: object) -> FinetuneReq:
    wishes = Hyperparameters(n_epochs="1", batch_size="1", learning_rate_multiplier="1e-4")
    data = {"dataset_id": "dataset-1", "dataset_name": DATASET, "dataset_size": 1, "dataset_is_public": True}
    wanted = {**known_model(), **data, "hyperparameters": wishes, "model_saved_type": "lora"}
    return FinetuneReq(**wanted | more)


def service(**more: object) -> InferenceDeployReq:
    return InferenceDeployReq(**{**known_model(), "gpu_model": GPU, "gpu_count": 1} | more)


@attrs.define
class Served:
    """An emulated cloud that is served, what it was asked, and the time that it is told."""

    cloud: Cloud
    now: float = 1_732_500_000.0
    exchanges: list[tuple[Request, Answer]] = attrs.field(factory=list)
    url: str = ""

    def answer(self, request: Request, _now: float) -> Answer:
        answer = self.cloud.answer(request, self.now)
        self.exchanges.append((request, answer))
        return answer

    @property
    def asked(self) -> Request:
        """What was asked last."""
        return self.exchanges[-1][0]


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


Serving = Callable[..., Any]


@pytest.fixture
def serving(portal: BlockingPortal) -> Serving:
    @contextmanager
    def served(generation: Generation = Generation.HEAD, **quirks: Any) -> Iterator[Served]:
        cloud = Cloud(
            ScriptedRunner(),
            ObjectStore(b"secret", "https://store"),
            token=TOKEN,
            other_tokens=(OTHER_TOKEN,),
            generation=generation,
            quirks=CloudQuirks(**quirks),
        )
        served, worker = Served(cloud), Worker("cloud")
        app = EmulatorApp(served.answer, worker, max_body=MAX_CLOUD_BODY)
        with portal.wrap_async_context_manager(serve(app)) as server:
            served.url = server.url
            yield served
        worker.close()

    return served


@pytest.fixture
def served(serving: Serving) -> Iterator[Served]:
    with serving() as served:
        yield served


def stranger(url: str, **settings: Any) -> SchedulerApiApi:
    """Give the SDK as its documentation says, which never authenticates."""
    return SchedulerApiApi(ApiClient(Configuration(host=url, **settings)))


def connected(url: str, token: str = TOKEN) -> SchedulerApiApi:
    """Give the SDK with what its users put in by hand (`examples/fintune-infer-eval/main.py`)."""
    api = stranger(url)
    api.api_client.default_headers["Authorization"] = f"Bearer {token}"
    return api


def said(error: pytest.ExceptionInfo[ApiException]) -> object:
    return json.loads(error.value.body or "")["message"]


CALLS: dict[str, tuple[Any, ...]] = {
    "adapter_by_name": ("any",),
    "dataset_by_name": (DATASET,),
    "model_by_name": (MODEL,),
    "finetune": ("me", finetune()),
    "finetune_status": ("me", "finetune-1"),
    "gpu_job_status": ("me", "train-1"),
    "gpu_job_stop": ("train-1",),
    "inference_deploy": ("me", service()),
    "inference_status": ("me", "infer-1"),
    "inference_stop": ("infer-1",),
    "job_create": ("me", job()),
}
OF_UNKNOWN = ("finetune_status", "gpu_job_status", "gpu_job_stop", "inference_status", "inference_stop")
"""The calls that name what was never made."""


def status_of(call: str, served: Served) -> int:
    """Make the call, with the header put in by hand; give the status that its caller gets to know."""
    try:
        getattr(connected(served.url), call)(*CALLS[call])
    except ApiException as error:
        return int(error.status)
    return 200


def test_these_are_all_its_calls() -> None:
    names = {name for name, _ in inspect.getmembers(SchedulerApiApi, inspect.isfunction) if name[0] != "_"}
    assert {name for name in names if not name.endswith(("_with_http_info", "_without_preload_content"))} == set(CALLS)


# Authentication


@pytest.mark.parametrize("call", CALLS)
def test_no_call_sends_the_configured_key(served: Served, call: str) -> None:
    api = stranger(served.url, api_key={"apiKey": TOKEN}, api_key_prefix={"apiKey": "Bearer"}, access_token=TOKEN)
    with pytest.raises(UnauthorizedException) as refused:
        getattr(api, call)(*CALLS[call])
    assert refused.value.body == "Unauthorized: token contains an invalid number of segments\n"
    ((asked, answer),) = served.exchanges
    assert asked.header("authorization") is None
    assert answer.header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("call", CALLS)
def test_every_call_sends_a_header_put_in_by_hand(served: Served, call: str) -> None:
    assert status_of(call, served) == (400 if call in OF_UNKNOWN else 200)
    assert served.asked.header("authorization") == f"Bearer {TOKEN}"


def test_a_token_from_before_is_refused_without_a_reason(serving: Serving) -> None:
    with serving(outdated_tokens={"old.old.old"}) as served:
        with pytest.raises(UnauthorizedException) as refused:
            connected(served.url, "old.old.old").model_by_name(MODEL)
        assert refused.value.body == "Unauthorized\n"


# The user id that six of the calls ask for


WITH_USER = [name for name, arguments in CALLS.items() if arguments[0] == "me"]


@pytest.mark.parametrize("call", WITH_USER)
def test_six_calls_want_a_user_id_first(served: Served, call: str) -> None:
    assert len(WITH_USER) == 6
    with pytest.raises(pydantic.ValidationError, match="Missing required argument"):
        getattr(connected(served.url), call)(*CALLS[call][1:])
    assert served.exchanges == []


@pytest.mark.parametrize("call", WITH_USER)
def test_the_user_id_is_a_header_of_posts_and_in_the_query_of_gets(served: Served, call: str) -> None:
    assert status_of(call, served) in (200, 400)
    asked = served.asked
    header, query = asked.header("sx-user-id"), dict(asked.query).get("Sx-User-ID")
    assert (header, query) == (("me", None) if asked.method == "POST" else (None, "me"))


def test_the_user_id_does_not_matter_only_the_token_does(served: Served) -> None:
    mine, other = connected(served.url), connected(served.url, OTHER_TOKEN)
    job_id = mine.job_create("somebody", job()).job_id
    assert mine.gpu_job_status("anybody", job_id).status == "notassigned"
    with pytest.raises(BadRequestException) as refused:
        other.gpu_job_status("somebody", job_id)
    assert said(refused) == "无权访问该任务"


# The eleven calls


def test_a_job_is_created_looked_at_and_stopped(served: Served) -> None:
    api = connected(served.url)
    job_id = api.job_create("me", job()).job_id
    assert job_id.startswith("train-")
    served.now += 30
    looked = api.gpu_job_status("me", job_id)
    assert (looked.job_id, looked.status) == (job_id, "running")
    assert api.gpu_job_stop(job_id).message == f"job_name: {job_id} stopped"
    assert api.gpu_job_stop(job_id).message == f"job_name: {job_id} is already stopped"
    assert api.gpu_job_status("me", job_id).status == "stopped"


@pytest.mark.parametrize(("call", "field"), [("gpu_job_stop", "job_id"), ("inference_stop", "service_name")])
def test_a_stop_is_sent_as_a_multipart_form(served: Served, call: str, field: str) -> None:
    with pytest.raises(BadRequestException) as refused:
        getattr(connected(served.url), call)("nothing")
    assert said(refused) == "sql: no rows in result set"
    assert (served.asked.header("content-type") or "").startswith("multipart/form-data; boundary=")
    body = served.asked.body
    assert isinstance(body, bytes)
    assert f'name="{field}"\r\n\r\nnothing\r\n'.encode() in body


def test_a_stop_destroys_a_success(served: Served) -> None:
    api = connected(served.url)
    job_id = api.job_create("me", job()).job_id
    for _ in range(2):
        served.now += 60
        looked = api.gpu_job_status("me", job_id).status
    assert looked == "succeeded"
    api.gpu_job_stop(job_id)
    assert api.gpu_job_status("me", job_id).status == "stopped"


def test_a_finetune_ends_with_an_adapter_that_comes_late(served: Served) -> None:
    api = connected(served.url)
    job_id = api.finetune("me", finetune(trainedModelName="mine")).job_id
    assert job_id.startswith("finetune-")
    served.now += 80
    with pytest.raises(BadRequestException) as refused:
        api.finetune_status("me", job_id)
    assert said(refused) == "数据库查询错误"
    served.now += 20
    looked = api.finetune_status("me", job_id)
    assert (looked.job_id, looked.status, (looked.adapter_name or "")[-5:]) == ("", "succeeded", "/mine")


def test_a_service_is_deployed_looked_at_and_stopped(served: Served) -> None:
    api = connected(served.url)
    name = api.inference_deploy("me", service()).service_name
    assert name.startswith("infer-")
    looked = api.inference_status("me", name)
    assert (looked.status, looked.chat_url, looked.api_url) == ("notassigned", "", "")
    served.now += 100
    looked = api.inference_status("me", name)
    assert (looked.service_name, looked.status) == (name, "running")
    assert looked.api_url.startswith("http://")
    assert looked.api_url.endswith(f"/inference/api/{name}/v1/chat/completions")
    assert api.inference_stop(name).message == f"service_name: {name} stopped"
    assert api.inference_status("me", name).status == "stopped"


def test_names_are_looked_up_but_adapters(served: Served) -> None:
    api = connected(served.url)
    model, dataset = api.model_by_name(MODEL), api.dataset_by_name(DATASET)
    assert (model.model_name, model.model_is_public) == (MODEL, False)  # which is never filled in
    assert (dataset.dataset_name, dataset.dataset_is_public) == (DATASET, True)
    assert api.adapter_by_name("any") is None
    for call in (api.model_by_name, api.dataset_by_name):
        with pytest.raises(BadRequestException):
            call("nothing")


@pytest.mark.parametrize("field", ["model_id", "model_size", "model_is_public", "dataset_id", "dataset_size"])
def test_what_the_sdk_calls_optional_is_required(served: Served, field: str) -> None:
    incomplete = FinetuneReq(**{**finetune().to_dict(), field: None})
    with pytest.raises(BadRequestException) as refused:
        connected(served.url).finetune("me", incomplete)
    assert said(refused) == f'field "{field}" is not set'


@pytest.mark.parametrize("wrong", [{"gpuNumber": "1"}, {"ckptVol": "1024"}, {"gpuType": 1}])
def test_wrong_types_never_leave_the_sdk(served: Served, wrong: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        connected(served.url).job_create("me", job(**wrong))
    assert served.exchanges == []


# Errors


def test_every_refusal_is_the_same_error(serving: Serving) -> None:
    with serving(balance=-1.0) as served:
        api = connected(served.url)
        with pytest.raises(BadRequestException) as poor:
            api.job_create("me", job())
        with pytest.raises(BadRequestException) as unknown:
            api.gpu_job_status("me", "train-1")
    assert (said(poor), said(unknown)) == ("余额不足", "数据库查询错误")


def test_a_lost_answer_to_a_create_is_an_error_of_urllib3_and_the_job_is_there(serving: Serving) -> None:
    with serving(dropped_creates={1}) as served:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            connected(served.url).job_create("me", job())
        assert len(served.exchanges) == 1
        listed = urllib3.request(
            "GET", f"{served.url}/api/job/training?current=1&size=9", headers={"Authorization": f"Bearer {TOKEN}"}
        )
    assert len(listed.json()["content"]) == 1


def test_a_lost_answer_to_a_look_is_asked_for_three_times_more(served: Served) -> None:
    # A path that the gateway does not know ends the connection.
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        connected(f"{served.url}/auth").gpu_job_status("me", "train-1")
    assert len(served.exchanges) == 4


def test_an_overloaded_server_is_not_asked_again(serving: Serving) -> None:
    with serving(overloaded={1}) as served:
        with pytest.raises(ServiceException) as shed:
            connected(served.url).gpu_job_status("me", "train-1")
        assert (shed.value.status, shed.value.body, len(served.exchanges)) == (503, "", 1)


def test_a_wrong_base_url_is_the_website(served: Served) -> None:
    api = connected(f"{served.url}/web")
    with pytest.raises(pydantic.ValidationError, match="<!DOCTYPE html>"):
        api.model_by_name(MODEL)
    with pytest.raises(ApiException) as refused:
        api.gpu_job_stop("train-1")
    assert refused.value.status == 405


@pytest.mark.parametrize("generation", [Generation.JAVA, Generation.GO])
def test_older_generations_have_none_of_its_paths(serving: Serving, generation: Generation) -> None:
    with serving(generation) as served:
        for call, arguments in CALLS.items():
            with pytest.raises(NotFoundException):
                getattr(connected(served.url), call)(*arguments)


# The cloud that really runs jobs


@pytest.mark.parametrize(("command", "end"), [("", "succeeded"), ("false", "failed")])
def test_a_job_that_really_runs(portal: BlockingPortal, tmp_path: Path, command: str, end: str) -> None:
    cloud = EmbeddedCloud(tmp_path, generation=Generation.HEAD, quirks=CloudQuirks(agent_period=0.05))
    with portal.wrap_async_context_manager(cloud):
        api = connected(cloud.url.removesuffix("/api"), cloud.token)
        job_id = api.job_create("me", job(runCommand=command)).job_id
        seen = ["notassigned"]
        until = time.monotonic() + 30
        while seen[-1] not in ("succeeded", "failed") and time.monotonic() < until:
            looked = api.gpu_job_status("me", job_id).status
            seen += [looked] if looked != seen[-1] else []
            time.sleep(0.01)
    assert seen[-1] == end
    assert set(seen) <= {"notassigned", "running", end}
