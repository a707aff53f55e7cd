"""Crew: several servers that do the same work, and whose turn it is.

How one request goes through them is in `race`; what they are, and how one that failed is looked after, is the user's.
"""

import asyncio
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from gts_async._errors import MisuseError
from gts_async._flow.allowance import MOST, Allowance, Sent
from gts_async._flow.clock import Alarm, Clock
from gts_async._flow.pauses import Pauses
from gts_async._flow.recent import Recent

Worker = TypeVar("Worker")

SLOW = 3.0
"""Times what the others take, above which one gets a single request at once."""

WAKING = 1.0
"""Seconds after which it is looked again whether one that was waking is back."""

PATIENCE = 20.0
"""Seconds that requests wait for one to come back after the last has failed: long enough to look twice."""


@attrs.define(eq=False)
class Member(Generic[Worker]):
    """One of a crew. It is ready unless it is set aside after a failure, or lost for good; `asides` counts the former.

    It is `is_waking` when it is set aside but does something to come back. `most` gives how many requests it may get at
    once at all.
    """

    worker: Worker
    number: int
    most: Callable[[], int] = attrs.field(default=lambda: MOST)
    allowance: Allowance = attrs.field(factory=Allowance)
    recent: Recent = attrs.field(factory=Recent)
    pauses: Pauses = attrs.field(factory=Pauses)
    is_ready: bool = True
    is_lost: bool = False
    is_waking: bool = False
    is_slow: bool = False
    asides: int = 0

    @property
    def has_room(self) -> bool:
        """True if it may get one more request now."""
        size = 1 if self.is_slow else self.allowance.size
        return self.is_ready and self.allowance.in_flight < min(size, self.most())

    def rank(self) -> tuple[float, float, int]:
        """Give what the best choice has least of: the share of its window in flight, then its seconds."""
        return self.allowance.load, self.recent.typical or 0.0, self.number


@attrs.define(eq=False)
class Turn(Generic[Worker]):
    """A place at a member, which has to be given back by `Crew.leave`."""

    member: Member[Worker]
    sent: Sent
    asides: int


@attrs.define(eq=False)
class _Waiting(Generic[Worker]):
    place: asyncio.Future[Turn[Worker] | None]
    but: Member[Worker] | None


