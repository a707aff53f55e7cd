"""Census: says of a work whether the service's listing has it, where a look at the work itself cannot be believed.

Whoever asks shares one reading of the listing, which goes no further down than somebody needs. What spares looks is
`listing`; what is made of the verdict is the service's business (`Cloud.glance`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs

from gts_async._errors import GtsAsyncError, TransportError

if TYPE_CHECKING:
    from gts_async._flow.lane import Lane

GOOD_FOR = 20.0
"""Seconds for which a reading is believed: less than any grace, so that no wait ends because of one reading alone."""

LONGEST = 120.0
MAX_PAGES = 1000
"""Seconds and pages after which a reading is given up: it has no end."""

REST = 5.0
"""Seconds from one reading's beginning to the next one's, at least; also for which a failure is not tried again."""

PACE = 10.0
"""Pages a second, on average over readings: the next one of a long listing begins so much later."""

WAIT = 5.0
"""Seconds that others wait for what is being read; their looks must not hold up everybody else's."""

RECOUNT = 300.0
"""Seconds from one count of doubted works to the next."""

ABSENCES = 2
"""Counts in a row without it that make a doubted work missing: a row deleted while pages are read may hide another."""

log = logging.getLogger("gts_async")

ReadPage = Callable[[int], Awaitable[Mapping[str, Any]]]
"""Gives the looks of one page (from 1) by id; an empty one comes after the last."""


@attrs.define(eq=False)
class _Reading:
    """One way through the pages, newest first: what it found of the works that were followed when it began."""

    followed: frozenset[str]
    began: float
    read_at: float
    found: dict[str, Any] = attrs.field(factory=dict)
    pages: int = 0
    is_complete: bool = False

    def is_good(self, now: float) -> bool:
        """True while it may be believed, and gone on with."""
        return now - self.read_at < GOOD_FOR and now - self.began < LONGEST

    def take(self, looks: Mapping[str, Any], now: float) -> None:
        """Take in the next page."""
        self.pages, self.read_at = self.pages + 1, now
        self.is_complete = not looks
        self.found.update((work_id, look) for work_id, look in looks.items() if work_id in self.followed)


class Census:
    """One per service that has a listing; `lane` knows who is followed. Every page but the first counts as a look."""

    def __init__(self, lane: "Lane", read_page: ReadPage) -> None:
        self._lane = lane
        self._read_page = read_page
        self._turn = asyncio.Lock()
        self._reading: _Reading | None = None
        self._failure: GtsAsyncError | None = None
        self._failed_at = self._counted_at = float("-inf")
        self._absences: dict[str, int] = {}

    async def look(self, work_id: str) -> Any | None:
        """Give the look at a followed work as the listing shows it, None if it is surely not listed.

        Raises what the listing raises, and TransportError if it cannot be said: it has no end, or is still being read.
        """
        async with self._its_turn():
            reading = await self._read_for({work_id})
        return reading.found.get(work_id)

    async def is_missing(self, work_id: str, doubted: Callable[[], set[str]]) -> bool:
        """Tell whether a doubted work was in none of the last complete listings, counting anew if it is time.

        `doubted` gives all works that are. What fails here shows nothing.
        """
        now = self._lane.hub.now()
        if now - self._counted_at >= RECOUNT and not self._turn.locked():
            await self._count(doubted(), now)
        return self._absences.get(work_id, 0) >= ABSENCES

    async def _count(self, doubted: set[str], now: float) -> None:
        before, self._counted_at = self._counted_at, now
        try:
            async with self._its_turn():
                reading = await self._read_for(doubted)
        except GtsAsyncError as error:
            log.debug("no count: %s", error)
            return
        except BaseException:
            # Who was counting is gone; the next goes on with the same reading.
            self._counted_at = before
            raise
        self._absences = {
            work_id: self._absences.get(work_id, 0) + 1 for work_id in doubted if work_id not in reading.found
        }

    @asynccontextmanager
    async def _its_turn(self) -> AsyncIterator[None]:
        try:
            async with self._lane.hub.clock.timeout(WAIT):
                await self._turn.acquire()
        except TimeoutError:
            raise _unknown("is still being read") from None
        try:
            yield
        finally:
            self._turn.release()

    async def _read_for(self, wanted: set[str]) -> _Reading:
        """Give a reading that has found all that is wanted, or has come to the end."""
        hub = self._lane.hub
        if self._failure is not None and hub.now() - self._failed_at < REST:
            raise self._failure.with_traceback(None)
        reading = self._reading = self._newest(wanted)
        while not (reading.is_complete or wanted <= reading.found.keys()):
            if reading.pages >= MAX_PAGES or hub.now() - reading.began >= LONGEST:
                raise _unknown(f"has no end after {reading.pages} pages")
            if reading.pages:
                await hub.turn()
            try:
                looks = await self._read_page(reading.pages + 1)
            except GtsAsyncError as error:
                self._failure, self._failed_at = error, hub.now()
                raise
            reading.take(looks, hub.now())
        return reading

    def _newest(self, wanted: set[str]) -> _Reading:
        """Give the reading to go on with, or one that begins now; raises TransportError if it is too early for one."""
        now, reading = self._lane.hub.now(), self._reading
        if reading is not None:
            if reading.is_good(now) and wanted <= reading.followed:
                return reading
            if now - reading.began < max(REST, reading.pages / PACE):
                raise _unknown("was read a moment ago")
        return _Reading(frozenset(self._lane.eyes), began=now, read_at=now)


def _unknown(why: str) -> TransportError:
    return TransportError(f"whether it is there cannot be said now: the listing, which tells, {why}", call="list_jobs")
