"""Watch: looks at remote work until it is settled and yields its transitions.

What a look means is for the service's own rules (``gts/progress.py``, ``sxwl/progress.py``); when the next one is due
for `schedule`. A watch is a class, not a generator: between two looks nothing is open, and dropping it leaves nothing.
"""

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import Any, Generic, Protocol, Self, TypeVar

import attrs

from gts_async._errors import (
    DeadlineExceeded,
    Denied,
    GtsAsyncError,
    InvalidArgument,
    MisuseError,
    Unauthorized,
    WorkError,
    WorkLost,
    WorkStalled,
    plain,
)
from gts_async._flow.clock import Clock
from gts_async._flow.hub import Eye, LookBudget
from gts_async._flow.schedule import Schedule
from gts_async._net.events import Event, Hook, tell

PATIENCE = 300.0
"""Seconds from the first of nothing but bad looks until the work counts as lost to us."""

log = logging.getLogger("gts_async")


class Look(Protocol):
    """One observation: a status, and when it was made."""

    @property
    def status(self) -> Enum:
        """What the work is doing."""
        ...

    @property
    def observed_at(self) -> datetime | None:
        """When that was seen."""
        ...


L = TypeVar("L", bound=Look)


@attrs.frozen
class Transition(Generic[L]):
    """A change between two looks.

    `previous` is None for what was found at the start. `elapsed` is in seconds since the watch began; `observed_at` is
    aware, UTC. A stage that must have been passed between two looks `is_synthesized`; the last transition `is_final`.
    """

    previous: Any
    status: Any
    look: L
    observed_at: datetime
    elapsed: float
    is_synthesized: bool = False
    is_final: bool = False

    def __str__(self) -> str:
        before = f"{self.previous.name.lower()} → " if self.previous is not None else ""
        unseen = " (unseen)" if self.is_synthesized else ""
        return f"{self.elapsed:6.1f} s  {before}{self.status.name.lower()}{unseen}"


class Progress(Protocol[L]):
    """A service's rules for one piece of work, fed with looks."""

    @property
    def final(self) -> L | None:
        """The look that settled the work, or None."""
        ...

    def see(self, sighting: L | Exception, now: float) -> tuple[L, ...]:
        """Give the looks to believe after `sighting`, in order, if any; raises WorkLost or WorkStalled."""
        ...

    def between(self, previous: Any, look: L) -> tuple[L, ...]:
        """Give what would have been seen of the stages that were passed between the status before and `look`."""
        ...

    def wants_look_within(self, now: float) -> float | None:
        """Give the seconds within which the next look is wanted, whatever the schedule; None: as scheduled."""
        ...


