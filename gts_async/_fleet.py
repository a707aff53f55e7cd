"""Fleet: the sessions of a pool, which are loaded together, woken one by one, and left together."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from gts_async._errors import GtsAsyncError, InvalidArgument, LeaseLost, MisuseError, TimedOut, WrongType
from gts_async._flow.clock import Clock
from gts_async._flow.crew import Member
from gts_async._flow.shield import finished
from gts_async._inference import InferenceSession
from gts_async._lease import slot_name
from gts_async.gts.identity import PROBES
from gts_async.gts.values import TaskType

LOOK_TIME = 10.0
"""Seconds that the look at an engine may take which tells whether it is back."""

SIGN_TIME = 120.0
"""Seconds that an engine may take to answer the sample by which its model is known; it may have to load it again."""

Loading = dict[InferenceSession, asyncio.Task[InferenceSession]]


class Fleet:
    """Sessions of one pipeline, each on an engine of its own; raises InvalidArgument for others."""

    def __init__(self, sessions: Iterable[InferenceSession]) -> None:
        self.sessions = tuple(sessions)
        if not self.sessions:
            raise InvalidArgument("sessions", "is empty", "give one task.serve() per engine")
        for session in self.sessions:
            if not isinstance(session, InferenceSession):
                raise WrongType("sessions", f"holds a {type(session).__name__}", "give task.serve() objects")
        for what in ("task type", "engine type"):
            kinds = {getattr(s, f"_{what.replace(' ', '_')}") for s in self.sessions} - {None}
            if len(kinds) > 1:
                raise InvalidArgument("sessions", f"has more than one {what}", "all engines must serve the same model")
        self._entered: set[InferenceSession] = set()

    @property
    def clock(self) -> Clock:
        """The clock of all of them."""
        return self.sessions[0]._clock

    @asynccontextmanager
    async def bounded(self, seconds: float | None, text: str, *, call: str = "") -> AsyncIterator[None]:
        """Bound a block in time; its end is a TimedOut of this `text`, as that of a call is."""
        try:
            async with self.clock.timeout(seconds):
                yield
        except TimeoutError as error:
            if isinstance(error, TimedOut):
                raise
            raise TimedOut(text, call=call, stage="answer") from error

    async def check_engines(self) -> None:
        """Raise InvalidArgument if two would take the one model slot of one engine from each other."""
        lines = [await session._engine.exchange.line() for session in self.sessions]
        if len({slot_name(line.base_url) for line in lines}) < len(lines):
            raise InvalidArgument("sessions", "has two on one engine, which has one model slot", "give one per engine")

    async def load(self) -> dict[InferenceSession, Exception]:
        """Load on every engine; gives the errors of those that cannot, as long as one can, else raises."""
        loading = {session: asyncio.ensure_future(session.__aenter__()) for session in self.sessions}
        try:
            await asyncio.wait(loading.values())
            failed = {session: error for session, task in loading.items() if (error := task.exception()) is not None}
            for error in failed.values():
                if not isinstance(error, GtsAsyncError) or isinstance(error, (InvalidArgument, MisuseError)):
                    raise error
            if len(failed) == len(loading):
                first, *others = failed.values()
                for other in others:
                    first.add_note(f"and another engine: {other}")
                raise first
        except BaseException:
            await finished(self._unload(loading))
            raise
        self._entered = loading.keys() - failed.keys()
        return {session: error for session, error in failed.items() if isinstance(error, Exception)}

    async def _unload(self, loading: Loading) -> None:
        for task in loading.values():
            task.cancel()
        await asyncio.gather(*loading.values(), return_exceptions=True)
        await _left(s for s, task in loading.items() if not task.cancelled() and task.exception() is None)

    async def wake(self, member: Member[InferenceSession], kind: TaskType | None, signs: set[str] | None) -> None:
        """Raise what keeps a session from answering; one whose engine was restarted loads its model again.

        `kind` is what was asked last, None if nothing was. A session that has not been loaded before must have one of
        the models whose `signs` a checkpoint has results of, if there is one, else LeaseLost.
        """
        session = member.worker
        if session not in self._entered:
            await session.__aenter__()
            self._entered.add(session)
            if signs is not None and await session._fingerprint() not in signs:
                raise LeaseLost(f"{session!r}: its model is not one of those that a checkpoint has results of")
            return
        async with self.bounded(LOOK_TIME, f"no status within {LOOK_TIME:g} s"):
            await session._engine.sight(session.id)
        # Its engine answers; to load the model may take it longer than others have patience.
        member.is_waking = True
        kind = session._task_type or kind
        if kind is not None:
            # Asked anything, the session finds out what is loaded, and loads its model again if nothing is.
            await session._ask(kind, [dict(PROBES[kind])])

    async def sign(self, session: InferenceSession) -> str:
        """Give what stands for the model that a session has, by its answer."""
        async with self.bounded(SIGN_TIME, f"no answer within {SIGN_TIME:g} s", call="predict"):
            return await session._fingerprint()

    async def prove(self) -> None:
        """Raise if answers that were given may be another model's.

        All of them to the end: one that goes on would ask for a model that is released by then.
        """
        proofs = await asyncio.gather(*(s._model.prove() for s in self._entered), return_exceptions=True)
        for doubt in filter(None, proofs):
            raise doubt

    async def leave(self) -> None:
        """Release every model; each session bounds how long that takes."""
        entered, self._entered = self._entered, set()
        await _left(entered)


async def _left(sessions: Iterable[InferenceSession]) -> None:
    await asyncio.gather(*(session.__aexit__(None, None, None) for session in sessions), return_exceptions=True)
