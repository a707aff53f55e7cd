"""SteadyLoop: a loop whose time stands still whenever the machine does not let it run; and a clock that keeps it."""

import asyncio
import selectors
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from gts_async import SystemClock
from gts_async._flow.clock import Alarm

SLICE = 0.005
"""Seconds that the loop waits for sockets at once."""

MOST = 2 * SLICE
"""Seconds that pass at most between two looks at the time, however long that really takes."""


class SteadyLoop(asyncio.SelectorEventLoop):
    """A loop for tests in which bounds of some ten milliseconds meet servers of the same process.

    Idle, it keeps the machine's time. What the process is not given (others are busy, the machine is suspended) or
    works without a pause beyond `MOST` passes for nobody: no bound ends because of it.
    """

    def __init__(self) -> None:
        self._looked_at = self._passed = time.monotonic()
        super().__init__(_Slices())

    def time(self) -> float:
        """Give monotonic seconds, as every loop does."""
        now = time.monotonic()
        self._passed += min(now - self._looked_at, MOST)
        self._looked_at = now
        return self._passed


class LoopClock(SystemClock):
    """A clock for sessions that keeps the running loop's time, `rate` times as fast."""

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate

    def now(self) -> float:
        """Give the loop's seconds."""
        return asyncio.get_running_loop().time() * self.rate

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await super().sleep(seconds / self.rate)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block."""
        return super().timeout(None if seconds is None else seconds / self.rate)

    def call_later(self, seconds: float, action: Callable[[], object]) -> Alarm:
        """Call `action` after that long."""
        return super().call_later(seconds / self.rate, action)


class _Slices(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(SLICE if timeout is None else min(timeout, SLICE))
