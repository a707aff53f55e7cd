"""What each call sends, byte for byte, in both dialects."""

import json
import pickle
from pathlib import Path

import attrs
import pytest

from gts_async._errors import InvalidArgument, NotSupported, WrongType
from gts_async.sxwl.calls import create_job, delete_job, gpu_types, job_status, list_jobs, mark_of, stop_job
from gts_async.sxwl.dialects import dialect
from gts_async.sxwl.values import JobSpec, JobType, StopType
from gts_async.wire import Answer, Pace, Request

SAMPLES = Path(__file__).parent.parent / "samples" / "sxwl"
OLD, NEW = dialect("2023-12"), dialect("2024-04")
ID = "ai81e6f92e-f1dd-4033-910e-ceafbf7991db"
JSON = (("content-type", "application/json"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)

SMALL = JobSpec(gpu_type="NVIDIA-A100-SXM4-80GB", image_path="registry.example/train:test")
DOCUMENTED = JobSpec(
    gpu_number=1,
    gpu_type="NVIDIA-GeForce-RTX-3090",
    ckpt_path="/data",
    ckpt_vol=10000,
    model_path="/data2",
    model_vol=10000,
    image_path="dockerhub.kubekey.local/kubesphereio/train:test",
    job_type=JobType.GENERAL,
    stop_type=StopType.TIME_LIMIT,
    stop_time=5,
    pretrained_model_name="chatglm3-6b",
    pretrained_model_path="/sixpen_models/chatlm3",
    dataset_name="train-dataset",
    dataset_path="/sixpen_models/train_outputs/test_10059997",
    run_command="python run.py",
    callback_url="https://llm.nascentcore.cn/api/test/callback",
    env={"OPEN_NODE_TOKEN": "xxxxx"},
    mark="mark-3f0c",
)


def test_the_documented_body_is_sent_as_documented():
    sample = json.loads((SAMPLES / "create_request.json").read_bytes())
    body = json.loads(create_job(OLD, DOCUMENTED).request.body)
    assert list(body.items()) == list(sample.items())


OLD_SMALL = (
    b'{"gpuNumber":1,"gpuType":"NVIDIA-A100-SXM4-80GB","ckptPath":"/workspace/ckpt","ckptVol":"1024",'
    b'"modelPath":"/workspace/model","modelVol":"1024","imagePath":"registry.example/train:test",'
    b'"jobType":"GeneralJob","stopType":"0"}'
)
NEW_SMALL = (
    b'{"gpuNumber":1,"gpuType":"NVIDIA-A100-SXM4-80GB","ckptPath":"/workspace/ckpt","ckptVol":1024,'
    b'"modelPath":"/workspace/model","modelVol":1024,"imagePath":"registry.example/train:test",'
    b'"jobType":"general","stopType":0,"created_model_path":"/workspace/model","created_model_vol":1024}'
)
NEW_DOCUMENTED = (
    b'{"gpuNumber":1,"gpuType":"NVIDIA-GeForce-RTX-3090","ckptPath":"/data","ckptVol":10000,"modelPath":"/data2",'
    b'"modelVol":10000,"imagePath":"dockerhub.kubekey.local/kubesphereio/train:test","jobType":"general","stopType":1,'
    b'"stopTime":5,"created_model_path":"/data2","created_model_vol":10000,"model_name":"chatglm3-6b",'
    b'"model_path":"/sixpen_models/chatlm3","dataset_name":"train-dataset",'
    b'"dataset_path":"/sixpen_models/train_outputs/test_10059997","runCommand":"python run.py",'
    b'"callbackUrl":"https://llm.nascentcore.cn/api/test/callback","trainedModelName":"mark-3f0c"}'
)


@pytest.mark.parametrize(
    ("spoken", "spec", "path", "body"),
    [
        (OLD, SMALL, "/userJob", OLD_SMALL),
        (NEW, SMALL, "/job/training", NEW_SMALL),
        (NEW, DOCUMENTED, "/job/training", NEW_DOCUMENTED),
    ],
    ids=["old", "new", "new, everything"],
)
def test_create_sends_exactly_this(spoken, spec, path, body):
    call = create_job(spoken, spec)
    assert call.request == Request("POST", path, headers=JSON, body=body)
    assert (call.name, call.is_repeatable, call.pace) == ("create_job", False, Pace.ORDINARY)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [(JobType.GENERAL, "GeneralJob", "general"), (JobType.PYTORCH, "Pytorch", "pytorch"), (JobType.MPI, "MPI", "mpi")],
)
def test_each_generation_gets_the_job_type_that_it_runs(kind, old, new):
    spec = attrs.evolve(SMALL, job_type=kind)
    spelled = [json.loads(create_job(spoken, spec).request.body)["jobType"] for spoken in (OLD, NEW)]
    assert spelled == [old, new]


def test_numbers_given_as_text_are_sent_like_numbers():
    spec = attrs.evolve(SMALL, gpu_number="1", ckpt_vol="1024", model_vol="1024", stop_type="0")
    assert create_job(OLD, spec).request.body == OLD_SMALL
    assert create_job(NEW, spec).request.body == NEW_SMALL


