"""Timing: what the network needs of a clock, and waits that can be ended from outside.

The clocks are in ``_flow/clock.py`` and ``testing/clock.py``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Protocol


class Timing(Protocol):
    """Monotonic seconds, and the time of day for what a server dates."""

    def now(self) -> float:
        """Give monotonic seconds."""
        ...

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block: TimeoutError when it lasts longer."""
        ...

    def wall(self) -> datetime:
        """Give the aware time of day."""
        ...


class Waits:
    """``async with waits.one():`` around whatever is waited for in vain once `end` was called."""

    def __init__(self) -> None:
        self._bounds: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Let the block be left early, without an error, by `end`."""
        bound = asyncio.timeout(None)
        try:
            async with bound:
                self._bounds.add(bound)
                yield
        except TimeoutError:
            if not bound.expired():
                raise
        finally:
            self._bounds.discard(bound)

    def end(self) -> None:
        """End all of them."""
        bounds, self._bounds = self._bounds, set()
        for bound in bounds:
            bound.reschedule(asyncio.get_running_loop().time())
