"""Races: a request at one member of a crew, and at others if that fails, hangs or is late; the first answer wins."""

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Generic, TypeVar

import attrs

from gts_async._errors import MisuseError, TimedOut
from gts_async._flow.clock import Clock
from gts_async._flow.crew import Crew, Member, Turn
from gts_async._flow.hedging import HedgeBudget

Worker = TypeVar("Worker")
Value = TypeVar("Value")

HANGS_AFTER = 1.0
"""Seconds before which no request counts as hanging."""

HANGS = 8.0
"""Times the others' p99 above which a request counts as hanging."""

FURTHER = 4.0
"""Times as long that a request may take each time after it was taken away as hanging: it may be hard itself."""

LATE = 0.95
"""The share of answers that come before a request is late and may be hedged."""

TRIES = 2
"""Times that one request may fail at each member on average, before its error is raised."""


class Culprit(Enum):
    """Whose fault an error is."""

    REQUEST = "every member would answer so"
    UNCLEAR = "another member tells"
    OVERLOAD = "it was asked too much at once; if it was not, it cannot be asked now"
    MEMBER = "it cannot be asked now"
    MEMBER_FOR_GOOD = "it must not be asked any more"


@attrs.define(eq=False)
class _Flight(Generic[Worker]):
    turn: Turn[Worker]
    began: float
    look_at: float


