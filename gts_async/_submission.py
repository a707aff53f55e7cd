"""Submission: how jobs are submitted, one or many, so that none is ever submitted twice.

What a job is asked to be is in ``sxwl/values.py``; what is kept on disk in ``_journal.py``.
"""

import logging
from collections.abc import AsyncIterable, Iterable
from os import PathLike

from gts_async._errors import GtsAsyncError, OutcomeUnknown, Unauthorized, WrongType
from gts_async._flow.fanout import FanOut, Outcome
from gts_async._flow.shield import finished
from gts_async._job import Cloud, Job
from gts_async._journal import Intent, Journal
from gts_async.sxwl import calls
from gts_async.sxwl.values import JobSpec

GRACE = 10.0
"""Seconds that a submission in flight may take to its end after its caller was cancelled."""

log = logging.getLogger("gts_async")


def check_spec(spec: object) -> None:
    """Raise WrongType unless `spec` is a JobSpec."""
    if not isinstance(spec, JobSpec):
        raise WrongType("spec", f"must be a JobSpec, not {type(spec).__name__}", "JobSpec(gpu_type=…, image_path=…)")


async def submit(cloud: Cloud, spec: JobSpec, *, timeout: float | None = None) -> Job:
    """Submit a job; OutcomeUnknown carries the intent.

    A request in flight is finished although the caller is cancelled, for at most `GRACE` seconds: cut, nobody would
    know what became of it. The job that came of it is then told in the log, and goes on.
    """
    return await finished(_submit(cloud, spec, timeout=timeout), grace=GRACE, unclaimed=_log_unclaimed)


def _log_unclaimed(job: Job) -> None:
    log.warning("the submission was cancelled when the cloud had taken the job already: %s goes on", job.id)


async def _submit(cloud: Cloud, spec: JobSpec, *, timeout: float | None = None, key: str = "") -> Job:
    try:
        job_id = await cloud.exchange.send(calls.create_job(cloud.dialect, spec), timeout=timeout)
    except OutcomeUnknown as error:
        error.intent = Intent(key, spec)
        raise
    if spec.callback_url is not None:
        cloud.hub.join(spec.callback_url, job_id)
    return Job(job_id, is_known=True, cloud=cloud)


def submit_many(
    cloud: Cloud,
    specs: Iterable[JobSpec] | AsyncIterable[JobSpec],
    *,
    max_at_once: int,
    max_per_second: float | None,
    journal: str | PathLike[str] | None,
) -> FanOut[JobSpec, JobSpec, Job]:
    """Give the fan-out behind ``session.submit_many``."""
    book = Journal(journal) if journal is not None else None
    warned: set[str] = set()

    async def work(spec: JobSpec) -> list[Outcome[JobSpec, Job]]:
        try:
            check_spec(spec)
            for text in {*spec.warnings(cloud.dialect.name)} - warned:
                warned.add(text)
                log.warning("submit_many: %s", text)
            job = await submit(cloud, spec) if book is None else await _submit_once(cloud, spec, book)
        except Unauthorized:
            # The next spec would meet it too: the whole batch ends.
            raise
        except GtsAsyncError as error:
            return [Outcome(spec, error=error)]
        return [Outcome(spec, job)]

    return FanOut(
        work,
        specs,
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        clock=cloud.clock,
        closing=book.aclose if book is not None else None,
    )


async def _submit_once(cloud: Cloud, spec: JobSpec, book: Journal) -> Job:
    """Submit unless the journal has it already; the intent stays there only if it may have been carried out."""
    key = book.key(spec)
    job_id = await book.begin(key, spec)
    if job_id is not None:
        return Job(job_id, is_known=True, cloud=cloud)
    # Finished although the caller is cancelled: an id that the cloud gave must get into the journal.
    return await finished(_submit_and_note(cloud, spec, book, key), grace=GRACE)


async def _submit_and_note(cloud: Cloud, spec: JobSpec, book: Journal, key: str) -> Job:
    try:
        job = await _submit(cloud, spec, key=key)
    except OutcomeUnknown:
        raise
    except GtsAsyncError:
        # Refused, or never sent: a later run may try it again.
        await book.undone(key)
        raise
    await book.done(key, job.id)
    return job
