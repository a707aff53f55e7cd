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
        # Of those who wait, side by side: an object for each caller would be half of what a caller costs.
        self._items: deque[Item] = deque()
        self._answers: deque[asyncio.Future[Value]] = deque()
        self._gone = 0
        self._flying: dict[asyncio.Task[None], Sequence[asyncio.Future[Value]]] = {}
        self._timer: asyncio.Handle | None = None
        self._is_closed = False

    async def submit(self, item: Item) -> Value:
        """Give the value of `item`, or raise its error."""
        if self._is_closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Value] = loop.create_future()
        self._items.append(item)
        self._answers.append(answer)
        # With no place free, the next batch that lands takes whoever waits by then.
        if len(self._flying) < self._max_at_once:
            self._be_due(loop)
        try:
            return await answer
        except asyncio.CancelledError:
            self._leave()
            raise

    def _be_due(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._flying and len(self._items) >= self._max_batch:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._window, self._flush) if self._flying else loop.call_soon(self._flush)

    def _leave(self) -> None:
        """Take note that a caller was cancelled."""
        for task, answers in self._flying.items():
            if all(answer.done() for answer in answers):
                task.cancel()
        self._gone += 1
        # Else a server that does not answer would let those who have given up pile up.
        if self._gone > MAX_GONE and 2 * self._gone > len(self._items):
            here = [
                (item, answer) for item, answer in zip(self._items, self._answers, strict=True) if not answer.done()
            ]
            self._items, self._answers = deque(item for item, _ in here), deque(answer for _, answer in here)
            self._gone = 0

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._items and len(self._flying) < self._max_at_once:
            items, answers = self._next_batch()
            if items:
                task = asyncio.get_running_loop().create_task(self._fly(items, answers))
                self._flying[task] = answers
                task.add_done_callback(self._landed)

    def _next_batch(self) -> tuple[list[Item], list[asyncio.Future[Value]]]:
        items: list[Item] = []
        answers: list[asyncio.Future[Value]] = []
        while self._items and len(items) < self._max_batch:
            item, answer = self._items.popleft(), self._answers.popleft()
            if not answer.done():
                items.append(item)
                answers.append(answer)
        return items, answers

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.pop(task)
        if self._items:
            self._flush()

    async def _fly(self, items: Sequence[Item], answers: Sequence[asyncio.Future[Value]]) -> None:
        try:
            values = await self._send(items)
            if len(values) != len(items):
                raise MisuseError(f"{len(values)} values came for {len(items)} items")
        except asyncio.CancelledError:
            _settle(answers, [_closed()] * len(answers))
            raise
        except Exception as error:
            values = [error] * len(answers)
        _settle(answers, values)

    async def aclose(self) -> None:
        """Cancel what is in flight; whoever waits is told by MisuseError."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _settle(self._answers, [_closed()] * len(self._answers))
        self._items.clear()
        self._answers.clear()
        flying = dict(self._flying)
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        # A task that is cancelled before its first turn has told nobody.
        for answers in flying.values():
            _settle(answers, [_closed()] * len(answers))


def _settle(answers: Iterable[asyncio.Future[Value]], values: Sequence[Value | Exception]) -> None:
    for answer, value in zip(answers, values, strict=True):
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