class Races(Generic[Worker]):
    """Runs requests through a crew.

    `judge` tells whose fault an error is; `on_aside` is told of each member that was set aside. `may_hedge` tells
    whether a late request may be sent to a second member; `HedgeBudget` bounds how many are.
    """

    def __init__(
        self,
        crew: Crew[Worker],
        clock: Clock,
        *,
        judge: Callable[[Exception], Culprit],
        on_aside: Callable[[Member[Worker], Exception], None],
        may_hedge: Callable[[], bool] = lambda: False,
    ) -> None:
        self.crew = crew
        self.clock = clock
        self.judge = judge
        self.on_aside = on_aside
        self.may_hedge = may_hedge
        self.budget = HedgeBudget()
        self.retries = self.hedges = 0
        self._flying: dict[asyncio.Task[Any], Turn[Worker]] = {}

    async def run(self, send: Callable[[Worker], Coroutine[Any, Any, Value]], rows: int) -> Value:
        """Give the first answer to a request with so many rows; raises its error, or the last one of the members."""
        race = _Race(self, send, rows)
        try:
            return await race.won()
        finally:
            race.call_off()

    def start(self, turn: Turn[Worker], work: Coroutine[Any, Any, Value]) -> asyncio.Task[Value]:
        """Run `work` in a task that gives its place back however it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._flying[task] = turn
        task.add_done_callback(self._landed)
        return task

    def _landed(self, task: asyncio.Task[Any]) -> None:
        turn = self._flying.pop(task)
        if not task.cancelled():
            # Looked at: nobody asks any more what became of one that was called off.
            task.exception()
        self.crew.leave(turn)

    def set_aside(self, member: Member[Worker], error: Exception, *, asides: int | None = None) -> None:
        """Send nothing more to the member for now, unless it was set aside since it had been so `asides` times."""
        if self.crew.set_aside(member, error, asides=member.asides if asides is None else asides):
            self.on_aside(member, error)

    def call_back(self, member: Member[Worker]) -> None:
        """Call off all that is in flight at a member; it is sent to others."""
        for task, turn in self._flying.items():
            if turn.member is member:
                task.cancel()

    async def aclose(self) -> None:
        """End what is in flight, also what was called off a moment ago."""
        self.crew.close()
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)


class _Race(Generic[Worker, Value]):
    def __init__(self, races: Races[Worker], send: Callable[[Worker], Coroutine[Any, Any, Value]], rows: int) -> None:
        self._races = races
        self._crew = races.crew
        self._clock = races.clock
        self._send = send
        self._rows = rows
        self._flights: dict[asyncio.Task[Value], _Flight[Worker]] = {}
        self._begun = self._failures = self._taken_away = 0
        self._unclear: tuple[Turn[Worker], Exception] | None = None
        self._late_after: float | None = None
        self._hedge_at: float | None = None

    async def won(self) -> Value:
        if self._races.may_hedge():
            self._races.budget.earn()
            self._late_after = self._crew.recent.quantile(LATE, self._rows)
        while True:
            if not self._flights:
                self._begin(await self._turn())
            done = await self._news()
            for task in sorted(done, key=_has_failed):
                flight = self._flights.pop(task)
                if not _has_failed(task):
                    self._note_answer(flight)
                    return task.result()
                self._note_failure(flight, task)

    def call_off(self) -> None:
        for task in self._flights:
            task.cancel()

    async def _turn(self) -> Turn[Worker]:
        if self._unclear is None:
            return await self._crew.turn()
        suspect, error = self._unclear
        turn = await self._crew.turn_of_another(suspect.member)
        if turn is None:
            raise error
        return turn

    def _begin(self, turn: Turn[Worker]) -> None:
        now = self._clock.now()
        self._begun += 1
        self._races.retries += self._begun > 1
        self._fly(turn, now)
        if self._begun == 1 and self._late_after is not None:
            self._hedge_at = now + self._late_after

    def _fly(self, turn: Turn[Worker], now: float) -> None:
        task = self._races.start(turn, self._send(turn.member.worker))
        self._flights[task] = _Flight(turn, now, now + HANGS_AFTER)

    async def _news(self) -> set[asyncio.Task[Value]]:
        """Wait until a flight is over or something is due; gives those that are over."""
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = min(flight.look_at for flight in self._flights.values())
        if self._hedge_at is not None:
            due = min(due, self._hedge_at)
        alarm = self._clock.call_later(max(0.0, due - self._clock.now()), lambda: _ring(bell))
        awaited: set[asyncio.Future[Any]] = {*self._flights, bell}
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
        done = {task for task in self._flights if task.done()}
        if not done:
            self._look()
        return done

    def _look(self) -> None:
        now = self._clock.now()
        if self._hedge_at is not None and now >= self._hedge_at:
            self._hedge(now)
        for task, flight in list(self._flights.items()):
            if now >= flight.look_at and self._is_hanging(flight, now):
                self._take_away(task, flight, now)

    def _hedge(self, now: float) -> None:
        first = next(iter(self._flights.values())).turn
        turn = self._crew.turn_at_once(but=first.member) if len(self._flights) == 1 else None
        if turn is None:
            self._hedge_at = now + (self._late_after or HANGS_AFTER)
            return
        self._hedge_at = None
        if not self._races.budget.spend():
            self._crew.leave(turn)
            return
        self._races.hedges += 1
        self._fly(turn, now)

    def _is_hanging(self, flight: _Flight[Worker], now: float) -> bool:
        usual = self._crew.usual(0.99, self._rows, but=flight.turn.member)
        if usual is None:
            flight.look_at = now + HANGS_AFTER
            return False
        flight.look_at = flight.began + max(HANGS_AFTER, HANGS * usual) * FURTHER**self._taken_away
        return now >= flight.look_at

    def _take_away(self, task: asyncio.Task[Value], flight: _Flight[Worker], now: float) -> None:
        del self._flights[task]
        self._taken_away += 1
        text = f"no answer after {now - flight.began:.1f} s, far longer than the others take"
        self._set_aside(flight.turn, TimedOut(text, stage="answer"))
        # All at once: else each of them in turn might have the member begin to load its model, and cut that.
        self._races.call_back(flight.turn.member)

    def _set_aside(self, turn: Turn[Worker], error: Exception) -> None:
        self._races.set_aside(turn.member, error, asides=turn.asides)

    def _note_answer(self, winner: _Flight[Worker]) -> None:
        now = self._clock.now()
        self._crew.answered(winner.turn, self._rows, now - winner.began)
        for flight in self._flights.values():
            if flight.began < winner.began:
                self._crew.note(flight.turn, self._rows, now - flight.began)
        if self._unclear is not None and self._unclear[0].member is not winner.turn.member:
            self._set_aside(*self._unclear)

    def _note_failure(self, flight: _Flight[Worker], task: asyncio.Task[Value]) -> None:
        """Note whose fault it was; raises the error if no other member need be asked."""
        if task.cancelled():
            # Called back from a member that was set aside, or everything is being closed: asking for a turn tells.
            error: BaseException | None = MisuseError("closed before an answer came")
        else:
            error = task.exception()
        assert error is not None  # noqa: S101 - it has failed
        if not isinstance(error, Exception):
            raise error
        # Who was one too many tries again, as often as it takes: each time there is less at once, or one set aside.
        self._failures += task.cancelled() or not self._blame(flight.turn, error)
        if not self._flights and self._failures >= TRIES * len(self._crew.members):
            raise error

    def _blame(self, turn: Turn[Worker], error: Exception) -> bool:
        """Note whose fault it was, or raise the error; tells whether the request was merely one too many."""
        culprit = self._races.judge(error)
        if culprit is Culprit.UNCLEAR and self._unclear is None:
            self._unclear = (turn, error)
        elif culprit in (Culprit.UNCLEAR, Culprit.REQUEST):
            raise error
        elif culprit is Culprit.MEMBER_FOR_GOOD:
            self._crew.lose(turn.member, error)
        elif culprit is Culprit.OVERLOAD and turn.sent.at_once > 1:
            turn.member.allowance.failed(turn.sent)
            return True
        else:
            self._set_aside(turn, error)
        return False


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _ring(bell: asyncio.Future[None]) -> None:
    if not bell.done():
        bell.set_result(None)
