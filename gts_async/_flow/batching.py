"""Batcher: calls made at about the same time travel together, each caller getting its own answer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from gts_async._errors import MisuseError

Item = TypeVar("Item")
Value = TypeVar("Value")

WINDOW = 0.002
"""Seconds that a call waits for company while other batches are in flight."""

MAX_GONE = 64
"""Callers that may have gone before those who still wait are counted anew."""


class _Caller(Generic[Item, Value]):
    """One that waits for the value of its item: `flight` is the batch that it travels with, once it does."""

    __slots__ = ("answer", "flight", "item")

    def __init__(self, item: Item, answer: asyncio.Future[Value]) -> None:
        self.item = item
        self.answer = answer
        self.flight: _Flight | None = None


class _Flight:
    """A batch on its way, and how many still wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.task: asyncio.Task[None] | None = None


class Batcher(Generic[Item, Value]):
    """Collects items into batches of at most `max_batch` and gives each caller its item's value.

    When nothing is in flight, whatever was asked in this turn of the loop goes at once; else it waits up to `WINDOW`
    for company. At most `max_at_once` batches are in flight. `send` gives one value or exception per item, in order; if
    it raises, every caller of that batch gets the error. A cancelled caller leaves its batch without harming it; a
    batch that all have left is cancelled. After `aclose`, whoever waits and whoever comes gets MisuseError.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Value | Exception]]],
        *,
        max_batch: int,
        max_at_once: int = 1,
        window: float = WINDOW,
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_at_once = max_at_once
        self._window = window
        self._waiting: deque[_Caller[Item, Value]] = deque()
        self._gone = 0
        self._flying: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._is_closed = False

    async def submit(self, item: Item) -> Value:
        """Give the value of `item`, or raise its error."""
        if self._is_closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        caller: _Caller[Item, Value] = _Caller(item, loop.create_future())
        self._waiting.append(caller)
        # With no place free, the next batch that lands takes whoever waits by then.
        if len(self._flying) < self._max_at_once:
            self._be_due(loop)
        try:
            return await caller.answer
        except asyncio.CancelledError:
            self._leave(caller)
            raise

    def _be_due(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._flying and len(self._waiting) >= self._max_batch:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._window, self._flush) if self._flying else loop.call_soon(self._flush)

    def _leave(self, caller: _Caller[Item, Value]) -> None:
        flight = caller.flight
        if flight is not None:
            flight.waiting -= 1
            if flight.waiting == 0 and flight.task is not None:
                flight.task.cancel()
            return
        self._gone += 1
        # Else a server that does not answer would let those who have given up pile up.
        if self._gone > MAX_GONE and 2 * self._gone > len(self._waiting):
            self._waiting = deque(caller for caller in self._waiting if not caller.answer.done())
            self._gone = 0

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._flying) < self._max_at_once:
            if batch := self._next_batch():
                flight = _Flight(len(batch))
                for caller in batch:
                    caller.flight = flight
                flight.task = asyncio.get_running_loop().create_task(self._fly(batch))
                self._flying.add(flight.task)
                flight.task.add_done_callback(self._landed)

    def _next_batch(self) -> list[_Caller[Item, Value]]:
        batch: list[_Caller[Item, Value]] = []
        while self._waiting and len(batch) < self._max_batch:
            caller = self._waiting.popleft()
            if caller.answer.done():
                self._gone -= 1
            else:
                batch.append(caller)
        return batch

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        if self._waiting:
            self._flush()

    async def _fly(self, batch: list[_Caller[Item, Value]]) -> None:
        try:
            values = await self._send([caller.item for caller in batch])
            if len(values) != len(batch):
                raise MisuseError(f"{len(values)} values came for {len(batch)} items")
        except asyncio.CancelledError:
            _settle(batch, [_closed()] * len(batch))
            raise
        except Exception as error:
            values = [error] * len(batch)
        _settle(batch, values)

    async def aclose(self) -> None:
        """Cancel what is in flight; whoever waits is told by MisuseError."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _settle(self._waiting, [_closed()] * len(self._waiting))
        self._waiting.clear()
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)


def _settle(callers: Iterable[_Caller[Item, Value]], values: Sequence[Value | Exception]) -> None:
    for caller, value in zip(callers, values, strict=True):
        answer = caller.answer
        if answer.done():
            continue
        if isinstance(value, Exception):
            answer.set_exception(value)
            # Looked at: a caller that is cancelled right now never will, and asyncio would call that forgotten.
            answer.exception()
        else:
            answer.set_result(value)


def _closed() -> MisuseError:
    return MisuseError("closed before an answer came")
