"""Waiting for many pieces of work at once: as each is settled, for the first, or for all in their order.

It takes no task per work: those that are followed are told by the hub when a look is due, and a few tasks look.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio
import anyio.abc

from gts_async._errors import (
    DeadlineExceeded,
    InvalidArgument,
    MisuseError,
    NotFound,
    WorkError,
    WorkFailed,
    WorkStopped,
)
from gts_async._flow.clock import Clock, SystemClock
from gts_async._flow.eye import Eye, Turns
from gts_async._flow.fanout import Outcome
from gts_async._flow.lane import MAX_LOOKING, Lane
from gts_async._flow.looking import BREATH, look_all
from gts_async._flow.watch import RESUME, Watch
from gts_async._net.config import check_seconds
from gts_async._progress import OnProgress, tally


class Watchable(Protocol):
    """A handle whose work can be watched."""

    def watch(self) -> Watch[Any]:
        """Give its transitions."""
        ...


H = TypeVar("H", bound=Watchable)
Final = TypeVar("Final")


class AsFinished(Generic[H, Final]):
    """Outcomes of watched work, each as it is settled: ``async with … as outcomes: async for outcome in outcomes``.

    An outcome's value is the final look; work that did not end well has its error there. `deadline` in seconds, from
    entering, for all together: what is not settled by then is given as DeadlineExceeded. Leaving the block leaves the
    work alone. What concerns all (Unauthorized, a closed session) is raised.
    """

    def __init__(self, handles: Iterable[H], *, deadline: float | None = None) -> None:
        self._handles: list[H] = list(handles)
        for handle in self._handles:
            if not callable(getattr(handle, "watch", None)):
                raise InvalidArgument("handles", f"{handle!r} cannot be waited for", "give tasks, runs or jobs")
        self._deadline = check_seconds("deadline", deadline)
        self._waiting: set[_Awaited[H]] = set()
        self.turns = _SharedTurns(self)
        self._settled: deque[Outcome[H, Final]] = deque()
        self._error: BaseException | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._lanes: set[Lane] = set()
        self._members = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._is_waking = False
        self._news = anyio.Event()
        self._is_open = self._is_late = False
        self._alarm: Any = None

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise MisuseError("it runs once; ask again for the same handles")
        self._group = await anyio.create_task_group().__aenter__()
        self._is_open = True
        self._add_member()
        try:
            await self._follow_all()
        except BaseException:
            # Cancelled: the block is never entered, so nobody would leave it.
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _follow_all(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for handle in self._handles:
            if self._error is not None:
                return
            self._follow(handle)
            if loop.time() - began > BREATH:
                await asyncio.sleep(0)
                began = loop.time()

    def _follow(self, handle: H) -> None:
        watch = handle.watch()
        watch.begin()
        awaited = _Awaited(self, handle, watch)
        if self._deadline is not None and self._alarm is None:
            self._alarm = watch.lane.hub.clock.call_later(self._deadline, self._give_up)
        if awaited.is_settled():
            return
        if self._is_late:
            awaited.give_up()
            return
        self._lanes.add(watch.lane)
        self._waiting.add(awaited)
        awaited.eye = watch.lane.hub.follow(watch.lane, awaited)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        assert self._group is not None  # noqa: S101 - set on entry
        if self._alarm is not None:
            self._alarm.cancel()
        self._leave_all()
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    def _leave_all(self) -> None:
        for awaited in tuple(self._waiting):
            awaited.leave()
        self._waiting.clear()
        while self.turns:
            eye = self.turns.popleft()
            eye.lane.hub.take_back(eye)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[H, Final]:
        if not self._is_open:
            raise MisuseError("iterate inside the block: async with … as outcomes: async for outcome in outcomes")
        while not self._settled:
            if self._error is not None:
                raise self._error
            if not self._waiting:
                raise StopAsyncIteration
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()
        return self._settled.popleft()

    # What those that are followed tell

    def give(self, awaited: "_Awaited[H]", outcome: Outcome[H, Final]) -> None:
        """Hand out an outcome."""
        self._waiting.discard(awaited)
        self._settled.append(outcome)
        self._news.set()

    def fail(self, error: BaseException) -> None:
        """End with what concerns all."""
        self._error = self._error or error
        self._leave_all()
        self._news.set()

    def _give_up(self) -> None:
        self._is_late = True
        for awaited in tuple(self._waiting):
            awaited.give_up()

    def too_late(self, handle: H) -> DeadlineExceeded:
        """Give the error of work that was not settled in time."""
        return DeadlineExceeded(f"{handle!r}: not settled within {self._deadline:g} s; {RESUME}")

    # The tasks that look

    def wake_one(self) -> None:
        """Let one more task look, if one is idle; not the next before that one has begun."""
        while self._idle and not self._is_waking:
            waiter = self._idle.pop()
            if not waiter.done():
                self._is_waking = True
                waiter.set_result(None)

    def _add_member(self) -> None:
        # One more for each service, who may be reading its listing. None of the others waits for one that hangs.
        if self._members < (MAX_LOOKING + 1) * max(1, len(self._lanes)) and self._group is not None:
            self._members += 1
            self._group.start_soon(self._keep_looking)

    async def _keep_looking(self) -> None:
        try:
            await self._look_for_ever()
        except BaseException as error:
            if self._is_open:
                # The block may outlive those who look for it, in a shield: nobody else must wait for them.
                self.fail(error)
            raise

    async def _look_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._is_waking = False
            if self.turns and not self._idle:
                # While this one waits for an answer, the next one is there: a timer cannot begin tasks.
                self._add_member()
            try:
                await look_all(self.turns)
            except Exception as error:
                self.fail(error)
            waiter: asyncio.Future[None] = loop.create_future()
            self._idle.append(waiter)
            await waiter


class _SharedTurns(Turns):
    """The looks that the tasks of one block make."""

    is_shared = True

    def __init__(self, block: AsFinished[Any, Any]) -> None:
        super().__init__()
        self._block = block

    def tell(self) -> None:
        self._block.wake_one()


class _Awaited(Generic[H]):
    """One work that is waited for; a Follower."""

    __slots__ = ("block", "course", "eye", "handle", "turns", "wants_changes_only", "watch")

    def __init__(self, block: AsFinished[H, Any], handle: H, watch: Watch[Any]) -> None:
        self.block = block
        self.handle = handle
        self.watch = watch
        self.course = watch.course
        self.eye: Eye | None = None
        self.turns: Turns | None = block.turns
        self.wants_changes_only = False

    def hear(self) -> None:
        """See `Follower`."""
        if not self.is_settled():
            error = self.watch.ending()
            if error is None:
                # Not before there was a look that began after it asked.
                self.wants_changes_only = self.course.number > self.watch.asked
                return
            self.leave()
            self.give(error)

    def is_settled(self) -> bool:
        """True if the work has come to its end, which is handed out then."""
        watch = self.watch
        while (change := watch.next_known()) is not None:
            if change.is_final:
                self.leave()
                try:
                    self.block.give(self, Outcome(self.handle, watch.judged(change.look)))
                except WorkError as error:
                    self.give(error)
                return True
        return False

    def give(self, error: Exception) -> None:
        """Hand out the error that this wait ends with, or end all with it."""
        if isinstance(error, WorkError):
            watch = self.watch
            error.handle, error.last_look, error.history = self.handle, watch.last_look, watch.history
        if isinstance(error, (WorkError, NotFound)):
            self.block.give(self, Outcome(self.handle, error=error))
        else:
            self.block.fail(error)

    def give_up(self) -> None:
        """End this wait, as the deadline is over."""
        self.leave()
        self.give(self.block.too_late(self.handle))

    def end(self, error: Exception) -> None:
        """See `Follower`."""
        self.leave()
        self.block.fail(error)

    def wish(self, now: float) -> float:
        """See `Follower`."""
        return self.watch.wish(now)

    def leave(self) -> None:
        """Follow no more."""
        if self.eye is not None:
            self.watch.lane.hub.leave(self.eye, self)
            self.eye = None


async def wait_all(
    handles: Iterable[H], *, deadline: float | None, clock: Clock | None = None, progress: OnProgress | None = None
) -> list[Any]:
    """Give the final looks in the order of `handles`; an error stands in the place of a look that never came."""
    every = list(handles)
    count = tally(progress, "settled", "jobs", every, (clock or SystemClock()).now)
    finals: dict[int, Any] = {}
    block: AsFinished[H, Any] = AsFinished(every, deadline=deadline)
    if count is not None:
        count.begin()
    async with block as outcomes:
        async for outcome in outcomes:
            finals[id(outcome.item)] = _final(outcome)
            if count is not None:
                count.add()
    if count is not None:
        count.end()
    return [finals[id(handle)] for handle in every]


async def wait_any(handles: Iterable[H], *, deadline: float | None) -> Outcome[H, Any]:
    """Give the outcome of the first that is settled; the others are left alone."""
    every = list(handles)
    if not every:
        raise InvalidArgument("handles", "is empty", "give at least one")
    block: AsFinished[H, Any] = AsFinished(every, deadline=deadline)
    async with block as outcomes:
        return await anext(outcomes)


def _final(outcome: Outcome[H, Any]) -> Any:
    """Give the look that settled the work, however it ended, or the error that stands in its place."""
    error = outcome.error
    if isinstance(error, (WorkFailed, WorkStopped)):
        return error.last_look
    return error if error is not None else outcome.unwrap()
