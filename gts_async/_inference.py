"""InferenceSession: takes the engine's lease, loads a task's model, asks it, and always releases it.

One engine holds one model for all its tasks and answers for any task id with whatever is loaded, so inference is a
session with an owner, not a call. How samples become requests is in ``_predicting.py``; several engines as one are
``_pool.py``.
"""

import asyncio
import logging
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import anyio
import attrs

from gts_async._engine import Engine
from gts_async._errors import (
    Busy,
    GtsAsyncError,
    InvalidArgument,
    LeaseLost,
    MisuseError,
    NotFound,
    NotSent,
    ServerFailed,
    WrongState,
)
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.shield import finished
from gts_async._net.config import check_seconds
from gts_async._predicting import MAX_BATCH, Predicting, Row, Sample, check_batch
from gts_async.gts import calls, samples as rules
from gts_async.gts.values import EngineType, Result, TaskStatus, TaskType
from gts_async.wire import Call

AT_ONCE = 4
"""Requests in flight at one engine; it answers them in threads that share one model."""

RELEASE_TIME = 15.0
"""Seconds that releasing the model may take on the way out."""

CUT_TIME = 5.0
RELEASE_PAUSE = 0.5
"""Seconds for which, and between tries in which, a model is released whose loading was cut and may still come up."""

log = logging.getLogger("gts_async")

_leases: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, anyio.Semaphore]] = weakref.WeakKeyDictionary()


def lease(base_url: str) -> anyio.Semaphore:
    """Give this loop's lock for the one model slot of the engine at `base_url`; any task may release it."""
    return _leases.setdefault(asyncio.get_running_loop(), {}).setdefault(base_url, anyio.Semaphore(1, max_value=1))


@attrs.define
class InferenceStats:
    """What an InferenceSession has done so far."""

    samples: int = 0
    batches: int = 0
    reloads: int = 0


