"""Settler: finds out what became of creates whose answer was lost, by looking for their marks in the cloud's listing.

Everybody who looks at the same time shares one sweep through the pages. How a mark gets into a job is in
``sxwl/marks.py``; what is done about the verdict is in `_submission`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from weakref import WeakSet

import attrs

from gts_async._errors import GtsAsyncError, RateLimited, TransportError, UnexpectedAnswer
from gts_async._flow.clock import Clock
from gts_async._intent import Intent
from gts_async._net.exchange import Exchange
from gts_async.sxwl import calls
from gts_async.sxwl.dialects import Dialect
from gts_async.sxwl.values import JobListing, JobSpec

SETTLED_AFTER = 30.0
"""Seconds after which a create that is in no listing surely did not arrive: three times the servers' own limit for a
request (`Timeout: 10000`)."""

ABSENCES = 2
"""Complete listings without it that this takes: a job deleted while one is read may hide another between two pages."""

PAGE = 100
MAX_PAGES = 1000
NONSENSE_PAUSES = (0.25, 0.75)
"""Seconds until a page is asked for again whose answer was none of the cloud's (a gateway's own page, say)."""

LANDMARKS, LANDMARK_SPACING = 1024, 1.0

FRESH = 120.0
"""Seconds for which a listing that shows none of the jobs that were made is not believed: so soon all are not gone."""


@attrs.define(eq=False)
class Search:
    """The search for the job of one intent: `travels` is its mark as a listing shows it.

    It was not sent before `since`, and from `due` on its absence counts (both in the clock's seconds). `job_id` is what
    was found, `absences` how many complete listings since `due` did not have it.
    """

    intent: Intent
    travels: str = attrs.field(repr=False)
    since: float
    due: float
    job_id: str | None = None
    absences: int = 0
    asking: int = 0

    @property
    def is_over(self) -> bool:
        """True if it was found, or surely is not there."""
        return self.job_id is not None or self.absences >= ABSENCES


@attrs.frozen
class _Landmark:
    """A job that was there `at` some moment; in a listing it has the mark `travels`, if that is known."""

    id: str
    at: float
    travels: str | None = attrs.field(repr=False)


class Settler:
    """One per session and cloud. `learn` is told of every job id that the cloud has given.

    Marks in `shared` are those of several jobs, and tell nothing.
    """

    def __init__(self, exchange: Exchange, clock: Clock, dialect: Callable[[], Dialect]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._dialect = dialect
        self.shared: set[str] = set()
        self._searches: WeakSet[Search] = WeakSet()
        self._landmarks: deque[_Landmark] = deque(maxlen=LANDMARKS)
        self._sweeping = asyncio.Lock()
        self._begun = self._ended = 0
        self._failure: GtsAsyncError | None = None

    def learn(self, job_id: str, spec: JobSpec) -> None:
        """Remember a job that is there now, one a second: what is listed below it is older, and it shows its mark."""
        now = self._clock.now()
        if not self._landmarks or now - self._landmarks[-1].at >= LANDMARK_SPACING:
            self._landmarks.append(_Landmark(job_id, now, calls.mark_of(self._dialect(), spec)))

    def search(self, intent: Intent, *, since: float = float("-inf")) -> Search | None:
        """Give a search for the intent's job; None if nothing tells it from others, or nothing is listed."""
        dialect = self._dialect()
        travels = calls.mark_of(dialect, intent.spec)
        if travels is None or intent.mark is None or dialect.list_jobs is None:
            return None
        age = self._clock.wall().timestamp() - intent.begun_at
        # A clock that was set back, or one of another machine, must not make anybody wait for hours.
        search = Search(intent, travels, since, self._clock.now() + min(max(SETTLED_AFTER - age, 0.0), SETTLED_AFTER))
        self._searches.add(search)
        return search

    async def look(self, search: Search) -> str | None:
        """Give the id of the intent's job if it is there now; raises what the listing raises.

        UnexpectedAnswer also for a listing whose silence means nothing: it does not show marks as they were sent, or
        none of the jobs that were just made; and for a mark of several jobs.

        A sweep that begins after this was asked looks for all searches that are open, and whoever has asked before it
        began is given what it brought, its failure too.
        """
        if search.intent.mark in self.shared:
            raise UnexpectedAnswer(call="list_jobs", problem="the mark to look for was used for more than one job")
        asked = self._begun
        search.asking += 1
        try:
            async with self._sweeping:
                if search.is_over:
                    return search.job_id
                if self._ended <= asked:
                    await self._sweep()
                failure = self._failure
        finally:
            search.asking -= 1
        if failure is not None and search.job_id is None:
            raise failure
        return search.job_id

    async def _sweep(self) -> None:
        self._begun += 1
        number, self._failure = self._begun, None
        try:
            await self._walk([s for s in self._searches if not s.is_over and s.intent.mark not in self.shared])
        except GtsAsyncError as error:
            self._failure = error
        self._ended = number

    async def _walk(self, searches: list[Search]) -> None:
        """Go through the pages, newest first, until all are found, or none can be further down.

        How far that is goes by those that somebody asks for, or whose absence counts by now: the others are found on
        the way, or later.
        """
        began = self._clock.now()
        needed = [search for search in searches if search.asking or began >= search.due]
        since = min((search.since for search in needed), default=0.0)
        sights = _Sights(self._landmarks)
        for number in range(1, MAX_PAGES + 1):
            page = await self._page(number)
            _find(searches, page)
            sights.add(page)
            # Not told by a short page: rows that cannot be read are left out of it.
            if not page or sights.are_past(since):
                due = [search for search in needed if search.job_id is None and began >= search.due]
                if due and not sights.are_credible(began):
                    raise UnexpectedAnswer(call="list_jobs", problem="it shows none of the jobs that were just made")
                for search in due:
                    search.absences += 1
                return
            if all(search.job_id is not None for search in needed):
                return
        raise UnexpectedAnswer(call="list_jobs", problem=f"no end after {MAX_PAGES} pages")

    async def _page(self, number: int) -> tuple[JobListing, ...]:
        """Read one page; nonsense in one answer of hundreds must not end all searches."""
        for pause in NONSENSE_PAUSES:
            try:
                return await self._exchange.send(calls.list_jobs(self._dialect(), number, PAGE))
            except UnexpectedAnswer:
                await self._clock.sleep(pause)
        return await self._exchange.send(calls.list_jobs(self._dialect(), number, PAGE))


class _Sights:
    """Which landmarks the pages of one walk have shown, in their order."""

    def __init__(self, landmarks: Iterable[_Landmark]) -> None:
        self._known = {landmark.id: landmark for landmark in landmarks}
        self._newest = max((landmark.at for landmark in self._known.values()), default=float("-inf"))
        self._seen: list[float] = []

    def add(self, page: Iterable[JobListing]) -> None:
        """Take in a page; raises UnexpectedAnswer if a job does not show the mark that it was given."""
        for row in page:
            if (landmark := self._known.get(row.id)) is not None:
                self._seen.append(landmark.at)
                if landmark.travels not in (None, row.mark):
                    raise UnexpectedAnswer(call="list_jobs", problem="it does not show marks as they were sent")

    def are_past(self, since: float) -> bool:
        """Tell whether all that comes now was there before `since`; never where the newest do not come first."""
        seen = self._seen
        return self._newest in seen and seen[-1] < since and seen[0] >= seen[-1]

    def are_credible(self, now: float) -> bool:
        """Tell whether what the pages do not show is not there."""
        return bool(self._seen) or now - self._newest > FRESH


def _find(searches: list[Search], page: Iterable[JobListing]) -> None:
    # Apart from what waits: a traceback that shows locals must not show the callback URLs of all jobs.
    marks = {listing.mark: listing.id for listing in page if listing.mark is not None}
    for search in searches:
        search.job_id = search.job_id or marks.get(search.travels)


def may_pass(error: GtsAsyncError) -> bool:
    """Tell whether a listing that failed so may come through later."""
    if isinstance(error, UnexpectedAnswer):
        return error.is_cut
    return isinstance(error, (TransportError, RateLimited))