class Watch(Generic[L]):
    """An async iterator of transitions, the last of them final.

    `deadline` and `stalled_after` are in seconds, counted from the first step and from the last change, by the clock's
    `now`: a jump of the time of day changes neither, and a sleep of the machine counts only where its monotonic clock
    counts it (on Windows, not on Linux and macOS). After such a sleep it looks once, at once, unless the deadline is
    over. A bad look does not end a watch; what another look cannot mend does: `Unauthorized` (the Exchange has by then
    asked for a fresh token once), `Denied`, a wrong setting, a closed session.
    """

    def __init__(
        self,
        handle: Any,
        look: Callable[[], Awaitable[L]],
        progress: Progress[L],
        *,
        clock: Clock,
        schedule: Schedule,
        budget: LookBudget,
        eye: Eye,
        deadline: float | None = None,
        stalled_after: float | None = None,
        on_event: Hook | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.handle = handle
        self.history: tuple[Transition[L], ...] = ()
        self._look = look
        self._progress = progress
        self._clock = clock
        self._schedule = schedule
        self._budget = budget
        self._eye = eye
        self._deadline = deadline
        self._stalled_after = stalled_after
        self._on_event = on_event
        self._chance = chance
        self._due: deque[Transition[L]] = deque()
        self._began: float | None = None
        self._changed = 0.0
        self._seen: int | None = None
        self._heard = 0
        self._bad_since: float | None = None
        self._warned_at = 3600.0
        self._has_told_of_unknown = False
        self._is_over = False
        self._is_stepping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition[L]:
        if self._is_stepping:
            raise MisuseError("two tasks step one watch; give each its own: call watch() again")
        self._is_stepping = True
        try:
            return await self._step()
        except WorkError as error:
            self._is_over = True
            error.handle, error.last_look, error.history = self.handle, self.last_look, self.history
            raise
        finally:
            self._is_stepping = False

    @property
    def last_look(self) -> L | None:
        """The newest look that was believed."""
        return self.history[-1].look if self.history else None

    async def settled(self) -> L:
        """Step to the end and give the final look; raises what stepping raises."""
        last: Transition[L] | None = self.history[-1] if self.history else None
        async for last in self:  # noqa: B007 - the last one is the result
            pass
        assert last is not None  # noqa: S101 - a watch ends with a final transition or an error
        return last.look

    async def aclose(self) -> None:
        """End the watch; there is nothing to wait for."""
        self._is_over = True
        self._due.clear()

    async def _step(self) -> Transition[L]:
        if self._began is None:
            self._began = self._changed = self._clock.now()
        while not self._due:
            if self._is_over:
                raise StopAsyncIteration
            if self._progress.final is not None:
                # Settled already, or by another watch of the same run: what comes after is not this work's any more.
                self._believe(self._progress.final)
                break
            with self._deadline_told():
                async with self._clock.timeout(self._left()):
                    await self._pause()
                    await self._see()
            self._check_stall()
        transition = self._due.popleft()
        self._is_over = self._is_over or transition.is_final
        self.history += (transition,)
        self._tell(transition)
        return transition

    def _left(self) -> float | None:
        assert self._began is not None  # noqa: S101 - set by the first step
        return None if self._deadline is None else max(0.0, self._began + self._deadline - self._clock.now())

    @contextmanager
    def _deadline_told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            if isinstance(error, GtsAsyncError):
                raise
            raise DeadlineExceeded(
                f"{self.handle!r}: not settled within {self._deadline:g} s; the work itself goes on: wait again, or "
                "resume it later, in any process, from the token() of its run or job"
            ) from None

    async def _pause(self) -> None:
        """Wait until a look is due, another watch of this work has looked, or the bell rings; not before the first."""
        eye = self._eye
        if self._seen is None:
            self._seen = eye.begun
            return
        now = self._clock.now()
        interval = self._schedule.interval(now - self._changed, self._chance())
        wanted = self._progress.wants_look_within(now)
        interval = interval if wanted is None else min(interval, wanted)
        seen, heard = self._seen, self._heard
        await eye.bell.waits(interval, self._clock, lambda: eye.newest > seen or eye.bell.rings > heard)

    async def _sight(self) -> L | GtsAsyncError:
        """Look, when the session's budget allows it; a look that fails is something seen, too."""
        await self._budget.turn(self._clock)
        try:
            return await self._look()
        except (Unauthorized, Denied, MisuseError, InvalidArgument):
            # Nothing that another look could mend.
            raise
        except GtsAsyncError as error:
            log.debug("%r: a look failed: %s", self.handle, error)
            return error

    async def _see(self) -> None:
        assert self._seen is not None  # noqa: S101 - set by the pause before
        sighting: L | GtsAsyncError = await self._eye.see(self._sight, after=self._seen)
        self._seen, self._heard = self._eye.newest, self._eye.heard
        now = self._clock.now()
        believed = self._progress.see(sighting, now)
        if believed or not isinstance(sighting, Exception):
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = now
        elif now - self._bad_since > PATIENCE:
            raise WorkLost(
                f"{self.handle!r}: no usable look for {PATIENCE:g} s; the last failed: {sighting}"
            ) from sighting
        for look in believed:
            self._believe(look)

    def _believe(self, look: L) -> None:
        """Queue what changed: the stages passed unseen, then the status itself."""
        known = self._due[-1].status if self._due else self.history[-1].status if self.history else None
        is_final = look is self._progress.final
        if look.status is known and not is_final:
            return
        if look.status.name == "UNKNOWN" and not self._has_told_of_unknown:
            self._has_told_of_unknown = True
            log.warning("%r: a status not known here, which ends no wait: %s", self.handle, plain(repr(look), 200))
        assert self._began is not None  # noqa: S101 - set by the first step
        now, wall = self._clock.now(), look.observed_at or self._clock.wall()
        self._changed, elapsed = now, now - self._began
        if known is not None:
            for passed in self._progress.between(known, look):
                self._due.append(Transition(known, passed.status, passed, wall, elapsed, is_synthesized=True))
                known = passed.status
        if look.observed_at is None:
            look = attrs.evolve(look, observed_at=wall)  # type: ignore[misc]  # looks are attrs values
        self._due.append(Transition(known, look.status, look, wall, elapsed, is_final=is_final))

    def _check_stall(self) -> None:
        """Raise WorkStalled after `stalled_after`; without one, say so in the log, each time twice as late."""
        quiet = self._clock.now() - self._changed
        if self._due:
            return
        if self._stalled_after is not None and quiet >= self._stalled_after:
            raise WorkStalled(f"{self.handle!r}: nothing has changed for {quiet:.0f} s; the work may be dead")
        if quiet >= self._warned_at:
            self._warned_at = quiet * 2
            log.warning(
                "%r: nothing has changed for %.0f s; neither a deadline nor stalled_after is set", self.handle, quiet
            )

    def _tell(self, transition: Transition[L]) -> None:
        log.debug("%r: %s", self.handle, transition)
        event = Event(
            kind="transition", subject=self.handle.id, elapsed=transition.elapsed, detail=transition.status.name
        )
        tell(self._on_event, event)

    def __repr__(self) -> str:
        last = self.last_look
        state = "not begun" if last is None else last.status.name.lower()
        return f"<Watch {self.handle!r} {state}{', over' if self._is_over else ''}>"
