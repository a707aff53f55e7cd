"""InferencePool: several inference sessions, each on an engine of its own, asked as one."""

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import attrs

from gts_async._errors import InvalidArgument, LeaseLost, MisuseError, ServerFailed, TransportError, WrongType
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._inference import InferenceSession
from gts_async._predicting import Predicting, Row, Sample
from gts_async.gts.values import Result, TaskType

REST = 5.0
"""Seconds that an engine is left alone after it failed to answer."""


@attrs.define(eq=False)
class _Member:
    session: InferenceSession
    in_flight: int = 0
    asked: int = 0
    rests_until: float = float("-inf")


class InferencePool(Predicting):
    """Several engines that serve the same model: ``async with InferencePool([a.serve(), b.serve()]) as inference``.

    Each request goes to the engine with the fewest in flight, or the fewest so far. One that does not answer rests for
    some seconds while its samples are sent to the others, and is tried again then; one whose slot was taken is asked
    no more. Raises what the last engine raised when none is left.
    """

    def __init__(self, sessions: Iterable[InferenceSession]) -> None:
        self._members = [_Member(session) for session in sessions]
        if not self._members:
            raise InvalidArgument("sessions", "is empty", "give one task.serve() per engine")
        for member in self._members:
            if not isinstance(member.session, InferenceSession):
                raise WrongType("sessions", f"holds a {type(member.session).__name__}", "give task.serve() objects")
        first = self._members[0].session
        self.id = first.id
        self.max_batch = min(member.session.max_batch for member in self._members)
        self._batcher: Batcher[Sample, Result] | None = None

    @property
    def sessions(self) -> tuple[InferenceSession, ...]:
        """The sessions that it was made of; each has its own `stats`."""
        return tuple(member.session for member in self._members)

    @property
    def max_at_once(self) -> int:
        """Requests that may be in flight at all engines together."""
        return sum(member.session.max_at_once for member in self._members)

    async def __aenter__(self) -> Self:
        if self._batcher is not None:
            raise MisuseError("this pool is open already")
        lines = [await member.session._engine.exchange.line() for member in self._members]
        if len({line.base_url.text for line in lines}) < len(lines):
            raise InvalidArgument("sessions", "has two on one engine, which has one model slot", "give one per engine")
        loading = [asyncio.ensure_future(member.session.__aenter__()) for member in self._members]
        try:
            await asyncio.gather(*loading)
        except BaseException:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)
            await self._leave([t.result() for t in loading if not t.cancelled() and t.exception() is None])
            raise
        self._batcher = Batcher(self._each, max_batch=self.max_batch, max_at_once=self.max_at_once)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        batcher, self._batcher = self._batcher, None
        try:
            if batcher is not None:
                await batcher.aclose()
        finally:
            await self._leave(self.sessions)

    async def _leave(self, sessions: Sequence[InferenceSession]) -> None:
        # Each session shields its own release, so a cancelled caller waits for all of them.
        await asyncio.gather(*(session.__aexit__(None, None, None) for session in sessions))

    @property
    def _clock(self) -> Clock:
        return self._members[0].session._clock

    def _kind(self, sample: Sample) -> TaskType:
        return self._members[0].session._kind(sample)

    def _opened(self) -> Batcher[Sample, Result]:
        if self._batcher is None:
            raise MisuseError("the pool is not open: async with InferencePool(…) as inference")
        return self._batcher

    async def _ask(self, kind: TaskType, rows: Sequence[Row], timeout: float | None = None) -> Sequence[Result]:
        """Ask the least loaded engine; if it does not answer, the next, until one does or none is left."""
        left = list(self._members)
        while True:
            member = min(left, key=lambda m: (m.rests_until > self._clock.now(), m.in_flight, m.asked))
            member.in_flight += 1
            member.asked += 1
            try:
                return await member.session._ask(kind, rows, timeout)
            except (TransportError, LeaseLost) as error:
                # The engine's own 500 is about these rows: every engine would give it.
                if isinstance(error, ServerFailed) and error.status == 500:
                    raise
                member.rests_until = float("inf") if isinstance(error, LeaseLost) else self._clock.now() + REST
                left.remove(member)
                if not left:
                    raise
            finally:
                member.in_flight -= 1

    def __repr__(self) -> str:
        state = "serving" if self._batcher is not None else "closed"
        return f"<InferencePool of {len(self._members)} {state}>"
