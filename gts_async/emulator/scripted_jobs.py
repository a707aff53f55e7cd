"""A runner whose jobs only pass through their stages as time does, for tests; and an object that is just its bytes.

Jobs that really run are in `local.jobs`.
"""

import hashlib
import io
import zipfile

import attrs

from gts_async.emulator.backends import JobOrder, JobStage, JobState
from gts_async.emulator.crc import crc_of

TIME_LIMIT = 1
"""The `stop_type` that means `stop_time` minutes, counted from the start of the order."""


@attrs.frozen
class BytesBlob:
    """An object in memory; its etag is the quoted MD5, as the store of the cloud makes it."""

    content: bytes = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    @property
    def etag(self) -> str:
        """The quoted entity tag."""
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest().upper()}"'

    @property
    def crc64(self) -> int | None:
        """What the store tells beside it; None where that cannot be computed."""
        return crc_of(self.content)

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from `start` up to `stop`."""
        return self.content[start:stop]


def packed(job_id: str) -> BytesBlob:
    """Give a model as the uploader packs it: a zip whose member has an absolute name (`pkg/storage/pack.go`)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("/data/model.txt"), f"the model of {job_id}\n")
    return BytesBlob(buffer.getvalue())


@attrs.define
class _Scripted:
    order: JobOrder
    started: float
    is_killed: bool = False


class ScriptedRunner:
    """A `JobRunner`: each job is queued, then runs, then is packed, for that many seconds each, and ends in `outcome`.

    An `outcome` of QUEUED, RUNNING or TRAINED is a job that stays there for ever. FAILED comes when the running is
    over. The model is `model`, or if None one that names the job. A time limit counts from the start: a running job
    it strikes has ended well, a queued one has failed, unless it is a GeneralJob (`generaljob_state.go`).
    `orders` holds what was started, `killed` what was killed, both in their order.
    """

    def __init__(
        self,
        *,
        queued: float = 0.0,
        running: float = 60.0,
        packing: float = 0.0,
        outcome: JobStage = JobStage.UPLOADED,
        model: BytesBlob | None = None,
    ) -> None:
        self.queued = queued
        self.running = running
        self.packing = packing
        self.outcome = outcome
        self.model = model
        self.orders: list[JobOrder] = []
        self.killed: list[str] = []
        self._jobs: dict[str, _Scripted] = {}

    def start(self, order: JobOrder, now: float) -> None:
        """Begin."""
        self.orders.append(order)
        self._jobs[order.job_id] = _Scripted(order, now)

    def kill(self, job_id: str) -> None:
        """End the job without a model; unknown ids are ignored."""
        if job_id in self._jobs:
            self._jobs[job_id].is_killed = True
            self.killed.append(job_id)

    def state(self, job_id: str, now: float) -> JobState:
        """Tell what the job has come to by `now`; a killed one is FAILED. Raises KeyError."""
        job = self._jobs[job_id]
        stage = JobStage.FAILED if job.is_killed else self._stage(job, now - job.started)
        return JobState(stage, self.model or packed(job_id)) if stage is JobStage.UPLOADED else JobState(stage)

    def _stage(self, job: _Scripted, age: float) -> JobStage:
        limit = job.order.stop_time * 60.0 if job.order.stop_type == TIME_LIMIT else float("inf")
        begins = float("inf") if self.outcome is JobStage.QUEUED else self.queued
        ends = float("inf") if self.outcome is JobStage.RUNNING else begins + self.running
        if limit < begins and job.order.job_type.lower() not in ("generaljob", "general"):
            return JobStage.FAILED if age >= limit else JobStage.QUEUED
        if age < min(begins, limit):
            return JobStage.QUEUED
        if age < min(ends, limit):
            return JobStage.RUNNING
        if limit > ends and self.outcome is JobStage.FAILED:
            return JobStage.FAILED
        is_packed = age >= min(ends, limit) + self.packing and self.outcome is not JobStage.TRAINED
        return JobStage.UPLOADED if is_packed else JobStage.TRAINED
