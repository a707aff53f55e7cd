"""FanOut: does one thing to many items, a bounded number at once, and gives an Outcome for each.

``async with fan_out as outcomes: async for outcome in outcomes``: leaving the block cancels what is in flight.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Union, cast

import anyio
import anyio.abc
import attrs

from gts_async._errors import GtsAsyncError, InvalidArgument, MisuseError, WrongType
from gts_async._flow.clock import Clock, SystemClock
from gts_async._flow.pulling import pulled
from gts_async._flow.shield import finished
from gts_async._progress import Tally

Item = TypeVar("Item")
Value = TypeVar("Value")
Part = TypeVar("Part")

CLOSING_TIME = 10.0
"""Seconds that `closing` may take."""

MAX_PUT_OFF = 1000
"""Parts that may wait for their time at once; while there are as many, no further one is begun."""

log = logging.getLogger("gts_async")


@attrs.frozen
class Outcome(Generic[Item, Value]):
    """What became of one item: its value, or the error that it ended with; `tries` is how often it was tried."""

    item: Item
    value: Value | None = None
    error: Exception | None = None
    tries: int = 1

    @property
    def is_ok(self) -> bool:
        """True if there is a value."""
        return self.error is None

    def unwrap(self) -> Value:
        """Give the value, or raise the item's error."""
        if self.error is not None:
            raise self.error
        return cast("Value", self.value)


@attrs.frozen
class Later(Generic[Item, Value]):
    """What `work` gives for a part that has to wait: after `seconds`, `work` goes on with it.

    Until then it holds no place. If the fan-out ends first by an error, `otherwise` is what is given of the part.
    """

    seconds: float
    work: Callable[[], Awaitable[Union[Iterable[Outcome[Item, Value]], "Later[Item, Value]"]]]
    otherwise: Iterable[Outcome[Item, Value]] = ()


