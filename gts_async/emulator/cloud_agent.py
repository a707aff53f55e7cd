"""The agent in the cluster: at its own pace it fetches jobs, starts and ends them, and reports what became of them.

Time is simulated when somebody asks: nothing happens between two calls of `advance`.
"""

from collections.abc import Iterator

from gts_async.emulator.backends import JobRunner, JobStage, JobState
from gts_async.emulator.cloud_callbacks import CallbackQueue
from gts_async.emulator.cloud_jobs import CLUSTER, IS_SENT, FileRow, HeadStatus, JobRow, JobTable, OldStatus
from gts_async.emulator.cloud_orders import OLD_TYPES
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.store import ObjectStore

_OLD_REPORTS = {
    JobStage.TRAINED: OldStatus.TRAINED,
    JobStage.UPLOADED: OldStatus.UPLOADED,
    JobStage.FAILED: OldStatus.FAILED,
}
"""What is reported of the other stages is ignored (`cpod_status_logic.go: statusToDBMap`)."""

_HEAD_REPORTS = {
    JobStage.TRAINED: HeadStatus.SUCCEEDED,
    JobStage.UPLOADED: HeadStatus.SUCCEEDED,
    JobStage.FAILED: HeadStatus.FAILED,
}

_HEAD_FINAL = (HeadStatus.SUCCEEDED, HeadStatus.FAILED)


