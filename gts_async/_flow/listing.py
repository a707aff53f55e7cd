"""Listing: one page of a service's listing instead of a hundred looks, where that is less work.

What a page is read from is the service's business (`Cloud.survey`); looks at single things are in `looking`.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from gts_async._errors import GtsAsyncError, NotSent
from gts_async._flow.eye import LOOKING, Eye, ListedEye

if TYPE_CHECKING:
    from gts_async._flow.lane import Lane

FEW = 10
"""Fewer things than that are not worth a listing."""

WORTH = 5.0
"""Looks that a page must save on average."""

UNLISTED_LOOKS = 20
"""So many looks of its own a thing gets that was not in the listing, until it is looked for there again."""

PAUSE = 60.0
"""Seconds until listings are tried again after one failed."""

log = logging.getLogger("gts_async")


@attrs.frozen
class Page:
    """One page of a listing: a look for each id, None for what must be looked at by itself; `is_last` if no more."""

    looks: Mapping[str, Any]
    is_last: bool


Survey = Callable[[int], Awaitable[Page]]


class Listing:
    """Decides between looks and the listing of one service, and reads it."""

    def __init__(self, lane: "Lane", survey: Survey) -> None:
        self._lane = lane
        self._survey = survey
        self.is_being_read = False
        self._leader: Eye | None = None
        self._wanted: set[str] = set()
        # What looks cost, per second as they are scheduled, and what a listing does, in pages as the last one did.
        self._rate = 0.0
        self._pages = 1
        self._read_at = float("-inf")
        self._again_at = float("-inf")

    def count(self, eye: ListedEye, interval: float) -> None:
        """Count that the eye's next look is `interval` seconds away; 0 for no next look."""
        if eye.interval:
            self._rate -= 1.0 / eye.interval
        eye.interval = interval
        if interval:
            self._rate += 1.0 / interval

    def lets_pass(self, asked: deque[Eye]) -> bool:
        """Tell whether what was asked for gets looks of its own while the listing is being read.

        What is scheduled is probably in it; what is asked for, if it is little, need not wait to find out.
        """
        return 0 < len(asked) < FEW

    def is_better(self, eye: Eye, now: float) -> bool:
        """Tell whether a listing, this one or the one that is being read, is to be preferred to a look at `eye`."""
        lane = self._lane
        if eye.own_looks or len(lane.eyes) < FEW:
            return False
        if self.is_being_read:
            return not eye.is_asked or len(lane.asked) >= FEW
        if now < self._again_at:
            return False
        ready = len(lane.asked) + len(lane.scheduled) + lane.looking
        if ready >= max(FEW, WORTH * self._pages):
            return True
        # After a listing all begin anew: what has come due of them since is what the next one saves.
        return now > self._read_at and self._rate * (now - self._read_at) >= WORTH * self._pages

    async def read(self, leader: Eye) -> None:
        """Read page by page until all that was ready has been found; the rest gets looks of its own.

        If it is being read already, `leader` waits with the others for what comes of it.
        """
        lane, hub = self._lane, self._lane.hub
        if self.is_being_read:
            self._wanted.add(leader.work_id)
            hub.take_back(leader)
            return
        self.is_being_read, self._leader = True, leader
        ready = (eye for eye in (*lane.asked, *lane.scheduled) if eye.is_ready and not eye.own_looks)
        wanted = self._wanted = {leader.work_id, *(eye.work_id for eye in ready)}
        try:
            await self._read_pages(wanted)
            for work_id in wanted:
                if (eye := lane.eyes.get(work_id)) is not None:
                    eye.own_looks = UNLISTED_LOOKS
        except NotSent as error:
            # The server is not there; each look would only say the same.
            number = hub.next_number()
            for work_id in wanted:
                self._show(work_id, error, number)
        except GtsAsyncError as error:
            # What it means for each of them, a look of its own tells.
            log.debug("no listing: %s", error)
            self._again_at = hub.now() + PAUSE
        finally:
            self.is_being_read = False
            self._read_at = hub.now()
            if self._leader is not None:
                # It was not shown; once it was, its next look may be under way already.
                self._leader = None
                lane.release(leader)
                hub.again(leader)
            lane.tidy()
            hub.dispatch_soon()

    async def _read_pages(self, wanted: set[str]) -> None:
        hub = self._lane.hub
        most = max(FEW, len(wanted) // 2)
        for page_number in range(1, most + 1):
            if page_number > 1:
                await hub.turn()
            number = hub.next_number()
            page = await self._survey(page_number)
            for work_id, sighting in page.looks.items():
                wanted.discard(work_id)
                self._show(work_id, sighting, number)
            self._pages = page_number
            if page.is_last or not wanted:
                return

    def _show(self, work_id: str, sighting: Any, number: int) -> None:
        lane = self._lane
        eye = lane.eyes.get(work_id)
        if eye is None:
            return
        if sighting is None:
            eye.own_looks = max(1, eye.own_looks)
            lane.hub.again(eye)
            return
        if eye.own_looks or (eye.is_looking and eye is not self._leader):
            # A look of its own tells more.
            return
        if eye is self._leader:
            self._leader = None
            lane.release(eye)
        if eye.state < LOOKING:
            eye.rest()
        eye.is_rung = False
        lane.hub.show(eye, sighting, number, lane.hub.now())
