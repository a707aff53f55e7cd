"""The demo's second half, on the cloud: submit jobs all at once, be called back, fetch and check their models."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from gts_async._errors import GtsAsyncError
from gts_async._flow.fanout import FanOut, Outcome
from gts_async._job import Job
from gts_async._session import AsyncSession
from gts_async.callbacks import Receive, Receiver, Scope, Send, receiver
from gts_async.cli.demo_report import Report
from gts_async.local.asgi import App
from gts_async.local.job import INTERCEPT, SLOPE
from gts_async.local.serving import listening, serve, url_of
from gts_async.local.stack import EmbeddedCloud
from gts_async.sxwl.values import OLDER, JobSpec, JobStatus

JOBS = 20
JOBS_TIME = 60.0
"""Seconds that all jobs may take; they take about two."""

CALLBACK_TIME = 10.0
"""Seconds that callbacks may still take when all jobs are seen to be finished."""

DOWNLOADS_AT_ONCE = 4
FILES = frozenset({"model.json", "metrics.json", "train.log"})
"""What the built-in job leaves."""

CLOSE = 0.2
"""How near the fitted slope and intercept must be to the true ones."""


async def run_jobs(cloud: EmbeddedCloud, folder: Path, report: Report) -> None:
    """Do it all, noting in `report` what did not hold; raises what the client raises."""
    session = AsyncSession(cloud=cloud.url, token=cloud.token, dialect=OLDER, on_event=report.heard)
    with listening() as listener:
        async with session:
            hook = receiver(session, url_of(listener))
            all_came = asyncio.Event()
            async with serve(_counting(hook, all_came), listener=listener):
                jobs = await _submit(session, hook, report)
                await _await(session, jobs, report)
                await _await_callbacks(hook, all_came, report)
                await _fetch(jobs, folder, report)


def _counting(hook: Receiver, all_came: asyncio.Event) -> App:
    """Give the receiver with a look at how many callbacks it has counted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hook(scope, receive, send)
        if hook.received.rung >= JOBS:
            all_came.set()

    return app


async def _submit(session: AsyncSession, hook: Receiver, report: Report) -> list[Job]:
    report.update("submitting jobs")
    spec = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.example/line-fit:1")
    jobs: list[Job] = []
    async with session.submit_many([hook.spec(spec) for _ in range(JOBS)], max_at_once=JOBS) as outcomes:
        async for outcome in outcomes:
            report.check("jobs", outcome.is_ok, f"one was not taken: {outcome.error}")
            if outcome.value is not None:
                jobs.append(outcome.value)
    ids = {job.id for job in jobs}
    report.check("jobs", len(ids) == JOBS, f"{len(ids)} ids were given for {JOBS} jobs")
    report.step("jobs", f"{len(jobs)} submitted at once, each with a callback URL of its own")
    return jobs


async def _await(session: AsyncSession, jobs: Sequence[Job], report: Report) -> None:
    async with session.as_finished(jobs, deadline=JOBS_TIME) as outcomes:
        async for outcome in outcomes:
            is_good = outcome.value is not None and outcome.value.status is JobStatus.SUCCEEDED
            report.facts.jobs += is_good
            report.check("jobs", is_good, f"{outcome.item.id}: {outcome.error}")
            report.update(f"jobs: {report.facts.jobs} of {len(jobs)} have succeeded")
    report.step("jobs", f"{report.facts.jobs} of {len(jobs)} succeeded, as real processes of this machine")


async def _await_callbacks(hook: Receiver, all_came: asyncio.Event, report: Report) -> None:
    # A watch may have seen the end by itself, just before its callback came.
    report.update("waiting for callbacks")
    try:
        async with asyncio.timeout(CALLBACK_TIME):
            await all_came.wait()
    except TimeoutError:
        pass
    came = hook.received
    report.facts.callbacks = came.rung
    is_good = came.rung == JOBS and not came.unknown and not came.malformed
    report.check("callbacks", is_good, f"{came.rung} of {JOBS} came, {came.unknown + came.malformed} strange ones")
    report.step("callbacks", f"{came.rung} received over HTTP, each at a URL of its own")


async def _fetch(jobs: Sequence[Job], folder: Path, report: Report) -> None:
    async def fetch(job: Job) -> list[Outcome[Job, str]]:
        try:
            paths = await job.download(folder / job.id)
            return [Outcome(job, await anyio.to_thread.run_sync(_fault, paths))]
        except GtsAsyncError as error:
            return [Outcome(job, error=error)]

    async with FanOut(fetch, jobs, max_at_once=DOWNLOADS_AT_ONCE) as outcomes:
        async for outcome in outcomes:
            fault = str(outcome.error) if outcome.error is not None else outcome.unwrap()
            report.facts.models += not fault
            report.check("models", not fault, f"{outcome.item.id}: {fault}")
            report.update(f"models: {report.facts.models} of {len(jobs)} checked")
    report.step("models", f"{report.facts.models} of {len(jobs)} downloaded through signed URLs, unpacked and checked")


def _fault(paths: Sequence[Path]) -> str:
    """Say what is wrong with a job's model, or give ""."""
    files = {path.name: path for path in paths}
    if files.keys() != FILES:
        return f"its files are {sorted(files)}, not {sorted(FILES)}"
    try:
        model = json.loads(files["model.json"].read_text("utf-8"))
        is_near = abs(model["slope"] - SLOPE) < CLOSE and abs(model["intercept"] - INTERCEPT) < CLOSE
    except (ValueError, KeyError, TypeError) as error:
        return f"model.json cannot be read ({error!r})"
    return "" if is_near else f"the fitted line {model} is far from the true one"