@pytest.mark.parametrize(
    ("call", "name", "request_"),
    [
        (
            job_status(OLD, ID),
            "job_status",
            Request("POST", "/userJob/job_status", headers=JSON, body=f'{{"job_id":"{ID}"}}'.encode()),
        ),
        (job_status(NEW, ID), "job_status", Request("GET", "/job/gpu/status", query=(("job_id", ID),))),
        (
            stop_job(OLD, ID),
            "stop_job",
            Request("POST", "/userJob/job_del", headers=JSON, body=f'{{"job_id":"{ID}"}}'.encode()),
        ),
        (
            stop_job(NEW, ID),
            "stop_job",
            Request("POST", "/job/gpu/stop", headers=FORM, body=f"job_id={ID}".encode()),
        ),
        (
            delete_job(OLD, ID),
            "delete_job",
            Request("POST", "/userJob/job_del", headers=JSON, body=f'{{"job_id":"{ID}"}}'.encode()),
        ),
        (
            delete_job(NEW, ID),
            "delete_job",
            Request("POST", "/userJob/job_del", headers=JSON, body=f'{{"job_id":"{ID}"}}'.encode()),
        ),
        (list_jobs(OLD), "list_jobs", Request("GET", "/userJob", query=(("current", "1"), ("size", "100")))),
        (
            list_jobs(NEW, 3, 1000),
            "list_jobs",
            Request("GET", "/job/training", query=(("current", "3"), ("size", "1000"))),
        ),
        (gpu_types(OLD), "gpu_types", Request("GET", "/userJob/getGpuType")),
        (gpu_types(NEW), "gpu_types", Request("GET", "/resource/gpus")),
    ],
)
def test_every_other_call_sends_exactly_this_and_may_be_repeated(call, name, request_):
    assert call.request == request_
    assert (call.name, call.is_repeatable, call.answers_with) == (name, True, frozenset())


def test_the_documented_id_is_asked_for_as_documented():
    sample = json.loads((SAMPLES / "job_request.json").read_bytes())
    assert json.loads(job_status(OLD, ID).request.body) == sample
    assert json.loads(stop_job(OLD, ID).request.body) == sample


@pytest.mark.parametrize("ask", [job_status, stop_job, delete_job])
@pytest.mark.parametrize("spoken", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("job_id", ["", " ", "a b", "a/b", "../x", "a&b=c", "a?b", "ai\n", "作业", "x" * 129])
def test_an_id_that_could_ask_about_another_job_is_refused(ask, spoken, job_id):
    with pytest.raises(InvalidArgument) as caught:
        ask(spoken, job_id)
    assert caught.value.argument == "job_id"


@pytest.mark.parametrize("job_id", [None, 123, b"ai1"])
def test_an_id_of_another_type_is_refused(job_id):
    with pytest.raises(WrongType):
        job_status(OLD, job_id)


@pytest.mark.parametrize(("page", "size"), [(0, 10), (1, 0), (1, 1001), (-1, 10), ("1", 10), (1, True)])
def test_a_page_that_does_not_exist_is_refused(page, size):
    with pytest.raises(InvalidArgument):
        list_jobs(NEW, page, size)


@pytest.mark.parametrize(
    ("ask", "route"),
    [(list_jobs, "list_jobs"), (gpu_types, "gpu_types"), (lambda spoken: delete_job(spoken, ID), "delete_job")],
)
def test_a_call_that_the_dialect_lacks_is_not_supported(ask, route):
    without = attrs.evolve(OLD, name="private", **{route: None})
    with pytest.raises(NotSupported, match=f'"private" have no {route}'):
        ask(without)


@pytest.mark.parametrize(
    ("spoken", "fields", "mark"),
    [
        (NEW, {"mark": "m-1"}, "m-1"),
        (NEW, {}, None),
        (NEW, {"callback_url": "https://h/m-1"}, None),
        (OLD, {"mark": "m-1"}, None),
        (OLD, {"mark": "m-1", "callback_url": "https://h/other"}, None),
        (OLD, {"callback_url": "https://h/m-1"}, None),
        (OLD, {"mark": "m-1", "callback_url": "https://h/m-1?x=1"}, "https://h/m-1?x=1"),
    ],
)
def test_a_job_can_be_found_again_only_when_its_mark_travels(spoken, fields, mark):
    assert mark_of(spoken, attrs.evolve(SMALL, **fields)) == mark


@pytest.mark.parametrize("spoken", [OLD, NEW], ids=["old", "new"])
def test_the_mark_of_a_spec_is_the_mark_in_the_listing_of_its_job(spoken):
    spec = attrs.evolve(SMALL, mark="m-1", callback_url="https://h/cb/m-1?a=1&b=2")
    kept = create_job(spoken, spec).request.body.decode()
    answer = Answer.json(200, {"content": [{"jobName": ID, "jsonAll": kept}], "totalElements": 1})
    (listed,) = list_jobs(spoken).read(answer)
    assert listed.mark == mark_of(spoken, spec)
    assert listed.mark is not None


def test_a_call_can_be_pickled():
    call = pickle.loads(pickle.dumps(job_status(OLD, ID)))
    assert call.read(Answer.json(200, {"status": "fail"})).word == "fail"
