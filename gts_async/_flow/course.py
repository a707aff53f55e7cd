"""Course: what one handle's work has done so far: looks are judged by the service's rules and become transitions.

It never looks by itself, that is for `hub`; what a watch gives of it is in `watch`.
"""

import logging
import random
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Generic

import attrs

from gts_async._errors import (
    Denied,
    InvalidArgument,
    MisuseError,
    NotFound,
    ServerFailed,
    TransportError,
    Unauthorized,
    WorkError,
    WorkLost,
    plain,
)
from gts_async._flow.clock import Clock
from gts_async._flow.experience import Experience
from gts_async._flow.schedule import Schedule
from gts_async._flow.transition import L, Progress, Transition
from gts_async._net.events import Event, Hook, tell

PATIENCE = 300.0
"""Seconds from the first of nothing but bad looks until the work counts as lost to us."""

QUIET = 3600.0
"""Seconds without a change that are worth a line in the log, if nothing is known of how long such work takes."""

UNUSUAL = 4.0
"""So many times its usual time in a status is worth that line as well."""

LASTING = (Unauthorized, Denied, MisuseError, InvalidArgument)
"""What another look cannot mend. (The Exchange has by then asked for a fresh token once.)"""

log = logging.getLogger("gts_async")


@attrs.frozen(kw_only=True, eq=False)
class Setting:
    """What all courses of one service share in a session."""

    clock: Clock
    schedule: Schedule
    experience: Experience = attrs.field(factory=Experience)
    on_event: Hook | None = None
    chance: Callable[[], float] = random.random


