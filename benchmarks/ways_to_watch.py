"""Ways to watch many jobs: a task for each, in two manners; our hub alone; our hub as `session.as_finished` uses it.

All of them look by the same `Looks`, after the same intervals. What they cost is measured in `watching`.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, cast

import attrs

from gts_async._errors import WorkError
from gts_async._flow.clock import SystemClock
from gts_async._flow.course import Setting
from gts_async._flow.eye import Turns
from gts_async._flow.hub import MOMENT, Hub
from gts_async._flow.lane import Lane
from gts_async._flow.looking import look_all
from gts_async._flow.many import AsFinished
from gts_async._flow.schedule import Schedule
from gts_async._flow.service import Service
from gts_async._flow.watch import Watch
from gts_async.sxwl.progress import JobProgress
from gts_async.sxwl.values import JobInfo, JobStatus

SHORTEST = 0.5
LONGEST = 15.0
GROWTH = 0.5
JITTER = 0.1
"""A look is due after half of the seconds that the job has been watched, at least and at most so many, give or take."""

SCHEDULE = Schedule(fraction=GROWTH, minimum=SHORTEST, maximum=LONGEST, jitter=JITTER)

BOUND = 30.0
"""Seconds that a peer allows one look, where it sets a bound."""

ROUNDS = 25
"""Rounds in which all are looked at where nobody minds whose look is due: in so many tenths of a second."""

NO_BUDGET = 1e9
"""Looks a second, so that nothing is held back."""

FOUND = JobInfo(JobStatus.WORKING)


class Looks:
    """Counts looks, which cost nothing else once it no longer marks who was looked at."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.count = 0
        self.is_marking = True
        # Of the same size from the beginning: what looks leave behind must not be taken for what watches hold.
        self._seen = dict.fromkeys(job_ids, 0)

    @property
    def unseen(self) -> int:
        """How many have not been looked at."""
        return sum(1 for seen in self._seen.values() if not seen)

    async def look(self, job_id: str) -> JobInfo:
        """Look at nothing."""
        self.count += 1
        if self.is_marking:
            self._seen[job_id] = 1
        return FOUND


Begin = Callable[[Sequence[str]], Awaitable[None]]
"""Begins to watch further jobs."""

Way = Callable[[Looks], AbstractAsyncContextManager[Begin]]


@asynccontextmanager
async def nothing(looks: Looks) -> AsyncIterator[Begin]:
    """Watch nothing, to see what the measuring costs."""

    async def begin(job_ids: Sequence[str]) -> None:
        return

    yield begin


