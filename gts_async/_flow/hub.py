"""Hub: says when each thing that somebody watches is looked at, for all watches of a session: one timer, one budget.

It makes no look itself: whoever waits is told that it is its turn and looks for all (``looking.py``). So nothing runs
for a watch that nobody steps, and what is cut is cut together with its caller.
"""

import asyncio
from collections import deque
from typing import Any

from gts_async._errors import MisuseError, Unauthorized
from gts_async._flow.budget import LookBudget
from gts_async._flow.clock import Alarm, Clock
from gts_async._flow.eye import Eye, Follower
from gts_async._flow.lane import Lane
from gts_async._flow.wheel import GRAIN, NEVER, Wheel

ROUND = 64
"""Looks in a row for one service; where the budget is short, they alternate one by one."""

CROWD = 100
"""Things that are watched from which on a moment is longer."""

MOMENT, LONGEST_MOMENT = 0.1, 0.5
"""Seconds by which a look is late then, at most: a fifth of the shortest interval between two; longer with more than
10,000 things, up to the second one. So many hardly ever have looks at such intervals.
"""

HELD = 0.5
"""Seconds after which it is seen again whether a service with too many looks under way has room for another."""

MAX_RUNG = 10_000
"""Rings that are remembered although nobody follows the work at that moment."""


