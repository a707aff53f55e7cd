"""Engine: GTS Engine as one session sees it: a create that is settled, a look that means something, a stop that takes.

When a training counts as finished is in ``gts/progress.py``; handles of tasks and runs are in ``_task.py``.
"""

import attrs

from gts_async._errors import (
    AlreadyExists,
    NotSent,
    OutcomeUnknown,
    ServerFailed,
    WorkError,
    WorkFailed,
    WorkStopped,
    WrongState,
)
from gts_async._flow.service import Service
from gts_async.gts import calls
from gts_async.gts.progress import FAULT_SECONDS, FAULTS, START_GRACE, Before, RunProgress
from gts_async.gts.values import EngineType, TaskInfo, TaskStatus, TaskType
from gts_async.wire import Call

SETTLE_TRIES = 3
"""Times that a create whose answer was lost is sent again: a name cannot be taken twice."""

SECOND_LOOK = 0.25
"""Seconds until a 500 is looked at again: a half-written file is whole by then, a finished bagualu task is the same."""

STOP_PAUSE = 0.5
"""Seconds between two tries to stop a training whose process is not up yet."""

STOP_PATIENCE = 15.0
"""Seconds for which a stop is asked for of a training that somebody else may just have started: 4 to 8 s pass until
its process is up, and until then nothing tells it from no training at all."""


