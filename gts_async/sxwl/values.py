"""The nouns of the SXWL cloud: what a job is asked to be, and what is seen of it."""

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum, StrEnum

import attrs


class JobStatus(StrEnum):
    """What a job is doing.

    The documented API knows only WORKING (queued, running, uploading, crash-looping alike), SUCCEEDED and FAILED; the
    finer ones come from the newer dialect. STOPPED is also what we say after our own stop: the old servers go on
    saying "working" for ever.
    """

    WORKING = "working"
    UNASSIGNED = "unassigned"
    ASSIGNED = "assigned"
    PREPARING = "preparing"
    PENDING = "pending"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    """A word that this library does not know; `JobInfo.word` keeps it. Never settled."""


class JobType(StrEnum):
    """How the cluster runs a job; spelled as the documented API does."""

    GENERAL = "GeneralJob"
    PYTORCH = "Pytorch"
    MPI = "MPI"


class StopType(IntEnum):
    """When a job ends by itself."""

    NATURAL = 0
    TIME_LIMIT = 1


@attrs.frozen
class JobInfo:
    """One look at a job.

    `url` is the signed link to the model (a secret: whoever has it can fetch), None until the cloud has uploaded it
    and always None in the newer dialect. `word` is the cloud's own word for the status. `observed_at` is aware, UTC.
    """

    status: JobStatus
    url: str | None = attrs.field(default=None, repr=lambda url: "None" if url is None else "'…'")
    observed_at: datetime | None = attrs.field(default=None, eq=False)
    word: str = ""


@attrs.frozen
class GpuType:
    """A kind of GPU: `name` is what `JobSpec.gpu_type` wants; `amount` in all, `free` if the cloud says."""

    name: str
    amount: int
    free: int | None = None


@attrs.frozen
class JobListing:
    """One job in a listing, newest first; `mark` is what `JobSpec.mark` travelled as, if anything."""

    id: str
    info: JobInfo
    mark: str | None = None


@attrs.frozen(kw_only=True)
class JobSpec:
    """What a job is asked to be.

    Volumes are in MB, `stop_time` in minutes and counted from the creation, image pull included (with
    `stop_type=StopType.TIME_LIMIT`). `run_command` is split at single spaces and run without a shell. `env` reaches
    only GENERAL jobs. Raises InvalidArgument or WrongType for what no server generation can run.
    """

    gpu_number: int = 1
    gpu_type: str
    ckpt_path: str = "/workspace/ckpt"
    ckpt_vol: int = 1024
    model_path: str = "/workspace/model"
    model_vol: int = 1024
    image_path: str
    job_type: JobType = attrs.field(default=JobType.GENERAL)
    stop_type: StopType = attrs.field(default=StopType.NATURAL)
    stop_time: int | None = None
    pretrained_model_name: str | None = None
    pretrained_model_path: str | None = None
    dataset_name: str | None = None
    dataset_path: str | None = None
    run_command: str | None = None
    callback_url: str | None = attrs.field(default=None, repr=lambda url: "None" if url is None else "'…'")
    env: Mapping[str, str] = attrs.field(factory=dict)
    mark: str | None = None
