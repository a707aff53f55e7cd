"""Submission: how a session submits a job, so that it is never submitted twice and never lost.

Many at once, and what is kept on disk of them, is in `_batch`; how a lost answer is settled in `_settling`.
"""

import asyncio
import logging
import secrets

import attrs

from gts_async._cloud import Cloud
from gts_async._errors import GtsAsyncError, InvalidArgument, OutcomeUnknown, WrongType
from gts_async._flow.exits import STOP_TIME, OnExit
from gts_async._flow.shield import finished
from gts_async._intent import Intent
from gts_async._job import Job
from gts_async._net.events import Event, tell
from gts_async._settling import Search, Settler, may_pass
from gts_async.sxwl import calls
from gts_async.sxwl.marks import called_url, is_ours, marked, new_mark
from gts_async.sxwl.values import JobSpec

GRACE = 10.0
"""Seconds that a submission in flight may take to its end after its caller was cancelled."""

LOOKS = (0.0, 0.5, 1.0, 1.4)
"""Seconds before each look for the job of a lost answer, while the caller waits."""

LOOKING = 3.0
"""Seconds that these looks may take together."""

log = logging.getLogger("gts_async")


def check_spec(spec: object) -> None:
    """Raise WrongType unless `spec` is a JobSpec."""
    if not isinstance(spec, JobSpec):
        raise WrongType("spec", f"must be a JobSpec, not {type(spec).__name__}", "JobSpec(gpu_type=…, image_path=…)")


class Submission:
    """One per session: sends the creates, and settles those whose answer was lost."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.settler = Settler(cloud.exchange, cloud.clock, lambda: cloud.dialect)
        self._given: set[str] = set()

    def intent(self, spec: JobSpec, key: str = "") -> Intent:
        """Give the intent to submit `spec`, with a mark that travels with the job where there is room for one.

        A mark of the user's own is kept, but tells nothing once it was used before.
        """
        dialect = self.cloud.dialect
        sent = marked(dialect, spec, new_mark(secrets.token_bytes(8)))
        mark = sent.mark if calls.mark_of(dialect, sent) is not None else None
        if mark is not None and not is_ours(mark):
            if mark in self._given:
                self.settler.shared.add(mark)
                mark = None
            else:
                self._given.add(mark)
        return Intent(key, sent, mark, self.wall())

    def wall(self) -> float:
        """Give the time of day in Unix seconds."""
        return self.cloud.clock.wall().timestamp()

    async def submit(self, spec: JobSpec, *, timeout: float | None = None, on_exit: OnExit = "detach") -> Job:
        """Submit a job; see ``session.submit``.

        A request in flight is finished although the caller is cancelled, for at most `GRACE` seconds: cut, nobody
        would know what became of it. What becomes of a job that came of it then says `on_exit`.
        """
        check_spec(spec)
        if on_exit not in ("detach", "stop"):
            raise InvalidArgument("on_exit", f"there is no {on_exit!r}", "use 'detach' or 'stop'")
        unclaimed: list[Job] = []
        try:
            return await finished(self._submitted(spec, timeout), grace=GRACE, unclaimed=unclaimed.append)
        except asyncio.CancelledError:
            for job in unclaimed:
                await _leave(job, on_exit)
            raise

    async def _submitted(self, spec: JobSpec, timeout: float | None) -> Job:
        since = self.cloud.clock.now()
        try:
            return await self.send(self.intent(spec), timeout=timeout)
        except OutcomeUnknown as unknown:
            search = self.settler.search(unknown.intent, since=since)
            within = LOOKING if timeout is None else min(LOOKING, timeout)
            if search is None or not await self._found_soon(search, within):
                raise
            return self.found(search)

    async def send(self, intent: Intent, *, timeout: float | None = None) -> Job:
        """Send the create and give its job; OutcomeUnknown carries the intent."""
        cloud = self.cloud
        try:
            job_id = await cloud.exchange.send(calls.create_job(cloud.dialect, intent.spec), timeout=timeout)
        except OutcomeUnknown as error:
            error.intent = attrs.evolve(intent, begun_at=self.wall())
            told = f", or its mark {intent.mark} in list_jobs()" if intent.mark is not None else ""
            error.add_note(f"the job may exist: session.reconcile(error.intent) finds out{told}")
            tell(
                cloud.setting.on_event,
                Event(kind="unknown outcome", subject="create_job", detail=intent.mark or "unmarked"),
            )
            raise
        except asyncio.CancelledError:
            log.warning("a submission was cut before its end; its job, if there is one, is marked %s", intent.mark)
            raise
        self.settler.learn(job_id, intent.spec)
        return self.job(job_id, intent.spec, since=cloud.clock.now())

    async def _found_soon(self, search: Search, within: float) -> bool:
        """Look for the job a few times; False if it was not there, or nothing can be learned of it now."""
        clock = self.cloud.clock
        try:
            async with clock.timeout(within):
                for pause in LOOKS:
                    await clock.sleep(pause)
                    try:
                        await self.settler.look(search)
                    except Exception as error:
                        # Whatever it is, it must not take the place of the OutcomeUnknown that holds the intent.
                        if not (isinstance(error, GtsAsyncError) and may_pass(error)):
                            log.info("the job of a lost answer cannot be looked for: %s", error)
                            return False
                    if search.job_id is not None:
                        return True
        except TimeoutError:
            pass
        return False

    def found(self, search: Search) -> Job:
        """Give the job that a search has found."""
        assert search.job_id is not None  # noqa: S101 - the caller has looked
        tell(self.cloud.setting.on_event, Event(kind="settled", subject=search.job_id, detail=search.intent.mark or ""))
        log.info("%s: its answer was lost, and it was found by its mark %s", search.job_id, search.intent.mark)
        self.settler.learn(search.job_id, search.intent.spec)
        return self.job(search.job_id, search.intent.spec)

    def job(self, job_id: str, spec: JobSpec, *, since: float | None = None) -> Job:
        """Give the handle of a job that was made from `spec`; `since` is when, by the clock."""
        url = called_url(spec)
        if url is not None:
            self.cloud.hub.join(url, job_id)
        kind = spec.job_type, spec.image_path, spec.gpu_type, spec.gpu_number
        return Job(job_id, is_known=True, cloud=self.cloud, kind=kind, since=since)

    async def reconcile(self, intent: Intent) -> Job | None:
        """Give the job of an intent whose outcome was unknown; None if it surely did not arrive.

        Raises OutcomeUnknown for one that nothing tells from others, and what the listing raises.
        """
        search = self.settler.search(intent)
        if search is None:
            unknown = OutcomeUnknown(
                "nothing tells this job from others: look at list_jobs yourself", call="create_job"
            )
            unknown.intent = intent
            raise unknown
        await self.settler.look(search)
        while not search.is_over:
            await self.cloud.clock.sleep(max(0.0, search.due - self.cloud.clock.now()))
            await self.settler.look(search)
        return self.found(search) if search.job_id is not None else None


async def _leave(job: Job, on_exit: OnExit) -> None:
    """Do what `on_exit` says with a job that nobody gets, and tell it in the log."""
    what = "the submission was cancelled when the cloud had taken the job already"
    if on_exit == "detach":
        log.warning("%s: %s goes on", what, job.id)
        return
    try:
        await finished(job.stop(), within=STOP_TIME)
    except (GtsAsyncError, TimeoutError) as failure:
        log.warning("%s: %s was not stopped: %s", what, job.id, failure)
    else:
        log.warning("%s: %s was stopped", what, job.id)
