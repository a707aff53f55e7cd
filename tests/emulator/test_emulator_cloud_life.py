"""How jobs live in the cluster: the agent's rounds, what it makes of an order, and what goes wrong there."""

import json

import pytest

from gts_async.emulator.backends import JobStage, JobState
from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation, Gpu
from gts_async.emulator.scripted_jobs import BytesBlob, ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

NOW = 1_703_203_200.0
GPU = "NVIDIA-GeForce-RTX-3090"
OLD = {
    "gpuNumber": 1, "gpuType": GPU, "ckptPath": "/ckpt", "ckptVol": "100", "modelPath": "/model", "modelVol": "200",
    "imagePath": "image", "jobType": "GeneralJob", "stopType": "0", "stopTime": 5,
}  # fmt: skip
NEW = {
    "gpuNumber": 1, "gpuType": GPU, "ckptPath": "/ckpt", "ckptVol": 100, "created_model_path": "/model",
    "created_model_vol": 200, "imagePath": "image", "jobType": "general",
}  # fmt: skip
JAVA, GO, HEAD = Generation.JAVA, Generation.GO, Generation.HEAD


def cloud(runner, generation=JAVA, **quirks):
    store = ObjectStore(b"secret", "https://h")
    return Cloud(runner, store, token="t", generation=generation, quirks=CloudQuirks(**quirks))


def post(path, document):
    headers = (("content-type", "application/json"), ("authorization", "Bearer t"))
    return Request("POST", path, headers=headers, body=json.dumps(document).encode())


def create(kept, now=NOW, generation=JAVA, **changes):
    path, body = ("/api/job/training", NEW) if generation is HEAD else ("/api/userJob", OLD)
    return json.loads(kept.answer(post(path, body | changes), now).body)["job_id"]


def status(kept, job_id, now):
    document = json.loads(kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), now).body)
    return document.get("status", document.get("message"))


def delete(kept, job_id, now):
    assert kept.answer(post("/api/userJob/job_del", {"job_id": job_id}), now).status == 200


def gpu_status(kept, job_id, now):
    headers = (("authorization", "Bearer t"),)
    answer = kept.answer(Request("GET", "/api/job/gpu/status", (("job_id", job_id),), headers), now)
    return json.loads(answer.body)["status"]


@pytest.mark.parametrize("generation", [JAVA, GO])
@pytest.mark.parametrize(("period", "visible"), [(10.0, 70.0), (1.0, 61.0), (30.0, 90.0), (45.0, 135.0)])
def test_a_change_shows_in_the_round_after_it(generation, period, visible):
    kept = cloud(ScriptedRunner(running=60), generation, agent_period=period)
    job_id = create(kept)
    assert status(kept, job_id, NOW + visible - 0.1) == "working"
    assert status(kept, job_id, NOW + visible) == "success"


def test_rounds_are_counted_from_the_first_request_not_from_the_create():
    runner = ScriptedRunner(running=5)
    kept = cloud(runner)
    kept.answer(Request("GET", "/"), NOW)
    job_id = create(kept, NOW + 8)
    assert status(kept, job_id, NOW + 19) == "working"
    assert status(kept, job_id, NOW + 20) == "success"


def test_it_does_not_matter_how_often_somebody_looks():
    urls = []
    for moments in ([200.0], [10.0, 20.0, 70.0, 200.0], [float(moment) for moment in range(201)]):
        kept = cloud(ScriptedRunner(queued=15, running=47, packing=22))
        job_id = create(kept)
        answers = [kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), NOW + at) for at in moments]
        urls.append(json.loads(answers[-1].body)["url"])
    assert len(set(urls)) == 1
    assert f"Expires={int(NOW) + 100 + 2_592_000}&" in urls[0]