class InferenceSession(Predicting):
    """A loaded model to ask: ``async with task.serve() as inference``.

    Entering takes the engine's lease (`when_taken="wait"` waits for it, `"raise"` raises Busy) and loads the model, in
    at most `load_timeout` seconds; leaving releases both, whatever happened. Raises NotFound, ServerFailed (the task
    has no trained model) and TransportError.
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
        max_batch: int = MAX_BATCH,
    ) -> None:
        if when_taken not in ("wait", "raise"):
            raise InvalidArgument("when_taken", f"there is no {when_taken!r}", "use 'wait' or 'raise'")
        self.id = task_id
        self.stats = InferenceStats()
        self._engine = engine
        self._task_type = task_type
        self._engine_type = engine_type
        self._load_timeout = check_seconds("load_timeout", load_timeout)
        self._when_taken = when_taken
        self.max_batch = check_batch(max_batch)
        self._lease: anyio.Semaphore | None = None
        self._is_loaded = False
        self._batcher: Batcher[Sample, Result] | None = None
        # The engine removes the folder that this pipeline predicts from after one predict (lightning 1.7.6).
        self._is_single_use = engine_type is EngineType.BAGUALU and task_type is TaskType.CLASSIFICATION
        self._is_loading = False
        self._is_spent = False
        self._loads = 0
        self._turn = anyio.Lock()

    @property
    def max_at_once(self) -> int:
        """Requests that may be in flight: concurrent ones spoil each other where one load serves one predict."""
        return 1 if self._is_single_use else AT_ONCE

    @property
    def _clock(self) -> Clock:
        return self._engine.clock

    async def __aenter__(self) -> Self:
        if self._lease is not None:
            raise MisuseError("this inference session is open already; call serve() again for another")
        line = await self._engine.exchange.line()
        taken = lease(line.base_url.text)
        if self._when_taken == "raise":
            try:
                taken.acquire_nowait()
            except anyio.WouldBlock:
                raise Busy(f"{line.base_url}: another inference session holds the engine's one model slot") from None
        else:
            await taken.acquire()
        self._lease = taken
        try:
            if await self._is_training():
                # Loading would overwrite the status of the training (`start_inference`).
                raise WrongState(f"{self.id}: is still being trained; wait for its end", call="start_inference")
            await self._load()
        except BaseException:
            await self._leave()
            raise
        self._batcher = Batcher(self._each, max_batch=self.max_batch, max_at_once=self.max_at_once)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        held, batcher = self._lease, self._batcher
        self._batcher = None
        # A load that was cut may still come up, and the engine would keep the model for ever.
        is_cut = self._is_loading
        try:
            await finished(self._release(batcher, is_cut=is_cut), within=RELEASE_TIME)
        except TimeoutError:
            log.warning("%r: not released within %g s; the engine may keep the model", self, RELEASE_TIME)
        finally:
            self._is_loaded = self._is_loading = False
            if held is not None:
                self._lease = None
                held.release()

    async def _release(self, batcher: Batcher[Sample, Result] | None, *, is_cut: bool) -> None:
        """End the batches, then the inference; never raises, for nobody could do anything about it."""
        if batcher is not None:
            await batcher.aclose()
        if not self._is_loaded and not is_cut:
            return
        give_up = self._clock.now() + CUT_TIME
        while True:
            try:
                sighting = await self._engine.sight(self.id)
                status = None if isinstance(sighting, ServerFailed) else sighting.status
                if status is TaskStatus.TRAINING:
                    # Ending would write "Train Success" over a training that goes on (`end_inference`).
                    log.warning("%r: not released: the task is being trained again", self)
                    return
                if not is_cut or status is TaskStatus.SERVING:
                    await self._engine.exchange.send(calls.end_inference(self.id), timeout=RELEASE_TIME)
                    return
            except ServerFailed as error:
                # 500: nothing is loaded. After a cut load that may only mean: not yet.
                if not is_cut:
                    log.warning("%r: the engine had nothing to release: %s", self, error)
                    return
            except GtsAsyncError as error:
                log.warning("%r: the model was not released: %s", self, error)
                return
            if self._clock.now() >= give_up:
                log.warning("%r: a load that was cut has not come up; if it does, the engine keeps the model", self)
                return
            await self._clock.sleep(RELEASE_PAUSE)

    async def _is_training(self) -> bool:
        """Tell whether the task is being trained; a trained bagualu task answers with 500 and is not."""
        sighting = await self._engine.sight(self.id)
        return not isinstance(sighting, ServerFailed) and sighting.status is TaskStatus.TRAINING

    async def _load(self) -> None:
        self._is_loading = True
        try:
            await self._engine.exchange.send(calls.start_inference(self.id), timeout=self._load_timeout)
        except (NotFound, NotSent):
            self._is_loading = False
            raise
        except ServerFailed as error:
            # Only the engine's own 500 says that nothing is being loaded.
            self._is_loading = error.status != 500
            raise
        self._is_loading = False
        self._is_loaded, self._is_spent = True, False
        self._loads += 1

    async def _ask(self, kind: TaskType, rows: Sequence[Row], timeout: float | None = None) -> Sequence[Result]:
        """Send one request, loading again first where one load serves one predict, or after the engine's 500."""
        self._opened()
        call = calls.predict(self.id, kind, rows)
        if self._is_single_use:
            answer = await self._ask_once_per_load(call, timeout)
        else:
            answer = await self._ask_loaded(call, timeout)
        self.stats.batches += 1
        self.stats.samples += len(rows)
        return answer

    async def _ask_once_per_load(self, call: Call[tuple[Result, ...]], timeout: float | None) -> tuple[Result, ...]:
        async with self._turn:
            while True:
                is_fresh = self._is_spent
                if self._is_spent:
                    await self._load()
                    self.stats.reloads += 1
                # Spent by the attempt: a predict that was cut may have run to its end all the same.
                self._is_spent = True
                try:
                    return await self._engine.exchange.send(call, timeout=timeout)
                except ServerFailed as error:
                    # A try whose answer was lost has spent the load, and the next one got this.
                    if is_fresh or error.status != 500:
                        raise

    async def _ask_loaded(self, call: Call[tuple[Result, ...]], timeout: float | None) -> tuple[Result, ...]:
        loads = self._loads
        try:
            return await self._engine.exchange.send(call, timeout=timeout)
        except ServerFailed as error:
            if error.status != 500:
                raise
            await self._check_lease(error)
            async with self._turn:
                if self._loads == loads:
                    await self._load()
                    self.stats.reloads += 1
        answer = await self._engine.exchange.send(call, timeout=timeout)
        # Loading again helped. Of a task known by its id only, this is how the single-use pipeline shows itself.
        if self._engine_type is None and self._task_type in (None, TaskType.CLASSIFICATION):
            self._is_single_use = self._is_spent = True
        return answer

    async def _check_lease(self, error: ServerFailed) -> None:
        """Raise LeaseLost if the engine says that this task is not being served any more."""
        sighting = await self._engine.sight(self.id)
        if isinstance(sighting, ServerFailed) or sighting.status is not TaskStatus.SERVING:
            raise LeaseLost(f"{self!r}: somebody else ended or replaced this task's inference") from error

    def _kind(self, sample: Sample) -> TaskType:
        return self._task_type or rules.guess_task_type(sample)

    def _opened(self) -> Batcher[Sample, Result]:
        if self._batcher is None:
            raise MisuseError("the inference session is not open: async with task.serve() as inference")
        return self._batcher

    def __repr__(self) -> str:
        state = "serving" if self._batcher is not None else "closed"
        return f"<InferenceSession {self.id} {state}, {self.stats.samples} samples>"
