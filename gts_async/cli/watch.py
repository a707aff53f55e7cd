"""``gts-async watch``: picks up the wait for a training or a job, by its token or its id."""

import re
from typing import TYPE_CHECKING

from gts_async._errors import InvalidArgument
from gts_async.cli.following import follow
from gts_async.cli.options import Flag, Given

if TYPE_CHECKING:
    from gts_async._job import Job
    from gts_async._session import AsyncSession
    from gts_async._task import Task, TrainingRun

JOB_ID = re.compile(r".*[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Every id that the cloud makes ends in a UUID (`job_create_logic.go`, `UserJobController.java`)."""


async def watch(
    token_or_id: str,
    /,
    *,
    task: Flag = False,
    deadline: float | None = None,
    stalled_after: float | None = None,
    options: Given,
) -> int:
    """Follow a training or a job to its end; see `app.HELPS`.

    Args:
        token_or_id: the token that `--detach` printed, or the id of a task or job
        task: it is a task's id, though it ends like a job's
        deadline: seconds to wait at most
        stalled_after: seconds without any change after which the work counts as dead
        options: the global ones
    """
    async with options.session() as session:
        handle = _handle(session, token_or_id, is_task=task)
        again = options.again("watch", token_or_id, *(("--task",) if task else ()))
        return await follow(handle, options.show, deadline=deadline, stalled_after=stalled_after, again=again)


def _handle(session: "AsyncSession", text: str, *, is_task: bool) -> "TrainingRun | Task | Job":
    if text.startswith("{"):
        try:
            return session.resume(text)
        except InvalidArgument as error:
            raise InvalidArgument("token_or_id", error.problem, "quote the text as it was printed") from error
    return session.job(text) if JOB_ID.fullmatch(text) and not is_task else session.task(text)
