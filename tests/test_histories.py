"""History, durations and estimates on the handles themselves, through a whole session on the fake clock."""

import json

import pytest

from gts_async import AsyncSession, JobSpec, JobStatus, MisuseError, TaskStatus, WorkStalled
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport

FILES = {"train_data": "train.json", "val_data": "dev.json", "test_data": "test.json", "label_data": "labels.json"}
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")


@pytest.fixture
async def task(gts_session, tmp_path):
    rows = "\n".join(json.dumps({"id": i, "content": f"text {i}", "label": "ab"[i % 2]}) for i in range(40))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(rows)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["a", "b"]}))
    task = await gts_session.create_task("t1", task_type="classification", engine_type="bagualu")
    await task.upload(*tmp_path.glob("*.json"))
    return task


@pytest.fixture
async def cloud(gts_clock):
    store = ObjectStore(b"key", "https://store.test")
    server = Cloud(ScriptedRunner(), store, token="t")
    transport = EmulatorTransport(
        {"https://cloud.test": server, "https://store.test": store}, lambda: gts_clock.wall().timestamp()
    )
    async with AsyncSession(
        cloud="https://cloud.test/api", token="t", transport=transport, clock=gts_clock, chance=lambda: 0.5
    ) as session:
        yield session


async def test_a_run_tells_what_it_has_done_and_how_long_it_took(task, gts_clock):
    run = await task.train(**FILES)
    assert (run.history, run.durations, run.eta) == ((), {}, None)
    await run
    assert run.history[-1].is_final
    assert [change.status for change in run.history][-2:] == [TaskStatus.TRAINING, TaskStatus.SUCCEEDED]
    assert run.durations[TaskStatus.TRAINING] > 0
    before = run.durations
    await gts_clock.sleep(100)
    assert run.durations == before
    assert run.eta == 0.0


async def test_the_second_run_of_its_types_knows_how_long_is_left(task, gts_session):
    first = await task.train(**FILES)
    await first
    second = await task.train(**FILES)
    estimates = []
    async for change in second.watch():
        estimates.append((change.status, second.eta))
    trainings = [eta for status, eta in estimates if status is TaskStatus.TRAINING]
    assert trainings
    assert trainings[0] == pytest.approx(first.durations[TaskStatus.TRAINING], rel=0.3)
    assert estimates[-1] == (TaskStatus.SUCCEEDED, 0.0)


async def test_a_job_tells_what_it_has_done_and_a_second_wait_asks_nobody(cloud, gts_clock):
    job = await cloud.submit(SPEC)
    assert (job.history, job.durations, job.eta) == ((), {}, None)
    info = await job.wait()
    assert [change.status for change in job.history] == [JobStatus.WORKING, JobStatus.SUCCEEDED]
    assert sum(job.durations.values()) == pytest.approx(job.history[-1].elapsed)
    now = gts_clock.now()
    assert await job.wait() == info
    assert [change.is_final async for change in job.watch()] == [True]
    assert gts_clock.now() == now


async def test_jobs_of_one_image_teach_the_next_one(cloud):
    first = await cloud.submit(SPEC)
    await first
    second = await cloud.submit(SPEC)
    watch = second.watch()
    await anext(watch)
    assert second.eta == watch.eta
    assert second.eta == pytest.approx(first.durations[JobStatus.WORKING], rel=0.5)


async def test_handles_of_one_job_have_histories_of_their_own(cloud):
    job = await cloud.submit(SPEC)
    await job
    other = cloud.job(job.id)
    assert other.history == ()
    await other
    assert [change.status for change in other.history] == [JobStatus.SUCCEEDED]


async def test_a_stall_leaves_its_history_on_the_handle_and_the_wait_can_go_on(cloud):
    job = await cloud.submit(SPEC)
    with pytest.raises(WorkStalled) as caught:
        await job.wait(stalled_after=1.0)
    assert caught.value.history == job.history
    assert (await job).status is JobStatus.SUCCEEDED


async def test_a_closed_session_still_tells_what_it_knows(cloud):
    job, other = await cloud.submit(SPEC), await cloud.submit(SPEC)
    info = await job
    await cloud.aclose()
    assert await job == info
    assert job.history[-1].is_final
    with pytest.raises(MisuseError, match="closed"):
        await other
