"""Hands stored callbacks, after their answer, to a handler of the user's: again when it fails, but not for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gts_async._errors import FileError, WrongType
from gts_async.callbacks.limits import CallbackLimits, Received
from gts_async.callbacks.store import CallbackStore, Row, StoredCallback

Handler = Callable[[StoredCallback], Awaitable[None]]

MARGIN = 10.0
"""Seconds beyond the handler's own time before another process takes a callback for abandoned."""

PAUSE = 5.0
"""Seconds until a store that cannot be read is tried again."""

log = logging.getLogger("gts_async")


class Handling:
    """The handlers under way, and what wakes the next ones.

    A callback is handed over at least once: again after an error, after `handler_time`, or when its process died.
    After `max_tries` it is given up, and that is logged.
    """

    def __init__(
        self,
        handler: Handler,
        store: CallbackStore,
        *,
        url_of: Callable[[bytes], str],
        limits: CallbackLimits,
        received: Received,
        now: Callable[[], float],
    ) -> None:
        if not callable(handler):
            raise WrongType("on_callback", f"must be an async function, not {type(handler).__name__}")
        self._handler = handler
        self._store = store
        self._url_of = url_of
        self._limits = limits
        self._received = received
        self._now = now
        self._news = asyncio.Event()
        self._going: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """See what is to be handled; returns at once."""
        self._news.set()
        if self._going is None or self._going.done():
            self._news = asyncio.Event()
            self._going = asyncio.create_task(self._go(), name="callback handlers")

    async def _go(self) -> None:
        """Start handlers until there is nothing to handle, now or later."""
        while True:
            self._news.clear()
            try:
                due_at = await self._start_due()
            except FileError:
                # What is wrong with the store is told where callbacks come in.
                due_at = self._now() + PAUSE
            if due_at is None and not self._running and not self._news.is_set():
                return
            pause = None if due_at is None or self._is_full else max(0.0, due_at - self._now())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause)

    @property
    def _is_full(self) -> bool:
        return len(self._running) >= self._limits.max_handlers

    async def _start_due(self) -> float | None:
        """Start what is due, as many as may run at once; gives when the next one is due."""
        room = self._limits.max_handlers - len(self._running)
        now = self._now()
        for row in await self._store.take(room, now, now + self._limits.handler_time + MARGIN) if room else ():
            task = asyncio.create_task(self._handle(row), name="callback handler")
            self._running.add(task)
            task.add_done_callback(self._ended)
        return await self._store.next_due()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._news.set()

    async def _handle(self, row: Row) -> None:
        due_at = None
        try:
            async with asyncio.timeout(self._limits.handler_time):
                await self._handler(row.stored(self._url_of(row.url_id)))
        except asyncio.CancelledError:
            # Closed over it: whoever comes next need not wait until it is surely abandoned.
            with suppress(FileError):
                await self._store.settle(row.number, self._now())
            raise
        except Exception as error:
            # The user's own code: whatever it raises concerns this one callback.
            if row.tries < self._limits.max_tries:
                due_at = self._now() + self._limits.first_delay * 2 ** (row.tries - 1)
            else:
                self._received.given_up += 1
                text = "the handler of callbacks failed %s times for one of job %s (%s), which is given up"
                log.error(text, row.tries, row.job_id or "unknown", row.status, exc_info=error)
        else:
            self._received.handled += 1
        # Not written down: then it is handed over once more, as promised.
        with suppress(FileError):
            await self._store.settle(row.number, due_at)

    async def aclose(self) -> None:
        """Let handlers under way end, for `grace` seconds; the rest is handled when there is a receiver again."""
        if self._going is not None and not self._going.done():
            self._going.cancel()
            await asyncio.wait([self._going])
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._limits.grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
