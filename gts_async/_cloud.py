"""Cloud: the SXWL cloud as one session sees it: a look that means something, and who else looks.

When a job counts as finished is in ``sxwl/progress.py``; handles of jobs are in ``_job.py``.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

import attrs

from gts_async._errors import (
    FileError,
    NotFound,
    NotSupported,
    ServiceError,
    Unauthorized,
    UnexpectedAnswer,
    WorkError,
    WorkFailed,
    WorkStopped,
)
from gts_async._files.address import Fence
from gts_async._flow.census import Census
from gts_async._flow.listing import Page
from gts_async._flow.service import Service
from gts_async._journal import Journal
from gts_async._net.client import Client
from gts_async._net.settings import Settings
from gts_async._settling import may_pass
from gts_async.sxwl import calls
from gts_async.sxwl.dialects import Dialect, dialect
from gts_async.sxwl.progress import SETTLED, JobProgress
from gts_async.sxwl.values import JobInfo, JobListing, JobStatus

PAGE_SIZE = 100
"""Jobs that one page of a listing tells of."""

DOUBTED_AFTER = 300.0
"""Seconds without a change after which a job is looked for in the listing, where a look tells of no deletion."""

log = logging.getLogger("gts_async")


@attrs.frozen(kw_only=True, eq=False)
class Cloud(Service):
    """The SXWL cloud as one session sees it.

    `stopped` are the jobs that this session has stopped: the older servers go on calling them "working" for ever.
    `journals` has the journal of each job that came out of one: of all who share it, one looks at a job, and writes
    down for the others what it saw. `store` gives the client for signed URLs, which carries no token.
    """

    settings: Settings
    store: Callable[[], Awaitable[Client]]
    stopped: set[str] = attrs.field(factory=set)
    journals: dict[str, Journal] = attrs.field(factory=dict)
    _noted: dict[str, JobStatus] = attrs.field(init=False, factory=dict)
    census: Census = attrs.field(init=False, default=attrs.Factory(lambda self: self._make_census(), takes_self=True))

    has_listing: ClassVar[bool] = True

    def _make_census(self) -> Census:
        return Census(self.lane, self._page)

    @property
    def dialect(self) -> Dialect:
        """What the servers speak."""
        return dialect(self.settings.dialect().value)

    @property
    def fence(self) -> Fence:
        """Where its signed URLs may lead."""
        return Fence.around(self.settings.base_url("cloud"), self.settings.store_hosts())

    async def glance(self, work_id: str) -> JobInfo:
        """Look at a job once, in one try; one that this session has stopped is not asked about again."""
        is_rung = work_id in self.lane.rung
        self.lane.rung.discard(work_id)
        if work_id in self.stopped:
            return JobInfo(JobStatus.STOPPED, observed_at=self.clock.wall())
        journal = self.journals.get(work_id)
        if journal is None:
            return await self._look(work_id)
        try:
            # What a callback tells of has not been written down yet by whoever looks.
            if not await journal.claim_watch(work_id) and not is_rung:
                noted = await journal.noted(work_id)
                # How it ended is seen by oneself: signed URLs are not written down.
                if noted is not None and noted.status not in SETTLED:
                    return noted
        except FileError as error:
            log.debug("%s: who looks at it cannot be told: %s", work_id, error)
        look = await self._look(work_id)
        await self._note({work_id: look})
        return look

    async def _note(self, looks: Mapping[str, JobInfo]) -> None:
        """Write down what has changed, for those who share a journal and do not look."""
        for job_id, look in looks.items():
            journal = self.journals.get(job_id)
            if journal is None or self._noted.get(job_id) is look.status:
                continue
            try:
                await journal.note(job_id, look)
            except FileError as error:
                log.debug("%s: what was seen could not be written down: %s", job_id, error)
            else:
                self._noted[job_id] = look.status

    async def close_journals(self) -> None:
        """Let others look at the jobs that we looked at, and close the files."""
        for journal in set(self.journals.values()):
            await journal.aclose()

    async def _look(self, job_id: str) -> JobInfo:
        """Ask the cloud.

        What its answer cannot tell is looked up in the listing: a job whose status says that it is not there may have
        succeeded without a file (`job_status_logic.go`), or the cloud's database may be away; and of one that is
        "working" for long, the oldest servers do not say that it was deleted (`UserJobController.java`).
        """
        dialect = self.dialect
        try:
            look = await self.exchange.send(calls.job_status(dialect, job_id), max_attempts=1)
        except NotFound as error:
            return await self._listed(job_id, error)
        if dialect.hides_deletions and look.status not in SETTLED and self._is_doubted(job_id):
            await self._check_listed(job_id)
        return look

    async def _listed(self, job_id: str, missing: NotFound) -> JobInfo:
        """Give the job's look in the listing, or raise what it was missed with; raises what may pass of a listing."""
        try:
            look: JobInfo | None = await self.census.look(job_id)
        except (UnexpectedAnswer, ServiceError, NotSupported) as error:
            if may_pass(error) or isinstance(error, Unauthorized):
                raise
            # There is no listing to be had.
            raise missing from error
        if look is None:
            raise missing
        return look

    async def _check_listed(self, job_id: str) -> None:
        if await self.census.is_missing(job_id, lambda: set(filter(self._is_doubted, self.lane.eyes))):
            raise NotFound(
                f"{job_id}: the cloud goes on showing the job, but does not list it any more", call="job_status"
            )

    def _is_doubted(self, job_id: str) -> bool:
        """Tell whether nothing has changed for long with a job of ours; other people's are never listed."""
        eye = self.lane.eyes.get(job_id)
        since = self.clock.now() - DOUBTED_AFTER
        return eye is not None and any(
            follower.course.history
            and follower.course.changed < since
            and isinstance(follower.course.progress, JobProgress)
            and follower.course.progress.is_ours
            for follower in eye.followers
        )

    async def _page(self, number: int) -> dict[str, JobInfo]:
        return {row.id: row.info for row in await self._rows(number)}

    async def _rows(self, page: int, *, max_attempts: int | None = None) -> tuple[JobListing, ...]:
        return await self.exchange.send(calls.list_jobs(self.dialect, page, PAGE_SIZE), max_attempts=max_attempts)

    async def survey(self, page: int) -> Page:
        """Give a page of the account's jobs.

        A listing shows neither URLs nor whether a fail lasts, so what is about to end is looked at by itself. Where
        another process looks at all of our jobs, nothing is read.
        """
        if page == 1 and self.journals and not await self._has_own():
            return Page({}, is_last=True)
        rows = await self._rows(page, max_attempts=1)
        looks = {row.id: row.info if self._is_plain(row.id, row.info) else None for row in rows}
        await self._note({row.id: row.info for row in rows if looks[row.id] is not None and row.id in self.lane.eyes})
        # Not told by a short page: rows that cannot be read are left out of it.
        return Page(looks, is_last=not rows)

    async def _has_own(self) -> bool:
        """Tell whether there is a job to look at that no other process looks at."""
        shared: dict[Journal, list[str]] = {}
        for job_id in self.lane.eyes:
            journal = self.journals.get(job_id)
            if journal is None:
                return True
            shared.setdefault(journal, []).append(job_id)
        try:
            for journal, job_ids in shared.items():
                if await journal.claim_watches(job_ids):
                    return True
        except FileError:
            return True
        return False

    def _is_plain(self, job_id: str, look: JobInfo) -> bool:
        return job_id not in self.stopped and look.status is not JobStatus.UNKNOWN and look.status not in SETTLED

    def verdict(self, final: JobInfo) -> WorkError | None:
        """Give what a job that ended with this look has to be raised as; None for a good end."""
        if final.status is JobStatus.FAILED:
            return WorkFailed("the job failed; the cloud never says why")
        if final.status is JobStatus.STOPPED:
            return WorkStopped("the job was stopped")
        return None
