"""Throttle: how many tries one service gets at once; and after "too many requests" (429), one pause for all of them.

How long the refused call itself waits, and whether it is sent again, is for `retry`; connections are in `slots`.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator

import attrs

from gts_async._net.timing import Timing

FORGOTTEN_AFTER = 60.0
"""Seconds without another "too many requests" until nothing is held back any more."""


@attrs.define(eq=False)
class _Waiting:
    number: int
    is_in: bool = False
    woken: asyncio.Event = attrs.field(factory=asyncio.Event)


@attrs.define(eq=False)
class Throttle:
    """How many tries one service gets at once: `widest`, as many as there are connections, until it says "too many".

    Then nobody is sent until the pause is over, and after it half as many as were on their way (`width`). Every answer
    widens it by ``1 / width``, so by one for each round of answers, up to `widest`. Tries that were on their way when
    it was halved do not halve it again. First come, first served. All wait here and not for a connection, so that a
    pause holds every try that has not been sent.
    """

    clock: Timing
    widest: int
    width: float | None = None
    active: int = 0
    paused_until: float = float("-inf")
    _halved_at: float = float("-inf")
    _queue: deque[_Waiting] = attrs.field(factory=deque)
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def pause_left(self) -> float:
        """Give the seconds until anything is sent again; 0 if nothing is held back."""
        return max(0.0, self.paused_until - self.clock.now())

    def enter_at_once(self) -> bool:
        """Enter without waiting, if nobody waits and there is room; tells whether it did."""
        is_in = not self._queue and self._has_room()
        self.active += is_in
        return is_in

    async def enter(self) -> None:
        """Wait until a try may be sent; whoever got through calls `leave` once it is over."""
        if self.enter_at_once():
            return
        waiting = _Waiting(next(self._numbers))
        self._queue.append(waiting)
        try:
            while not waiting.is_in:
                await self._step(waiting)
        except BaseException:
            if waiting.is_in:
                self.leave()
            else:
                self._queue.remove(waiting)
                self._let_in()
            raise

    async def _step(self, waiting: _Waiting) -> None:
        if self._queue[0] is waiting:
            # The first in the queue sees the pause out, for all; it may have ended just now.
            pause = self.pause_left()
            if pause:
                await self.clock.sleep(pause)
            self._let_in()
            if pause or waiting.is_in:
                return
        await waiting.woken.wait()
        waiting.woken.clear()
        if waiting.is_in and self.pause_left():
            # The pause began after this one was let in.
            waiting.is_in = False
            self.active -= 1
            later = (place for place, other in enumerate(self._queue) if other.number > waiting.number)
            self._queue.insert(next(later, len(self._queue)), waiting)

    def leave(self) -> None:
        """Make room for the next one."""
        self.active -= 1
        if self._queue:
            # Not at once: what has just left may be about to tell of a refusal.
            asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        """Let in as many as there is room for, at once: one for each turn of a busy loop would leave it empty."""
        while self._queue and self._has_room():
            waiting = self._queue.popleft()
            waiting.is_in = True
            self.active += 1
            waiting.woken.set()
        if self._queue and (self.pause_left() or not self.active):
            # Nobody else would wake it: it sees the pause out, or that it has just ended.
            self._queue[0].woken.set()

    def answered(self, sent_at: float) -> None:
        """Note an answer other than "too many requests"; one to a try of before the halving says nothing about it."""
        if self.width is not None and sent_at >= self._halved_at:
            self.width += 1.0 / self.width
            if self.width >= self.widest or self.clock.now() - self._halved_at > FORGOTTEN_AFTER:
                self.width = None
            self._let_in()

    def refused(self, sent_at: float, pause: float) -> None:
        """Note "too many requests" for a try that was sent at `sent_at` and has left, and pause for `pause` seconds."""
        now = self.clock.now()
        self.paused_until = max(self.paused_until, now + pause)
        self._let_in()
        if sent_at >= self._halved_at:
            self.width = max(1.0, min(self.active + 1, self.widest) // 2)
            self._halved_at = now

    def _has_room(self) -> bool:
        return self.active < int(self.width or self.widest) and self.pause_left() == 0
