"""Service: what a handle asks and waits with: one of the two services, as one session sees it."""

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs

from gts_async._flow.clock import Clock
from gts_async._flow.hub import Hub
from gts_async._flow.schedule import Schedule
from gts_async._flow.watch import Look, Progress, Watch
from gts_async._net.config import check_seconds
from gts_async._net.events import Hook
from gts_async._net.exchange import Exchange

L = TypeVar("L", bound=Look)


@attrs.frozen(kw_only=True, eq=False)
class Service:
    """One Exchange, and the session's clock, hub and schedule for watching what it serves."""

    exchange: Exchange
    clock: Clock
    hub: Hub
    schedule: Schedule
    on_event: Hook | None = None
    chance: Callable[[], float] = random.random

    def watch(
        self,
        handle: Any,
        look: Callable[[], Awaitable[L]],
        progress: Progress[L],
        *,
        deadline: float | None,
        stalled_after: float | None,
    ) -> Watch[L]:
        """Give a watch of the work behind `handle`; `deadline` and `stalled_after` in seconds."""
        return Watch(
            handle,
            look,
            progress,
            clock=self.clock,
            schedule=self.schedule,
            budget=self.hub.budget,
            eye=self.hub.eye(type(self).__name__, handle.id),
            deadline=check_seconds("deadline", deadline),
            stalled_after=check_seconds("stalled_after", stalled_after),
            on_event=self.on_event,
            chance=self.chance,
        )
