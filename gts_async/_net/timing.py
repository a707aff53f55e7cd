"""Timing: what the network needs of a clock; the clocks are in ``_flow/clock.py`` and ``testing/clock.py``."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
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