@attrs.frozen(kw_only=True, eq=False)
class Engine(Service):
    """The service behind tasks.

    `runs` are the trainings that this session has begun, by task id. `dead` are tasks that show TRAINING for ever,
    because their process has died: the engine said so when it was asked to stop it.
    """

    runs: dict[str, RunProgress] = attrs.field(factory=dict)
    dead: set[str] = attrs.field(factory=set)

    async def create(self, name: str, task_type: TaskType, engine_type: EngineType, *, exist_ok: bool) -> None:
        """Make a task; if the answer is lost, find out by the name, which is the id, whether it is there.

        Raises AlreadyExists (not with `exist_ok`), and OutcomeUnknown, whose `intent` is the name.
        """
        call = calls.create_task(name, task_type, engine_type)
        try:
            await self.exchange.send(call)
        except AlreadyExists:
            if not exist_ok:
                raise
        except OutcomeUnknown as unknown:
            unknown.intent = name
            await self._settle(name, call, unknown, exist_ok=exist_ok)

    async def _settle(self, name: str, call: Call[str], unknown: OutcomeUnknown, *, exist_ok: bool) -> None:
        for _ in range(SETTLE_TRIES):
            try:
                await self.exchange.send(call)
            except OutcomeUnknown:
                continue
            except NotSent as error:
                raise unknown from error
            except AlreadyExists:
                sighting = await self.sight(name)
                is_fresh = not isinstance(sighting, ServerFailed) and sighting.status is TaskStatus.INITIALIZED
                # A task that has done nothing yet is the one we asked for; any other was there before.
                if not exist_ok and not is_fresh:
                    raise
            return
        raise unknown

    async def look(self, task_id: str, *, timeout: float | None = None) -> TaskInfo:
        """Give what the task is doing; a 500 is looked at twice and then raised, as ServerFailed."""
        call = calls.task_status(task_id)
        try:
            return await self.exchange.send(call, timeout=timeout)
        except ServerFailed as error:
            if error.status != 500:
                raise
        await self.clock.sleep(SECOND_LOOK)
        return await self.exchange.send(call, timeout=timeout)

    async def glance(self, work_id: str) -> TaskInfo:
        """Look at a task once, in one try: a watch must see every 500."""
        self.lane.rung.discard(work_id)
        return await self.exchange.send(calls.task_status(work_id), max_attempts=1)

    def verdict(self, final: TaskInfo) -> WorkError | None:
        """Give what a training that ended with this look has to be raised as; None for a good end."""
        if final.status is TaskStatus.FAILED:
            return WorkFailed("the training failed; the engine's train.log has the reason")
        if final.status is TaskStatus.STOPPED:
            return WorkStopped("the training was stopped")
        return None

    async def sight(self, task_id: str) -> TaskInfo | ServerFailed:
        """Give a look, or the 500 that a finished bagualu task answers for ever."""
        try:
            return await self.look(task_id)
        except ServerFailed as error:
            if error.status != 500:
                raise
            return error

    async def before(self, task_id: str) -> Before:
        """Give what the task shows before a training begins; raises WrongState if one is going on.

        The engine itself does not guard: a second training wipes the outputs of the first (`start_train`).
        """
        sighting = await self.sight(task_id)
        for _ in range(FAULTS):
            if not isinstance(sighting, ServerFailed) or not self._is_starting(task_id, sighting):
                break
            # A training of ours may have ended with nobody watching: some 500s in a row tell.
            await self.clock.sleep(FAULT_SECONDS / 2)
            sighting = await self.sight(task_id)
        status = None if isinstance(sighting, ServerFailed) else sighting.status
        is_training = status is TaskStatus.TRAINING and task_id not in self.dead
        if is_training or self._is_starting(task_id, sighting):
            raise WrongState(
                f"{task_id}: a training is going on; stop it first: the engine would let a second one wipe its outputs",
                call="start_training",
            )
        return Before(status, None if isinstance(sighting, ServerFailed) else sighting.test_acc)

    def _is_starting(self, task_id: str, sighting: TaskInfo | ServerFailed) -> bool:
        """True if a training of ours was accepted, and nothing shows yet that it has begun or is gone."""
        known = self.runs.get(task_id)
        if known is None:
            return False
        try:
            self._learn(known, sighting)
        except WorkError:
            return False
        return known.final is None and not known.has_begun and self.clock.now() - known.started_at < START_GRACE

    def _learn(self, progress: RunProgress, sighting: TaskInfo | ServerFailed) -> None:
        if progress.final is None:
            progress.see(sighting, self.clock.now())

    async def stop(self, task_id: str, progress: RunProgress | None, *, timeout: float | None = None) -> None:
        """Ask until the stop took: the engine refuses it until the training's process is up, which comes all the same.

        Raises WrongState if nothing is being trained, and ServerFailed if the process has died unseen.
        """
        give_up = self.clock.now() + (STOP_PATIENCE if progress is None else START_GRACE)
        while True:
            try:
                await self.exchange.send(calls.stop_training(task_id), timeout=timeout)
            except WrongState as refused:
                status = await self._refused_at(task_id, progress, refused)
                if progress is not None and status is TaskStatus.STOPPED:
                    return
                if self.clock.now() > give_up:
                    if status is TaskStatus.STOPPED:
                        return
                    refused.add_note("nothing is in training, and nothing came up while we asked")
                    raise
            except ServerFailed as error:
                if error.status == 500:
                    self.dead.add(task_id)
                raise
            else:
                if progress is not None:
                    # The engine stops nothing but a training whose process is up.
                    progress.has_begun = True
                self.hub.ring(task_id)
                return
            await self.clock.sleep(STOP_PAUSE)

    async def _refused_at(self, task_id: str, progress: RunProgress | None, refused: WrongState) -> TaskStatus | None:
        """Give the status that a refused stop is about, if the training may still come up; None if it shows nothing.

        With the `progress` of the run that is meant, an old status counts as none, and an end raises WrongState.
        """
        sighting = await self.sight(task_id)
        if progress is None:
            return None if isinstance(sighting, ServerFailed) else sighting.status
        self._learn(progress, sighting)
        if progress.final is None:
            return None
        if progress.final.status is not TaskStatus.STOPPED:
            ended = progress.final.status.name.lower()
            raise WrongState(f"{task_id}: the training has {ended} already", call="stop_training") from refused
        return TaskStatus.STOPPED
