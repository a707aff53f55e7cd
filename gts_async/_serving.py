"""Serving: a task's model in an engine's slot: loaded, looked after, released whatever happens.

Who may have the slot is decided in ``_lease.py``; what the model is asked, in ``_inference.py``.
"""

import asyncio
import logging
from typing import NoReturn

from gts_async._engine import Engine
from gts_async._errors import GtsAsyncError, LeaseLost, NotFound, NotSent, ServerFailed, WrongState
from gts_async.gts import calls
from gts_async.gts.identity import Identity
from gts_async.gts.values import EngineType, TaskStatus, TaskType

SINGLE_USE = (EngineType.BAGUALU, TaskType.CLASSIFICATION)
"""The pipeline whose engine removes the folder that it predicts from after one predict (lightning 1.7.6)."""

LOOK_EVERY = 1.0
"""Seconds after which a request is accompanied by a look whether the task is still being served."""

RELEASE_TIME = 15.0
"""Seconds that releasing the model may take."""

REPAIR_TIME = 120.0
"""Seconds that loading and releasing may take which free a task of a status that is none any more."""

CUT_TIME = 5.0
RELEASE_PAUSE = 0.5
"""Seconds for which, and between tries in which, a model is released whose loading was cut and may still come up."""

log = logging.getLogger("gts_async")


def is_single_use(engine_type: EngineType | None, task_type: TaskType | None) -> bool | None:
    """Tell whether one load serves one predict; None if that has to be found out."""
    pairs = ((engine_type, SINGLE_USE[0]), (task_type, SINGLE_USE[1]))
    if any(known is not None and known is not single for known, single in pairs):
        return False
    return True if None not in (engine_type, task_type) else None


