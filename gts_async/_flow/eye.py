"""Eye: one thing on the server's side that is looked at, and who follows it: each look is one for all of them."""

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from gts_async._flow.course import Course

if TYPE_CHECKING:
    from gts_async._flow.lane import Lane
    from gts_async._flow.wheel import Bucket


class Turns(deque["Eye"]):
    """Looks that are to be made now by whoever waits for them: see `looking`.

    `tell` wakes somebody who makes them; `is_shared` if more than one can.
    """

    is_shared = False

    def tell(self) -> None:
        """Wake somebody who makes these looks."""
        raise NotImplementedError


class Follower(Protocol):
    """Somebody who waits for news of a work: a watch that is stepped, or one of many in `many`.

    `course` is what it reads of, `turns` where to put a look that is due, if a task of its own will make it now. If
    `wants_changes_only`, it need not hear of a look that shows what was known.
    """

    course: Course[Any]
    turns: Turns | None
    wants_changes_only: bool

    def hear(self) -> None:
        """Be told that a look was made."""
        ...

    def end(self, error: Exception) -> None:
        """Be told that there will be no more looks."""
        ...

    def wish(self, now: float) -> float:
        """Give the seconds within which it wants a look; 0 or less is at once."""
        ...


RESTING, SCHEDULED, ASKED, LOOKING, LOOKING_AS_ASKED = range(5)
"""What an eye is doing: nothing; waiting for its turn, as scheduled or because somebody asked; looking, as the one or
the other. (Numbers, for tens of thousands of eyes: from waiting to looking is a step of `BEGUN`.)"""

BEGUN = LOOKING - SCHEDULED


class Eye:
    """One thing that is looked at, as long as anybody follows it.

    While it rests, `bucket` tells when the next look is due (see `Wheel`); once that has come, it is as good as
    SCHEDULED. `own_looks` is how many more looks it gets by itself, because a listing does not show what there is to
    see; that is at least one if it `is_rung`: there is news that no look has seen yet.
    """

    __slots__ = (
        "bucket",
        "is_rung",
        "lane",
        "only",
        "others",
        "own_looks",
        "state",
        "work_id",
    )

    def __init__(self, lane: "Lane", work_id: str) -> None:
        self.lane = lane
        self.work_id = work_id
        # Nearly always there is one, of tens of thousands: a list for each would be most of what they take.
        self.only: Follower | None = None
        self.others: tuple[Follower, ...] = ()
        self.bucket: Bucket | None = None
        self.is_rung = False
        self.own_looks = 0
        self.state = RESTING

    @property
    def is_ready(self) -> bool:
        """True if a look waits for its turn."""
        if self.state == RESTING:
            return self.bucket is not None and self.bucket.has_come
        return self.state < LOOKING

    @property
    def is_looking(self) -> bool:
        """True if its turn has come."""
        return self.state >= LOOKING

    @property
    def is_asked(self) -> bool:
        """True if the look that waits or is under way was not merely scheduled."""
        return self.state in (ASKED, LOOKING_AS_ASKED)

    @property
    def followers(self) -> tuple[Follower, ...]:
        """Everybody who follows."""
        return self.others if self.only is None else (self.only,)

    def rest(self) -> None:
        """Forget the look that was to be made."""
        self.state, self.bucket = RESTING, None

    def add(self, follower: Follower) -> None:
        """Let somebody follow."""
        if self.only is None and not self.others:
            self.only = follower
        else:
            self.others = (*self.followers, follower)
            self.only = None

    def remove(self, follower: Follower) -> None:
        """Let somebody who may follow do so no more."""
        left = tuple(other for other in self.followers if other is not follower)
        self.only, self.others = (left[0], ()) if len(left) == 1 else (None, left)

    @property
    def turns(self) -> Turns | None:
        """Where to put a look that is due; None if nobody is there to make it."""
        return next((follower.turns for follower in self.followers if follower.turns is not None), None)

    def wish(self, now: float) -> float:
        """Give the seconds within which the most eager follower wants the next look."""
        return min(follower.wish(now) for follower in self.followers)

    def show(self, sighting: Any, number: int, now: float) -> None:
        """Let every follower's course see what the look of that number saw, then tell the followers."""
        followers = self.followers
        for follower in followers:
            if follower.course.number < number:
                follower.course.see(sighting, number, now)
        for follower in followers:
            follower.hear()


class ListedEye(Eye):
    """An eye on something that a listing may show; `interval` is what lies between two looks."""

    __slots__ = ("interval",)

    def __init__(self, lane: "Lane", work_id: str) -> None:
        super().__init__(lane, work_id)
        self.interval = 0.0
