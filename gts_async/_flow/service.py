"""Service: what a handle asks and waits with: one of the two services, as one session sees it."""

from collections.abc import Hashable
from typing import Any, ClassVar, TypeVar

import attrs

from gts_async._errors import WorkError
from gts_async._flow.clock import Clock
from gts_async._flow.course import Course, Setting
from gts_async._flow.hub import Hub
from gts_async._flow.lane import Lane
from gts_async._flow.listing import Page
from gts_async._flow.transition import Look, Progress
from gts_async._flow.watch import Watch
from gts_async._net.config import check_seconds
from gts_async._net.exchange import Exchange
from gts_async._progress import OnProgress

L = TypeVar("L", bound=Look)


@attrs.frozen(kw_only=True, eq=False)
class Service:
    """One Exchange, and what the session's watches of what it serves have in common."""

    exchange: Exchange
    hub: Hub
    setting: Setting
    lane: Lane = attrs.field(init=False, default=attrs.Factory(lambda self: self._make_lane(), takes_self=True))

    has_listing: ClassVar[bool] = False
    """True if one listing can tell of many works (see `survey`)."""

    def _make_lane(self) -> Lane:
        return Lane(self.hub, self.glance, self.survey if self.has_listing else None)

    @property
    def clock(self) -> Clock:
        """The session's."""
        return self.hub.clock

    async def glance(self, work_id: str) -> Any:
        """Look at the work once, in one try: a watch looks again anyway."""
        raise NotImplementedError

    async def survey(self, page: int) -> Page:
        """Give a page of the listing, in one try; the first is 1."""
        raise NotImplementedError

    def verdict(self, final: Any) -> WorkError | None:
        """Give what work that ended with this look has to be raised as; None for a good end."""
        raise NotImplementedError

    def course(
        self, work_id: str, progress: Progress[L], *, kind: Hashable = None, since: float | None = None
    ) -> Course[L]:
        """Give the course of a handle's work; see there for `kind` and `since`."""
        return Course(self.setting, work_id, progress, kind=kind, since=since)

    def watch(
        self,
        handle: Any,
        course: Course[L],
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        progress: OnProgress | None = None,
    ) -> Watch[L]:
        """Give a watch of the work behind `handle`; `deadline` and `stalled_after` in seconds."""
        return Watch(
            handle,
            course,
            self.lane,
            self.verdict,
            deadline=check_seconds("deadline", deadline),
            stalled_after=check_seconds("stalled_after", stalled_after),
            progress=progress,
        )
