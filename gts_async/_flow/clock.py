"""Clock: where the session gets its time from. The one that tests jump by hand is in ``testing/clock.py``."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol


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


class SystemClock:
    """The machine's own time. A jump of the wall clock changes no wait."""

    def now(self) -> float:
        """Give `time.monotonic()`."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Give the time of day, UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block by `asyncio.timeout`."""
        return asyncio.timeout(seconds)
