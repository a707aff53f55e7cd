"""Clock: where the session gets its time from. The one that tests jump by hand is in ``testing/clock.py``."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

BLOCKED = 0.1
"""Seconds by which a bound rings late when something has blocked the loop, not merely kept it busy."""

REPRIEVE = 0.05
"""Seconds that a block gets then, to take what has arrived meanwhile."""


class Alarm(Protocol):
    """A call that is due later."""

    def cancel(self) -> object:
        """Call it off."""
        ...


class Clock(Protocol):
    """Monotonic seconds for everything that waits, and the time of day for what is shown."""

    def now(self) -> float:
        """Give monotonic seconds; only differences mean anything."""
        ...

    def wall(self) -> datetime:
        """Give the aware time of day, UTC."""
        ...

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait that long."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block: it raises TimeoutError when it lasts longer; None is no bound."""
        ...

    def call_later(self, seconds: float, action: Callable[[], object]) -> Alarm:
        """Call `action` on the running loop after that long."""
        ...


class SystemClock:
    """The machine's own time. A jump of the wall clock changes no wait."""

    now = staticmethod(time.monotonic)

    def wall(self) -> datetime:
        """Give the time of day, UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block, as `asyncio.timeout` does.

        After something has blocked the loop beyond the bound, the block gets `REPRIEVE` more: what it waits for may
        have arrived long ago, and the loop has had no time to hand it over.
        """
        return asyncio.timeout(None) if seconds is None else _Bound(seconds)

    def call_later(self, seconds: float, action: Callable[[], object]) -> Alarm:
        """Call `action` after that long, as the loop does."""
        return asyncio.get_running_loop().call_later(seconds, action)


class _Bound:
    def __init__(self, seconds: float) -> None:
        self._seconds = max(0.0, seconds)
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._seconds
        self._alarm = self._loop.call_at(self._due, self._ring)
        return self

    def _ring(self) -> None:
        if self._loop.time() - self._due > BLOCKED:
            self._alarm = self._loop.call_later(REPRIEVE, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._timeout.reschedule(self._loop.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        await self._timeout.__aexit__(kind, error, traceback)