class Serving:
    """The model of one task, from its loading to its release; `loads` counts how often it was loaded."""

    def __init__(self, engine: Engine, task_id: str, load_timeout: float | None) -> None:
        self.loads = 0
        self._lost, self._doubtful = "", 0
        self._engine = engine
        self._id = task_id
        self._load_timeout = load_timeout
        self._is_loaded = False
        self._is_loading = False
        self._was_served = False
        self._looked_at = float("-inf")

    async def begin(self) -> None:
        """Load the model; raises WrongState for a task in training, NotFound, ServerFailed and TransportError.

        A status left by an engine that was restarted, On Inference with nothing loaded, does not matter.
        """
        self._lost = ""
        status = await self._status()
        if status is TaskStatus.TRAINING:
            # Loading would overwrite the status of the training (`start_inference`).
            raise WrongState(f"{self._id}: is still being trained; wait for its end", call="start_inference")
        self._was_served = status is TaskStatus.SERVING
        await self.load()

    async def load(self) -> None:
        """Load the model, again or for the first time; raises what the call raises."""
        self._is_loading = True
        try:
            await self._engine.exchange.send(calls.start_inference(self._id), timeout=self._load_timeout)
        except (NotFound, NotSent):
            self._is_loading = False
            raise
        except ServerFailed as error:
            # Only the engine's own 500 says that nothing is being loaded.
            self._is_loading = error.status != 500
            raise
        self._is_loading = False
        self._is_loaded = self._was_served = True
        self.loads += 1
        self._looked_at = self._engine.clock.now()

    async def load_again(self) -> None:
        """Load the model that was loaded before; raises WrongState if it is not there any more."""
        try:
            await self.load()
        except ServerFailed as error:
            if error.status != 500:
                raise
            text = f"{self._id}: the model cannot be loaded again: a later training has failed, or was stopped"
            raise WrongState(text, call="start_inference") from error

    @property
    def is_lost(self) -> bool:
        """True when somebody else has the slot, which is not ours to release then."""
        return bool(self._lost)

    def check_lost(self) -> None:
        """Raise LeaseLost if the slot is lost."""
        if self._lost:
            error = LeaseLost(self._lost)
            error.doubtful = self._doubtful
            raise error

    def lose(self, why: str, identity: Identity) -> NoReturn:
        """Raise LeaseLost, now and ever after; `identity` knows which answers may be wrong."""
        if not self._lost:
            self._lost = f"{self._id}: somebody else has taken the engine's model slot: {why}; {identity.unsure}"
            self._doubtful = identity.doubtful
        self.check_lost()
        raise AssertionError("lost, and yet not")

    def due_look(self, identity: Identity) -> asyncio.Task[None] | None:
        """Begin to `look` if the last time was `LOOK_EVERY` seconds ago."""
        if self._engine.clock.now() - self._looked_at < LOOK_EVERY:
            return None
        self._looked_at = self._engine.clock.now()
        look = asyncio.get_running_loop().create_task(self.look(identity))
        # Its end is looked at here: if the request fails nobody will, and asyncio would call that forgotten.
        look.add_done_callback(lambda done: done.cancelled() or done.exception())
        return look

    async def look(self, identity: Identity) -> None:
        """Raise LeaseLost if the engine does not say that it serves this task."""
        try:
            status = await self._status()
            if status is None:
                # An engine that is out of order says no more than one with a trained bagualu task does.
                await self._engine.exchange.send(calls.list_tasks())
                status = await self._status()
        except NotFound:
            self.lose("the task has been deleted", identity)
        if status is not TaskStatus.SERVING:
            what = "is trained again" if status is TaskStatus.TRAINING else "is not being served any more"
            self.lose(f"the task {what}", identity)

    async def release(self) -> None:
        """End the inference, within a bounded time; never raises, for nobody could do anything about it."""
        is_loaded, is_loading = self._is_loaded, self._is_loading
        self._is_loaded = self._is_loading = False
        if not (is_loaded or is_loading):
            return
        if self._lost:
            log.warning("%r: not released: somebody else has the slot", self)
            return
        try:
            async with self._engine.clock.timeout(RELEASE_TIME):
                if await (self._end_cut() if is_loading else self._end()):
                    return
            async with self._engine.clock.timeout(REPAIR_TIME):
                await self._repair()
        except TimeoutError:
            log.warning("%r: not released in time; the engine may keep the model", self)
        except GtsAsyncError as error:
            log.warning("%r: the model was not released: %s", self, error)

    async def _status(self) -> TaskStatus | None:
        """Give what the task shows; None for the 500 that a trained bagualu task answers."""
        sighting = await self._engine.sight(self._id)
        return None if isinstance(sighting, ServerFailed) else sighting.status

    async def _end(self) -> bool:
        """Release a loaded model; False if there was none and the status says for ever that there is."""
        if await self._is_training() or await self._has_sent_end():
            return True
        log.warning("%r: the engine had nothing to release", self)
        return await self._status() is not TaskStatus.SERVING

    async def _end_cut(self) -> bool:
        """Release a model whose loading was cut, as soon as it is there; False as `_end` does.

        A task that was served before shows that all the time: its model is released whenever there is one.
        """
        give_up = self._engine.clock.now() + CUT_TIME
        has_ended = False
        while not await self._is_training():
            is_shown = await self._status() is TaskStatus.SERVING
            if is_shown and await self._has_sent_end():
                has_ended = True
            if has_ended and not self._was_served:
                return True
            if self._engine.clock.now() >= give_up:
                if not has_ended:
                    log.warning("%r: a load that was cut has not come up; if it does, the engine keeps the model", self)
                return has_ended or not is_shown
            await self._engine.clock.sleep(RELEASE_PAUSE)
        return True

    async def _repair(self) -> None:
        """Load and release, which is the only way to another status (`end_inference`)."""
        log.warning("%r: loaded once more, to be released: the engine has lost the model but not the status", self)
        try:
            await self.load()
            await self._send_end()
        finally:
            self._is_loaded = self._is_loading = False

    async def _is_training(self) -> bool:
        is_training = await self._status() is TaskStatus.TRAINING
        if is_training:
            # Ending would write "Train Success" over a training that goes on (`end_inference`).
            log.warning("%r: not released: the task is being trained again", self)
        return is_training

    async def _has_sent_end(self) -> bool:
        """Release the model; False if the engine says that none is loaded (500)."""
        try:
            await self._send_end()
        except ServerFailed as error:
            if error.status != 500:
                raise
            return False
        return True

    async def _send_end(self) -> None:
        await self._engine.exchange.send(calls.end_inference(self._id), timeout=RELEASE_TIME)

    def __repr__(self) -> str:
        return f"<Serving {self._id}, loaded {self.loads} times>"
