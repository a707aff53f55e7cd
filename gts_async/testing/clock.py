"""FakeClock: time that jumps to the next thing due as soon as everybody waits, so that hours pass in milliseconds."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio.to_thread

IDLE_TURNS = 64
"""Turns of the loop in which nobody else was ready, before time jumps."""

BUSY_TURNS = 4096
"""Turns of the loop without a question to the clock, before time jumps although somebody spins."""

THREAD_PAUSE = 0.001
"""Real seconds until the clock looks again whether a thread still works."""


class FakeClock:
    """A Clock for ``AsyncSession(clock=…)``: `sleep` and `timeout` wait in its own time.

    With `autojump`, it jumps to the next sleeper once nothing is ready to run and no thread of anyio's works; without,
    time stands still until `advance`. What waits for sockets seems to do nothing: with real servers use the real clock.
    """

    def __init__(self, *, autojump: bool = True, start: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        self._now = 0.0
        self._start = start
        self._autojump = autojump
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._turns = self._idle = 0
        self._turning: asyncio.Handle | None = None
        self._threads: anyio.CapacityLimiter | None = None

    def now(self) -> float:
        """Give the seconds since this clock began."""
        return self._now

    def wall(self) -> datetime:
        """Give the start plus the seconds that have passed."""
        return self._start + timedelta(seconds=self._now)

    async def sleep(self, seconds: float) -> None:
        """Wait until that many seconds have passed here."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self._alarm(seconds)

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        """Bound a block in this clock's time: TimeoutError when it lasts longer."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as bound:
            if seconds is None:
                yield
                return
            is_over = False

            def ring(alarm: asyncio.Future[None]) -> None:
                if not is_over and not alarm.cancelled():
                    bound.reschedule(loop.time())

            alarm = self._alarm(seconds)
            alarm.add_done_callback(ring)
            try:
                yield
            finally:
                is_over = True
                alarm.cancel()

    def call_later(self, seconds: float, action: Callable[[], object]) -> asyncio.Future[None]:
        """Call `action` when that many seconds have passed here; `cancel` the future to call it off."""
        alarm = self._alarm(seconds)
        alarm.add_done_callback(lambda rung: None if rung.cancelled() else action())
        return alarm

    def advance(self, seconds: float) -> None:
        """Let that much time pass and wake whoever is due."""
        self._jump_to(self._now + seconds)

    def _alarm(self, seconds: float) -> asyncio.Future[None]:
        alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (self._now + max(0.0, seconds), next(self._numbers), alarm))
        self._turns = self._idle = 0
        if asyncio.current_task() is not None:
            # In a callback of the loop's, anyio cannot tell which one it runs on.
            self._threads = anyio.to_thread.current_default_thread_limiter()
        if self._autojump and self._turning is None:
            self._turning = asyncio.get_running_loop().call_soon(self._turn)
        return alarm

    def _turn(self) -> None:
        """Count the loop's turns; jump when there have been enough."""
        while self._due and self._due[0][2].done():
            heapq.heappop(self._due)
        if not self._due:
            self._turning = None
            return
        loop = asyncio.get_running_loop()
        if self._threads is not None and self._threads.borrowed_tokens:
            self._turns = self._idle = 0
            self._turning = loop.call_later(THREAD_PAUSE, self._turn)
            return
        self._turns += 1
        # asyncio's own loop tells who else is ready; of others, like uvloop's, only the turns can be counted.
        self._idle = 0 if getattr(loop, "_ready", ()) else self._idle + 1
        if self._idle >= IDLE_TURNS or self._turns >= BUSY_TURNS:
            self._jump_to(self._due[0][0])
        self._turning = loop.call_soon(self._turn)

    def _jump_to(self, when: float) -> None:
        self._turns = self._idle = 0
        while self._due and self._due[0][0] <= when:
            due, _, alarm = heapq.heappop(self._due)
            if not alarm.done():
                self._now = max(self._now, due)
                alarm.set_result(None)
        self._now = max(self._now, when)