@asynccontextmanager
async def looks_alone(looks: Looks) -> AsyncIterator[Begin]:
    """Look about as often as the others do, in any order, without minding whose look is due."""
    known: list[str] = []

    async def look_for_ever() -> None:
        place = 0
        while True:
            await asyncio.sleep(MOMENT)
            until = place + -(-len(known) // ROUNDS)
            for job_id in itertools.islice(known, place, until):
                await looks.look(job_id)
            place = until if until < len(known) else 0

    async def begin(job_ids: Sequence[str]) -> None:
        known.extend(job_ids)
        # The next one is no more likely than with the others to be in the processor's cache.
        random.shuffle(known)

    looking = asyncio.create_task(look_for_ever())
    yield begin
    looking.cancel()
    await asyncio.wait([looking])


# A task for each


def interval(watched: float) -> float:
    """Give the seconds until the next look at a job that has been watched so long."""
    return min(LONGEST, max(SHORTEST, GROWTH * watched)) * (1 + JITTER * (2 * random.random() - 1))


def in_tasks(watch: Callable[[Looks, str], Coroutine[Any, Any, None]]) -> Way:
    """Give the way that has a task for each job."""

    @asynccontextmanager
    async def way(looks: Looks) -> AsyncIterator[Begin]:
        tasks: list[asyncio.Task[None]] = []

        async def begin(job_ids: Sequence[str]) -> None:
            tasks.extend(asyncio.create_task(watch(looks, job_id)) for job_id in job_ids)

        yield begin
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    return way


async def plain_loop(looks: Looks, job_id: str) -> None:
    """Watch one job as one would write it down first."""
    now = asyncio.get_running_loop().time
    began = now()
    while True:
        await looks.look(job_id)
        await asyncio.sleep(interval(now() - began))


async def bounded_loop(looks: Looks, job_id: str) -> None:
    """Watch one job, and bound each step as one must if a look may hang."""
    now = asyncio.get_running_loop().time
    began, pause = now(), 0.0
    while True:
        async with asyncio.timeout(pause + BOUND):
            await asyncio.sleep(pause)
            await looks.look(job_id)
        pause = interval(now() - began)


# Ours


class Watched:
    """A follower that knows since when, and is its own course: what is left is the hub."""

    __slots__ = ("began", "course", "number", "turns", "work_id")
    wants_changes_only = True
    seen_at = float("-inf")

    def __init__(self, work_id: str, turns: Turns, now: float) -> None:
        self.work_id = work_id
        self.course = self
        self.turns = turns
        self.began = now
        self.number = 0

    # As a follower

    def hear(self) -> None:
        """See `Follower`."""

    def end(self, error: Exception) -> None:
        """See `Follower`."""

    def wish(self, now: float) -> float:
        """See `Follower`."""
        return SCHEDULE.interval(now - self.began, random.random()) if self.number else 0.0

    # As a course

    def see(self, sighting: object, number: int, now: float) -> None:
        """Take in a look."""
        self.number = 1

    def stays(self, sighting: object, number: int, now: float) -> float:
        """Take in a look that shows nothing new, and give the seconds until the next."""
        self.number = 1
        return SCHEDULE.interval(now - self.began, random.random())


class Calls(Turns):
    """The looks that the hub has called for; one task makes them, for they take no time."""

    def __init__(self) -> None:
        super().__init__()
        self._called = asyncio.Event()

    def tell(self) -> None:
        """Wake the task."""
        self._called.set()

    async def keep_looking(self) -> None:
        """Make looks for ever."""
        while True:
            await self._called.wait()
            self._called.clear()
            await look_all(self)


@asynccontextmanager
async def by_hub(looks: Looks) -> AsyncIterator[Begin]:
    """Watch with the hub alone."""
    hub, calls = Hub(SystemClock(), NO_BUDGET), Calls()
    lane = Lane(hub, looks.look)
    looker = asyncio.create_task(calls.keep_looking())

    async def begin(job_ids: Sequence[str]) -> None:
        now = hub.now()
        for job_id in job_ids:
            hub.follow(lane, cast("Any", Watched(job_id, calls, now)))

    yield begin
    hub.close()
    looker.cancel()
    await asyncio.wait([looker])


@attrs.frozen(kw_only=True, eq=False)
class Quiet(Service):
    """A service whose looks are `looks`."""

    looks: Looks

    async def glance(self, work_id: str) -> JobInfo:
        """Look."""
        return await self.looks.look(work_id)

    def verdict(self, final: Any) -> WorkError | None:
        """Find nothing wrong."""
        return None


@attrs.frozen
class Handle:
    """A job of such a service."""

    id: str
    service: Quiet

    def watch(self) -> Watch[JobInfo]:
        """Give a watch as a `Job` does."""
        progress = JobProgress(is_known=True, has_urls=True, fails_may_turn=True)
        return self.service.watch(self, self.service.course(self.id, progress))


@asynccontextmanager
async def by_as_finished(looks: Looks) -> AsyncIterator[Begin]:
    """Watch the whole way: a watch for each job, in blocks of `as_finished`."""
    clock = SystemClock()
    hub = Hub(clock, NO_BUDGET)
    # There is nothing to exchange with.
    exchange = cast("Any", None)
    service = Quiet(exchange=exchange, hub=hub, setting=Setting(clock=clock, schedule=SCHEDULE), looks=looks)
    async with AsyncExitStack() as stack:

        async def begin(job_ids: Sequence[str]) -> None:
            await stack.enter_async_context(AsFinished(Handle(job_id, service) for job_id in job_ids))

        yield begin


PORTIONS = {"as_finished": 5, "looks alone": 1}
"""Portions in which the watches begin, where they are fewer: nobody has fifty such blocks at once."""

WAYS: dict[str, Way] = {
    "nothing": nothing,
    "looks alone": looks_alone,
    "gts_async hub": by_hub,
    "as_finished": by_as_finished,
    "task": in_tasks(plain_loop),
    "bounded task": in_tasks(bounded_loop),
}
