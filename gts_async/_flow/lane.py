"""Lane: the looks at one service: which are ready, and how many are under way.

When they are due and how many there may be for all services together is for `hub`; how they are made for `looking`.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gts_async._flow.eye import ASKED, BEGUN, LOOKING, RESTING, SCHEDULED, Eye, ListedEye, Turns
from gts_async._flow.listing import Listing, Survey
from gts_async._flow.wheel import Wheel

if TYPE_CHECKING:
    from gts_async._flow.hub import Hub

MAX_LOOKING = 64
"""Looks under way at once, for one service: one that hangs holds up nobody else."""

FEW_LOOKING = MAX_LOOKING // 2
"""So few of them that others begin, where some have to wait: handing out a turn at a time would cost more."""

RARELY = 10
"""One turn in so many is for what was merely scheduled, where many ask."""

Glance = Callable[[str], Awaitable[Any]]


class Lane:
    """The eyes on one service.

    `glance` looks at one thing, once; `survey` gives a page of the service's listing (from 1), where it has one.
    """

    def __init__(self, hub: "Hub", glance: Glance, survey: Survey | None = None) -> None:
        self.hub = hub
        self.glance = glance
        self.eyes: dict[str, Eye] = {}
        self.listing = Listing(self, survey) if survey is not None else None
        self.asked: deque[Eye] = deque()
        self.scheduled: deque[Eye] = deque()
        self.wheel: Wheel[Eye] = Wheel()
        self.rung: set[str] = set()
        """What a glance is about to look at, or looks at, because there may be news; it takes that out."""
        self._choices = 0
        self.looking = 0
        self.has_waiting = False
        hub.lanes.append(self)

    # Who is looked at

    def eye(self, work_id: str) -> Eye:
        """Give the eye on a thing; the same one while anybody follows it."""
        eye = self.eyes.get(work_id)
        if eye is None:
            eye = self.eyes[work_id] = Eye(self, work_id) if self.listing is None else ListedEye(self, work_id)
        return eye

    def drop(self, eye: Eye) -> None:
        """Forget an eye that nobody follows any more."""
        self.count(eye, 0.0)
        del self.eyes[eye.work_id]

    def count(self, eye: Eye, interval: float) -> None:
        """Count that the eye's next look is `interval` seconds away; 0 for no next look."""
        if isinstance(eye, ListedEye) and self.listing is not None:
            self.listing.count(eye, interval)

    # Whose turn it is

    def wake(self, now: float) -> None:
        """Let what is due by `now` wait for its turn."""
        for bucket in self.wheel.take(now):
            self.scheduled.extend(bucket)
            if self.listing is not None:
                for eye in bucket:
                    if eye.bucket is bucket:
                        self.count(eye, 0.0)

    def push(self, eye: Eye, *, is_asked: bool) -> None:
        """Let a look wait for its turn; what was asked for and what was scheduled take turns."""
        if eye.state == RESTING:
            eye.state = ASKED if is_asked else SCHEDULED
            (self.asked if is_asked else self.scheduled).append(eye)

    def hand_out(self, most: int) -> int:
        """Let up to `most` looks of one queue begin; gives how many do."""
        self.has_waiting = False
        # A queue may hold nothing but what is to be passed over; then the other one has its turn.
        return self._hand_out(self._next_queue(), most) or self._hand_out(self._next_queue(), most)

    def _hand_out(self, queue: deque[Eye], most: int) -> int:
        touched: Turns | None = None
        room = left = min(most, MAX_LOOKING - self.looking)
        while queue and left:
            eye = queue.popleft()
            state = eye.state
            if state == RESTING:
                bucket = eye.bucket
                if bucket is None or not bucket.has_come:
                    # Looked at, or followed no more, since it was put there.
                    continue
                eye.bucket = None
                state = SCHEDULED
            elif state >= LOOKING:
                continue
            follower = eye.only
            turns = follower.turns if follower is not None else eye.turns
            if turns is None:
                # All who follow have heard news already and are about to ask again.
                eye.state = RESTING
                continue
            eye.state = state + BEGUN
            left -= 1
            turns.append(eye)
            if turns is not touched:
                if touched is not None:
                    touched.tell()
                touched = turns
        given = room - left
        self.looking += given
        if queue and self.looking >= MAX_LOOKING:
            self.has_waiting = True
        if touched is not None:
            touched.tell()
        return given

    def _next_queue(self) -> deque[Eye]:
        """Give the queue whose turn it is, of those that have something."""
        asked, scheduled = self.asked, self.scheduled
        if self.listing is not None and self.listing.is_being_read:
            return asked if self.listing.lets_pass(asked) else deque()
        if not asked or not scheduled:
            return asked or scheduled
        self._choices += 1
        # Where thousands begin at once, all get a first look before most get a second.
        return scheduled if self._choices % (2 if len(asked) <= MAX_LOOKING else RARELY) == 0 else asked

    def has_ready(self) -> bool:
        """True if a look waits for its turn."""
        for queue in (self.asked, self.scheduled):
            while queue and not queue[0].is_ready:
                queue.popleft()
        return bool(self.asked or self.scheduled)

    def tidy(self) -> None:
        """Forget those in the queues whose looks are not needed any more."""
        self.asked = deque(dict.fromkeys(eye for eye in self.asked if eye.is_ready))
        known = set(self.asked)
        self.scheduled = deque(dict.fromkeys(eye for eye in self.scheduled if eye.is_ready and eye not in known))

    def release(self, eye: Eye) -> None:
        """Count that a look is over, or was not made."""
        eye.state = RESTING
        self.looking -= 1