class Crew(Generic[Worker]):
    """Gives each request a `turn` at the ready member with the least in flight for its allowance, then at the fastest.

    First come, first served. With none ready, requests wait for one to come back, until `patience` seconds after the
    last one failed, and as long as one is waking; then they are raised the last error, and so is every later one until
    one is back. With all lost, that is at once. `on_lost` is told of each one, and why.
    """

    def __init__(
        self,
        members: Sequence[Member[Worker]],
        clock: Clock,
        *,
        patience: float = PATIENCE,
        on_lost: Callable[[Member[Worker], Exception], None] = lambda member, error: None,
    ) -> None:
        self.members = members
        self._on_lost = on_lost
        self.recent = Recent(256)
        self._clock = clock
        self._patience = patience
        self._waiting: deque[_Waiting[Worker]] = deque()
        self._picky: deque[_Waiting[Worker]] = deque()
        self._error: Exception | None = None
        self._ending: Alarm | None = None
        self._is_given_up = False

    def ready(self) -> list[Member[Worker]]:
        """Give the members that may be asked."""
        return [member for member in self.members if member.is_ready]

    async def turn(self) -> Turn[Worker]:
        """Wait for a place; raises the last error once none can be hoped for."""
        turn = await self._waited(None)
        assert turn is not None  # noqa: S101 - only another one's turn may be none
        return turn

    async def turn_of_another(self, but: Member[Worker]) -> Turn[Worker] | None:
        """Wait for a place at another member than this; None if no other is ready."""
        return await self._waited(but) if any(member is not but for member in self.ready()) else None

    async def _waited(self, but: Member[Worker] | None) -> Turn[Worker] | None:
        if self._is_given_up:
            raise self._last_error()
        if (but is not None or not self._waiting) and (member := self._best(but)) is not None:
            return _turn(member)
        waiting = _Waiting(asyncio.get_running_loop().create_future(), but)
        (self._waiting if but is None else self._picky).append(waiting)
        try:
            return await waiting.place
        except asyncio.CancelledError:
            if not waiting.place.cancelled() and waiting.place.exception() is None:
                turn = waiting.place.result()
                if turn is not None:
                    turn.member.allowance.leave()
            self._let_in()
            raise

    def turn_at_once(self, *, but: Member[Worker]) -> Turn[Worker] | None:
        """Give a place at another member than this if one has room, which it has only if nobody waits for it."""
        member = self._best(but)
        return None if member is None else _turn(member)

    def leave(self, turn: Turn[Worker]) -> None:
        """Give a place back, whatever became of the request."""
        turn.member.allowance.leave()
        self._let_in()

    def answered(self, turn: Turn[Worker], rows: int, seconds: float) -> None:
        """Note a good answer."""
        member = turn.member
        member.allowance.answered(turn.sent, rows, seconds)
        member.pauses.answered()
        self.recent.add(rows, seconds)
        self.note(turn, rows, seconds)
        self._let_in()

    def note(self, turn: Turn[Worker], rows: int, seconds: float) -> None:
        """Note that a request took so long, or at least so long if it was called off."""
        member = turn.member
        member.recent.add(rows, seconds, turn.sent.at_once)
        others = [m.recent.typical for m in self.ready() if m is not member and m.recent.typical is not None]
        own = member.recent.typical
        member.is_slow = bool(others) and own is not None and own > SLOW * statistics.median_low(others)

    def usual(self, share: float, rows: int, *, but: Member[Worker]) -> float | None:
        """Give the seconds within which the other ready members answer this share of such requests, if known."""
        known = [member.recent.quantile(share, rows) for member in self.ready() if member is not but]
        seconds = [quantile for quantile in known if quantile is not None]
        return statistics.median_low(seconds) if seconds else None

    def set_aside(self, member: Member[Worker], error: Exception, *, asides: int) -> bool:
        """Send nothing more to the member for now; False if it had been set aside another number of times before."""
        self._error = error
        if not member.is_ready or member.asides != asides:
            return False
        member.is_ready = False
        member.asides += 1
        self._count_ready()
        return True

    def lose(self, member: Member[Worker], error: Exception) -> None:
        """Never send anything to the member again."""
        if not member.is_lost:
            self._on_lost(member, error)
        self._error = error
        member.is_ready, member.is_waking, member.is_lost = False, False, True
        self._count_ready()

    def come_back(self, member: Member[Worker]) -> None:
        """Send requests to the member again, one at a time at first."""
        member.is_ready, member.is_waking, member.is_slow = True, False, False
        member.allowance.begin_anew()
        member.recent.clear()
        self._is_given_up = False
        self._hope()
        self._let_in()

    def close(self) -> None:
        """Tell whoever waits, and whoever comes, by MisuseError."""
        self._error = MisuseError("closed before an answer came")
        self._give_up()

    def _count_ready(self) -> None:
        if self.ready():
            self._let_in()
        elif all(member.is_lost for member in self.members):
            self._give_up()
        elif self._ending is None and not self._is_given_up:
            self._ending = self._clock.call_later(self._patience, self._lose_patience)

    def _lose_patience(self) -> None:
        if any(member.is_waking for member in self.members):
            self._ending = self._clock.call_later(WAKING, self._lose_patience)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._is_given_up = True
        self._hope()
        for waiting in (*self._picky, *self._waiting):
            if not waiting.place.done():
                waiting.place.set_exception(self._last_error())
                # Looked at: a caller that is cancelled right now never will, and asyncio would call that forgotten.
                waiting.place.exception()
        self._picky.clear()
        self._waiting.clear()

    def _hope(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _last_error(self) -> Exception:
        # The same one is raised to many, and would grow by a traceback each time.
        return (self._error or MisuseError("there is no server to ask")).with_traceback(None)

    def _let_in(self) -> None:
        """Give what places there are to those who wait, first come first served."""
        for waiting in list(self._picky):
            if waiting.place.done() or self._lets_in(waiting):
                self._picky.remove(waiting)
        while self._waiting and (self._waiting[0].place.done() or self._lets_in(self._waiting[0])):
            self._waiting.popleft()

    def _lets_in(self, waiting: _Waiting[Worker]) -> bool:
        member = self._best(waiting.but)
        is_vain = waiting.but is not None and self.ready() == [waiting.but]
        if member is None and not is_vain:
            return False
        waiting.place.set_result(None if member is None else _turn(member))
        return True

    def _best(self, but: Member[Worker] | None = None) -> Member[Worker] | None:
        free = (member for member in self.members if member.has_room and member is not but)
        return min(free, key=Member.rank, default=None)


def _turn(member: Member[Worker]) -> Turn[Worker]:
    return Turn(member, member.allowance.send(), member.asides)
