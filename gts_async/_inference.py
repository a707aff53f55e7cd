"""InferenceSession: takes the engine's lease, loads a task's model, asks it, and always releases it.

One engine holds one model for all its tasks and answers for any task id with whatever is loaded, so inference is a
session with an owner, not a call. How samples become requests is in ``_predicting.py``; several engines as one are
``_pool.py``; loading and releasing is ``_serving.py``.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

from gts_async._engine import Engine
from gts_async._errors import (
    InvalidArgument,
    MisuseError,
)
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.inflight import InFlight
from gts_async._flow.shield import finished
from gts_async._lease import Lease
from gts_async._model import Model, Question
from gts_async._net.config import check_seconds
from gts_async._predicting import MAX_BATCH, Predicting, Row, Sample, check_batch, samples_in
from gts_async._serving import Serving, is_single_use
from gts_async._statistics import InferenceStats
from gts_async.gts import samples as rules
from gts_async.gts.identity import PROBES, fingerprint
from gts_async.gts.values import EngineType, Result, TaskType

AT_ONCE = 4
"""Requests in flight at one engine; it answers them in threads that share one model."""

SINGLE_USE_BATCH = 512
"""Rows in one request where each request costs a load of tens of seconds; a minute or two of work on a slow engine,
which answers all other calls meanwhile."""


class InferenceSession(Predicting):
    """A loaded model to ask: ``async with task.serve() as inference``.

    Entering takes the engine's lease (`when_taken="wait"` waits for it, `"raise"` raises Busy) and loads the model, in
    at most `load_timeout` seconds; leaving releases both, whatever happened. The lease keeps out other sessions of this
    user on this machine. Raises NotFound, WrongState (the task is in training), ServerFailed (it has no trained model)
    and TransportError.

    Who takes the slot without a lease is found out, and everything raises LeaseLost from then on, which tells how many
    answers may be another model's. The engine is asked once a second whether it serves this task, and the answers
    themselves are looked at: how many labels, which at which place, and what a sample of our own is answered. That one
    is asked when the session begins and ends, travels along with each request of 7 samples or more, with what a
    checkpoint is to keep, and once a second with smaller ones. So of large requests no answer is another model's; of
    small ones, those of the last second may be, if it is of the same task type and has the same labels: LeaseLost comes
    after them, from leaving the block at the latest. Not found out: a model that came between the loading and the first
    question, instead of one for summaries, or whose answer to our sample is the same within 0.3 %; nor, where each
    request loads first, one that came right after that, if `max_batch` is less than 8.

    `max_batch` counts the rows of a request, that sample of our own included. A model that the engine has lost, because
    it allows one request for each load, or was restarted and is back within the retries, is loaded again; a pool, also
    of one session, waits 20 s.
    """

    def __init__(
        self,
        engine: Engine,
        task_id: str,
        task_type: TaskType | None,
        engine_type: EngineType | None,
        *,
        load_timeout: float | None = 600.0,
        when_taken: Literal["wait", "raise"] = "wait",
        max_batch: int | None = None,
    ) -> None:
        if when_taken not in ("wait", "raise"):
            raise InvalidArgument("when_taken", f"there is no {when_taken!r}", "use 'wait' or 'raise'")
        self.id = task_id
        self.stats = self._own = InferenceStats()
        self._engine = engine
        self._task_type = task_type
        self._engine_type = engine_type
        self._when_taken = when_taken
        single = is_single_use(engine_type, task_type)
        default = SINGLE_USE_BATCH if single else MAX_BATCH
        self.max_batch = default if max_batch is None else check_batch(max_batch)
        self._serving = Serving(engine, task_id, check_seconds("load_timeout", load_timeout))
        self._model = Model(engine, self._serving, task_id, self.stats, max_batch=self.max_batch, is_single_use=single)
        self._is_in_use = False
        self._lease: Lease | None = None
        self._in_flight = InFlight()
        self._batcher: Batcher[Sample, Result] | None = None
        self._sign: str | None = None

    @property
    def max_at_once(self) -> int:
        """Requests that may be in flight: concurrent ones spoil each other where one load serves one predict."""
        return 1 if self._model.is_single_use else AT_ONCE

    @property
    def _clock(self) -> Clock:
        return self._engine.clock

    async def __aenter__(self) -> Self:
        if self._is_in_use:
            raise MisuseError("this inference session is open already; call serve() again for another")
        self._is_in_use = True
        try:
            await self._begin()
        except BaseException:
            await self._leave()
            raise
        self._batcher = Batcher(self._each, max_batch=samples_in(self.max_batch), max_at_once=self.max_at_once)
        return self

    async def _begin(self) -> None:
        line = await self._engine.exchange.line()
        self._lease = Lease(line.base_url, self.id, self._clock, is_private=line.is_private)
        await self._lease.take(wait=self._when_taken == "wait")
        self._sign = None
        self._model.forget()
        await self._serving.begin()
        if self._task_type is not None:
            await self._model.learn(self._task_type)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._model.prove()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        lease, batcher = self._lease, self._batcher
        self._lease = self._batcher = None
        try:
            await finished(self._release(batcher))
        finally:
            self._is_in_use = False
            if lease is not None:
                await lease.give_back()

    async def _release(self, batcher: Batcher[Sample, Result] | None) -> None:
        if batcher is not None:
            await batcher.aclose()
        # Of other tasks; one of them might be about to load the model again.
        await self._in_flight.aclose()
        await self._serving.release()

    async def _ask(
        self, kind: TaskType, rows: Sequence[Row], timeout: float | None = None, *, is_kept: bool = False
    ) -> Sequence[Result]:
        """Send one request and give one result per row; the model is loaded again first where it is not any more.

        What `is_kept` is proven to be this model's before it is given, where that can be. Raises ServerFailed, which
        `is_about_request` if the model has answered the probe since, and LeaseLost.
        """
        self._opened()
        with self._in_flight.one():
            return await self._model.ask(Question(kind, rows, timeout, is_kept))

    async def _fingerprint(self) -> str:
        """Give what stands for the task and the model that answers for it now; the id alone for an unknown type.

        Nothing of it comes from the engine's status, which tells the accuracy of a training only while nobody asks.
        """
        if self._task_type is None:
            return self.id
        if self._sign is None:
            (answer,) = await self._ask(self._task_type, [dict(PROBES[self._task_type])])
            self._sign = f"{self.id} {fingerprint(answer)}"
        return self._sign

    def _kind(self, sample: Sample) -> TaskType:
        return self._task_type or rules.guess_task_type(sample)

    def _opened(self) -> Batcher[Sample, Result]:
        if self._batcher is None:
            raise MisuseError("the inference session is not open: async with task.serve() as inference")
        return self._batcher

    def __repr__(self) -> str:
        state = "closed" if self._batcher is None else "lost" if self._serving.is_lost else "serving"
        return f"<InferenceSession {self.id} {state}, {self.stats.samples} samples>"