class Hub:
    """One per session."""

    def __init__(self, clock: Clock, max_looks_per_second: float) -> None:
        self.clock = clock
        self.now = clock.now
        self.lanes: list[Lane] = []
        self._budget = LookBudget(max_looks_per_second)
        self.number = 0
        """The number of the newest look that has begun: looks are told apart by which began first."""
        self._names: dict[str, str] = {}
        self._rung: dict[str, float] = {}
        self._alarm: Alarm | None = None
        self.wakes_at = NEVER
        """When what is due then will be seen to be, at the latest."""
        self._woke_at = float("-inf")
        self._turn_of = 0
        self._singles = _Singles()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    # Following

    def follow(self, lane: Lane, follower: Follower) -> Eye:
        """Tell `follower` of every look at its course's work from now on, until `leave`.

        Raises MisuseError if the session is closed, or others follow in another event loop.
        """
        if self._is_closed:
            raise closed()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise MisuseError("the session belongs to another event loop; open one per loop")
            self._loop = loop
        eye = lane.eye(follower.course.work_id)
        eye.add(follower)
        now = self.now()
        rung_at = self._rung.pop(eye.work_id, None) if self._rung else None
        if rung_at is not None and rung_at >= follower.course.seen_at:
            eye.is_rung = True
            eye.own_looks = max(1, eye.own_looks)
        if not eye.is_looking and not eye.is_ready:
            self._put(eye, 0.0 if eye.is_rung else follower.wish(now), now)
        return eye

    def leave(self, eye: Eye, follower: Follower) -> None:
        """Tell `follower` nothing more."""
        eye.remove(follower)
        if not eye.followers and not eye.is_looking:
            self._drop(eye)

    def again(self, eye: Eye, *, is_asked: bool = True) -> None:
        """Let a look be made soon that was cut, or that nobody made."""
        if eye.followers:
            eye.bucket = None
            eye.lane.push(eye, is_asked=is_asked)
        elif not eye.is_looking:
            self._drop(eye)
        # Even if nobody follows any more: others may have waited for the place of this look.
        self.dispatch_soon()

    def take_back(self, eye: Eye) -> None:
        """Let another make a look that was not made."""
        is_asked = eye.is_asked
        eye.lane.release(eye)
        self._budget.give_back()
        self.again(eye, is_asked=is_asked)

    def _drop(self, eye: Eye) -> None:
        if eye.lane.eyes.get(eye.work_id) is not eye:
            return
        eye.rest()
        eye.lane.drop(eye)
        if eye.is_rung:
            self._remember(eye.work_id)
        self._rest()

    def _rest(self) -> None:
        """Leave no timer when nobody waits for anything."""
        if self._alarm is not None and not self._singles and not any(lane.eyes for lane in self.lanes):
            self._alarm.cancel()
            self._alarm, self.wakes_at = None, NEVER
            for lane in self.lanes:
                lane.wheel = Wheel()

    # Rings

    def ring(self, key: str) -> None:
        """Have the work that `key` names looked at at once: there may be news."""
        key = _plain(key)
        work_id = self._names.get(key, key)
        eyes = [eye for lane in self.lanes if (eye := lane.eyes.get(work_id)) is not None]
        for eye in eyes:
            eye.is_rung = True
            eye.own_looks = max(1, eye.own_looks)
            if not eye.is_looking and not (eye.is_ready and eye.is_asked):
                # If it was scheduled and waits, it waits no longer behind all that is.
                eye.rest()
                eye.lane.push(eye, is_asked=True)
        if eyes:
            self.dispatch()
        else:
            # Somebody may be busy with the last change, and will ask for the next.
            self._remember(work_id)

    def _remember(self, work_id: str) -> None:
        self._rung.pop(work_id, None)
        self._rung[work_id] = self.now()
        if len(self._rung) > MAX_RUNG:
            del self._rung[next(iter(self._rung))]

    def join(self, other: str, key: str) -> None:
        """Let `other`, as a callback URL, ring what `key` names."""
        self._names[_plain(other)] = key

    def close(self) -> None:
        """End every wait of the session with MisuseError."""
        self._is_closed = True
        for lane in self.lanes:
            for eye in tuple(lane.eyes.values()):
                for follower in eye.followers:
                    follower.end(closed())
        while self._singles.hand_out():
            # They find out by themselves.
            pass
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # When

    def show(self, eye: Eye, sighting: Any, number: int, now: float) -> None:
        """Show what a look saw to all who follow, and put off the next one."""
        try:
            eye.show(sighting, number, now)
            self.schedule(eye, now)
            if isinstance(sighting, Unauthorized):
                self._show_others(eye, sighting, number, now)
        except BaseException:
            # Some fault of ours, which ends the wait of whoever looked; the others must not wait for ever.
            self.again(eye)
            raise

    def _show_others(self, eye: Eye, refusal: Unauthorized, number: int, now: float) -> None:
        """Show a refused token to all whom it concerns: each look of theirs would meet the same."""
        for other in tuple(eye.lane.eyes.values()):
            if other is not eye and not other.is_looking:
                other.rest()
                other.show(refusal, number, now)
                self.schedule(other, now)

    def schedule(self, eye: Eye, now: float) -> None:
        """Put the eye's next look where its most eager follower wants it, after one was made."""
        if not eye.followers:
            if not eye.is_looking:
                self._drop(eye)
        elif not eye.is_looking and not eye.is_ready:
            eye.bucket = None
            self._put(eye, 0.0 if eye.is_rung else eye.wish(now), now)

    def _put(self, eye: Eye, wait: float, now: float) -> None:
        """Make the look due after `wait` seconds, unless it is sooner anyway."""
        if wait <= 0:
            eye.bucket = None
            eye.lane.count(eye, 0.0)
            eye.lane.push(eye, is_asked=True)
            self.dispatch()
        elif eye.bucket is None or now + wait < eye.bucket.due:
            eye.lane.count(eye, wait)
            due = now + wait
            eye.lane.wheel.put(eye, due)
            if due < self.wakes_at:
                self.wake_by(due, now)

    def wake_by(self, due: float, now: float) -> None:
        """Have what is due then wait for its turn in time, but not more often than every `GRAIN`."""
        self._wake_at(max(due, self._woke_at + GRAIN), now)

    def _wake_at(self, when: float, now: float) -> None:
        if when >= self.wakes_at or self._is_closed:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self.wakes_at = when
        self._alarm = self.clock.call_later(max(0.0, when - now), self._wake)

    def _wake(self) -> None:
        self._alarm, self.wakes_at = None, NEVER
        now = self._woke_at = self.now()
        for lane in self.lanes:
            lane.wake(now)
        self.dispatch()
        # What is due within a moment is done at one go.
        watched = sum(len(lane.eyes) for lane in self.lanes)
        moment = GRAIN if watched < CROWD else min(max(1, watched / 10_000) * MOMENT, LONGEST_MOMENT)
        for lane in self.lanes:
            lane.wheel.is_coarse = watched >= CROWD
            self._wake_at(max(lane.wheel.soonest(), now + moment), now)

    # Whose turn

    def next_number(self) -> int:
        """Give the number of a look that begins."""
        self.number += 1
        return self.number

    async def turn(self) -> None:
        """Wait until it is the turn of one more look, which counts like any other, as the page of a listing."""
        if self._is_closed:
            raise closed()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._singles.append(waiter)
        self.dispatch()
        try:
            await waiter
            if self._is_closed:
                raise closed()
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._budget.give_back()
                self.dispatch_soon()
            elif waiter in self._singles:
                self._singles.remove(waiter)
                self._rest()
            raise

    def dispatch(self) -> None:
        """Hand out the turns that are within the budget, to the services in turn."""
        now = self.now()
        lanes, idle = self.lanes, 0
        while idle <= len(lanes):
            room = self._budget.room(now)
            if room == 0:
                if self._singles or any(lane.has_ready() for lane in lanes):
                    self._wake_at(now + self._budget.delay(now), now)
                return
            place = self._turn_of % (len(lanes) + 1)
            self._turn_of += 1
            given = lanes[place].hand_out(min(room, ROUND)) if place < len(lanes) else self._singles.hand_out()
            if given:
                self._budget.take(now, given)
            idle = 0 if given else idle + 1
        if any(lane.has_waiting for lane in lanes):
            self._wake_at(now + HELD, now)

    def dispatch_soon(self) -> None:
        """Hand out turns once the present caller has left what it follows."""
        asyncio.get_running_loop().call_soon(self.dispatch)


class _Singles(deque[asyncio.Future[None]]):
    """Those who wait for one turn each, in tasks of their own."""

    def hand_out(self) -> int:
        """Let the first of them look; gives how many do."""
        while self:
            waiter = self.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return 1
        return 0


def closed() -> MisuseError:
    """Give the error of whoever waits in, or asks, a closed session."""
    return MisuseError("the session is closed; open another")


def _plain(key: str) -> str:
    """Give a callback URL as it is called: a fragment (a mark, say) never travels."""
    return key.partition("#")[0]
