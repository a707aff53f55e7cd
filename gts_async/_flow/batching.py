"""Batcher: calls made at about the same time travel together, each caller getting its own answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from gts_async._errors import MisuseError

Item = TypeVar("Item")
Value = TypeVar("Value")

WINDOW = 0.002
"""Seconds that a call waits for company while other batches are in flight."""


class Batcher(Generic[Item, Value]):
    """Collects items into batches of at most `max_batch` and gives each caller its item's value.

    When nothing is in flight, whatever was asked in this turn of the loop goes at once; else it waits up to `WINDOW`
    for company. At most `max_at_once` batches are in flight. `send` gives one value or exception per item, in order; if
    it raises, every caller of that batch gets the error. A cancelled caller leaves its batch without harming it. After
    `aclose`, whoever waits and whoever comes gets MisuseError.
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
        self._waiting: list[tuple[Item, asyncio.Future[Value]]] = []
        self._flying: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._is_closed = False

    async def submit(self, item: Item) -> Value:
        """Give the value of `item`, or raise its error."""
        if self._is_closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Value] = loop.create_future()
        self._waiting.append((item, answer))
        if self._timer is None:
            if self._flying:
                self._timer = loop.call_later(self._window, self._flush)
            else:
                self._timer = loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting = [(item, answer) for item, answer in self._waiting if not answer.done()]
        while self._waiting and len(self._flying) < self._max_at_once:
            batch = self._waiting[: self._max_batch]
            del self._waiting[: self._max_batch]
            task = asyncio.get_running_loop().create_task(self._fly(batch))
            self._flying.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        if self._waiting:
            self._flush()

    async def _fly(self, batch: list[tuple[Item, asyncio.Future[Value]]]) -> None:
        answers = [answer for _, answer in batch]
        try:
            values = await self._send([item for item, _ in batch])
            if len(values) != len(batch):
                raise MisuseError(f"{len(values)} values came for {len(batch)} items")
        except asyncio.CancelledError:
            _settle(answers, [_closed()] * len(batch))
            raise
        except Exception as error:
            values = [error] * len(batch)
        _settle(answers, values)

    async def aclose(self) -> None:
        """Cancel what is in flight; whoever waits is told by MisuseError."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _settle([answer for _, answer in self._waiting], [_closed()] * len(self._waiting))
        self._waiting.clear()
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)


def _settle(answers: Sequence[asyncio.Future[Value]], values: Sequence[Value | Exception]) -> None:
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
