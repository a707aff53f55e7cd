# pyright: strict
"""What type checkers see of the public face. Nothing here is run: ``mypy`` and ``pyright`` are the test.

An ignore comment below marks what must *not* type-check; mypy reports it as unused if it one day does.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import gts_async
from gts_async import (
    AsyncSession,
    DeadlineExceeded,
    EngineType,
    Event,
    Extraction,
    GpuType,
    InferencePool,
    InferenceSession,
    InferenceStats,
    InvalidData,
    Job,
    JobInfo,
    JobListing,
    JobSpec,
    JobStatus,
    Limits,
    NotFound,
    OnProgress,
    Outcome,
    Ping,
    Prediction,
    Problem,
    Progress,
    RetryPolicy,
    Schedule,
    Summary,
    Task,
    TaskInfo,
    TaskStatus,
    TaskType,
    Timeouts,
    TrainingRun,
    Transition,
    TransportError,
    Watch,
    WorkError,
    WrongType,
)
from gts_async.callbacks import Receiver, receiver
from gts_async.progress import NotebookProgress, RichProgress

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.example.com/train:1")


async def ask_for_token() -> str:
    return "…"


def on_event(event: Event) -> None:
    assert_type(event.elapsed, float)


async def sessions() -> None:
    async with AsyncSession(engine="http://127.0.0.1:5201") as session:
        assert_type(session, AsyncSession)
        assert_type(await session.ping(), Ping)
    await AsyncSession(
        cloud="https://cloud.example.com/api",
        token=ask_for_token,
        ca_file=Path("company.pem"),
        store_hosts=["*.example.com"],
        limits=Limits(max_connections=10),
        timeouts=Timeouts(total=None),
        retry=RetryPolicy(max_attempts=1),
        schedule=Schedule(maximum=30),
        on_event=on_event,
    ).aclose()
    AsyncSession(ca_file="company.pem", store_hosts="store.example.com")
    AsyncSession(engine=5201)  # type: ignore[arg-type]
    AsyncSession(ca_file=b"company.pem")  # type: ignore[arg-type]
    AsyncSession("http://127.0.0.1:5201")  # type: ignore[call-arg]


async def tasks(session: AsyncSession) -> None:
    task = await session.create_task("news", task_type="classification", engine_type="bagualu")
    assert_type(task, Task)
    assert_type(session.task("news"), Task)
    assert_type(await session.list_tasks(), list[Task])
    assert_type(task.task_type, TaskType | None)
    assert_type(task.engine_type, EngineType | None)

    look = await task.status(timeout=5)
    assert_type(look, TaskInfo)
    assert_type(look.status, TaskStatus)
    assert_type(look.test_acc, float | None)
    assert_type(look.observed_at, datetime | None)

    def show(progress: Progress) -> None:
        assert_type(progress.fraction, float | None)
        assert_type(progress.done, float)
        assert_type(progress.unit, Literal["bytes", "samples", "jobs", "seconds"])

    await task.upload("train.json", Path("dev.json"), progress=show)
    await task.upload("train.json", progress=print)
    await task.upload(b"train.json")  # type: ignore[arg-type]
    await task.upload("train.json", progress=len)  # type: ignore[arg-type]


async def trainings(task: Task, session: AsyncSession) -> None:
    run = await task.train(train_data="train", val_data="dev", test_data="test", label_data="labels")
    assert_type(run, TrainingRun)
    assert_type(run.watch(deadline=60), Watch[TaskInfo])
    async for change in run.watch():
        assert_type(change, Transition[TaskInfo])
        assert_type(change.look, TaskInfo)
        assert_type(change.is_final, bool)
    assert_type(await run, TaskInfo)
    assert_type(await run.wait(deadline=60, stalled_after=30, on_exit="stop"), TaskInfo)
    assert_type(run.token(), str)
    assert_type(session.resume(run.token()), TrainingRun | Job)
    assert_type(task.watch().history, tuple[Transition[TaskInfo], ...])
    await run.wait(on_exit="cancel")  # type: ignore[arg-type]
    await task.train(train_data="train")  # type: ignore[call-arg]


async def inference(task: Task, samples: AsyncIterator[Mapping[str, Any]]) -> None:
    async with task.serve(when_taken="raise") as inference:
        assert_type(inference, InferenceSession)
        assert_type(inference.stats, InferenceStats)
        assert_type(await inference.predict([{"content": "…"}]), list[Prediction | Extraction | Summary])
        assert_type(await inference.predict_one({"content": "…"}), Prediction | Extraction | Summary)
        async with inference.stream(samples, ordered=False, checkpoint=Path("results.db")) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Outcome[Mapping[str, Any], Prediction | Extraction | Summary])
                assert_type(outcome.item, Mapping[str, Any])
                assert_type(outcome.value, Prediction | Extraction | Summary | None)
                assert_type(outcome.unwrap(), Prediction | Extraction | Summary)
                assert_type(outcome.error, Exception | None)
    async with InferencePool([task.serve(), task.serve()]) as pool:
        assert_type(pool, InferencePool)
        assert_type(pool.sessions, tuple[InferenceSession, ...])
        assert_type(await pool.predict_one({"content": "…"}), Prediction | Extraction | Summary)
    await task.serve().predict("…")  # type: ignore[arg-type]
    InferencePool([task])  # type: ignore[list-item]


async def jobs(session: AsyncSession) -> None:
    job = await session.submit(SPEC)
    assert_type(job, Job)
    assert_type(session.job("id"), Job)
    assert_type(await job, JobInfo)
    assert_type(await job.wait(deadline=6 * 3600), JobInfo)
    assert_type((await job.status()).status, JobStatus)
    assert_type(job.watch(), Watch[JobInfo])
    async for change in job.watch():
        assert_type(change, Transition[JobInfo])
    assert_type(await job.download("model", extract=False), list[Path])
    assert_type(await session.list_jobs(page=2), list[JobListing])
    assert_type(await session.gpu_types(), list[GpuType])
    async with session.submit_many([SPEC], max_at_once=4, journal="batch.db") as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome[JobSpec, Job])
            assert_type(outcome.item, JobSpec)
            assert_type(outcome.value, Job | None)
            assert_type(outcome.unwrap(), Job)
            assert_type(outcome.is_ok, bool)
    await session.submit({"gpu_type": "…"})  # type: ignore[arg-type]


async def many(session: AsyncSession, runs: list[TrainingRun], jobs: list[Job]) -> None:
    assert_type(await session.wait_all(runs), list[TaskInfo | JobInfo | WorkError | NotFound])
    assert_type(await session.wait_all(jobs, deadline=60), list[TaskInfo | JobInfo | WorkError | NotFound])
    async with session.as_finished(jobs) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome.item, Job)
            assert_type(outcome.unwrap(), TaskInfo | JobInfo)
    mixed = [session.resume(run.token()) for run in runs]
    async with session.as_finished(mixed) as finished:
        async for settled in finished:
            assert_type(settled.item, TrainingRun | Job)


async def errors(run: TrainingRun) -> None:
    try:
        await run
    except DeadlineExceeded as error:
        as_timeout: TimeoutError = error
        assert_type(error.history, tuple[Any, ...])
        raise as_timeout from None
    except InvalidData as error:
        assert_type(error.problems, tuple[Problem, ...])
        assert_type(error.code, int | None)
    except TransportError as error:
        assert_type([attempt.delay for attempt in error.attempts], list[float | None])
    except WrongType as error:
        as_type_error: TypeError = error
        raise as_type_error from None


async def progress(session: AsyncSession, task: Task, run: TrainingRun, job: Job) -> None:
    with RichProgress(is_transient=True) as bars:
        on_progress: OnProgress = bars
        await task.upload("train.json", progress=on_progress)
        await run.wait(progress=bars)
        await job.download("model", progress=bars)
    cell = NotebookProgress()
    assert_type(run.watch(progress=cell), Watch[TaskInfo])
    assert_type(task.watch(progress=cell), Watch[TaskInfo])
    assert_type(await job.wait(progress=cell), JobInfo)
    assert_type(await session.wait_all([job], progress=cell), list[TaskInfo | JobInfo | WorkError | NotFound])
    session.submit_many([SPEC], progress=cell)
    async with task.serve() as inference, inference.stream([{"content": "…"}], progress=cell):
        await inference.predict([{"content": "…"}], progress=cell)
    run.watch(progress="bar")  # type: ignore[arg-type]


def doors(session: AsyncSession) -> None:
    assert_type(gts_async.AsyncSession(), AsyncSession)
    app = receiver(session, "https://hooks.example.com/jobs")
    assert_type(app, Receiver)
    assert_type(app.spec(SPEC), JobSpec)
    assert_type(gts_async.callbacks.receiver(session, "https://hooks.example.com"), Receiver)
