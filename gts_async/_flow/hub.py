"""What all watches of a session share: the budget of looks per second, and the bells that wake them early."""

import asyncio
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
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def rung_within(self, seconds: float, clock: Clock, *, heard: int) -> bool:
        """Wait until it has rung more than `heard` times, at most that long; tells whether it did."""
        if self.rings > heard:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with clock.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True


class Hub:
    """One per session: its look budget, and one bell per piece of work that somebody watches."""

    def __init__(self, max_looks_per_second: float) -> None:
        self.budget = LookBudget(max_looks_per_second)
        # A watch looks at once when it begins, so a ring that nobody watches for need not be remembered.
        self._bells: WeakValueDictionary[str, Bell] = WeakValueDictionary()
        self._names: dict[str, str] = {}

    def bell(self, key: str) -> Bell:
        """Give the bell of the work that `key` names; it is the same one as long as anybody holds it."""
        return self._bells.setdefault(self._names.get(key, key), Bell())

    def join(self, other: str, key: str) -> None:
        """Let `other` name the same bell as `key`, before anybody watches `key`."""
        self._names[key] = other

    def ring_all(self) -> None:
        """Wake every watch of the session, as when it is closed."""
        for bell in tuple(self._bells.values()):
            bell.ring()