class FanOut(Generic[Part, Item, Value]):
    """Outcomes of `work` over `parts`, in completion order, or in the parts' own order if `is_ordered`.

    A part is one item or a batch of them; `work` turns it into the outcomes of its items. An error that `work` raises
    instead ends the fan-out: no further part is begun, those in flight are finished, and the consumer gets it after
    their outcomes; so it is with an error of the iterable itself. Parts are pulled one at a time and only while fewer
    than `max_at_once` are worked on and fewer than `max_ahead` wait to be fetched: any length is fine. While the part
    whose turn it is keeps ordered ones waiting, up to `max_reordered` may be finished after it. Parts that have to wait
    (`Later`) are up to `MAX_PUT_OFF` more. Tasks that share the outcomes get each of them once. `beside` runs
    as long as the block is open; `closing` is awaited when it is left, also by cancellation. `tally` counts the
    outcomes that are handed out; what it raises ends the fan-out as an error of `work` does: no outcome is lost.
    """

    def __init__(
        self,
        work: Callable[[Part], Awaitable[Iterable[Outcome[Item, Value]] | Later[Item, Value]]],
        parts: Iterable[Part] | AsyncIterable[Part],
        *,
        max_at_once: int,
        is_ordered: bool = False,
        max_per_second: float | None = None,
        max_ahead: int | None = None,
        max_reordered: int | None = None,
        clock: Clock | None = None,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
        closing: Callable[[], Coroutine[Any, Any, None]] | None = None,
        tally: Tally | None = None,
    ) -> None:
        _check_bounds(max_at_once, max_per_second, max_ahead)
        self._work = work
        self._parts = pulled(parts)
        self._max_at_once = max_at_once
        self._is_ordered = is_ordered
        self._spacing = 1.0 / max_per_second if max_per_second else 0.0
        self._max_ahead = 4 * max_at_once if max_ahead is None else max_ahead
        self._max_reordered = max(self._max_ahead, max_reordered or 0)
        self._clock = clock or SystemClock()
        self._beside = beside
        self._closing = closing
        self._tally = tally
        self._next_turn = float("-inf")
        self._begun = self._fetched = self._working = self._put_off = 0
        self._places = asyncio.Semaphore(max_at_once)
        self._waits: set[anyio.CancelScope] = set()
        self._done: dict[int, Iterable[Outcome[Item, Value]]] = {}
        self._ready: deque[Outcome[Item, Value]] = deque()
        self._error: Exception | None = None
        self._is_exhausted = False
        self._has_failed = False
        self._is_open = False
        self._group: anyio.abc.TaskGroup | None = None
        self._pulling = anyio.Lock()
        self._news = anyio.Event()
        self._room = anyio.Event()

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise MisuseError("a fan-out runs once; make another for the same items")
        if self._tally is not None:
            self._tally.begin()
        self._group = await anyio.create_task_group().__aenter__()
        self._is_open = True
        if self._beside is not None:
            self._group.start_soon(self._beside)
        self._add_worker()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        assert self._group is not None  # noqa: S101 - set on entry
        self._group.cancel_scope.cancel()
        # The body's own error is not passed in: the group would wrap it.
        try:
            await self._group.__aexit__(None, None, None)
        except BaseException as ended:
            await self._close(ended)
            raise
        await self._close(error)

    async def _close(self, ended: BaseException | None) -> None:
        """Do what is to be done at the end; a fault of it does not take the place of what the block `ended` with."""
        if self._closing is None:
            return
        try:
            await finished(self._closing(), within=CLOSING_TIME)
        except (GtsAsyncError, TimeoutError) as failure:
            if ended is None:
                raise
            ended.add_note(f"and it was not closed well: {str(failure) or f'not within {CLOSING_TIME:g} s'}")
            log.warning("a fan-out was not closed well: %r", failure)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[Item, Value]:
        if not self._is_open:
            raise MisuseError("iterate inside the block: async with … as outcomes: async for outcome in outcomes")
        while not self._ready:
            self._fetch()
            if self._ready:
                break
            if self._working == self._put_off == 0:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                if self._tally is not None:
                    self._tally.end()
                raise StopAsyncIteration
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()
        if self._tally is not None:
            self._count(self._tally)
        return self._ready.popleft()

    def _count(self, tally: Tally) -> None:
        try:
            tally.add()
        except Exception as error:
            self._tally = None
            self.end(error)

    @property
    def is_open(self) -> bool:
        """True within the block."""
        return self._is_open

    @property
    def is_ending(self) -> bool:
        """True if nothing more is to be begun: the block was left, or an error has ended the whole."""
        return not self._is_open or self._has_failed

    def _fetch(self) -> None:
        """Move finished parts' outcomes to where they are handed out, and make room for further parts."""
        for number in self._fetchable():
            self._ready.extend(self._done.pop(number))
            self._fetched += 1
        self._room.set()

    def _fetchable(self) -> list[int]:
        if not self._is_ordered:
            return list(self._done)
        if self._working == self._put_off == 0:
            # A part that is missing now has failed; the others keep their order.
            return sorted(self._done)
        return list(takewhile(self._done.__contains__, count(self._fetched)))

    def _add_worker(self) -> None:
        assert self._group is not None  # noqa: S101 - set on entry
        self._working += 1
        self._group.start_soon(self._keep_working)

    async def _keep_working(self) -> None:
        try:
            with self._ended_by_errors():
                while (pulled := await self._pull()) is not None:
                    number, part = pulled
                    if self._working < self._max_at_once:
                        self._add_worker()
                    async with self._places:
                        result = await self._work(part)
                    self._take(number, result)
        finally:
            self._working -= 1
            self._news.set()

    def _take(self, number: int, result: Iterable[Outcome[Item, Value]] | Later[Item, Value]) -> None:
        if isinstance(result, Later):
            assert self._group is not None  # noqa: S101 - set on entry
            self._put_off += 1
            self._group.start_soon(self._come_back, number, result)
        else:
            self._done[number] = result
            self._news.set()

    async def _come_back(self, number: int, later: Later[Item, Value]) -> None:
        """Go on with a part that was put off, as often as it asks for that."""
        result: Iterable[Outcome[Item, Value]] | Later[Item, Value] = later
        try:
            with self._ended_by_errors():
                while isinstance(result, Later):
                    if not await self._waited(result.seconds):
                        result = result.otherwise
                        break
                    async with self._places:
                        result = result.otherwise if self._has_failed else await result.work()
                self._done[number] = result
        finally:
            self._put_off -= 1
            self._news.set()
            self._room.set()

    async def _waited(self, seconds: float) -> bool:
        """Wait that long; False if the whole has ended by then."""
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                if not self._has_failed:
                    await self._clock.sleep(seconds)
            finally:
                self._waits.discard(scope)
        return not self._has_failed

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """Let what is raised end the whole instead."""
        try:
            yield
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            # Not this worker was cancelled but something that it waited for; the group would take it for its own end.
            ended = MisuseError("something that the work on an item waited for was cancelled")
            ended.__cause__ = error
            self.end(ended)
        except Exception as error:
            self.end(error)

    def end(self, error: Exception) -> None:
        """Begin nothing more; the consumer gets `error` after the outcomes of what is in flight. For `work`."""
        self._error = self._error or error
        self._is_exhausted = self._has_failed = True
        self._room.set()
        for scope in self._waits:
            scope.cancel()

    async def _pull(self) -> tuple[int, Part] | None:
        async with self._pulling:
            while self._is_far_ahead() and not self._is_exhausted:
                self._room = anyio.Event()
                await self._room.wait()
            if self._is_exhausted:
                return None
            try:
                part = await anext(self._parts)
            except StopAsyncIteration:
                self._is_exhausted = True
                return None
            await self.take_turn()
            self._begun += 1
            return self._begun - 1, part

    def _is_far_ahead(self) -> bool:
        is_held_up = self._is_ordered and self._fetched not in self._done
        most = self._max_reordered if is_held_up else self._max_ahead
        return self._begun - self._fetched - self._put_off >= most or self._put_off >= MAX_PUT_OFF

    async def take_turn(self) -> None:
        """Keep `max_per_second`: starts are evenly spaced. For `work` that has to start something again."""
        now = self._clock.now()
        turn = max(now, self._next_turn)
        self._next_turn = turn + self._spacing
        if turn > now:
            await self._clock.sleep(turn - now)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _check_bounds(max_at_once: object, max_per_second: object, max_ahead: object) -> None:
    for name, value in (("max_at_once", max_at_once), ("max_ahead", 1 if max_ahead is None else max_ahead)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongType(name, f"must be a whole number, not {type(value).__name__}")
        if value < 1:
            raise InvalidArgument(name, f"{value} is less than 1", "1 does one after the other")
    if max_per_second is None:
        return
    if isinstance(max_per_second, bool) or not isinstance(max_per_second, (int, float)):
        raise WrongType("max_per_second", f"must be a number or None, not {type(max_per_second).__name__}")
    if not 0 < max_per_second < float("inf"):
        raise InvalidArgument("max_per_second", f"{max_per_second} is out of range", "use more than 0, or None")