def test_a_url_is_signed_when_the_model_is_uploaded_not_when_somebody_asks():
    store = ObjectStore(b"secret", "https://h")
    kept = Cloud(ScriptedRunner(model=BytesBlob(b"model")), store, token="t")
    job_id = create(kept)
    late = NOW + 70 + 2_592_001
    url = json.loads(kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), late).body)["url"]
    query = tuple(pair.split("=", 1) for pair in url.partition("?")[2].replace("%3D", "=").split("&"))
    answer = store.answer(Request("GET", f"/{job_id}%2Fdata.zip", tuple((a, b) for a, b in query)), late)
    assert answer.status == 403


def test_time_that_goes_back_changes_nothing():
    kept = cloud(ScriptedRunner())
    job_id = create(kept)
    assert [status(kept, job_id, NOW + at) for at in (100, -1000, 100)] == ["success"] * 3


@pytest.mark.parametrize(
    ("gpus", "old", "new"), [(1, 1, 1), (7, 7, 7), (8, 8, 0), (12, 8, 0), (16, 16, 0), (31, 24, 0), (0, 0, 0)]
)
def test_whole_machines_of_eight(gpus, old, new):
    for generation, expected in ((JAVA, old), (GO, old), (HEAD, new)):
        runner = ScriptedRunner()
        kept = cloud(runner, generation)
        create(kept, generation=generation, gpuNumber=gpus)
        kept.callbacks(NOW + 10)
        assert [order.gpu_number for order in runner.orders] == [expected]


@pytest.mark.parametrize("generation", [JAVA, GO])
@pytest.mark.parametrize(("job_type", "env"), [("GeneralJob", {"A": "1"}), ("Pytorch", {}), ("MPI", {})])
def test_an_order_of_the_old_cluster(generation, job_type, env):
    runner = ScriptedRunner()
    kept = cloud(runner, generation)
    command = "python  train.py --name 'a b'"
    job_id = create(kept, jobType=job_type, env={"A": "1"}, runCommand=command, stopType="1", stopTime=7)
    kept.callbacks(NOW + 10)
    (order,) = runner.orders
    assert (order.job_id, order.job_type, order.env) == (job_id, job_type, env)
    assert (order.ckpt_path, order.ckpt_vol, order.model_path, order.model_vol) == ("/ckpt", 100, "/model", 200)
    assert (order.image_path, order.gpu_type, order.run_command) == ("image", GPU, command)
    assert (order.stop_type, order.stop_time) == (1, 7)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (0, 0)),
        ({"stopType": 1, "stopTime": 7}, (1, 7)),
        ({"stopType": 1}, (0, 0)),
        ({"stopType": 0, "stopTime": 7}, (0, 0)),
    ],
)
def test_an_order_of_the_new_cluster_knows_a_time_limit_only_with_minutes(change, expected):
    runner = ScriptedRunner()
    kept = cloud(runner, HEAD)
    create(kept, generation=HEAD, jobType="PyTorch", env={"A": "1"}, runCommand="a b", **change)
    kept.callbacks(NOW + 10)
    (order,) = runner.orders
    assert (order.stop_type, order.stop_time) == expected
    assert (order.job_type, order.env, order.run_command) == ("pytorch", {}, "a b")
    assert (order.ckpt_vol, order.model_path, order.model_vol) == (100, "/model", 200)


@pytest.mark.parametrize("generation", [JAVA, GO])
@pytest.mark.parametrize("job_type", ["TensorFlow", "pytorch", "mpi", "general", ""])
def test_an_unknown_job_type_fails_in_the_old_cluster(generation, job_type):
    runner = ScriptedRunner()
    kept = cloud(runner, generation)
    job_id = create(kept, jobType=job_type)
    assert status(kept, job_id, NOW + 9) == "working"
    assert status(kept, job_id, NOW + 10) == "fail"
    assert runner.orders == []


