"""Model: one that is loaded and asked; it is proven to be the same as before, and loaded again where need be.

Whose turn it is to have one loaded, and in what batches it is asked, is for ``_inference.py``.
"""

import asyncio
import logging
from collections.abc import Sequence

import anyio
import attrs

from gts_async._engine import Engine
from gts_async._errors import Attempt, GtsAsyncError, InvalidData, LeaseLost, ServerFailed, WrongState
from gts_async._predicting import Row
from gts_async._serving import Serving
from gts_async._statistics import InferenceStats
from gts_async.gts import calls, samples as rules
from gts_async.gts.identity import PROBED_FROM, PROBES, Identity
from gts_async.gts.values import Result, TaskType

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
class Question:
    """One request: rows of one task type, and seconds for it; what is answered will be kept, or only given."""

    kind: TaskType
    rows: Sequence[Row]
    timeout: float | None
    is_kept: bool


class Model:
    """A task's model in an engine's slot, to be asked; it counts in `stats` what that took.

    `is_single_use` tells whether one load serves one request; None until that is known. `max_batch` rows go into a
    request. `max_attempts` bounds the tries of each, where others could be asked instead.
    """

    def __init__(
        self,
        engine: Engine,
        serving: Serving,
        task_id: str,
        stats: InferenceStats,
        *,
        max_batch: int,
        is_single_use: bool | None,
        max_attempts: int | None = None,
    ) -> None:
        self.is_single_use = is_single_use
        self.max_attempts = max_attempts
        self.max_batch = max_batch
        self._id = task_id
        self._engine = engine
        self._serving = serving
        self._stats = stats
        self._clock = engine.clock
        self._turn, self._healing = anyio.Lock(), anyio.Lock()
        self.forget()

    def forget(self) -> None:
        """Know nothing of the model yet."""
        self._identity = Identity()
        self._served = 0
        self._proven_at = float("-inf")
        self._healed_at: list[float] = []
        self._asked: TaskType | None = None

    async def learn(self, kind: TaskType) -> None:
        """See what the model, which has just been loaded, is known by, where that can be."""
        if self.is_single_use is False:
            await self._prove(kind)

    async def prove(self) -> None:
        """Prove what was answered last, where that can be; raises LeaseLost."""
        if self._identity.doubtful and self._asked is not None and self.is_single_use is False:
            await self._prove(self._asked)

    async def _prove(self, kind: TaskType) -> None:
        if self._serving.is_lost or not self._identity.is_due(kind, PROBED_FROM, self._clock.now()):
            return
        try:
            async with self._clock.timeout(PROOF_TIME):
                await self._has_answered(kind)
        except LeaseLost:
            raise
        except (GtsAsyncError, TimeoutError) as error:
            log.info("%s: nothing was proven: %s", self._id, error)

    async def ask(self, asked: Question) -> Sequence[Result]:
        """Give one result per row; the model is loaded again first where it is not any more.

        Raises ServerFailed, which `is_about_request` if the model has answered the probe since, and LeaseLost.
        """
        self._asked = asked.kind
        if self.is_single_use is None and asked.kind is not TaskType.CLASSIFICATION:
            self.is_single_use = False
        if self.is_single_use is False:
            return await self._counted(asked)
        # One at a time, also as long as nobody knows whether one load serves one predict.
        async with self._turn:
            return await self._counted(asked)

    async def _counted(self, asked: Question) -> Sequence[Result]:
        self._serving.check_lost()
        began = self._clock.now()
        ask = self._ask_fresh if self.is_single_use else self._ask_loaded
        results = await ask(asked)
        self._stats.record(len(asked.rows), self._clock.now() - began)
        return results

    async def _ask_fresh(self, asked: Question) -> Sequence[Result]:
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
            self._stats.retries += 1

    async def _ask_loaded(self, asked: Question) -> Sequence[Result]:
        loads, served = self._serving.loads, self._served
        try:
            results = await self._send(asked, [])
        except ServerFailed as error:
            if error.status != 500:
                raise
            await self._heal(asked.kind, len(asked.rows), loads, error)
        else:
            self._served += 1
            if self.is_single_use is None and self._served > 1:
                self.is_single_use = False
            return results
        self._stats.retries += 1
        try:
            results = await self._send(asked, [])
        except ServerFailed as error:
            if error.status == 500 and not self._identity.can_probe:
                text = f"{self._id}: the model is loaded and answers nothing; train the task again"
                raise WrongState(text, call="predict") from error
            raise
        self._served += 1
        # Loading again helped after one predict: of a task known by its id only, this is how it shows what it is.
        if self.is_single_use is None and served == 1:
            self.is_single_use = True
        return results

    async def _heal(self, kind: TaskType, size: int, loads: int, error: ServerFailed) -> None:
        """See to it after a 500 that the model is loaded; raises `error` if it was: then the rows are to blame."""
        async with self._healing:
            self._serving.check_lost()
            if self._serving.loads != loads:
                return
            if self.is_single_use is False:
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
            if self.is_single_use is False:
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
        self._stats.retries += 1
        return await self._has_answered(kind)

    async def _has_answered(self, kind: TaskType, timeout: float | None = None) -> bool:
        began = self._clock.now()
        call = calls.predict(self._id, kind, [PROBES[kind]])
        try:
            (answer,) = await self._engine.exchange.send(call, timeout=timeout, max_attempts=self.max_attempts)
        except ServerFailed as error:
            if error.status != 500:
                raise
            return False
        self._believe([], answer, began)
        return True

    async def _load_again(self) -> None:
        await self._serving.load_again()
        self._served = 0
        self._stats.reloads += 1

    async def _send(self, asked: Question, failed: list[Attempt]) -> Sequence[Result]:
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
                calls.predict(self._id, asked.kind, rows),
                timeout=asked.timeout,
                failed=failed,
                max_attempts=self.max_attempts,
            )
            if look is not None:
                await asyncio.wait({look})
        finally:
            self._stats.retries += sum(attempt.delay is not None for attempt in failed)
            if look is not None:
                look.cancel()
        if look is not None:
            look.result()
        self._serving.check_lost()
        results, probed = (answer[:-1], answer[-1]) if has_probe else (answer, None)
        self._believe(results, probed, began)
        if is_due and not has_probe and self.is_single_use is False:
            await self._has_answered(asked.kind, asked.timeout)
        return results

    def _believe(self, results: Sequence[Result], probed: Result | None, began: float) -> None:
        """Raise LeaseLost if these cannot come from the model that answered before."""
        if problem := self._identity.doubt(results, probed, began, self._clock.now()):
            self._serving.lose(problem, self._identity)
