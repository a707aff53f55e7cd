"""InferencePool: several inference sessions, each on an engine of its own, asked as one.

Whose turn it is, is decided in ``_flow/crew.py``; what one request goes through, in ``_flow/race.py``.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from gts_async._errors import (
    Busy,
    GtsAsyncError,
    InvalidArgument,
    InvalidData,
    LeaseLost,
    MisuseError,
    RateLimited,
    ServerFailed,
    UnexpectedAnswer,
)
from gts_async._fleet import Fleet
from gts_async._flow.allowance import MOST
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.crew import Crew, Member
from gts_async._flow.race import Culprit, Races
from gts_async._flow.shield import finished
from gts_async._inference import InferenceSession
from gts_async._net.config import check_seconds
from gts_async._predicting import Predicting, Row, Sample, samples_in
from gts_async._statistics import InferenceStats
from gts_async.gts.values import Result, TaskType

ATTEMPTS = 2
"""Times that a session sends a request before it goes elsewhere: the first may meet a connection just closed."""

log = logging.getLogger("gts_async")


class InferencePool(Predicting):
    """Several engines that serve the same model: ``async with InferencePool([a.serve(), b.serve()]) as inference``.

    Each request goes to the engine with the fewest in flight for what it can take: that is found out, 1 to 16 at once.
    What an engine fails to answer is sent to another, and so is what takes far longer there than at the others. Such an
    engine is left alone for 5 s, up to a minute if it fails again, and gets samples once it has answered one; where it
    was restarted, its model is loaded again. One whose slot was taken is asked no more. With `hedge`, a request that
    takes longer than 95 % of all is sent to a second engine as well, at most 5 % of them. `chance` varies the pauses.

    Entering loads on all engines and waits for that; those that fail are set aside with a warning as long as one can,
    else the first one's error is raised. When none is left, requests wait 20 s for one to come back, longer while one
    loads its model again, and then raise the last error. Raises InvalidArgument for sessions of different pipelines, or
    two on one engine.
    """

    def __init__(
        self,
        sessions: Iterable[InferenceSession],
        *,
        hedge: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._fleet = Fleet(sessions)
        self.id = self.sessions[0].id
        self.max_batch = min(session.max_batch for session in self.sessions)
        self._is_hedging = hedge
        self._chance = chance
        self._own = InferenceStats()
        self._batcher: Batcher[Sample, Result] | None = None
        self._races: Races[InferenceSession] | None = None
        self._reviving: set[asyncio.Task[None]] = set()
        self._asked: TaskType | None = None
        self._signs: set[str] | None = None
        self._doubt: LeaseLost | None = None

    @property
    def sessions(self) -> tuple[InferenceSession, ...]:
        """The sessions that it was made of; each has its own `stats`."""
        return self._fleet.sessions

    @property
    def max_at_once(self) -> int:
        """Requests that may be in flight at all engines together."""
        return sum(session.max_at_once for session in self.sessions)

    @property
    def stats(self) -> InferenceStats:
        """What all sessions have done so far; `retries` counts also what was sent to another engine."""
        whole = InferenceStats.total([*(session.stats for session in self.sessions), self._own])
        if self._races is not None:
            whole.retries += self._races.retries
            whole.hedges += self._races.hedges
        return whole

    async def __aenter__(self) -> Self:
        if self._races is not None:
            raise MisuseError("this pool is open already")
        await self._fleet.check_engines()
        self._doubt = None
        failed = await self._fleet.load()
        members = [Member(session, number, partial(_most, session)) for number, session in enumerate(self.sessions)]
        self._races = Races(
            Crew(members, self._clock, on_lost=self._has_lost),
            self._clock,
            judge=_culprit,
            on_aside=self._set_aside,
            may_hedge=self._may_hedge,
        )
        for member in members:
            if member.worker in failed:
                self._races.set_aside(member, failed[member.worker])
        if len(members) > 1:
            for session in self.sessions:
                session._model.max_attempts = ATTEMPTS
        self._batcher = Batcher(self._each, max_batch=samples_in(self.max_batch), max_at_once=self.max_at_once)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._fleet.prove()
        finally:
            # One task for all of it: a cancelled caller waits until every model is released, which each session bounds.
            await finished(self._close())

    async def _close(self) -> None:
        batcher, self._batcher = self._batcher, None
        races, self._races = self._races, None
        for task in self._reviving:
            task.cancel()
        await asyncio.gather(*self._reviving, return_exceptions=True)
        if batcher is not None:
            await batcher.aclose()
        if races is not None:
            await races.aclose()
            self._own.retries += races.retries
            self._own.hedges += races.hedges
        for session in self.sessions:
            session._model.max_attempts = None
        await self._fleet.leave()

    def _has_lost(self, member: Member[InferenceSession], error: Exception) -> None:
        log.warning("%r: not asked any more, its samples go to other engines: %s", member.worker, error)
        if isinstance(error, LeaseLost) and error.doubtful:
            self._doubt = error

    def _check_doubt(self) -> None:
        """Raise LeaseLost if answers that were given may be wrong: to go on with other engines would hide that."""
        if self._doubt is not None:
            error = LeaseLost(str(self._doubt))
            error.doubtful = self._doubt.doubtful
            raise error from self._doubt

    def _set_aside(self, member: Member[InferenceSession], error: Exception) -> None:
        if self._races is None:
            return
        log.warning("%r: set aside, its samples go to other engines: %s", member.worker, error)
        task = asyncio.get_running_loop().create_task(self._revive(member))
        self._reviving.add(task)
        task.add_done_callback(partial(self._revived, member))

    async def _revive(self, member: Member[InferenceSession]) -> None:
        """Look whether the engine is back, again and again, until it is or must not be asked any more."""
        races = self._running()
        while True:
            await self._clock.sleep(member.pauses.next(self._chance()))
            try:
                await self._fleet.wake(member, self._asked, self._signs)
            except LeaseLost as error:
                races.crew.lose(member, error)
                return
            except GtsAsyncError as error:
                log.info("%r: not back yet: %s", member.worker, error)
                member.is_waking = False
                continue
            log.info("%r: is back", member.worker)
            races.crew.come_back(member)
            return

    def _revived(self, member: Member[InferenceSession], task: asyncio.Task[None]) -> None:
        self._reviving.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and self._races is not None:
            self._races.crew.lose(member, error)

    def _may_hedge(self) -> bool:
        return self._is_hedging and all(session._model.is_single_use is False for session in self.sessions)

    @property
    def _clock(self) -> Clock:
        return self._fleet.clock

    def _kind(self, sample: Sample) -> TaskType:
        known = (session for session in self.sessions if session._task_type is not None)
        return next(known, self.sessions[0])._kind(sample)

    def _opened(self) -> Batcher[Sample, Result]:
        if self._batcher is None:
            raise MisuseError("the pool is not open: async with InferencePool(…) as inference")
        return self._batcher

    async def _ask(
        self, kind: TaskType, rows: Sequence[Row], timeout: float | None = None, *, is_kept: bool = False
    ) -> Sequence[Result]:
        """Send one request to the engine whose turn it is, and to others until one answers or none is left."""
        self._opened()
        self._check_doubt()
        self._asked = kind
        # Not given to the sessions: it is the caller who has no more time, whoever is to blame.
        bound = self._fleet.bounded(
            check_seconds("timeout", timeout), f"predict: no answer within {timeout} s", call="predict"
        )
        try:
            async with bound:
                results = await self._running().run(
                    lambda session: session._ask(kind, rows, is_kept=is_kept), len(rows)
                )
        except LeaseLost:
            self._check_doubt()
            raise
        self._check_doubt()
        return results

    async def _fingerprint(self) -> str:
        """Give what stands for all models that answer now; engines that come later must have one of them."""
        races = self._running()
        members = races.crew.ready()
        answers = await asyncio.gather(*(self._fleet.sign(member.worker) for member in members), return_exceptions=True)
        signs: set[str] = set()
        for member, answer in zip(members, answers, strict=True):
            if isinstance(answer, str):
                signs.add(answer)
            elif not isinstance(answer, GtsAsyncError):
                raise answer
            elif isinstance(answer, LeaseLost):
                races.crew.lose(member, answer)
            else:
                races.set_aside(member, answer)
        if not signs:
            races.crew.leave(await races.crew.turn())
            return await self._fingerprint()
        self._signs = signs
        return "; ".join(sorted(signs))

    def _running(self) -> Races[InferenceSession]:
        if self._races is None:
            raise MisuseError("the pool is not open: async with InferencePool(…) as inference")
        return self._races

    def __repr__(self) -> str:
        if self._races is None:
            return f"<InferencePool of {len(self.sessions)} closed>"
        return f"<InferencePool of {len(self.sessions)} serving, {len(self._races.crew.ready())} ready>"


def _most(session: InferenceSession) -> int:
    """Give how many requests an engine may get at once: one only where one load serves one predict."""
    return MOST if session.max_at_once > 1 else 1


def _culprit(error: Exception) -> Culprit:
    if isinstance(error, LeaseLost):
        return Culprit.MEMBER_FOR_GOOD
    if isinstance(error, UnexpectedAnswer):
        return Culprit.UNCLEAR
    if isinstance(error, ServerFailed) and error.status == 500 and error.call == "predict":
        return Culprit.UNCLEAR
    if isinstance(error, (Busy, RateLimited)):
        return Culprit.OVERLOAD
    if isinstance(error, (InvalidData, InvalidArgument, MisuseError)) or not isinstance(error, GtsAsyncError):
        return Culprit.REQUEST
    return Culprit.MEMBER
