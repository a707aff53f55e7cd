"""Task and TrainingRun: a GTS Engine task by its id, and one training of it, fenced against the one before."""

import logging
import os
from collections.abc import Generator
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, cast

import attrs
import msgspec

from gts_async._engine import Engine
from gts_async._errors import (
    NotFound,
    OutcomeUnknown,
    ServerFailed,
    UploadRejected,
)
from gts_async._files.place import local_path
from gts_async._files.preflight import preflight
from gts_async._files.upload import MultipartStream, open_multipart
from gts_async._flow.exits import OnExit, settled
from gts_async._flow.transition import Transition
from gts_async._flow.watch import Watch
from gts_async._inference import InferenceSession
from gts_async._progress import OnProgress, Progress, told
from gts_async.gts import calls
from gts_async.gts.progress import Before, RunProgress
from gts_async.gts.values import EngineType, TaskInfo, TaskStatus, TaskType, TrainOptions, check_name
from gts_async.wire import FilePart, Multipart

log = logging.getLogger("gts_async")


@attrs.frozen
class Task:
    """A task of a GTS Engine: an id, and a session to ask. Cheap: make it anew from the id whenever you like.

    `task_type` and `engine_type` are None for a task known by its id only: the engine does not tell them.
    """

    id: str
    task_type: TaskType | None = None
    engine_type: EngineType | None = None
    _engine: Engine = attrs.field(kw_only=True, repr=False, eq=False, alias="engine")

    async def status(self, *, timeout: float | None = None) -> TaskInfo:
        """Give what the task is doing now.

        Raises NotFound; and ServerFailed with `.status` 500 for a trained bagualu task that is not being served: the
        engine cannot answer for it (`check_task_status` reads an accuracy that no bagualu pipeline writes).
        """
        return await self._engine.look(self.id, timeout=timeout)

    async def upload(
        self,
        *paths: str | os.PathLike[str],
        progress: OnProgress | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Send data files, several in one request, streamed from disk; a file of the same name is replaced.

        With `check`, the files are read first and InvalidData lists every line that the training would stumble over
        (only if the task's types are known); what is merely doubtful is logged. `progress` is called with the bytes
        sent and, at the end, acknowledged. Raises InvalidArgument, FileMissing, NotFound and UploadRejected.
        """
        progress = told(progress)
        places = [local_path("files", path) for path in paths]
        files = [FilePart(place.name, str(place)) for place in places]
        call = calls.upload(self.id, files)
        if check and self.task_type is not None and self.engine_type is not None:
            for report in await preflight(places, self.task_type, self.engine_type):
                for problem in report.problems:
                    log.warning("%s: %s", self.id, problem)
        sent: list[int] = []

        async def opened(form: Multipart) -> MultipartStream:
            stream = await open_multipart(form, progress=progress)
            sent.append(stream.length)
            return stream

        try:
            await self._engine.exchange.send(call, timeout=timeout, open_body=opened)
        except ServerFailed as error:
            if error.status != 500:
                raise
            names = ", ".join(file.name for file in files)
            raise UploadRejected(f"{self.id}: the engine could not store {names}", path=files[0].path) from error
        if progress is not None:
            all_of_them = files[0].name if len(files) == 1 else f"{len(files)} files"
            progress(Progress(all_of_them, sent[-1], sent[-1], is_acknowledged=True))

    async def train(
        self,
        *,
        train_data: str,
        val_data: str,
        test_data: str,
        label_data: str,
        unlabeled_data: str = "",
        train_mode: str = "standard",
        max_len: int = 512,
        max_num_epoch: int = 3,
        min_num_epoch: int = 3,
        seed: int = 42,
        gpuid: int = 0,
        timeout: float | None = None,
    ) -> "TrainingRun":
        """Start a training on uploaded files and give its run.

        The engine only says that it has spawned a process; the run tells what became of it. Raises WrongState if a
        training is going on (the engine would let the second wipe the first), InvalidData, NotFound, and
        OutcomeUnknown, whose `intent` is the token of the run that may have begun.
        """
        options = TrainOptions(
            train_data=train_data,
            val_data=val_data,
            test_data=test_data,
            label_data=label_data,
            unlabeled_data=unlabeled_data,
            train_mode=train_mode,
            max_len=max_len,
            max_num_epoch=max_num_epoch,
            min_num_epoch=min_num_epoch,
            seed=seed,
            gpuid=gpuid,
        )
        before = await self._engine.before(self.id)
        clock = self._engine.clock
        progress = RunProgress(before, engine_type=self.engine_type, started_at=clock.now())
        run = TrainingRun(self, progress, clock.wall(), since=progress.started_at)
        try:
            await self._engine.exchange.send(calls.start_training(self.id, options), timeout=timeout)
        except OutcomeUnknown as error:
            error.intent = run.token()
            raise
        self._engine.runs[self.id] = progress
        self._engine.dead.discard(self.id)
        return run

    async def stop(self, *, timeout: float | None = None) -> None:
        """Stop the training, also in the seconds before its process is up: the engine is asked until it took.

        A training that this session has not begun itself is given 15 s to come up. Raises WrongState if nothing is
        being trained, NotFound, and ServerFailed if the process has died unseen: then train again, or delete the task.
        """
        known = self._engine.runs.get(self.id)
        # A run of ours that is over says nothing of a training that somebody else may have started since.
        progress = known if known is not None and known.final is None else None
        await self._engine.stop(self.id, progress, timeout=timeout)

    async def delete(self, *, timeout: float | None = None) -> None:
        """Delete the task and all its files; a task that is gone already is fine."""
        with suppress(NotFound):
            await self._engine.exchange.send(calls.delete_task(self.id), timeout=timeout)
        self._engine.runs.pop(self.id, None)
        self._engine.dead.discard(self.id)

    def watch(
        self,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        progress: OnProgress | None = None,
    ) -> Watch[TaskInfo]:
        """Give the transitions of a training that somebody else started, until it is settled.

        What the task shows is believed: a status left by an earlier training settles the watch at once. For one's own
        training watch the run that `train` gives. Seconds; `progress` is told of each look, see `Watch`. Raises
        NotFound, WorkLost, WorkStalled, DeadlineExceeded.
        """
        rules = RunProgress(None, engine_type=self.engine_type, started_at=self._engine.clock.now())
        course = self._engine.course(self.id, rules)
        return self._engine.watch(self, course, deadline=deadline, stalled_after=stalled_after, progress=progress)

    async def wait(
        self,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        on_exit: OnExit = "detach",
        progress: OnProgress | None = None,
    ) -> TaskInfo:
        """Give the final look of a training that somebody else started; see `watch`.

        Raises WorkFailed, WorkStopped and what `watch` raises. `on_exit="stop"` stops the training if the wait ends
        before it.
        """
        watch = self.watch(deadline=deadline, stalled_after=stalled_after, progress=progress)
        return await settled(watch, self.stop, on_exit)

    def serve(
        self,
        *,
        load_timeout: float | None = 600.0,
        when_taken: Literal["wait", "raise"] = "wait",
        max_batch: int | None = None,
    ) -> InferenceSession:
        """Give ``async with task.serve() as inference``: the engine's one model slot, with this task's model in it.

        At most `max_batch` rows travel in one request, one of them our own, which shows whose model answers: 64 if it
        is None, 512 where one load serves one request only. Ctrl-C releases the model, too; a second one stops that.
        """
        return InferenceSession(
            self._engine,
            self.id,
            self.task_type,
            self.engine_type,
            load_timeout=load_timeout,
            when_taken=when_taken,
            max_batch=max_batch,
        )


class TrainingRun:
    """One training of a task: what its `train` gave. ``info = await run`` waits for the end.

    What the task showed before is never taken for this run's: the engine goes on showing it for seconds (see
    ``gts/progress.py``). All watches of one run share what has been learned.
    """

    def __init__(self, task: Task, progress: RunProgress, started_at: datetime, *, since: float | None = None) -> None:
        self.task = task
        self.started_at = started_at
        self._progress = progress
        kind = (task.task_type, task.engine_type) if task.task_type is not None else None
        self._course = task._engine.course(task.id, progress, kind=kind, since=since)

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task.id

    @property
    def history(self) -> tuple[Transition[TaskInfo], ...]:
        """Every change that watches and waits of this run have seen."""
        return self._course.history

    @property
    def durations(self) -> dict[TaskStatus, float]:
        """Seconds in each status that watches of this run have seen; the present one's are until now."""
        return cast("dict[TaskStatus, float]", self._course.durations)

    @property
    def eta(self) -> float | None:
        """Seconds until a good end, as trainings of the same types took in this session; None if none has ended."""
        return self._course.eta

    def watch(
        self,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        progress: OnProgress | None = None,
    ) -> Watch[TaskInfo]:
        """Give the transitions of this run until it is settled; a settled run gives its final one at once.

        `deadline` and `stalled_after` in seconds; `progress` is told of each look, see `Watch`. Raises WorkLost,
        WorkStalled (also for a process that never came up), DeadlineExceeded and Unauthorized; the training goes on
        whatever happens to the watch.
        """
        engine = self.task._engine
        return engine.watch(self, self._course, deadline=deadline, stalled_after=stalled_after, progress=progress)

    async def wait(
        self,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        on_exit: OnExit = "detach",
        progress: OnProgress | None = None,
    ) -> TaskInfo:
        """Give the final look, or raise WorkFailed, WorkStopped and what `watch` raises.

        `on_exit="stop"` stops the training if the wait ends before it, by a deadline or by cancellation.
        """
        watch = self.watch(deadline=deadline, stalled_after=stalled_after, progress=progress)
        return await settled(watch, self.stop, on_exit)

    def __await__(self) -> Generator[Any, None, TaskInfo]:
        return self.wait().__await__()

    async def stop(self, *, timeout: float | None = None) -> None:
        """Stop this training, also in the seconds before its process is up; see `Task.stop`."""
        await self.task._engine.stop(self.id, self._progress, timeout=timeout)

    def token(self) -> str:
        """Give JSON without secrets from which ``session.resume`` makes this run again, in any process."""
        task, before = self.task, self._progress.before
        return msgspec.json.encode(
            RunToken(
                kind="run",
                task_id=task.id,
                task_type=task.task_type,
                engine_type=task.engine_type,
                before=None if before is None or before.status is None else int(before.status),
                before_acc=None if before is None else before.test_acc,
                has_begun=self._progress.has_begun,
                started_at=self.started_at,
            )
        ).decode()

    def __repr__(self) -> str:
        final = self._progress.final
        state = final.status.name.lower() if final else "begun" if self._progress.has_begun else "not begun"
        return f"<TrainingRun {self.id} {state}>"


@attrs.frozen(kw_only=True)
class RunToken:
    """A TrainingRun as it is written down; `before` is the engine's code, None if it answered 500."""

    kind: Literal["run"]
    task_id: str
    task_type: TaskType | None
    engine_type: EngineType | None
    before: int | None
    before_acc: float | None
    has_begun: bool
    started_at: datetime

    def run(self, engine: Engine) -> TrainingRun:
        """Give the run that the token was made of."""
        task = Task(check_name("task_id", self.task_id), self.task_type, self.engine_type, engine=engine)
        age = max(0.0, (engine.clock.wall() - self.started_at).total_seconds())
        progress = RunProgress(
            Before(None if self.before is None else TaskStatus(self.before), self.before_acc),
            engine_type=self.engine_type,
            started_at=engine.clock.now() - age,
            has_begun=self.has_begun,
        )
        return TrainingRun(task, progress, self.started_at)