class Agent:
    """Moves the rows of a table on, in rounds of `quirks.agent_period` seconds: first a fetch, then a report."""

    def __init__(
        self,
        table: JobTable,
        runner: JobRunner,
        store: ObjectStore,
        callbacks: CallbackQueue,
        generation: Generation,
        quirks: CloudQuirks,
    ) -> None:
        self._table = table
        self._runner = runner
        self._store = store
        self._callbacks = callbacks
        self._generation = generation
        self._is_head = generation is Generation.HEAD
        self._quirks = quirks
        self._gpus = {gpu.name: gpu.total for gpu in quirks.gpus}
        self._epoch: float | None = None
        self._round = 0

    def advance(self, now: float) -> tuple[float, float] | None:
        """Do all rounds up to `now`; gives the times of the first and the last one, None if there was none.

        Nobody writes to the table between two calls, so what there is to fetch can only change at the first round.
        """
        if self._epoch is None:
            self._epoch = now
        first, last = self._round + 1, int((now - self._epoch) // self._quirks.agent_period)
        if last < first:
            return None
        self._round = last
        self._fetch(self._time(first))
        self._report(first, last)
        return self._time(first), self._time(last)

    def _time(self, number: int) -> float:
        return (self._epoch or 0.0) + number * self._quirks.agent_period

    def _fetch(self, at: float) -> None:
        wanted = {row for row in self._table if row.is_sent and self._is_placed(row)}
        if self._generation is Generation.JAVA and self._quirks.bad_types_block_cluster and self._is_blocked(wanted):
            return
        for row in self._table:
            if row.is_moving and row not in wanted:
                self._end(row)
            elif row in wanted and not row.was_started:
                self._start(row, at)

    def _is_placed(self, row: JobRow) -> bool:
        """A job goes to the first cluster that has its GPUs (`cpod_job_logic.go`), and stays with it."""
        kind, number = row.text("gpuType"), row.columns.get("gpuNumber")
        fits = isinstance(number, int) and number <= self._gpus.get(kind, -1)
        if row.cpod_id is None and (fits or (self._is_head and not kind)):
            row.cpod_id = CLUSTER
        return row.cpod_id == CLUSTER

    def _is_blocked(self, wanted: set[JobRow]) -> bool:
        """A job that cannot be decoded spoils the whole list; one without a number of GPUs, the making of the list."""
        if any(row.order is None for row in wanted):
            return True
        return any(row.is_sent and row.cpod_id is None and "gpuNumber" not in row.columns for row in self._table)

    def _start(self, row: JobRow, at: float) -> None:
        if row.order is None:
            return
        if not self._is_head and row.order.job_type not in OLD_TYPES:
            self._set(row, JobState(JobStage.FAILED), at)
            return
        row.was_started = True
        self._runner.start(row.order, at)

    def _end(self, row: JobRow) -> None:
        # What has failed is kept for a day, and what has ended well goes on to its upload (`portal_sync.go`).
        if not self._is_head and row.work_status != OldStatus.RUNNING:
            return
        row.is_over = True
        self._runner.kill(row.name)
        if self._is_head and self._quirks.stop_race and row.work_status == HeadStatus.STOPPED:
            row.work_status = HeadStatus.RUNNING

    def _report(self, first: int, last: int) -> None:
        changes = []
        for row in self._table:
            if row.is_moving:
                changes += [(number, row, state) for number, state in self._changes(row, first, last)]
        for number, row, state in sorted(changes, key=lambda change: change[0]):
            self._set(row, state, self._time(number))

    def _changes(self, row: JobRow, first: int, last: int) -> Iterator[tuple[int, JobState]]:
        """Give the rounds in which the job is seen in another stage than in the one before, and always the first."""
        before = self._runner.state(row.name, self._time(first))
        yield first, before
        yield from self._halved(row, first, before, last)

    def _halved(self, row: JobRow, low: int, before: JobState, high: int) -> Iterator[tuple[int, JobState]]:
        """Find changes by halving, which misses none as stages only go forward.

        A runner with a clock of its own may move on between two looks at the same round.
        """
        after = self._runner.state(row.name, self._time(high))
        if after.stage is before.stage:
            return
        if high - low <= 1:
            yield high, after
            return
        middle = (low + high) // 2
        for number, state in self._halved(row, low, before, middle):
            before = state
            yield number, state
        yield from self._halved(row, middle, before, high)

    def _set(self, row: JobRow, state: JobState, at: float) -> None:
        """Report one stage of one job; any change overwrites what was there, a final status too."""
        if row.is_over:
            return
        status = self._head_status(row, state.stage) if self._is_head else self._old_status(state.stage)
        row.is_over = state.stage in (JobStage.UPLOADED, JobStage.FAILED) or status in _HEAD_FINAL
        if status is None or status == row.work_status:
            return
        row.work_status, row.updated = int(status), at
        if not self._is_head or status in _HEAD_FINAL:
            row.obtain_status = IS_SENT
        if state.stage is JobStage.UPLOADED and not (self._is_head and self._quirks.success_is_no_rows):
            self._upload(row, state, at)
        if status in (OldStatus.FAILED, OldStatus.UPLOADED) and not self._is_head:
            self._callbacks.report(row, status is OldStatus.UPLOADED, self._table.url(row.name, at), at)

    def _old_status(self, stage: JobStage) -> OldStatus | None:
        if self._quirks.fails_first and stage is JobStage.RUNNING:
            return OldStatus.FAILED
        return _OLD_REPORTS.get(stage)

    def _head_status(self, row: JobRow, stage: JobStage) -> HeadStatus:
        # The agent knows no "pending": what is not over fetches its data or runs (`cpodobserver.go: parseStatus`).
        if stage is JobStage.QUEUED and row.mounts_data:
            return HeadStatus.DATAPREPARING
        if stage is JobStage.TRAINED and not self._quirks.success_is_no_rows:
            return HeadStatus.RUNNING
        return _HEAD_REPORTS.get(stage, HeadStatus.RUNNING)

    def _upload(self, row: JobRow, state: JobState, at: float) -> None:
        """One zip per job under ``<job_id>/data.zip``, signed once (`modeluploadjob.go`)."""
        if state.model is None:
            return
        key = f"{row.name}/data.zip"
        self._store.put(key, state.model, at)
        self._table.add_file(FileRow(row.name, self._store.signed_url(key, at), at + self._quirks.url_delay))
