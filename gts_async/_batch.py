"""Batch: many jobs submitted, a bounded number at once, each of them once, whatever is killed or lost on the way.

How one is sent is in `_submission`, what is on disk in `_journal`, how a lost answer is settled in `_settling`.
"""

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from os import PathLike

import attrs

from gts_async._errors import FileError, GtsAsyncError, NotSent, OutcomeUnknown, Unauthorized
from gts_async._flow.fanout import FanOut, Later, Outcome
from gts_async._flow.shield import finished
from gts_async._intent import Intent
from gts_async._job import Job
from gts_async._journal import Journal
from gts_async._progress import OnProgress, tally
from gts_async._settling import SETTLED_AFTER, Search, may_pass
from gts_async._submission import GRACE, Submission, check_spec
from gts_async.sxwl.values import JobSpec

HELD_PAUSE = 1.0
"""Seconds after which we come back to an intent that somebody else is at."""

MAX_SENDS = 3
"""Times that one job is sent, if it surely did not arrive before."""

MAX_LOOKS, LOOK_PAUSE = 3, 10.0
"""Looks that may fail before an outcome stays unknown (each is several tries), and the seconds before the last ones."""

log = logging.getLogger("gts_async")

Result = list[Outcome[JobSpec, Job]] | Later[JobSpec, Job]


@attrs.define(eq=False)
class _Item:
    """One spec on its way: as it was given, its intent, what is known of it."""

    spec: JobSpec
    intent: Intent | None = None
    error: OutcomeUnknown | None = None
    search: Search | None = None
    since: float = float("-inf")
    sends: int = 0
    looks: int = 0

    def outcome(self, job: Job | None = None, error: Exception | None = None) -> list[Outcome[JobSpec, Job]]:
        return [Outcome(self.spec, job, error, max(1, self.sends))]


