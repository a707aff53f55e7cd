"""Watch: yields the transitions of remote work until it is settled.

What looks mean is for `course`, when the next one is made for `hub`. A watch is a class, not a generator: between two
steps nothing is open, and dropping it leaves nothing.
"""

import asyncio
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Self

import attrs

from gts_async._errors import DeadlineExceeded, GtsAsyncError, MisuseError, WorkError, WorkStalled
from gts_async._flow.clock import Clock
from gts_async._flow.course import Course
from gts_async._flow.eye import Turns
from gts_async._flow.lane import Lane
from gts_async._flow.looking import look_all
from gts_async._flow.transition import L, Transition
from gts_async._progress import OnProgress, Progress, told

RESUME = (
    "the work itself goes on: wait again, or resume it later, in any process, with session.resume() and the token() of "
    "its run or job"
)
"""What every error of a wait that says nothing of the work's end tells its reader."""

EARLY = 0.1
"""Seconds before the deadline from which on a TimeoutError is taken for it: loops may ring a moment too soon."""

Verdict = Callable[[Any], WorkError | None]
"""What the look that settled the work means: None is a good end."""


class Watch(Generic[L]):
    """An async iterator of transitions, the last of them final.

    `deadline` and `stalled_after` are in seconds, counted from the first step and from the last change, by the clock's
    `now`: a jump of the time of day changes neither, and a sleep of the machine counts only where its monotonic clock
    counts it (on Windows, not on Linux and macOS). After such a sleep it looks once, at once, unless the deadline is
    over. A bad look does not end a watch; what another look cannot mend does: `Unauthorized` (the Exchange has by then
    asked for a fresh token once), `Denied`, a wrong setting, a closed session. Whoever steps slowly gets the latest
    state and what was passed on the way: nobody looks between two steps.

    `progress` is told of each look that is made while somebody steps, and of the end, acknowledged: seconds since the
    work began (or since it was first watched), and in all, if other works of its kind tell; `what` is its id and
    status. What it raises ends the watch, not the work.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_cut",
        "_deadline",
        "_ending",
        "_has_heard",
        "_is_over",
        "_is_stepping",
        "_progress",
        "_read",
        "_stalled_after",
        "_verdict",
        "_waiter",
        "asked",
        "course",
        "handle",
        "history",
        "lane",
        "turns",
        "wants_changes_only",
    )

    def __init__(
        self,
        handle: Any,
        course: Course[L],
        lane: Lane,
        verdict: Verdict,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        self.handle = handle
        self.course = course
        self.asked = 0
        self.history: tuple[Transition[L], ...] = ()
        self.lane = lane
        self._verdict = verdict
        self._deadline = deadline
        self._stalled_after = stalled_after
        self._progress = told(progress)
        self._began: float | None = None
        self._read = 0
        self._is_over = False
        self._is_stepping = self._has_heard = self.wants_changes_only = False
        self._waiter: asyncio.Future[None] | None = None
        self._ending: Exception | None = None
        self._cut: asyncio.Timeout | None = None
        self.turns: Turns | None = None

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

    @property
    def eta(self) -> float | None:
        """Seconds until a good end, as other works of its kind in this session have taken; None if nothing is known."""
        return self.course.eta

    async def settled(self) -> L:
        """Step to the end and give the final look; raises what stepping raises."""
        last: Transition[L] | None = self.history[-1] if self.history else None
        async for last in self:  # noqa: B007 - the last one is the result
            pass
        assert last is not None  # noqa: S101 - a watch ends with a final transition or an error
        return last.look

    def judged(self, final: L) -> L:
        """Give the look that settled the work if it is a good end; raises WorkFailed or WorkStopped if not."""
        error = self._verdict(final)
        if error is None:
            return final
        error.args = (f"{self.handle!r}: {error}",)
        error.handle, error.last_look, error.history = self.handle, final, self.history
        raise error

    async def aclose(self) -> None:
        """End the watch; there is nothing to wait for."""
        self._is_over = True

    # Stepping

    async def _step(self) -> Transition[L]:
        if self._is_over:
            raise StopAsyncIteration
        self.begin()
        transition = self.next_known() or await self._awaited()
        if transition.is_final and self._progress is not None:
            self._tell(self._progress, transition)
        return transition

    async def _awaited(self) -> Transition[L]:
        clock = self.lane.hub.clock
        with self._deadline_told(clock):
            async with clock.timeout(self._left(clock)):
                await self._news()
        error = self.ending()
        if error is not None:
            raise error
        transition = self.next_known()
        assert transition is not None  # noqa: S101 - news are a transition or an ending
        return transition

    def begin(self) -> None:
        """Count time and looks from now on, at the first call."""
        if self._began is None:
            self._began = self.lane.hub.now()
            self.asked = self.lane.hub.number
            self.course.begin(self._began, self.asked)

    def next_known(self) -> Transition[L] | None:
        """Give the next transition that can be told without another look."""
        if not self._is_news():
            return None
        course = self.course
        assert self._began is not None  # noqa: S101 - set by begin
        if self._read == 0 and course.began != self._began:
            # Others have watched before: this one begins with what it finds.
            found = course.history[-1]
            change = attrs.evolve(
                found,
                previous=None,
                elapsed=self.lane.hub.now() - self._began,
                is_synthesized=False,
                is_backward=False,
            )
            self._read = len(course.history)
        else:
            change = course.history[self._read]
            self._read += 1
            if course.began != self._began:
                change = attrs.evolve(change, elapsed=change.elapsed + course.began - self._began)
        self._is_over = change.is_final
        self.history += (change,)
        return change

    def ending(self) -> Exception | None:
        """Give what ends this wait although the work is not settled, if anything does; only after a look."""
        if self._ending is not None:
            return self._ending
        course = self.course
        if self._is_news():
            return None
        if course.ending is not None and course.number > self.asked:
            return self._own(course.ending)
        quiet = course.seen_at - max(course.changed, self._began or 0.0)
        if self._stalled_after is not None and course.number > self.asked and quiet >= self._stalled_after:
            return WorkStalled(f"{self.handle!r}: nothing has changed for {quiet:.0f} s, it may hang; {RESUME}")
        return None

    def _own(self, error: Exception) -> Exception:
        """Give this wait's own copy of an error that may end several."""
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        if isinstance(own, WorkError):
            own.args = (f"{self.handle!r}: {error}; {RESUME}",)
        return own

    def _is_news(self) -> bool:
        course = self.course
        if self._read == 0 and course.history:
            # Only what was seen after it asked, or cannot change any more, tells what it finds at the start.
            return course.is_over or (course.number > self.asked and course.ending is None)
        return self._read < len(course.history)

    def _left(self, clock: Clock) -> float | None:
        assert self._began is not None  # noqa: S101 - set by begin
        return None if self._deadline is None else max(0.0, self._began + self._deadline - clock.now())

    @contextmanager
    def _deadline_told(self, clock: Clock) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            left = self._left(clock)
            if isinstance(error, GtsAsyncError) or left is None or left > EARLY:
                raise
            raise DeadlineExceeded(f"{self.handle!r}: not settled within {self._deadline:g} s; {RESUME}") from None

    async def _news(self) -> None:
        """Wait until there is something to tell, looking whenever it is this watch's turn."""
        hub = self.lane.hub
        self._has_heard = False
        turns = self.turns = _OwnTurns(self)
        self.wants_changes_only = self._read > 0 and self._stalled_after is None and self._progress is None
        eye = hub.follow(self.lane, self)
        try:
            async with asyncio.timeout(None) as self._cut:
                while turns or not self._has_heard:
                    if turns:
                        if self._left(hub.clock) == 0:
                            # Both came due while the machine slept, or at one moment.
                            raise TimeoutError
                        await look_all(turns)
                    else:
                        self._waiter = asyncio.get_running_loop().create_future()
                        await self._waiter
        except TimeoutError:
            if self._ending is None:
                raise
        finally:
            self._waiter = self.turns = self._cut = None
            hub.leave(eye, self)
            while turns:
                hub.take_back(turns.popleft())

    # What the hub asks and tells

    def hear(self) -> None:
        """See `Follower`."""
        if self._progress is not None and not self.course.is_over:
            try:
                self._tell(self._progress)
            except Exception as error:
                # Whoever looks may look for others, too.
                self._ending, self._is_over = error, True
        if self._is_news() or self.ending() is not None:
            self._stop_waiting()

    def _tell(self, progress: OnProgress, final: Transition[L] | None = None) -> None:
        """Tell how many seconds have passed, of how many if that is known: by the end, or by others of its kind."""
        course = self.course
        now = self.lane.hub.now() if final is None else course.began + course.history[-1].elapsed
        done = max(0.0, now - (course.began if course.since is None else course.since))
        status = "" if course.status is None else f" {course.status.name.lower()}"
        left = course.eta
        if final is not None and self._verdict(final.look) is not None:
            left = None
        total = None if left is None else done + left
        progress(Progress(f"{self.handle.id}{status}", done, total, final is not None, unit="seconds"))

    def end(self, error: Exception) -> None:
        """See `Follower`."""
        self._ending = error
        self._stop_waiting()
        if self._cut is not None and self._cut.when() is None:
            # A client of the user's own does not end what it is at when the session is closed.
            self._cut.reschedule(asyncio.get_running_loop().time())

    def wish(self, now: float) -> float:
        """See `Follower`."""
        course = self.course
        if course.number <= self.asked:
            return 0.0
        due = course.seen_at + course.interval(now)
        if self._stalled_after is not None:
            due = min(due, max(course.changed, self._began or 0.0) + self._stalled_after)
        return due - now

    def _stop_waiting(self) -> None:
        self._has_heard = True
        self.turns = None
        self.wake()

    def wake(self) -> None:
        """Let the waiting task see what there is to do."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __repr__(self) -> str:
        last = self.last_look
        state = "not begun" if last is None else last.status.name.lower()
        return f"<Watch {self.handle!r} {state}{', over' if self._is_over else ''}>"


class _OwnTurns(Turns):
    """The looks that one watch makes itself."""

    def __init__(self, watch: Watch[Any]) -> None:
        super().__init__()
        self._watch = watch

    def tell(self) -> None:
        self._watch.wake()
