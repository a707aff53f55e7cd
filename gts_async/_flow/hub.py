"""What all watches of a session share: the budget of looks per second, the bells that wake them, and what one has seen.

What a look is and what it means is for `watch`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

from gts_async._flow.clock import Clock


class LookBudget:
    """At most `per_second` looks, evenly spaced, first come first served; a quiet second is not saved up."""

    def __init__(self, per_second: float) -> None:
        self._spacing = 1.0 / per_second
        self._next = float("-inf")
        self._queue = asyncio.Lock()

    async def turn(self, clock: Clock) -> None:
        """Wait for this look's turn."""
        async with self._queue:
            now = clock.now()
            turn = max(now, self._next)
            if turn > now:
                await clock.sleep(turn - now)
            # Taken only now: whoever is cancelled while waiting must not leave a gap.
            self._next = turn + self._spacing


class Bell:
    """Wakes whoever waits for the next look at one piece of work, because there may be news."""

    def __init__(self) -> None:
        self.rings = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake everybody who waits now, and whoever is just looking."""
        self.rings += 1
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits now see whether that was for them."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def waits(self, seconds: float, clock: Clock, until: Callable[[], bool]) -> bool:
        """Wait until it is woken and `until` holds, at most that long; tells whether it does."""
        try:
            async with clock.timeout(seconds):
                while not until():
                    await self._woken()
        except TimeoutError:
            return False
        return True

    async def _woken(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)


class Eye:
    """Looks at one piece of work for all who watch it: what one has seen, the others need not look for.

    Looks are numbered as they begin, so that nobody is given one that began before he asked.
    """

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.begun = 0
        self.newest = 0
        self.heard = 0
        self._seen: Any = None
        self._looking = asyncio.Lock()

    async def see(self, look: Callable[[], Awaitable[Any]], *, after: int) -> Any:
        """Give what the newest look saw if it is newer than number `after`; else look, one at a time.

        If `look` raises, or is cancelled, nobody else is given that.
        """
        async with self._looking:
            if self.newest <= after:
                self.begun += 1
                # Counted before the look: a ring during it may be about something that it just missed.
                heard = self.bell.rings
                self._seen = await look()
                self.newest, self.heard = self.begun, heard
                self.bell.wake()
            return self._seen


class Hub:
    """One per session: its look budget, and a bell and an eye for each piece of work that somebody watches."""

    def __init__(self, max_looks_per_second: float) -> None:
        self.budget = LookBudget(max_looks_per_second)
        # A watch looks at once when it begins, so a ring that nobody watches for need not be remembered.
        self._bells: WeakValueDictionary[str, Bell] = WeakValueDictionary()
        self._eyes: WeakValueDictionary[tuple[str, str], Eye] = WeakValueDictionary()
        self._names: dict[str, str] = {}

    def bell(self, key: str) -> Bell:
        """Give the bell of the work that `key` names; it is the same one as long as anybody holds it."""
        return self._bells.setdefault(self._names.get(key, key), Bell())

    def eye(self, kind: str, key: str) -> Eye:
        """Give the eye for the work of that kind that `key` names; it is the same one as long as anybody holds it."""
        return self._eyes.setdefault((kind, key), Eye(self.bell(key)))

    def join(self, other: str, key: str) -> None:
        """Let `other` name the same bell as `key`, before anybody watches `key`."""
        self._names[key] = other

    def ring_all(self) -> None:
        """Wake every watch of the session, as when it is closed."""
        for bell in tuple(self._bells.values()):
            bell.ring()