class Batch:
    """The work behind ``session.submit_many``; `fan_out` is what its users get."""

    def __init__(
        self,
        submission: Submission,
        specs: Iterable[JobSpec] | AsyncIterable[JobSpec],
        *,
        max_at_once: int,
        max_per_second: float | None,
        journal: str | PathLike[str] | None,
        progress: OnProgress | None = None,
    ) -> None:
        self._submission = submission
        self._clock = submission.cloud.clock
        self._book = Journal(journal, submission.wall) if journal is not None else None
        self._warned: set[str] = set()
        self._is_refused = False
        self.fan_out: FanOut[JobSpec, JobSpec, Job] = FanOut(
            self._work,
            specs,
            max_at_once=max_at_once,
            max_per_second=max_per_second,
            clock=self._clock,
            beside=partial(self._book.keep_leases, self._clock.sleep) if self._book is not None else None,
            closing=self._book.aclose if self._book is not None else None,
            tally=tally(progress, "submitted", "jobs", specs, self._clock.now),
        )

    async def _work(self, spec: JobSpec) -> Result:
        return await self._step(_Item(spec), self._begin)

    async def _step(self, item: _Item, step: Callable[[_Item], Awaitable[Result]]) -> Result:
        """Take a step with an item, to its end although the batch is left: what the cloud says must be noted."""

        async def taken() -> Result:
            return await step(item)

        try:
            return await finished(taken(), grace=GRACE)
        except Unauthorized:
            # The next spec would meet it too: the whole batch ends.
            raise
        except GtsAsyncError as error:
            return item.outcome(error=error)

    async def _begin(self, item: _Item) -> Result:
        """Write the intent down and send it, unless the journal has it already."""
        if item.intent is None:
            check_spec(item.spec)
            self._warn(item.spec)
            key = self._book.key(item.spec) if self._book is not None else ""
            item.intent = self._submission.intent(item.spec, key)
        if self._book is not None:
            entry = await self._book.begin(item.intent.key, item.intent.spec, item.intent.mark)
            if entry.job_id is not None:
                return self._given(item, self._submission.job(entry.job_id, entry.intent.spec))
            if entry.held_for > 0:
                self._unknown(item, "another process is submitting this job")
                return self._later(item, min(entry.held_for, HELD_PAUSE), self._begin)
            item.intent = entry.intent
            if not entry.is_new:
                self._unknown(item, "an earlier run may have submitted this job and never learned its id")
                return await self._lost(item)
        if self._is_refused or not self.fan_out.is_open:
            await self._undone(item.intent)
            return []
        return await self._send(item, item.intent)

    def _warn(self, spec: JobSpec) -> None:
        for text in {*spec.warnings(self._submission.cloud.dialect.name)} - self._warned:
            self._warned.add(text)
            log.warning("submit_many: %s", text)

    def _unknown(self, item: _Item, text: str) -> None:
        item.error = OutcomeUnknown(f"{text}; it is not submitted again", call="create_job")
        item.error.intent = item.intent

    async def _send(self, item: _Item, intent: Intent) -> Result:
        if self._book is not None and not self._book.sending(intent.key):
            if not await self._book.again(intent.key):
                return await self._begin(item)
            self._book.sending(intent.key)
        if item.sends == 0:
            item.since = self._clock.now()
        item.sends += 1
        try:
            job = await self._submission.send(intent)
        except OutcomeUnknown as error:
            item.error, item.intent = error, error.intent
            return await self._lost(item)
        except GtsAsyncError as error:
            # At once: others are about to be sent, and would meet it too.
            self._is_refused |= isinstance(error, Unauthorized)
            # Refused, or never sent: a later run may try it again.
            await self._undone(intent)
            raise
        return await self._done(item, job)

    async def _done(self, item: _Item, job: Job) -> Result:
        if self._book is not None and item.intent is not None:
            try:
                if not await self._book.done(item.intent.key, job.id):
                    return await self._doubtful(item, job)
            except FileError as error:
                # It is in the cloud, and the next run finds it there.
                log.warning("%s was submitted, but its id could not be written down: %s", job.id, error)
        return self._given(item, job)

    def _given(self, item: _Item, job: Job) -> Result:
        if self._book is not None:
            self._submission.cloud.journals[job.id] = self._book
        return item.outcome(job)

    async def _doubtful(self, item: _Item, job: Job) -> Result:
        """Settle an item whose job is another item's: what the cloud said to a create may be somebody else's answer."""
        assert item.intent is not None  # noqa: S101 - it was sent
        if item.search is not None:
            return await self._given_up(item)
        item.intent = attrs.evolve(item.intent, begun_at=self._submission.wall())
        self._unknown(item, f"the cloud gave the id of another job, {job.id}")
        return await self._lost(item)

    async def _undone(self, intent: Intent) -> None:
        if self._book is not None:
            try:
                await self._book.undone(intent.key)
            except FileError as error:
                log.warning("what did not become a job could not be struck out: %s", error)

    # Settling

    async def _lost(self, item: _Item) -> Result:
        """Look for the job at once; if it is not there, come back when its absence means something."""
        assert item.intent is not None  # noqa: S101 - it was sent
        item.search = self._submission.settler.search(item.intent, since=item.since)
        if item.search is None:
            return await self._given_up(item)
        try:
            await self._submission.settler.look(item.search)
        except GtsAsyncError as error:
            item.looks = 1
            if not may_pass(error):
                return await self._given_up(item, error)
        if item.search.job_id is not None:
            return await self._done(item, self._submission.found(item.search))
        return self._later(item, item.search.due - self._clock.now(), self._settle)

    async def _settle(self, item: _Item) -> Result:
        """Find out whether the job arrived, and send it once more if it surely did not."""
        search, intent = item.search, item.intent
        assert search is not None  # noqa: S101 - it was lost
        assert intent is not None  # noqa: S101
        try:
            while not search.is_over:
                await self._submission.settler.look(search)
        except GtsAsyncError as error:
            item.looks += 1
            if not may_pass(error) or item.looks >= MAX_LOOKS:
                return await self._given_up(item, error)
            return self._later(item, LOOK_PAUSE, self._settle)
        if search.job_id is not None:
            return await self._done(item, self._submission.found(search))
        if item.sends >= MAX_SENDS:
            await self._undone(intent)
            text = f"create_job: sent {item.sends} times, and in no listing {SETTLED_AFTER:g} s later: it never arrived"
            raise NotSent(text, call="create_job") from item.error
        return await self._again(item, intent)

    async def _again(self, item: _Item, intent: Intent) -> Result:
        await self.fan_out.take_turn()
        if self.fan_out.is_ending:
            return await self._given_up(item)
        if self._book is not None and not await self._book.again(intent.key):
            # Its lease ran out meanwhile, and another process has taken it.
            return await self._begin(item)
        log.info("create_job: %s did not arrive, and is sent once more", intent.mark)
        return await self._send(item, intent)

    def _later(self, item: _Item, seconds: float, step: Callable[[_Item], Awaitable[Result]]) -> Result:
        return Later(max(0.0, seconds), partial(self._step, item, step), item.outcome(error=item.error))

    async def _given_up(self, item: _Item, cause: GtsAsyncError | None = None) -> Result:
        """Leave the outcome unknown; a later run, or ``session.reconcile``, may settle it."""
        if self._book is not None and item.intent is not None:
            try:
                await self._book.release(item.intent.key)
            except FileError as error:
                log.warning("an unknown outcome is left to whoever comes after its lease: %s", error)
        if isinstance(cause, Unauthorized):
            self._is_refused = True
            self.fan_out.end(cause)
        return item.outcome(error=item.error)
