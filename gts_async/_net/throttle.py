"""Throttle: after "too many requests" (429), one pause for all calls to a service, and fewer of them at once.

How long the refused call itself waits, and whether it is sent again, is for `retry`.
"""

import asyncio

import attrs

from gts_async._net.timing import Timing

FORGOTTEN_AFTER = 60.0
"""Seconds without another "too many requests" until nothing is held back any more."""


@attrs.define(eq=False)
class Throttle:
    """How many tries one service gets at once: as many as there are connections, until it says that it is too much.

    Then nobody is sent until the pause is over, and after it half as many as were on their way (`width`). Every answer
    widens it by ``1 / width``, so by one for each round of answers, up to `widest`. Tries that were on their way when
    it was halved do not halve it again. First come, first served.
    """

    clock: Timing
    widest: int
    width: float | None = None
    active: int = 0
    paused_until: float = float("-inf")
    _halved_at: float = float("-inf")
    _waiting: int = 0
    _queue: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    _left: asyncio.Event = attrs.field(factory=asyncio.Event)

    def pause_left(self) -> float:
        """Give the seconds until anything is sent again; 0 if nothing is held back."""
        return max(0.0, self.paused_until - self.clock.now())

    async def enter(self) -> None:
        """Wait until a try may be sent; whoever got through calls `leave` once it is over."""
        if self._waiting or not self._has_room():
            self._waiting += 1
            try:
                async with self._queue:
                    await self._room()
            finally:
                self._waiting -= 1
        self.active += 1

    def leave(self) -> None:
        """Make room for the next one."""
        self.active -= 1
        self._left.set()

    def answered(self, sent_at: float) -> None:
        """Note an answer other than "too many requests"; one to a try of before the halving says nothing about it."""
        if self.width is not None and sent_at >= self._halved_at:
            self.width += 1.0 / self.width
            if self.width >= self.widest or self.clock.now() - self._halved_at > FORGOTTEN_AFTER:
                self.width = None
            self._left.set()

    def refused(self, sent_at: float, pause: float) -> None:
        """Note "too many requests" for a try that was sent at `sent_at` and has left, and pause for `pause` seconds."""
        now = self.clock.now()
        self.paused_until = max(self.paused_until, now + pause)
        if sent_at >= self._halved_at:
            self.width = max(1.0, min(self.active + 1, self.widest) // 2)
            self._halved_at = now

    def _has_room(self) -> bool:
        return (self.width is None or self.active < int(self.width)) and self.pause_left() == 0

    async def _room(self) -> None:
        while not self._has_room():
            pause = self.pause_left()
            if pause:
                await self.clock.sleep(pause)
            else:
                self._left.clear()
                await self._left.wait()