class Course(Generic[L]):
    """The life of one piece of work, as its handle has seen it.

    `kind` groups works that take similarly long, None for one of which nothing is known. `since` is when it began, by
    the clock's `now`, if this session began it. `number` and `seen_at` tell the newest look, `changed` when the newest
    change was seen; `ending` is what that look ended every wait with, if it did. `status` is the newest that was
    believed.
    """

    __slots__ = (
        "_bad_since",
        "_has_told_of_unknown",
        "_is_degraded",
        "_setting",
        "_tell_at",
        "began",
        "changed",
        "ending",
        "history",
        "kind",
        "number",
        "progress",
        "seen_at",
        "since",
        "status",
        "work_id",
    )

    def __init__(
        self,
        setting: Setting,
        work_id: str,
        progress: Progress[L],
        *,
        kind: Hashable = None,
        since: float | None = None,
    ) -> None:
        self._setting = setting
        self.work_id = work_id
        self.progress = progress
        self.kind = kind
        self.since = since
        self.began = self.changed = self.seen_at = float("-inf")
        self.number = 0
        self.ending: Exception | None = None
        self.history: tuple[Transition[L], ...] = ()
        self.status: Enum | None = None
        self._bad_since: float | None = None
        self._tell_at = float("inf")
        self._is_degraded = self._has_told_of_unknown = False

    # Feeding

    def begin(self, now: float, number: int) -> None:
        """Count from now on, if nobody has watched before; work that is settled already needs no look.

        `number` is that of the newest look of all: what has begun before this work was watched tells nothing of it.
        """
        if self.began == float("-inf"):
            self.began, self.number = now, number
            self.changed = now if self.since is None else self.since
        self._check_settled(now)

    def _check_settled(self, now: float) -> None:
        if not self.is_over and self.progress.final is not None:
            # Learned in another way than by a watch, as from a stop that was refused.
            self._believe(self.progress.final, now)

    def stays(self, sighting: L | Exception, number: int, now: float) -> float | None:
        """Give the seconds until the next look if this one shows nothing new, as most do; else None: use `see`."""
        progress = self.progress
        if (
            isinstance(sighting, Exception)
            or sighting.status is not progress.calm
            or sighting.status is not self.status
            or number <= self.number
            or progress.final is not None
            or self._bad_since is not None
            or self._is_degraded
            or now >= self._tell_at
        ):
            return None
        self.number, self.seen_at, self.ending = number, now, None
        if self.kind is not None:
            return self.interval(now)
        setting = self._setting
        return setting.schedule.interval(now - self.changed, setting.chance())

    def see(self, sighting: L | Exception, number: int, now: float) -> None:
        """Take in what the look of that number saw, or how it failed."""
        self.number, self.seen_at, self.ending = number, now, None
        if isinstance(sighting, LASTING):
            self.ending = sighting
            return
        self._check_settled(now)
        if self.is_over:
            # Terminal states stick, whatever a server says of them later.
            return
        try:
            believed = self.progress.see(sighting, now)
            self._be_patient(sighting, is_good=bool(believed) or not isinstance(sighting, Exception), now=now)
        except (WorkError, NotFound) as error:
            self.ending = error
            return
        for look in believed:
            self._believe(look, now)
        self._tell_of_quiet(now)

    def _be_patient(self, sighting: L | Exception, *, is_good: bool, now: float) -> None:
        """Raise WorkLost if there has been nothing but bad looks for too long; tell the hook when that begins and ends.

        A 500 is the engine's way to show a finished bagualu task, so it alone shows no trouble.
        """
        is_trouble = isinstance(sighting, TransportError) and not (
            isinstance(sighting, ServerFailed) and sighting.status == 500
        )
        if is_trouble is not self._is_degraded and (is_trouble or is_good):
            self._is_degraded = is_trouble
            self._tell("degraded" if is_trouble else "recovered", type(sighting).__name__ if is_trouble else "", now)
        if is_good:
            self._bad_since = None
            return
        log.debug("%s: a look failed: %s", self.work_id, sighting)
        if self._bad_since is None:
            self._bad_since = now
        elif now - self._bad_since > PATIENCE:
            # Whoever waits again begins with fresh patience.
            self._bad_since = None
            error = WorkLost(f"no usable look for {PATIENCE:g} s; the last failed: {sighting}")
            error.__cause__ = sighting if isinstance(sighting, Exception) else None
            raise error

    def _believe(self, look: L, now: float) -> None:
        """Write down what changed: the stages passed unseen, then the status itself."""
        known, is_final = self.status, look is self.progress.final
        if look.status is known and not is_final:
            return
        if look.status.name == "UNKNOWN" and not self._has_told_of_unknown:
            self._has_told_of_unknown = True
            log.warning("%s: a status not known here, which ends no wait: %s", self.work_id, plain(repr(look), 200))
        if look.observed_at is None:
            look = attrs.evolve(look, observed_at=self._setting.clock.wall())  # type: ignore[misc]  # an attrs value
        for passed in self.progress.between(known, look) if known is not None else ():
            self._change(known, passed, look, now, is_synthesized=True)
            known = passed.status
        is_backward = known is not None and self.progress.is_backward(known, look.status)
        self._change(known, look, look, now, is_final=is_final, is_backward=is_backward)
        if is_final:
            self._learn(now)

    def _change(self, previous: Enum | None, look: L, seen: L, now: float, **marks: bool) -> None:
        assert seen.observed_at is not None  # noqa: S101 - given by _believe
        change = Transition(previous, look.status, look, seen.observed_at, now - self.began, **marks)
        if previous is not None or self.since is None:
            self.changed = now
        self.history += (change,)
        self.status = look.status
        usual = self._usual()
        self._tell_at = self.changed + (QUIET if usual is None else min(QUIET, max(60.0, UNUSUAL * usual)))
        log.debug("%s: %s", self.work_id, change)
        self._tell("transition", look.status.name, now)
        if change.is_backward:
            log.warning("%s: went back: %s", self.work_id, change)

    def _learn(self, now: float) -> None:
        """Learn how long the stages took, if each was seen, once, and the end is a good one."""
        is_odd = any(change.is_synthesized or change.is_backward for change in self.history)
        is_odd = is_odd or len({change.status for change in self.history}) < len(self.history)
        if self.kind is None or is_odd or self.status is None or self.status.name != "SUCCEEDED":
            return
        entered = {change.status: self.began + change.elapsed for change in self.history[:-1]}
        if self.history[:-1]:
            first = self.history[0].status
            if self.since is not None:
                entered[first] = self.since
            else:
                # Nobody knows when that began.
                del entered[first]
        self._setting.experience.learn(self.kind, entered, now)

    def _tell_of_quiet(self, now: float) -> None:
        """Say in the log that nothing has changed for unusually long, each time twice as late."""
        if now >= self._tell_at:
            quiet = now - self.changed
            self._tell_at = self.changed + quiet * 2
            log.warning("%s: nothing has changed for %.0f s", self.work_id, quiet)

    def _usual(self) -> float | None:
        stay = self._setting.experience.stay(self.kind, self.status) if self.status is not None else None
        return stay.mean if stay is not None and self.kind is not None else None

    def _tell(self, kind: str, detail: str, now: float) -> None:
        tell(self._setting.on_event, Event(kind=kind, subject=self.work_id, elapsed=now - self.began, detail=detail))

    # What is known

    @property
    def is_over(self) -> bool:
        """True if the work is settled."""
        return bool(self.history) and self.history[-1].is_final

    def interval(self, now: float) -> float:
        """Give the seconds until the next look."""
        setting = self._setting
        stay = None
        if self.kind is not None and self.status is not None:
            stay = setting.experience.stay(self.kind, self.status)
        interval = setting.schedule.interval(now - self.changed, setting.chance(), usual=stay)
        wanted = self.progress.wants_look_within(now)
        return interval if wanted is None else min(interval, wanted)

    @property
    def durations(self) -> dict[Enum, float]:
        """Seconds in each status that was seen, the present one's until now (or until the end)."""
        seconds: dict[Enum, float] = {}
        for change, until in zip(self.history, (*self.history[1:], None), strict=False):
            if until is not None:
                end = until.elapsed
            else:
                end = change.elapsed if self.is_over else self._setting.clock.now() - self.began
            seconds[change.status] = seconds.get(change.status, 0.0) + end - change.elapsed
        return seconds

    @property
    def eta(self) -> float | None:
        """Seconds until a good end, as others of its kind have taken; None if nothing is known, 0 if it is overdue."""
        if self.is_over or self.status is None or self.kind is None:
            return 0.0 if self.is_over else None
        rest = self._setting.experience.rest(self.kind, self.status)
        return None if rest is None else max(0.0, rest.mean - (self._setting.clock.now() - self.changed))
