"""Jobs as real processes of this machine: when each one runs, and what becomes of it.

What the process sees of its would-be container is in `container`; the wire is in `emulator.cloud`.
"""

import atexit
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from gts_async._errors import AlreadyExists, InvalidArgument, MisuseError
from gts_async.emulator.backends import Blob, JobOrder, JobStage, JobState
from gts_async.local.blobs import pack
from gts_async.local.container import Folders, arguments, environment, is_general
from gts_async.local.processes import CappedLog, GroupProcess

LOG = logging.getLogger(__name__)
TIME_LIMIT = 1
"""The `stop_type` that means `stop_time` minutes, counted from the order."""

CLOSE_WITHIN = 5.0
"""Seconds that `close` waits for the threads of killed jobs."""


@attrs.define(eq=False)
class _LocalJob:
    order: JobOrder
    folders: Folders
    deadline: float | None
    stage: JobStage = JobStage.QUEUED
    model: Blob | None = None
    process: GroupProcess | None = None
    is_killed: bool = False

    @property
    def is_overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


class LocalRunner:
    """Runs each job as a subprocess in its own folder ``<root>/<job_id>/``; a `JobRunner` for the emulated cloud.

    At most `max_at_once` run (all CPUs if None), the rest are queued in their order. The folder holds ``ckpt/`` and
    ``model/`` (see `container` for how the process finds them), ``output.log`` with the end of what it printed, and
    ``data.zip`` once the model is packed. GPU type and number, the image and the sizes of the volumes are not looked
    at. An order without a command runs `gts_async.local.job`. `minute` is the length of one minute of `stop_time` in
    seconds.

    Exit status 0 leads to UPLOADED, any other, or a program that cannot be run, to FAILED at once (the cluster would
    try again for a while). When the time limit passes, a running job counts as having ended well, a queued one as
    failed, unless it is a GeneralJob (`pytorchjob_state.go`, `generaljob_state.go`). A model that cannot be packed
    stays TRAINED for ever, as in the cloud.

    All methods may be called from any thread and return at once, `close` alone waits.
    """

    def __init__(self, root: Path, *, max_at_once: int | None = None, minute: float = 60.0) -> None:
        if max_at_once is not None and max_at_once < 1:
            raise InvalidArgument("max_at_once", f"{max_at_once} jobs would never run", "give 1 or more")
        self._root = Path(root).absolute()
        self._max_at_once = max_at_once or os.cpu_count() or 1
        self._minute = minute
        self._lock = threading.Lock()
        self._jobs: dict[str, _LocalJob] = {}
        self._queue: deque[_LocalJob] = deque()
        self._running = 0
        self._threads: set[threading.Thread] = set()
        self._is_closed = False
        atexit.register(self.close)

    def start(self, order: JobOrder, now: float) -> None:
        """Begin, or queue. Raises AlreadyExists, UnsafePath for an id that is no name, MisuseError once closed."""
        limit = order.stop_time * self._minute if order.stop_type == TIME_LIMIT else None
        deadline = None if limit is None else time.monotonic() + limit
        job = _LocalJob(order, Folders.of(self._root, order.job_id), deadline)
        with self._lock:
            if self._is_closed:
                raise MisuseError("the runner is closed: no job can start any more")
            if order.job_id in self._jobs:
                raise AlreadyExists(call="start", message=order.job_id)
            self._jobs[order.job_id] = job
            self._queue.append(job)
            self._fill()

    def state(self, job_id: str, now: float) -> JobState:
        """Tell what the job has come to; a killed one is FAILED. Raises KeyError."""
        with self._lock:
            job = self._jobs[job_id]
            if job.stage is JobStage.QUEUED and job.is_overdue:
                self._queue.remove(job)
                self._run_out(job)
            return JobState(job.stage, job.model)

    def kill(self, job_id: str) -> None:
        """Kill the job's whole process group and remove its folder; unknown ids are ignored.

        A job that has already ended well keeps its model: the cloud's deletion no longer reaches the uploader
        (`portal_sync.go`).
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.stage in {JobStage.TRAINED, JobStage.UPLOADED}:
                return
            is_over = job.stage is JobStage.FAILED
            self._kill(job)
            if is_over:
                self._begin(self._clean, job)

    def close(self) -> None:
        """Kill what runs, forget what is queued, remove the folders of both; waits at most 5 s. May be called again."""
        with self._lock:
            self._is_closed = True
            for job in self._jobs.values():
                if job.stage in {JobStage.QUEUED, JobStage.RUNNING}:
                    self._kill(job)
            threads = list(self._threads)
        _join(threads, CLOSE_WITHIN)
        atexit.unregister(self.close)

    def _fill(self) -> None:
        while self._queue and self._running < self._max_at_once:
            job = self._queue.popleft()
            if job.is_overdue:
                self._run_out(job)
                continue
            self._running += 1
            job.stage = JobStage.RUNNING
            self._begin(self._run, job)

    def _run_out(self, job: _LocalJob) -> None:
        """The time limit has passed before the job ran."""
        if is_general(job.order):
            job.stage = JobStage.TRAINED
            self._begin(self._upload, job)
        else:
            job.stage = JobStage.FAILED

    def _kill(self, job: _LocalJob) -> None:
        job.is_killed = True
        if job.stage is JobStage.QUEUED:
            self._queue.remove(job)
            job.stage = JobStage.FAILED
        elif job.process is not None:
            job.process.kill()

    def _begin(self, work: Callable[[_LocalJob], None], job: _LocalJob) -> None:
        def whole() -> None:
            try:
                work(job)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=whole, name=f"job-{job.order.job_id}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _run(self, job: _LocalJob) -> None:
        has_ended_well = self._execute(job)
        with self._lock:
            self._running -= 1
            is_kept = not job.is_killed
            job.stage = JobStage.TRAINED if has_ended_well and is_kept else JobStage.FAILED
            self._fill()
        if not is_kept:
            self._clean(job)
        elif has_ended_well:
            self._upload(job)

    def _execute(self, job: _LocalJob) -> bool:
        try:
            job.folders.make()
            process = self._launch(job)
        except (OSError, ValueError) as error:
            LOG.info("job %s cannot run: %s", job.order.job_id, error)
            return False
        # A job that is cut at its time limit counts as having ended well.
        return process is not None and process.wait(job.deadline) in {0, None}

    def _launch(self, job: _LocalJob) -> GroupProcess | None:
        with self._lock:
            if not job.is_killed:
                job.process = GroupProcess(
                    arguments(job.order, job.folders),
                    folder=job.folders.home,
                    variables=environment(job.order, job.folders),
                    log=CappedLog(job.folders.home / "output.log"),
                )
            return job.process

    def _upload(self, job: _LocalJob) -> None:
        try:
            job.folders.make()
            model = pack(job.folders.model, job.folders.home / "data.zip")
        except OSError as error:
            LOG.warning("job %s: its model cannot be packed: %s", job.order.job_id, error)
            return
        with self._lock:
            job.model, job.stage = model, JobStage.UPLOADED

    def _clean(self, job: _LocalJob) -> None:
        shutil.rmtree(job.folders.home, ignore_errors=True)


def _join(threads: Iterable[threading.Thread], within: float) -> None:
    until = time.monotonic() + within
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