@pytest.mark.parametrize("generation", [JAVA, GO])
@pytest.mark.parametrize("change", [{"gpuType": ""}, {"gpuType": "RTX-3090"}, {"gpuNumber": 1025}])
def test_a_job_for_gpus_that_are_not_there_is_working_for_ever(generation, change):
    runner = ScriptedRunner()
    kept = cloud(runner, generation)
    job_id = create(kept, **change)
    assert status(kept, job_id, NOW + 1e7) == "working"
    assert runner.orders == []


def test_the_cluster_may_have_other_gpus():
    runner = ScriptedRunner()
    kept = cloud(runner, gpus=(Gpu("mine", 1.0, total=2),))
    for gpu, number in (("mine", 2), ("mine", 3), (GPU, 1)):
        create(kept, gpuType=gpu, gpuNumber=number)
    kept.callbacks(NOW + 10)
    assert [(order.gpu_type, order.gpu_number) for order in runner.orders] == [("mine", 2)]


POISONS = [
    {"stopTime": "5"},
    {"gpuNumber": "1"},
    {"gpuNumber": 1.5},
    {"stopTime": 5.0},
    {"gpuNumber": True},
    {"env": {"A": 1}},
    {"env": "A=1"},
    {"imagePath": 5},
    {"runCommand": ["a"]},
    {"jobId": "x"},
]


@pytest.mark.parametrize("change", [*POISONS, {"gpuNumber": None}])
def test_types_that_the_agent_cannot_decode_block_the_whole_cluster_until_the_job_is_deleted(change):
    runner = ScriptedRunner(running=30)
    kept = cloud(runner)
    before = create(kept)
    assert status(kept, before, NOW + 10) == "working"
    bad, after = create(kept, NOW + 10, **change), create(kept, NOW + 10)
    assert status(kept, before, NOW + 1000) == "success"
    assert [status(kept, job_id, NOW + 1000) for job_id in (bad, after)] == ["working", "working"]
    assert [order.job_id for order in runner.orders] == [before]
    delete(kept, bad, NOW + 1000)
    assert status(kept, after, NOW + 2000) == "success"
    assert status(kept, bad, NOW + 2000) == "working"


def test_while_the_cluster_is_blocked_nothing_is_ended_either():
    runner = ScriptedRunner(running=1e6)
    kept = cloud(runner)
    running = create(kept)
    assert status(kept, running, NOW + 10) == "working"
    bad = create(kept, NOW + 10, stopTime="5")
    delete(kept, running, NOW + 10)
    assert status(kept, running, NOW + 1000) == "working"
    assert runner.killed == []
    delete(kept, bad, NOW + 1000)
    kept.callbacks(NOW + 1010)
    assert runner.killed == [running]


@pytest.mark.parametrize("change", POISONS)
def test_blocking_can_be_switched_off(change):
    runner = ScriptedRunner()
    kept = cloud(runner, bad_types_block_cluster=False)
    bad, after = create(kept, **change), create(kept)
    assert [status(kept, job_id, NOW + 1000) for job_id in (bad, after)] == ["working", "success"]
    assert [order.job_id for order in runner.orders] == [after]


@pytest.mark.parametrize("change", [{"gpuType": "unknown", "stopTime": "5"}, {"env": {"A": None}}, {"hfUrl": None}])
def test_what_is_not_sent_or_null_blocks_nothing(change):
    kept = cloud(ScriptedRunner())
    create(kept, **change)
    assert status(kept, create(kept), NOW + 1000) == "success"


@pytest.mark.parametrize("generation", [JAVA, GO])
def test_a_deleted_job_is_killed_in_the_next_round(generation):
    runner = ScriptedRunner(running=1000)
    kept = cloud(runner, generation)
    job_id = create(kept)
    kept.callbacks(NOW + 10)
    delete(kept, job_id, NOW + 11)
    kept.callbacks(NOW + 19)
    assert runner.killed == []
    kept.callbacks(NOW + 20)
    kept.callbacks(NOW + 1000)
    assert runner.killed == [job_id]


