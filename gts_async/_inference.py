"""InferenceSession: takes the engine's lease, loads a task's model, asks it, and always releases it.

One engine holds one model for all its tasks and answers for any task id with whatever is loaded, so inference is a
session with an owner, not a call. How samples become requests is in ``_predicting.py``; several engines as one are
``_pool.py``; loading and releasing is ``_serving.py``.
"""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import anyio
import attrs

from gts_async._engine import Engine
from gts_async._errors import (
    Attempt,
    GtsAsyncError,
    InvalidArgument,
    InvalidData,
    LeaseLost,
    MisuseError,
    ServerFailed,
    WrongState,
)
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.inflight import InFlight
from gts_async._flow.shield import finished
from gts_async._lease import Lease
from gts_async._net.config import check_seconds
from gts_async._predicting import MAX_BATCH, Predicting, Row, Sample, check_batch, samples_in
from gts_async._serving import Serving, is_single_use
from gts_async._statistics import InferenceStats
from gts_async.gts import calls, samples as rules
from gts_async.gts.identity import PROBES, Identity, fingerprint
from gts_async.gts.values import EngineType, Result, TaskType

AT_ONCE = 4
"""Requests in flight at one engine; it answers them in threads that share one model."""

SINGLE_USE_BATCH = 512
"""Rows in one request where each request costs a load of tens of seconds; a minute or two of work on a slow engine,
which answers all other calls meanwhile."""

RECENT = 1.0
"""Seconds for which the model counts as loaded that has just answered the probe."""

MAX_RELOADS, RELOADS_WITHIN = 3, 60.0
"""Times within so many seconds that a model is loaded again that was gone; then somebody fights for the slot."""

PROOF_TIME = 10.0
"""Seconds that asking the probe may take when the session begins and ends."""

COMING_UP = (0.1, 0.3, 1.0)
"""Seconds between tries whether a model answers that was loaded again."""

MAX_FRESH = 3
"""Tries of one request where one load serves one predict, each with a load, when its first answer is lost every time:
it may take longer than somebody in between has patience."""

log = logging.getLogger("gts_async")


@attrs.frozen
class _Question:
    """One request: rows of one task type, and seconds for it; what is answered will be kept, or only given."""

    kind: TaskType
    rows: Sequence[Row]
    timeout: float | None
    is_kept: bool