@pytest.mark.parametrize("generation", [JAVA, GO, HEAD])
def test_a_job_that_is_deleted_before_it_is_fetched_is_never_started(generation):
    runner = ScriptedRunner()
    kept = cloud(runner, generation)
    delete(kept, create(kept, generation=generation), NOW + 5)
    kept.callbacks(NOW + 1000)
    assert (runner.orders, runner.killed) == ([], [])


@pytest.mark.parametrize("generation", [JAVA, GO])
def test_a_failure_may_turn_into_a_success(generation):
    kept = cloud(ScriptedRunner(queued=20, running=60, packing=30), generation, fails_first=True)
    job_id = create(kept)
    seen = [status(kept, job_id, NOW + at) for at in (10, 29, 30, 89, 90, 119, 120, 1e6)]
    assert seen == ["working", "working", "fail", "fail", "working", "working", "success", "success"]


def test_a_failure_stays_one_unless_the_switch_is_on():
    kept = cloud(ScriptedRunner(outcome=JobStage.FAILED))
    job_id = create(kept)
    assert {status(kept, job_id, NOW + at) for at in range(70, 10_000, 100)} == {"fail"}


def test_a_time_limit_may_be_the_reason_of_a_success():
    kept = cloud(ScriptedRunner(running=1e9))
    limited, unlimited = create(kept, stopType="1", stopTime=2), create(kept)
    assert status(kept, limited, NOW + 129) == "working"
    assert status(kept, limited, NOW + 130) == "success"
    assert status(kept, unlimited, NOW + 1e6) == "working"


def test_a_time_limit_of_no_minutes_ends_the_job_at_once():
    kept = cloud(ScriptedRunner(running=1e9))
    body = {key: value for key, value in OLD.items() if key != "stopTime"} | {"stopType": "1"}
    job_id = json.loads(kept.answer(post("/api/userJob", body), NOW).body)["job_id"]
    assert status(kept, job_id, NOW + 10) == "success"


def test_a_model_that_never_arrives_is_a_success_without_url():
    class Lossy(ScriptedRunner):
        def state(self, job_id, now):
            return JobState(super().state(job_id, now).stage)

    kept = cloud(Lossy())
    job_id = create(kept)
    answer = kept.answer(post("/api/userJob/job_status", {"job_id": job_id}), NOW + 100)
    assert answer.text == '{"status":"success"}'


class Hasty:
    """A runner with a clock of its own: a job moves on with every look."""

    def __init__(self):
        self.looks = 0

    def start(self, order, now):
        self.looks = 0

    def state(self, job_id, now):
        self.looks += 1
        stage = list(JobStage)[min(self.looks - 1, 3)]
        return JobState(stage, BytesBlob(b"x") if stage is JobStage.UPLOADED else None)

    def kill(self, job_id):
        raise AssertionError(job_id)


@pytest.mark.parametrize("moments", [(10,), (10, 20), (10, 20, 30), (1000,)])
def test_a_runner_may_move_on_while_it_is_looked_at(moments):
    kept = cloud(Hasty())
    job_id = create(kept)
    for at in moments:
        status(kept, job_id, NOW + at)
    assert status(kept, job_id, NOW + 2000) == "success"


def test_many_jobs_over_a_long_time_cost_little():
    class Counting(ScriptedRunner):
        looks = 0

        def state(self, job_id, now):
            self.looks += 1
            return super().state(job_id, now)

    runner = Counting(queued=100, running=20_000, packing=600, model=BytesBlob(b"x"))
    kept = cloud(runner)
    ids = [create(kept) for _ in range(20)]
    assert {status(kept, job_id, NOW + 1e6) for job_id in ids} == {"success"}
    assert runner.looks < 20 * 120


@pytest.mark.parametrize("quirk", ["agent_period", "url_delay", "callback_delay", "finetune_time", "deploy_time"])
def test_times_cannot_be_negative(quirk):
    with pytest.raises(ValueError, match=quirk):
        CloudQuirks(**{quirk: -1.0})