class InferenceSession(Predicting):
    """A loaded model to ask: ``async with task.serve() as inference``.

    Entering takes the engine's lease (`when_taken="wait"` waits for it, `"raise"` raises Busy) and loads the model, in
    at most `load_timeout` seconds; leaving releases both, whatever happened. The lease keeps out other sessions of this
    user on this machine. Raises NotFound, WrongState (the task is in training), ServerFailed (it has no trained model)
    and TransportError.

    Who takes the slot without a lease is found out, and everything raises LeaseLost from then on, whose text says which
    answers may be another model's. The engine is asked once a second whether it serves this task, and the answers
    themselves are looked at: how many labels, which at which place, and what a sample of our own is answered, which
    travels along with each request of 32 samples or more, and every 5 s with a smaller one. So of the answers of large
    requests none is another model's; a few of small ones may be, if it is of the same task type and has as many labels.
    Not found out: a model that came before the first answer, or instead of one for summaries, or whose answer to our
    sample is the same within 0.3 %; nor, where each request loads first, one that came right after that, if `max_batch`
    is less than 32.

    `max_batch` counts the rows of a request, that sample of our own included. A model that the engine has lost, because
    it was restarted or allows one request for each load, is loaded again.
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
        self._is_single_use = is_single_use(engine_type, task_type)
        default = SINGLE_USE_BATCH if self._is_single_use else MAX_BATCH
        self.max_batch = default if max_batch is None else check_batch(max_batch)
        self._serving = Serving(engine, task_id, check_seconds("load_timeout", load_timeout))
        # A pool asks another engine rather than this one again and again.
        self._max_attempts: int | None = None
        self._is_in_use = False
        self._lease: Lease | None = None
        self._in_flight = InFlight()
        self._batcher: Batcher[Sample, Result] | None = None
        self._turn, self._healing = anyio.Lock(), anyio.Lock()
        self._forget()

    def _forget(self) -> None:
        """Know nothing of the model yet."""
        self._identity = Identity()
        self._served = 0
        self._proven_at = float("-inf")
        self._healed_at: list[float] = []
        self._asked: TaskType | None = None
        self._sign: str | None = None

    @property
    def max_at_once(self) -> int:
        """Requests that may be in flight: concurrent ones spoil each other where one load serves one predict."""
        return 1 if self._is_single_use else AT_ONCE

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
        self._forget()
        await self._serving.begin()
        if self._task_type is not None and self._is_single_use is False:
            await self._prove(self._task_type)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._prove_last()
        finally:
            await self._leave()

    async def _prove_last(self) -> None:
        """Prove what was answered last, where that can be; raises LeaseLost."""
        if self._identity.doubtful and self._asked is not None and self._is_single_use is False:
            await self._prove(self._asked)

    async def _prove(self, kind: TaskType) -> None:
        """Ask the probe, so that the answers before are known to be the same model's; raises LeaseLost."""
        if not self._identity.is_due(kind, MAX_BATCH, self._clock.now()) or self._serving.is_lost:
            return
        try:
            async with self._clock.timeout(PROOF_TIME):
                await self._has_answered(kind)
        except LeaseLost:
            raise
        except (GtsAsyncError, TimeoutError) as error:
            log.info("%r: nothing was proven: %s", self, error)

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
            return await self._in_turn(_Question(kind, rows, timeout, is_kept))

    async def _in_turn(self, asked: "_Question") -> Sequence[Result]:
        kind = self._asked = asked.kind
        if self._is_single_use is None and kind is not TaskType.CLASSIFICATION:
            self._is_single_use = False
        if self._is_single_use is False:
            return await self._counted(asked)
        # One at a time, also as long as nobody knows whether one load serves one predict.
        async with self._turn:
            return await self._counted(asked)

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

    async def _counted(self, asked: "_Question") -> Sequence[Result]:
        self._serving.check_lost()
        began = self._clock.now()
        ask = self._ask_fresh if self._is_single_use else self._ask_loaded
        results = await ask(asked)
        self.stats.record(len(asked.rows), self._clock.now() - began)
        return results

    async def _ask_fresh(self, asked: "_Question") -> Sequence[Result]:
        """Ask where one load serves one predict."""
        tries = 0
        while True:
            tries += 1
            is_fresh = self._served > 0
            if is_fresh:
                await self._load_again()
            # Counted before the attempt: a predict that was cut may have run to its end all the same.
            self._served += 1
            failed: list[Attempt] = []
            try:
                return await self._send(asked, failed)
            except InvalidData:
                # The engine looks at the rows before it asks its model (`predict`: check_rows).
                self._served = 0
                raise
            except ServerFailed as error:
                if error.status != 500:
                    raise
                await self._serving.look(self._identity)
                # A try whose answer was lost has spent the load, and the next one got this.
                if (is_fresh and len(failed) == 1) or tries >= MAX_FRESH:
                    raise
            self.stats.retries += 1

    async def _ask_loaded(self, asked: "_Question") -> Sequence[Result]:
        loads, served = self._serving.loads, self._served
        try:
            results = await self._send(asked, [])
        except ServerFailed as error:
            if error.status != 500:
                raise
            await self._heal(asked.kind, len(asked.rows), loads, error)
        else:
            self._served += 1
            if self._is_single_use is None and self._served > 1:
                self._is_single_use = False
            return results
        self.stats.retries += 1
        try:
            results = await self._send(asked, [])
        except ServerFailed as error:
            if error.status == 500 and not self._identity.can_probe:
                text = f"{self!r}: the model is loaded and answers nothing; train the task again"
                raise WrongState(text, call="predict") from error
            raise
        self._served += 1
        # Loading again helped after one predict: of a task known by its id only, this is how it shows what it is.
        if self._is_single_use is None and served == 1:
            self._is_single_use = True
        return results

    async def _heal(self, kind: TaskType, size: int, loads: int, error: ServerFailed) -> None:
        """See to it after a 500 that the model is loaded; raises `error` if it was: then the rows are to blame."""
        async with self._healing:
            self._serving.check_lost()
            if self._serving.loads != loads:
                return
            if self._is_single_use is False:
                # While a batch is being halved, its parts need no proof; what stands alone does.
                is_proven = size > 1 and self._clock.now() - self._proven_at < RECENT
                if not is_proven and self._identity.can_probe and await self._is_answering(kind):
                    self._proven_at, is_proven = self._clock.now(), True
                if is_proven:
                    error.is_about_request = True
                    raise error
            await self._serving.look(self._identity)
            if not self._identity.can_probe:
                raise error
            now = self._clock.now()
            self._healed_at = [at for at in self._healed_at if now - at < RELOADS_WITHIN]
            if len(self._healed_at) >= MAX_RELOADS:
                self._serving.lose(
                    "the model is gone again and again; or the engine restarts all the time", self._identity
                )
            await self._load_again()
            # Only now: a load that its caller gave up was taken from nobody.
            self._healed_at.append(now)
            if self._is_single_use is False:
                self._identity.can_probe = await self._comes_up(kind)

    async def _comes_up(self, kind: TaskType) -> bool:
        """Tell whether the model that was loaded again answers, if it needs a moment for that, too."""
        for pause in COMING_UP:
            if await self._is_answering(kind):
                return True
            await self._clock.sleep(pause)
        return await self._is_answering(kind)

    async def _is_answering(self, kind: TaskType) -> bool:
        """Tell, after a 500, whether the model is there and answers the probe as before."""
        self.stats.retries += 1
        return await self._has_answered(kind)

    async def _has_answered(self, kind: TaskType, timeout: float | None = None) -> bool:
        began = self._clock.now()
        call = calls.predict(self.id, kind, [PROBES[kind]])
        try:
            (answer,) = await self._engine.exchange.send(call, timeout=timeout, max_attempts=self._max_attempts)
        except ServerFailed as error:
            if error.status != 500:
                raise
            return False
        self._believe([], answer, began)
        return True

    async def _load_again(self) -> None:
        await self._serving.load_again()
        self._served = 0
        self.stats.reloads += 1

    async def _send(self, asked: "_Question", failed: list[Attempt]) -> Sequence[Result]:
        """Send once, with the probe and a look at the status where they are due."""
        began = self._clock.now()
        # (A request of more is a stream's own batch, which has left a place.)
        has_room = len(asked.rows) != self.max_batch
        is_due = self._identity.is_due(asked.kind, len(asked.rows), began, has_room=has_room, must=asked.is_kept)
        has_probe = is_due and has_room and not rules.is_blank(asked.kind, asked.rows[0])
        rows = [*asked.rows, PROBES[asked.kind]] if has_probe else asked.rows
        look = self._serving.due_look(self._identity)
        try:
            answer = await self._engine.exchange.send(
                calls.predict(self.id, asked.kind, rows),
                timeout=asked.timeout,
                failed=failed,
                max_attempts=self._max_attempts,
            )
            if look is not None:
                await asyncio.wait({look})
        finally:
            self.stats.retries += sum(attempt.delay is not None for attempt in failed)
            if look is not None:
                look.cancel()
        if look is not None:
            look.result()
        self._serving.check_lost()
        results, probed = (answer[:-1], answer[-1]) if has_probe else (answer, None)
        self._believe(results, probed, began)
        if is_due and not has_probe and self._is_single_use is False:
            await self._has_answered(asked.kind, asked.timeout)
        return results

    def _believe(self, results: Sequence[Result], probed: Result | None, began: float) -> None:
        """Raise LeaseLost if these cannot come from the model that answered before."""
        if problem := self._identity.doubt(results, probed, began, self._clock.now()):
            self._serving.lose(problem, self._identity)

    def _kind(self, sample: Sample) -> TaskType:
        return self._task_type or rules.guess_task_type(sample)

    def _opened(self) -> Batcher[Sample, Result]:
        if self._batcher is None:
            raise MisuseError("the inference session is not open: async with task.serve() as inference")
        return self._batcher

    def __repr__(self) -> str:
        state = "closed" if self._batcher is None else "lost" if self._serving.is_lost else "serving"
        return f"<InferenceSession {self.id} {state}, {self.stats.samples} samples>"
